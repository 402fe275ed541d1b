//! B4, C4: the budget is true. Whatever clients send and stored conversations hold, the process grows
//! by the limit and 64 MiB at most, measured by the kernel (`VmHWM`).
//!
//! Mutations to try, not tried yet: items that weigh nothing (shapes), a body that is unpacked without
//! being counted (bombs), a conversation that is not weighed before it is read.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use vllm_responses_actors::memory::weight;
use vllm_responses_protocol::weigh;

use crate::harness::client::{Open, request};
use crate::harness::upstream::script::text;
use crate::harness::{Fake, Gate, Reply, Script, TestGateway, check_stream};

const JSON: (&str, &str) = ("content-type", "application/json");
pub(super) const MIB: usize = 1 << 20;
/// What the process may grow by beyond the limit.
pub(super) const BESIDE: usize = 64 * MIB;

/// The highest resident size since it was last set back, and now.
pub(super) fn resident(gateway: &TestGateway) -> (usize, usize) {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.unwrap().trim().split(' ').next().unwrap();
        number.parse::<usize>().unwrap() * 1024
    };
    (of("VmHWM:"), of("VmRSS:"))
}

/// Sets the highest resident size back to what it is now, which is given; `None`, and loudly, where
/// the kernel does not let us.
pub(super) fn mark(gateway: &TestGateway) -> Option<usize> {
    if fs::write(format!("/proc/{}/clear_refs", gateway.pid()), "5").is_err() {
        eprintln!("NOT TESTED: this kernel does not let a peak of memory be set back");
        return None;
    }
    Some(resident(gateway).1)
}

#[track_caller]
fn assert_within(gateway: &TestGateway, before: usize, limit: usize) {
    let grown = resident(gateway).0.saturating_sub(before);
    eprintln!("grown by {} MiB, limit {} MiB", grown / MIB, limit / MIB);
    assert!(grown <= limit + BESIDE, "{} MiB", grown / MIB);
}

fn gateway(fake: &Fake, limit: &str) -> TestGateway {
    gateway_on(&fake.url(), limit)
}

pub(super) fn gateway_on(upstream: &str, limit: &str) -> TestGateway {
    TestGateway::on(upstream)
        .env("VR_MEMORY_LIMIT", limit)
        .start()
}

pub(super) fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    request("POST", path, &[&[JSON], headers].concat(), body)
}

fn send(gateway: &TestGateway, bytes: &[u8]) -> Option<Reply> {
    let mut open = Open::connect(gateway.client().address).ok()?;
    // A refusal may come before everything was taken.
    let _refused = open.write(bytes);
    open.reply().ok()
}

/// The metric of this name.
pub(super) fn metric(gateway: &TestGateway, name: &str) -> f64 {
    let page = gateway.client().get("/metrics").text();
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}"))
        .trim()
        .parse()
        .unwrap()
}

