//! C3, C4, B4: clients that send slowly or much, and memory that is nearly spent.
//!
//! Mutations tried, each failed here: a body without its deadline (C3); a connection that hears no
//! bytes, for the deadline of later heads (C3; the other half, one that takes a body for a head, fails
//! in `src/http/connection.rs`); bodies that are not counted
//! while they come (C4); a supervisor that ends nobody when memory is short (B4).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::stage::assert_failed;
use crate::harness::client::{Open, request};
use crate::harness::upstream::script::text;
use crate::harness::{Fake, Gate, Reply, Script, TestGateway, check_stream, knobs};

const JSON: (&str, &str) = ("content-type", "application/json");
const MIB: usize = 1 << 20;

/// A socket that sends a byte now and then; ends with what it was told, or when it was cut off.
fn drip(address: SocketAddr, begin: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(begin).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(150)))
        .unwrap();
    let mut told = Vec::new();
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        assert!(Instant::now() < until, "never cut off");
        // Fails once the gateway has closed; what it said before is still read.
        let _late = socket.write_all(b"x");
        let mut buffer = [0; 4096];
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => told.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_reset) => break,
        }
    }
    String::from_utf8_lossy(&told).into_owned()
}

#[test]
fn c3_slow_heads_and_bodies_are_cut_off_and_others_served() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_HEAD_TIMEOUT", "1s")
        .env("VR_BODY_TIMEOUT", "1s")
        .start();
    let address = gateway.client().address;
    let head = b"POST /v1/responses HTTP/1.1\r\nhost: g\r\nx-slow: ";
    let body = b"POST /v1/responses HTTP/1.1\r\nhost: g\r\ncontent-length: 100000\r\n\r\n{";
    let sockets = knobs::rounds(100, 1000);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let slow: Vec<_> = (0..sockets)
            .map(|n| {
                let begin: &[u8] = if n % 2 == 0 { head } else { body };
                scope.spawn(move || (n, drip(address, begin)))
            })
            .collect();
        let normal = scope.spawn(|| {
            let mut served = 0;
            while !done.load(Ordering::SeqCst) {
                let reply = gateway
                    .client()
                    .create(&json!({"model": "m", "input": "x"}));
                assert_eq!(reply.status, 200);
                served += 1;
            }
            served
        });
        let ended: Vec<_> = slow
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::SeqCst);
        for slow in ended {
            let (n, told) = slow.expect("cut off");
            assert!(told.starts_with("HTTP/1.1 408"), "{n}: {told}");
            assert!(
                n % 2 == 0 || told.contains("request_timeout"),
                "{n}: {told}"
            );
        }
        assert!(normal.join().unwrap() > 0);
    });
    // Longer than the deadline, and faster than a kibibyte a second: that is a slow line, no attack.
    let whole = json!({"model": "m", "input": "y".repeat(16_000)}).to_string();
    let bytes = request("POST", "/v1/responses", &[JSON], whole.as_bytes());
    let mut open = Open::connect(address).unwrap();
    for piece in bytes.chunks(2500) {
        open.write(piece).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(open.reply().unwrap().status, 200);
}

