//! Long forms: `scripts/test --soak`. `SOAK_SECONDS` says how long L6 goes on; 60 without it.

use std::thread;
use std::time::{Duration, Instant};

use super::{descriptors, hold, raise_open_files, resident_kib, storm};
use crate::harness::TestGateway;

#[test]
#[ignore = "ten minutes: scripts/test --soak"]
fn soak_l1_five_thousand_streams_for_ten_minutes() {
    hold(5000, 600);
}

#[test]
#[ignore = "minutes: scripts/test --soak"]
fn soak_l2_as_many_streams_as_the_descriptors_allow() {
    // Client, gateway and upstream are two processes with the same limit: one end each here.
    let places = (raise_open_files() - 512) / 2;
    hold(places.min(9500), 60);
}

/// Streams of a round of L6.
const STREAMS: usize = 1000;

/// Least-squares slope of the points, per hour.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count: f64 = points.iter().map(|_| 1.0).sum();
    let (mean_x, mean_y) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (mean_x / count, mean_y / count);
    let (mut over, mut under) = (0.0, 0.0);
    for (x, y) in points {
        over += (x - mean_x) * (y - mean_y);
        under += (x - mean_x).powi(2);
    }
    over / under * 3600.0
}

#[test]
#[ignore = "as long as SOAK_SECONDS says: scripts/test --soak"]
fn soak_l6_nothing_grows() {
    raise_open_files();
    let seconds = std::env::var("SOAK_SECONDS").ok();
    let length = Duration::from_secs(seconds.map_or(60, |s| s.parse().expect("SOAK_SECONDS")));
    let gateway = TestGateway::on(&storm::upstream()).start();
    let (address, pid) = (gateway.client().address, gateway.pid());
    let round = || {
        let leaving = thread::spawn(move || {
            // One in twenty leaves in the middle.
            storm::runtime().block_on(async {
                for _ in 0..STREAMS / 20 {
                    drop(storm::open(address, "events-100-10").await.unwrap());
                }
            });
        });
        let tally = storm::streams(address, STREAMS, "events-10-100");
        assert_eq!(tally.whole, STREAMS, "{:?}", tally.broken.first());
        leaving.join().unwrap();
    };
    // The allocator and the pools have their size after a few.
    (0..3).for_each(|_| round());
    thread::sleep(Duration::from_secs(10));
    let (before, threads) = (descriptors(pid), thread_count(pid));
    let (begin, mut points) = (Instant::now(), Vec::new());
    while begin.elapsed() < length {
        round();
        let at = begin.elapsed().as_secs_f64();
        points.push((
            at,
            f64::from(u32::try_from(resident_kib(pid)).unwrap()) / 1024.0,
        ));
    }
    thread::sleep(Duration::from_secs(10));
    let (now, later) = (descriptors(pid), thread_count(pid));
    let growth = slope(&points);
    eprintln!(
        "{} rounds of {STREAMS} streams: {growth:.2} MiB an hour, {before} descriptors, then {now}",
        points.len()
    );
    // What a round leaves behind is a connection to the upstream for each of its streams at the most:
    // an idle one is closed when the next request looks for one. A leak would be thousands by now.
    let most = STREAMS + STREAMS / 20 + 50;
    assert!(now <= most, "{before} descriptors, then {now}");
    assert!(later <= threads + 10, "{threads} threads, then {later}");
    // Over minutes the slope says nothing: one page of the allocator would be an hour's worth.
    if length >= Duration::from_secs(3600) {
        assert!(growth < 1.0, "{growth} MiB an hour");
    }
}

fn thread_count(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .count()
}