pub(super) fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Shapes of requests, as much as fits into so many bytes of each.
fn shapes(bytes: usize) -> Vec<(&'static str, String)> {
    let list = |item: &str| {
        let items = vec![item; bytes / (item.len() + 1)].join(",");
        format!(r#"{{"model":"m","input":[{items}]}}"#)
    };
    let parts = vec![r#"{"type":"input_text","text":""}"#; bytes / 32].join(",");
    let picture = format!("data:image/png;base64,{}", "A".repeat(bytes / 8));
    let picture = format!(r#"{{"type":"input_image","image_url":"{picture}"}}"#);
    let long = "a".repeat(bytes);
    let spaces = " ".repeat(bytes);
    let numbers = vec!["1"; bytes / 2].join(",");
    vec![
        ("references", list(r#"{"id":"x"}"#)),
        ("messages", list(r#"{"role":"user","content":"x"}"#)),
        ("empty", list(r#"{"role":"user","content":[]}"#)),
        (
            "calls",
            list(
                r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"1"}"#,
            ),
        ),
        (
            "parts",
            format!(r#"{{"model":"m","input":[{{"role":"user","content":[{parts}]}}]}}"#),
        ),
        (
            "pictures",
            format!(
                r#"{{"model":"m","input":[{{"role":"user","content":[{}]}}]}}"#,
                [&*picture; 7].join(",")
            ),
        ),
        ("text", format!(r#"{{"model":"m","input":"{long}"}}"#)),
        ("spaces", format!(r#"{{"model":"m",{spaces}"input":"x"}}"#)),
        (
            "schema",
            format!(
                r#"{{"model":"m","input":"x","text":{{"format":{{"type":"json_schema","name":"x","schema":{{"enum":[{numbers}]}}}}}}}}"#
            ),
        ),
    ]
}

/// What the budget counts for a request before it is read is at least what the process grows by.
#[test]
fn b4_what_is_counted_is_what_the_process_grows_by() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let bytes = MIB;
    for (name, body) in shapes(bytes) {
        let gateway = gateway(&fake, "8GiB");
        let small = gateway
            .client()
            .create(&json!({"model": "m", "input": "x"}));
        assert_eq!(small.status, 200);
        let Some(before) = mark(&gateway) else { return };
        let reply = gateway
            .client()
            .send("POST", "/v1/responses", &[JSON], body.as_bytes());
        let grown = resident(&gateway).0.saturating_sub(before);
        let counted = weight::request(weigh::request(body.as_bytes()));
        eprintln!(
            "{name}: {} for {} KiB, grown by {} KiB, counted {} KiB",
            reply.status,
            body.len() / 1024,
            grown / 1024,
            counted / 1024
        );
        // What the allocator and threads of the pool take once.
        assert!(grown <= counted + 6 * MIB, "{name}");
    }
}

/// A request of 31 KB that unpacks to 31 MB.
pub(super) fn bomb() -> Vec<u8> {
    let spaces = " ".repeat(31_000_000);
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    write!(packed, "{{\"model\":\"m\",{spaces}\"input\":\"x\"}}").unwrap();
    let coding = [("content-encoding", "gzip")];
    post("/v1/responses", &coding, &packed.finish().unwrap())
}

/// The threads that unpacked kept what others freed: a quarter of a GiB more in each round.
#[test]
fn c6_bombs_that_come_again_take_no_more_than_the_limit() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = gateway(&fake, "512MiB");
    let (bomb, before) = (bomb(), mark(&gateway));
    for _ in 0..4 {
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| send(&gateway, &bomb));
            }
        });
    }
    if let Some(before) = before {
        assert_within(&gateway, before, 512 * MIB);
    }
}

#[test]
fn c6_sixty_bombs_end_no_running_stream() {
    let (fake, end) = (Fake::start(), Gate::default());
    fake.on("m", [Script::completion("ok")]);
    fake.on(
        "held",
        [Script::stream().data(&text("word")).wait(&end).end("stop")],
    );
    let limit = 512 * MIB;
    let gateway = gateway(&fake, "512MiB");
    let mut streams: Vec<Open> = (0..20)
        .map(|_| {
            let ask = json!({"model": "held", "input": "z".repeat(60_000), "stream": true});
            let mut open = gateway.client().open(&ask);
            open.read_until("word");
            open
        })
        .collect();
    let before = mark(&gateway);
    let bomb = bomb();
    let told: Vec<Option<u16>> = thread::scope(|scope| {
        let sent: Vec<_> = (0..60)
            .map(|_| scope.spawn(|| send(&gateway, &bomb).map(|reply| reply.status)))
            .collect();
        sent.into_iter().map(|sent| sent.join().unwrap()).collect()
    });
    eprintln!("{told:?}");
    assert!(
        told.iter()
            .flatten()
            .all(|status| [200, 503].contains(status)),
        "{told:?}"
    );
    if let Some(before) = before {
        assert_within(&gateway, before, limit);
    }
    end.open();
    for stream in &mut streams {
        let events = check_stream(&stream.reply().expect("whole").text());
        assert_eq!(events.last().unwrap()["type"], "response.completed");
    }
    let shed = metric(&gateway, "vllm_responses_responses_shed_total ");
    assert!(shed < 1.0, "{shed}");
}

#[test]
fn c3_stalled_uploads_give_their_memory_back() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = gateway(&fake, "512MiB");
    let address = gateway.client().address;
    let head = b"POST /v1/responses HTTP/1.1\r\nhost: g\r\ncontent-length: 30000000\r\n\r\n";
    let part = vec![b' '; 20 * MIB];
    let stalled: Vec<TcpStream> = thread::scope(|scope| {
        let begun: Vec<_> = (0..30)
            .map(|_| {
                scope.spawn(|| {
                    let mut socket = TcpStream::connect(address).unwrap();
                    socket.write_all(head).unwrap();
                    // Some are refused before they have sent everything.
                    let _refused = socket.write_all(&part);
                    socket
                })
            })
            .collect();
        begun
            .into_iter()
            .map(|begun| begun.join().unwrap())
            .collect()
    });
    let buffered = metric(&gateway, "vllm_responses_buffered_bytes ");
    eprintln!("{buffered} bytes are buffered by uploads that say nothing");
    // One caller's bodies never have everything: another request is served meanwhile.
    let other = gateway
        .client()
        .create(&json!({"model": "m", "input": "x"}));
    assert_eq!(other.status, 200, "{}", other.text());
    until("free", Duration::from_secs(25), || {
        metric(&gateway, "vllm_responses_buffered_bytes ") < 1e6
    });
    assert!(
        metric(
            &gateway,
            "vllm_responses_refused_requests_total{reason=\"memory\"} "
        ) > 0.0
    );
    let mut told = 0;
    for mut socket in stalled {
        let mut text = String::new();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let _reset = socket.read_to_string(&mut text);
        told += usize::from(text.starts_with("HTTP/1.1 408") || text.starts_with("HTTP/1.1 503"));
    }
    assert!(told > 0);
}

/// A conversation of ten pictures, 48 MB, that is stored; the id of its last response.
pub(super) fn album(gateway: &TestGateway) -> String {
    let url = format!("data:image/png;base64,{}", "A".repeat(48 * MIB / 10));
    let part = json!({"type": "input_image", "image_url": url});
    let input = json!([{"role": "user", "content": [part, part, part, part, part]}]);
    let first = gateway
        .client()
        .create(&json!({"model": "m", "input": input}));
    assert_eq!(first.status, 200, "{}", first.text());
    let ask = json!({"model": "m", "input": input, "previous_response_id": first.json()["id"]});
    let second = gateway.client().create(&ask);
    assert_eq!(second.status, 200, "{}", second.text());
    second.json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn b4_thirty_turns_on_one_large_conversation_stay_within_the_limit() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let mut gateway = gateway(&fake, "512MiB");
    let last = album(&gateway);
    gateway.restart();
    let Some(before) = mark(&gateway) else { return };
    let ask = json!({"model": "m", "input": "x", "previous_response_id": last});
    let told: Vec<Reply> = thread::scope(|scope| {
        let sent: Vec<_> = (0..30)
            .map(|_| scope.spawn(|| gateway.client().create(&ask)))
            .collect();
        sent.into_iter().map(|sent| sent.join().unwrap()).collect()
    });
    let served = told.iter().filter(|reply| reply.status == 200).count();
    eprintln!("{served} of 30 were served");
    assert!(served > 0);
    for refused in told.iter().filter(|reply| reply.status != 200) {
        assert_eq!(refused.error(503), "server_is_overloaded");
        assert!(refused.header("retry-after").is_some());
    }
    assert_within(&gateway, before, 512 * MIB);
    assert_eq!(
        gateway.client().create(&ask).status,
        200,
        "alone it is served"
    );
}

#[test]
fn c4_readers_that_do_not_read_leave_room_for_others() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let mut gateway = gateway(&fake, "512MiB");
    let last = album(&gateway);
    gateway.restart();
    let before = mark(&gateway);
    let (done, gateway) = (AtomicBool::new(false), &gateway);
    thread::scope(|scope| {
        for n in 0..40 {
            let path = match n % 2 {
                0 => format!("/v1/responses/{last}/input_items?limit=100"),
                _ => format!("/v1/responses/{last}"),
            };
            let ask = request("GET", &path, &[], b"");
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let mut open = Open::connect(gateway.client().address).unwrap();
                    let _refused = open.write(&ask);
                    // Nothing is read.
                    thread::sleep(Duration::from_secs(2));
                }
            });
        }
        let began = Instant::now();
        let mut slowest = Duration::ZERO;
        while began.elapsed() < Duration::from_secs(10) {
            let asked = Instant::now();
            assert_eq!(gateway.client().get("/health").status, 200);
            slowest = slowest.max(asked.elapsed());
            let turn = gateway
                .client()
                .create(&json!({"model": "m", "input": "x"}));
            assert_eq!(turn.status, 200, "{}", turn.text());
            assert_eq!(turn.json()["store"], true);
        }
        done.store(true, Ordering::SeqCst);
        eprintln!("/health took {slowest:?} at most");
        assert!(slowest < Duration::from_secs(5));
    });
    if let Some(before) = before {
        assert_within(gateway, before, 512 * MIB);
    }
}
