//! A collector that is not there, or hangs: requests and the stop do not notice.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::collector::Collector;
use crate::harness::{Fake, Script, TestGateway};
use crate::mcp::free_port;

const WARNING: &str = "takes no spans";

fn serves_and_stops(env: &[(&str, String)]) {
    let fake = Fake::start();
    fake.on("m", [Script::says("ok")]);
    let mut gateway = TestGateway::on(&fake.url()).envs(env).start();
    let until = Instant::now() + Duration::from_secs(60);
    // As long as the first message takes to be given up, and a second one.
    for round in 0.. {
        let reply = gateway
            .client()
            .create(&json!({"model": "m", "input": "x", "stream": true}));
        assert_eq!(reply.status, 200);
        let warned = gateway.log().contains(WARNING);
        if warned && round % 100 == 0 {
            break;
        }
        assert!(Instant::now() < until, "no warning:\n{}", gateway.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    gateway.signal(Signal::SIGTERM);
    // The grace is 30 s and nothing runs: the last spans are given 3 s.
    assert!(gateway.wait_exit(Duration::from_secs(20)).success());
    assert_eq!(
        gateway.log().matches(WARNING).count(),
        1,
        "{}",
        gateway.log()
    );
}

#[test]
fn a_collector_that_is_down_costs_one_warning() {
    let port = free_port();
    serves_and_stops(&[
        ("VR_TRACING_ENABLED", "1".to_owned()),
        ("VR_TRACING_SAMPLE_RATIO", "1".to_owned()),
        ("VR_OPENTELEMETRY_HOST", "127.0.0.1".to_owned()),
        ("VR_OPENTELEMETRY_PORT", port.to_string()),
    ]);
}

#[test]
fn a_collector_that_hangs_costs_one_warning() {
    serves_and_stops(&Collector::hanging().env());
}

#[test]
fn a_collector_that_comes_back_is_used_again() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let first = Collector::start();
    let gateway = TestGateway::on(&fake.url()).envs(&first.env()).start();
    let ask = || {
        gateway
            .client()
            .create(&json!({"model": "m", "input": "x"}))
    };
    ask();
    first.wait(|spans| !spans.is_empty());
    let address = first.address;
    drop(first);
    let until = Instant::now() + Duration::from_secs(30);
    while !gateway.log().contains(WARNING) {
        ask();
        assert!(Instant::now() < until, "no warning:\n{}", gateway.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let second = Collector::at(address, false);
    let until = Instant::now() + Duration::from_secs(30);
    while second.spans().is_empty() {
        ask();
        assert!(Instant::now() < until, "nothing came:\n{}", gateway.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    while !gateway.log().contains("takes spans again") {
        assert!(Instant::now() < until, "{}", gateway.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