#[test]
fn c3_a_later_head_is_timed_but_not_an_answer_or_a_pause() {
    let fake = Fake::start();
    let slow = Script::stream().sleep(2500).data(&text("late"));
    fake.on("slow", [slow.end("stop")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_HEAD_TIMEOUT", "1s")
        .start();
    let address = gateway.client().address;
    let health = request("GET", "/health", &[], b"");
    let mut open = Open::connect(address).unwrap();
    open.set_timeout(Duration::from_secs(20));
    // An answer that takes longer than the deadline, a pause that does, a head in two pieces.
    let body = json!({"model": "slow", "input": "x", "stream": true}).to_string();
    open.write(&request("POST", "/v1/responses", &[JSON], body.as_bytes()))
        .unwrap();
    let events = check_stream(&open.reply().unwrap().text());
    assert_eq!(events.last().unwrap()["type"], "response.completed");
    thread::sleep(Duration::from_millis(2500));
    for half in health.chunks(health.len().div_ceil(2)) {
        thread::sleep(Duration::from_millis(400));
        open.write(half).unwrap();
    }
    assert_eq!(open.reply().unwrap().status, 200);
    // A byte now and then does not extend it.
    let began = Instant::now();
    let told = drip(
        address,
        &[&health, b"GET /health HTTP/1.1\r\nx-slow: ".as_slice()].concat(),
    );
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    assert_eq!(told.matches("HTTP/1.1").count(), 1, "{told}");
    // Nor is silence a way to hold the connection.
    open.write(b"G").unwrap();
    assert_eq!(open.read_some(64).unwrap_or(0), 0);
}

fn resident_kib(gateway: &TestGateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().split(' ').next().unwrap().parse().unwrap()
}

/// Sends a hundred megabytes in chunks for as long as they are taken.
fn pour(address: SocketAddr) -> Option<Reply> {
    let mut open = Open::connect(address).unwrap();
    open.write(b"POST /v1/responses HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 65536], b"\r\n"].concat();
    for _ in 0..1600 {
        if open.write(&chunk).is_err() {
            break;
        }
    }
    open.set_timeout(Duration::from_secs(20));
    open.reply().ok()
}

#[test]
fn c4_fifty_bodies_of_100_mb_stay_within_the_budget() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_MEMORY_LIMIT", "48MiB")
        .start();
    let address = gateway.client().address;
    let before = resident_kib(&gateway);
    let mut peak = before;
    let replies: Vec<Option<Reply>> = thread::scope(|scope| {
        let pouring: Vec<_> = (0..50)
            .map(|_| scope.spawn(move || pour(address)))
            .collect();
        while !pouring.iter().all(thread::ScopedJoinHandle::is_finished) {
            peak = peak.max(resident_kib(&gateway));
            thread::sleep(Duration::from_millis(10));
        }
        pouring
            .into_iter()
            .map(|pour| pour.join().unwrap())
            .collect()
    });
    let told: Vec<u16> = replies.iter().flatten().map(|reply| reply.status).collect();
    assert!(
        told.iter().all(|status| [413, 503].contains(status)),
        "{told:?}"
    );
    for reply in replies.iter().flatten().filter(|reply| reply.status == 503) {
        assert_eq!(reply.error(503), "server_is_overloaded");
        assert!(reply.header("retry-after").is_some());
    }
    eprintln!("{told:?}, {} KiB more at the peak", peak - before);
    let allowed = (48 + 64) * 1024;
    assert!(peak - before <= allowed, "{} KiB", peak - before);
    let next = gateway
        .client()
        .create(&json!({"model": "m", "input": "x"}));
    assert_eq!(next.status, 200, "{}", next.text());
}

/// Waits for what the gateway comes to by itself.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn b4_above_95_nothing_begins_and_above_98_the_slowest_ends() {
    let (fake, first, second) = (Fake::start(), Gate::default(), Gate::default());
    fake.on("held", [Script::bare().hold()]);
    fake.on("ok", [Script::completion("ok")]);
    let flood: Vec<_> = (0..300)
        .map(|n| text(&format!("{n} {}", "x".repeat(8192))))
        .collect();
    fake.on("slow", [Script::stream().all(&flood).hold()]);
    let whole = Script::completion(&"y".repeat(26 * MIB / 10)).bytes();
    let (start, end) = whole.split_at(23 * MIB / 10);
    // Nearly whole: it is held until the rest comes.
    let (end, rest) = end.split_at(end.len() - 16);
    fake.on(
        "grows",
        [Script::bare()
            .wire(start)
            .wait(&first)
            .wire(end)
            .wait(&second)
            .wire(rest)],
    );
    let gateway = TestGateway::on(&fake.url())
        .env("VR_MEMORY_LIMIT", "64MiB")
        .start();
    let client = gateway.client();
    // What waits for the model's answer takes four times its length, what grows whole five times.
    let ask = |model: &str, size: usize| json!({"model": model, "input": "z".repeat(size), "stream": model == "slow"});
    let held: Vec<Open> = (0..6).map(|_| client.open(&ask("held", 2 * MIB))).collect();
    fake.wait_seen("held", 6);
    let mut slow = client.open_narrow(&ask("slow", MIB));
    slow.read_until("response.created");
    let mut grows = client.open(&ask("grows", 1));
    until("above 95 %", || client.create(&ask("ok", 1)).status != 200);
    let refused = client.create(&ask("ok", 1));
    assert_eq!(refused.error(503), "server_is_overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(client.get("/health").status, 200);
    assert!(!gateway.log().contains("memory is short"));
    first.open();
    until("above 98 %", || gateway.log().contains("memory is short"));
    let events = check_stream(&slow.reply().expect("whole").text());
    assert_failed(&events, "server_is_overloaded", "server_is_overloaded");
    second.open();
    assert_eq!(
        grows.reply().expect("whole").status,
        200,
        "one that is not slow goes on"
    );
    drop(held);
    fake.wait_closed("held");
    until("free again", || client.create(&ask("ok", 1)).status == 200);
}
