//! Load: L1, L2, L3, L5, L6, B1, B5. Short forms here; `soak_` is what `scripts/test --soak` runs.
//!
//! Counts, bytes and CPU are judged, never how fast the machine was.
//! Mutations tried, each failed here: connections that are not bounded (L3); a body channel of 4,000
//! buffers (B1).

mod gaps;
mod soak;
pub(crate) mod storm;

use std::fs;
use std::net::TcpStream as Socket;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncReadExt as _;

use crate::harness::{TestGateway, knobs};

/// As many open files for this process as there may be.
fn raise_open_files() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap_or(usize::MAX)
}

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.unwrap().trim().split(' ').next().unwrap().to_owned();
    words.parse().unwrap()
}

/// CPU time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// So many streams of `events` a second, and what each cost in memory beyond the first.
fn hold(count: usize, events: usize) {
    raise_open_files();
    let gateway = TestGateway::on(&storm::upstream()).start();
    let address = gateway.client().address;
    let warm = storm::streams(address, 8, "events-3-10");
    assert_eq!(warm.whole, 8, "{:?}", warm.broken);
    let (before, begin) = (resident_kib(gateway.pid()), cpu(gateway.pid()));
    let running =
        thread::spawn(move || storm::streams(address, count, &format!("events-{events}-1000")));
    let mut peak = before;
    while !running.is_finished() {
        peak = peak.max(resident_kib(gateway.pid()));
        thread::sleep(Duration::from_millis(200));
    }
    let tally = running.join().unwrap();
    let used = cpu(gateway.pid()).saturating_sub(begin);
    let (per_stream, total) = ((peak - before) / count as u64, count * events);
    eprintln!(
        "{count} streams, {total} events: {per_stream} KiB a stream, {} us of CPU an event",
        used.as_micros() / total as u128
    );
    assert_eq!(
        (tally.whole, tally.refused),
        (count, 0),
        "{:?}",
        tally.broken.first()
    );
    assert!(
        peak - before <= count as u64 * 64 + 150 * 1024,
        "{} KiB",
        peak - before
    );
}

#[test]
fn l1_a_thousand_streams_and_none_lost() {
    hold(knobs::rounds(1000, 5000), knobs::rounds(5, 60));
}

#[test]
fn l5_a_burst_of_opens_is_served() {
    raise_open_files();
    let gateway = TestGateway::on(&storm::upstream()).start();
    let count = knobs::rounds(1000, 5000);
    let tally = storm::streams(gateway.client().address, count, "events-1-0");
    assert_eq!(
        (tally.whole, tally.refused),
        (count, 0),
        "{:?}",
        tally.broken.first()
    );
}

#[test]
fn l3_beyond_the_descriptors_are_503_and_health_still_answers() {
    raise_open_files();
    // (1112 - 512) / 2 places.
    let gateway = TestGateway::on(&storm::upstream()).open_files(1112).start();
    let address = gateway.client().address;
    let running = thread::spawn(move || storm::streams(address, 300, "events-15-1000"));
    let until = Instant::now() + Duration::from_secs(20);
    let full = || {
        let seen = gateway.client().get("/health/ready").json();
        seen["in_flight"] == 300
    };
    while !full() {
        assert!(
            Instant::now() < until,
            "{}",
            gateway.client().get("/health/ready").text()
        );
        thread::sleep(Duration::from_millis(20));
    }
    let storms = knobs::rounds(1000, 12_000);
    let tally = storm::streams(address, storms, "events-1-0");
    assert_eq!(
        (tally.whole, tally.refused),
        (0, storms),
        "{:?}",
        tally.broken.first()
    );
    assert_eq!(gateway.client().get("/health").status, 200);
    let tally = running.join().unwrap();
    assert_eq!(tally.whole, 300, "{:?}", tally.broken.first());
    assert!(
        !gateway.log().contains("Too many open files"),
        "{}",
        gateway.log()
    );
    assert_eq!(storm::streams(address, 100, "events-1-0").whole, 100);
}

#[test]
fn l3_c9_silent_connections_cost_descriptors_for_a_while_and_no_cpu() {
    raise_open_files();
    let gateway = TestGateway::on(&storm::upstream())
        .open_files(700)
        .env("VR_HEAD_TIMEOUT", "5s")
        .start();
    let address = gateway.client().address;
    // More than the gateway may open: the rest waits in the kernel's queue.
    let silent: Vec<Socket> = (0..knobs::rounds(1000, 4000))
        .filter_map(|_| Socket::connect_timeout(&address, Duration::from_secs(10)).ok())
        .collect();
    let begin = cpu(gateway.pid());
    thread::sleep(Duration::from_secs(2));
    let used = cpu(gateway.pid()).saturating_sub(begin);
    assert!(
        used < Duration::from_secs(1),
        "an accept loop that spins: {used:?} in 2 s"
    );
    drop(silent);
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = gateway.client().try_send("GET", "/health", &[], b"");
        if answer.is_ok_and(|answer| answer.status == 200) {
            break;
        }
        assert!(Instant::now() < until, "the gateway does not come back");
    }
}

#[test]
fn b1_b5_clients_that_never_read_cost_little_and_delay_nobody() {
    raise_open_files();
    let gateway = TestGateway::on(&storm::upstream()).start();
    let address = gateway.client().address;
    assert_eq!(storm::streams(address, 8, "events-3-10").whole, 8);
    let before = resident_kib(gateway.pid());
    let (count, flood) = (knobs::rounds(100, 1000), 50 * 1024);
    let runtime = storm::runtime();
    let deaf = runtime.block_on(async {
        let mut deaf = Vec::new();
        for _ in 0..count {
            let mut stream = storm::open(address, &format!("flood-{flood}"))
                .await
                .unwrap();
            // The answer has begun; no more is read from here on.
            stream.read_u8().await.unwrap();
            deaf.push(stream);
        }
        deaf
    });
    let mut grown = 0;
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(100));
        grown = resident_kib(gateway.pid())
            .saturating_sub(before)
            .max(grown);
    }
    let tally = storm::streams(address, 50, "events-5-20");
    assert_eq!(tally.whole, 50, "{:?}", tally.broken.first());
    eprintln!("{} KiB a client that does not read", grown / count as u64);
    // 4 MiB are what the process takes once.
    assert!(
        grown <= count as u64 * 320 + 4096,
        "{grown} KiB for {count} clients"
    );
    drop(deaf);
}
