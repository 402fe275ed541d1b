//! C1, C2: a client that leaves takes its upstream request with it.
//!
//! Mutation that fails this group: go on reading the upstream when the body channel is closed.

use std::time::Duration;

use serde_json::json;

use crate::harness::upstream::Closed;
use crate::harness::upstream::script::text;
use crate::harness::{Fake, Script, TestGateway};

#[test]
fn c1_c2_upstream_is_closed_when_the_client_leaves() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let cases = [
        ("silent", true, Script::bare().hold()),
        ("prefill", true, Script::stream().hold()),
        ("middle", true, Script::stream().data(&text("a")).hold()),
        ("whole", false, Script::bare().hold()),
    ];
    for (model, stream, script) in cases {
        fake.on(model, [script]);
        for reset in [false, true] {
            let body = json!({"model": model, "input": "x", "stream": stream});
            let mut open = gateway.client().open(&body);
            fake.wait_seen(model, 1 + usize::from(reset));
            if model == "middle" {
                open.read_until("output_text.delta");
            }
            let left = if reset {
                open.leave_reset()
            } else {
                open.leave_fin()
            };
            let seen = fake.wait_closed(model);
            let (how, at) = seen[seen.len() - 1].closed.expect("closed");
            assert_ne!(how, Closed::ByScript);
            let took = at.saturating_duration_since(left);
            eprintln!("{model}, reset {reset}: upstream closed after {took:?}");
            assert!(took < Duration::from_secs(2));
        }
    }
}
