//! G1, G2: a stop ends every stream with a terminal event.
//!
//! Mutations that fail this group: exit as soon as the listener is closed; end the places without
//! waiting for the last words.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::upstream::script::text;
use crate::harness::{Fake, Gate, Script, TestGateway, check_stream, knobs};

#[test]
fn g1_stop_with_50_streams() {
    let (fake, gate) = (Fake::start(), Gate::default());
    fake.on(
        "ends",
        [Script::stream().data(&text("a")).wait(&gate).end("stop")],
    );
    fake.on("endless", [Script::stream().data(&text("a")).hold()]);
    let mut gateway = TestGateway::on(&fake.url())
        .env(knobs::SHUTDOWN_GRACE, "3s")
        .start();
    let mut streams: Vec<_> = (0..50)
        .map(|n| {
            let model = if n % 2 == 0 { "ends" } else { "endless" };
            let body = json!({"model": model, "input": "x", "stream": true});
            (model, gateway.client().open(&body))
        })
        .collect();
    for (_, open) in &mut streams {
        open.read_until("output_text.delta");
    }
    gateway.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(200));
    gate.open();
    for (model, mut open) in streams {
        let events = check_stream(&open.reply().expect("no bare reset").text());
        let want = if model == "ends" {
            "response.completed"
        } else {
            "response.failed"
        };
        assert_eq!(events[events.len() - 1]["type"], want);
    }
    assert_eq!(gateway.wait_exit(Duration::from_secs(20)).code(), Some(0));
}

/// Every one of 500 clients is told how its response ended, also those whose model never stops.
#[test]
fn g1_stop_with_500_streams_resets_nobody() {
    let fake = Fake::start();
    fake.on("m", [Script::stream().data(&text("a")).hold()]);
    let mut gateway = TestGateway::on(&fake.url())
        .env(knobs::SHUTDOWN_GRACE, "1s")
        .start();
    let body = json!({"model": "m", "input": "x", "stream": true});
    let mut streams: Vec<_> = (0..500).map(|_| gateway.client().open(&body)).collect();
    for open in &mut streams {
        open.read_until("output_text.delta");
    }
    gateway.signal(Signal::SIGTERM);
    let last: Vec<_> = streams
        .iter_mut()
        .map(|open| {
            let events = check_stream(&open.reply().expect("no bare reset").text());
            events[events.len() - 1]["type"].clone()
        })
        .collect();
    assert_eq!(last, vec!["response.failed"; 500]);
    assert_eq!(gateway.wait_exit(Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn g2_second_signal_ends_at_once_with_terminal_events() {
    let fake = Fake::start();
    fake.on("m", [Script::stream().data(&text("a")).hold()]);
    let mut gateway = TestGateway::on(&fake.url()).start();
    let mut open = gateway
        .client()
        .open(&json!({"model": "m", "input": "x", "stream": true}));
    open.read_until("output_text.delta");
    gateway.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(200));
    gateway.signal(Signal::SIGTERM);
    let events = check_stream(&open.reply().expect("no bare reset").text());
    assert_eq!(events[events.len() - 1]["type"], "response.failed");
    assert_eq!(gateway.wait_exit(Duration::from_secs(10)).code(), Some(143));
}
