//! Slow clients B2, B3.
//!
//! Mutation that fails this group: leave `TCP_USER_TIMEOUT` unset on accepted sockets.

use std::time::Duration;

use serde_json::json;

use super::client::{response_id, wait_stored};
use crate::harness::upstream::script::text;
use crate::harness::{Fake, Script, TestGateway, check_stream, knobs};

/// Far more than all socket buffers between upstream and client hold together.
fn flood() -> Vec<serde_json::Value> {
    (0..2000)
        .map(|n| text(&format!("{n} {}", "x".repeat(8192))))
        .collect()
}

#[test]
fn b2_a_client_that_takes_nothing_is_cut_off_and_stored_as_cancelled() {
    let fake = Fake::start();
    fake.on("m", [Script::stream().all(&flood()).hold()]);
    let gateway = TestGateway::on(&fake.url())
        .env(knobs::WRITE_STALL, "1s")
        .start();
    let mut open = gateway
        .client()
        .open_narrow(&json!({"model": "m", "input": "x", "stream": true}));
    open.read_until("response.created");
    let id = response_id(&open.so_far());
    // From here on nothing is read, and the connection stays open.
    fake.wait_closed("m");
    assert_eq!(wait_stored(&gateway, &id)["status"], "cancelled");
    drop(open);
}

/// As the row says it: a kibibyte a second, from beginning to end.
#[test]
fn b3_a_reader_of_one_kibibyte_a_second_gets_everything() {
    let fake = Fake::start();
    let chunks: Vec<_> = (0..30).map(|n| text(&format!("word {n} "))).collect();
    fake.on("m", [Script::stream().all(&chunks).end("stop")]);
    // With the limit that users get: the kernel opens a full window in steps of half a receive buffer,
    // and until then nothing moves.
    let gateway = TestGateway::on(&fake.url()).start();
    let mut open = gateway
        .client()
        .open_narrow(&json!({"model": "m", "input": "x", "stream": true}));
    let mut seconds = 0;
    while !open.so_far().contains("data: [DONE]") {
        assert!(open.read_some(1024).expect("read") > 0);
        std::thread::sleep(Duration::from_secs(1));
        seconds += 1;
        assert!(seconds < 60, "the answer is small");
    }
    assert!(seconds > 8, "read in {seconds} s");
    let events = check_stream(&open.reply().expect("whole").text());
    let told = &events[events.len() - 1]["response"]["output"][0]["content"][0]["text"];
    let sent: Vec<String> = (0..30).map(|n| format!("word {n} ")).collect();
    assert_eq!(told.as_str(), Some(sent.concat().as_str()));
}

#[test]
fn b3_a_slow_reader_gets_every_byte_in_order() {
    let fake = Fake::start();
    let words: Vec<_> = (0..600)
        .map(|n| format!("{n} {}", "y".repeat(8000)))
        .collect();
    let chunks: Vec<_> = words.iter().map(|word| text(word)).collect();
    fake.on("m", [Script::stream().all(&chunks).end("stop")]);
    // Shorter than the whole reading takes, longer than any pause in it: slow is not stalled. The
    // kernel opens a full window in steps of half a receive buffer, so that buffer stays as it is.
    let gateway = TestGateway::on(&fake.url())
        .env(knobs::WRITE_STALL, "2s")
        .start();
    let mut open = gateway
        .client()
        .open(&json!({"model": "m", "input": "x", "stream": true}));
    for _ in 0..200 {
        assert!(open.read_some(16 * 1024).expect("read") > 0);
        std::thread::sleep(Duration::from_millis(20));
    }
    let events = check_stream(&open.reply().expect("whole").text());
    let told = &events[events.len() - 1]["response"]["output"][0]["content"][0]["text"];
    assert_eq!(told.as_str(), Some(words.concat().as_str()));
}
