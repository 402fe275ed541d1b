//! Upstream faults U14 to U16: many streams, an upstream that restarts, a pool that went stale.
//!
//! Mutations tried, each failed here: `UpstreamFault::Unreachable` final in `pause_before_retry` (U16);
//! a broken body that ends as `completed` (U14); readiness that does not hear of an upstream that went (U15).

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::stage::{Stage, assert_failed, ending, said};
use crate::harness::upstream::script::text;
use crate::harness::{Fake, Gate, Script, TestGateway, check_stream};
use crate::metrics::{self, page::Page};

/// Streams of the random case, of which one in `ONE_IN` fails.
const STREAMS: u64 = 60;
const ONE_IN: u64 = 10;

/// Numbers that look random and are the same in every run (xorshift).
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn faulty(kind: u64) -> Script {
    let begun = Script::stream().data(&text("par"));
    match kind % 5 {
        0 => begun.sleep(20).reset(),
        1 => begun.close_body(),
        2 => begun.chunk("data: {\n\n").hold(),
        3 => begun.fin(),
        _ => begun.chunk("data: {\"error\": {\"message\": \"no\", \"code\": 500}}\n\n"),
    }
}

#[test]
fn u14_random_faults_among_many_streams() {
    let stage = Stage::start();
    let mut seed = 0x5eed_cafe;
    let cases: Vec<(String, bool)> = (0..STREAMS)
        .map(|n| {
            let fails = random(&mut seed).is_multiple_of(ONE_IN);
            let model = format!("crowd-{n}");
            let script = if fails {
                faulty(random(&mut seed))
            } else {
                Script::says("all")
            };
            stage.fake.on(&model, [script]);
            (model, fails)
        })
        .collect();
    assert!(cases.iter().any(|(_, fails)| *fails), "the seed has faults");
    thread::scope(|scope| {
        for (model, fails) in &cases {
            let client = stage.gateway.client();
            scope.spawn(move || {
                let body = json!({"model": model, "input": "x", "stream": true});
                let events = check_stream(&client.create(&body).text());
                let want = if *fails {
                    "response.failed"
                } else {
                    "response.completed"
                };
                assert_eq!(ending(&events), want, "{model}");
            });
        }
    });
    // The page says what was done to the streams, no more and no less.
    let failed = cases.iter().filter(|(_, fails)| *fails).count();
    let ended = |page: &Page, status| page.count("responses_total", &[("status", status)]);
    let page = metrics::wait(stage.gateway.client(), |page| {
        page.count("responses_in_flight", &[]) == 0
    });
    let counted = ["failed", "completed"].map(|status| ended(&page, status));
    let injected = [failed, cases.len() - failed].map(|count| i64::try_from(count).unwrap());
    assert_eq!(counted, injected);
}

/// Waits for a readiness status.
fn wait_readiness(gateway: &TestGateway, status: u16) {
    let until = Instant::now() + Duration::from_secs(30);
    while gateway.client().get("/health/ready").status != status {
        assert!(Instant::now() < until, "readiness never became {status}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn u15_upstream_restart_with_50_streams() {
    let fake = Fake::start();
    let (address, gate) = (fake.address(), Gate::default());
    let gateway = TestGateway::on(&fake.url()).start();
    fake.on(
        "m",
        [Script::stream().data(&text("par")).wait(&gate).reset()],
    );
    let body = json!({"model": "m", "input": "x", "stream": true});
    let mut streams: Vec<_> = (0..50).map(|_| gateway.client().open(&body)).collect();
    for open in &mut streams {
        open.read_until("output_text.delta");
    }
    gate.open();
    drop(fake);
    for mut open in streams {
        let events = check_stream(&open.reply().expect("no bare reset").text());
        assert_failed(&events, "upstream_unavailable", "server_error");
        assert_eq!(said(&events), "par", "partial text is kept");
    }
    let refused = gateway.client().create(&body);
    assert!([502, 503].contains(&refused.status), "{}", refused.text());
    wait_readiness(&gateway, 503);
    let fake = Fake::start_at(address);
    fake.on("m", [Script::says("back")]);
    wait_readiness(&gateway, 200);
    for _ in 0..50 {
        let events = check_stream(&gateway.client().create(&body).text());
        assert_eq!(said(&events), "back");
    }
    assert_eq!(fake.seen("m").len(), 50, "no retry storm");
}

/// A connection that the upstream closed while nobody used it is no news to the client.
#[test]
fn u16_pooled_connection_died_between_requests() {
    for stream in [true, false] {
        let fake = Fake::start();
        // One worker, so that the second request finds the first one's connection.
        let gateway = TestGateway::on(&fake.url())
            .flag("--gateway-workers=1")
            .start();
        let good = || {
            if stream {
                Script::says("ok")
            } else {
                Script::completion("ok")
            }
        };
        let client = gateway.client();
        let ask = |model: &str| {
            let reply = client.create(&json!({"model": model, "input": "x", "stream": stream}));
            assert_eq!(reply.status, 200, "{}", reply.text());
        };
        // Closed in order and with a reset, at once and with the next request on its way.
        for (model, end) in [("fin", good().fin()), ("reset", good().reset())] {
            fake.on(model, [end]);
            for _ in 0..5 {
                ask(model);
            }
            assert_eq!(fake.seen(model).len(), 5, "each request was made once");
        }
        fake.on("late", [good(), Script::bare().fin(), good()]);
        ask("late");
        ask("late");
        let seen = fake.seen("late");
        assert_eq!(seen.len(), 3, "the lost request was sent again");
        assert_eq!(seen[1].raw, seen[2].raw, "and was the same");
        let lost = seen[1].header("x-request-id").expect("an id");
        let again = format!("{lost}-again");
        assert_eq!(
            seen[2].header("x-request-id"),
            Some(&*again),
            "under an id of its own"
        );
    }
}
