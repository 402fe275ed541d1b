//! D1: kill -9 under writers loses nothing that was acknowledged.
//!
//! Mutation that fails this group: write the terminal event before the commit returns.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::history::History;
use crate::harness::{Client, Fake, Script, TestGateway, knobs};

/// Creates a chain until the gateway is gone.
fn write_until_gone(client: Client, history: &History, name: &str) {
    let mut parent = Value::Null;
    for turn in 0.. {
        let input = format!("{name} turn {turn}");
        let body = json!({"model": "m", "input": input, "previous_response_id": parent});
        let json = [("content-type", "application/json")];
        let bytes = body.to_string().into_bytes();
        let Ok(reply) = client.try_send("POST", "/v1/responses", &json, &bytes) else {
            return;
        };
        assert_eq!(reply.status, 200, "{}", reply.text());
        let told = reply.json();
        history.acknowledge(&told, &input);
        parent = told["id"].clone();
    }
}

#[test]
fn d1_kill_9_under_writers_loses_nothing() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    let mut gateway = TestGateway::on(&fake.url()).start();
    let history = History::default();
    for round in 0..knobs::rounds(20, 200) {
        let client = gateway.client();
        thread::scope(|scope| {
            for writer in 0..20 {
                let history = &history;
                let name = format!("round {round} writer {writer}");
                scope.spawn(move || write_until_gone(client, history, &name));
            }
            thread::sleep(Duration::from_millis(200 + 13 * (round as u64 % 20)));
            gateway.kill();
        });
        gateway.restart();
    }
    assert!(history.len() > 0, "nothing was acknowledged");
    assert_eq!(history.violations(gateway.client()), Vec::<String>::new());
}
