//! B5: large requests widen no gap of other streams.
//!
//! Mutation, not tried yet: every step of the machine on the thread that serves the streams.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{TestGateway, bulk};

/// Streams that are watched.
const STREAMS: usize = 20;
/// What a step of 30 MB takes several times over on the thread of the streams, and what a busy machine
/// takes from it now and then.
const WIDER: Duration = Duration::from_secs(1);

/// The largest gap between two words of so many paced streams, while this is done again and again.
fn largest_gap(gateway: &TestGateway, meanwhile: impl Fn() + Sync) -> Duration {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let streams: Vec<_> = (0..STREAMS)
            .map(|_| {
                scope.spawn(|| {
                    let body = json!({"model": "paced", "input": "x", "stream": true});
                    let mut open = gateway.client().open(&body);
                    open.read_until("output_text.delta");
                    let (mut last, mut largest) = (Instant::now(), Duration::ZERO);
                    while open.read_some(1 << 16).expect("read") > 0 {
                        largest = largest.max(last.elapsed());
                        last = Instant::now();
                        if open.so_far().ends_with("0\r\n\r\n") {
                            break;
                        }
                    }
                    largest
                })
            })
            .collect();
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                meanwhile();
            }
        });
        let gaps = streams.into_iter().map(|stream| stream.join().unwrap());
        let largest = gaps.max().unwrap();
        over.store(true, Ordering::Relaxed);
        largest
    })
}

#[test]
fn b5_requests_of_30_mb_widen_no_gap() {
    let gateway = TestGateway::on(&bulk::upstream()).start();
    let client = gateway.client();
    let calm = largest_gap(&gateway, || thread::sleep(Duration::from_millis(10)));
    let part = json!({"type": "input_text", "text": "a".repeat(10 << 20)});
    let large = json!({"model": "m", "input": [{"role": "user", "content": [part, part, part]}]});
    let told = client.create(&large).json();
    let on = json!({"model": "m", "input": "x", "previous_response_id": told["id"]});
    let said = json!({"model": "m", "input": "x", "instructions": "a".repeat(10 << 20)});
    let served = AtomicUsize::new(0);
    for (name, body) in [("sent", &large), ("continued", &on), ("echoed", &said)] {
        let body = body.to_string();
        let gap = largest_gap(&gateway, || {
            let json = [("content-type", "application/json")];
            let reply = client.send("POST", "/v1/responses", &json, body.as_bytes());
            assert_eq!(reply.status, 200, "{}", reply.text());
            served.fetch_add(1, Ordering::Relaxed);
        });
        eprintln!("{name}: largest gap {gap:?}, {calm:?} without; {served:?} served");
        assert!(gap <= calm + WIDER, "{name}: {gap:?}, {calm:?} without");
    }
    assert!(served.into_inner() > 3, "nothing large was served");
}
