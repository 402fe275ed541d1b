//! Upstream faults U1 to U13, streamed.
//!
//! Mutation that fails this group: treat the end of the upstream body as `completed` without
//! looking for a `finish_reason`.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::harness::upstream::script::{framed, text};
use crate::harness::{Fake, Script, TestGateway, check_stream, knobs};

/// The events that a script leads to, checked.
fn events(script: Script) -> Vec<Value> {
    let fake = Fake::start();
    fake.on("m", [script]);
    let gateway = TestGateway::on(&fake.url())
        .env(knobs::IDLE_TIMEOUT, "1s")
        .env(knobs::HEAD_TIMEOUT, "1s")
        .env(knobs::HOLD_STATUS, "200ms")
        .env(knobs::KEEP_ALIVE, "200ms")
        .start();
    let body = json!({"model": "m", "input": "x", "stream": true});
    let reply = gateway.client().create(&body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let events = check_stream(&reply.text());
    let last = &events[events.len() - 1]["response"];
    let id = last["id"].as_str().expect("id");
    let stored = gateway.client().get(&format!("/v1/responses/{id}")).json();
    assert_eq!(
        stored["status"], last["status"],
        "stored status is what the client saw"
    );
    fake.set("m", [Script::says("ok")]);
    let next = gateway.client().create(&body).text();
    assert_eq!(
        ending(&check_stream(&next)),
        "response.completed",
        "usable at once"
    );
    events
}

fn ending(events: &[Value]) -> &str {
    events[events.len() - 1]["type"].as_str().expect("type")
}

fn begun() -> Script {
    Script::stream().data(&text("par"))
}

#[test]
fn u1_connect_refused() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("port");
    let fake = Fake::start_at(gone);
    let gateway = TestGateway::on(&fake.url()).start();
    drop(fake);
    for stream in [false, true] {
        let body = json!({"model": "m", "input": "x", "stream": stream});
        assert_eq!(
            gateway.client().create(&body).error(502),
            "upstream_unavailable"
        );
    }
}

#[test]
fn u2_accepts_and_never_answers() {
    let events = events(Script::bare().hold());
    assert_eq!(
        events[events.len() - 1]["response"]["error"]["code"],
        "upstream_timeout"
    );
}

#[test]
fn u3_headers_then_silence() {
    assert_eq!(ending(&events(Script::stream().hold())), "response.failed");
}

#[test]
fn u4_reset_at_every_place() {
    let line = framed(format!("data: {}\n\n", text("tial")).as_bytes());
    let half = line[..line.len() / 2].to_vec();
    for script in [begun().wire(half).reset(), begun().sleep(50).reset()] {
        let events = events(script);
        assert_eq!(ending(&events), "response.failed");
        let output = &events[events.len() - 1]["response"]["output"];
        assert_eq!(
            output[0]["content"][0]["text"], "par",
            "partial text is kept"
        );
    }
    let after = begun()
        .data(&crate::harness::upstream::script::finish("stop"))
        .sleep(50)
        .reset();
    assert_eq!(ending(&events(after)), "response.completed");
}

#[test]
fn u5_malformed_chunk() {
    let events = events(begun().chunk("data: {\"choices\": [\n\n").hold());
    assert_eq!(
        events[events.len() - 1]["response"]["error"]["code"],
        "upstream_bad_chunk"
    );
}

#[test]
fn u7_server_errors_are_retried_at_most_twice() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    for status in [500, 502, 503] {
        let model = format!("m{status}");
        fake.on(&model, [Script::error(status, "down")]);
        let reply = gateway
            .client()
            .create(&json!({"model": model, "input": "x"}));
        assert!([502, 503].contains(&reply.status), "{}", reply.text());
        assert_eq!(fake.seen(&model).len(), 3);
    }
}

#[test]
fn u8_retry_after_is_passed_on() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    for status in [429, 503] {
        let model = format!("m{status}");
        fake.on(
            &model,
            [Script::answer(status, &[("retry-after", "7")], b"{}")],
        );
        let reply = gateway
            .client()
            .create(&json!({"model": model, "input": "x"}));
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (status, Some("7"))
        );
        assert_eq!(fake.seen(&model).len(), 1);
    }
}

#[test]
fn u10_ends() {
    assert_eq!(ending(&events(begun().close_body())), "response.failed");
    let extra = begun().data(&crate::harness::upstream::script::finish("stop"));
    assert_eq!(
        ending(&events(extra.clone().close_body())),
        "response.completed"
    );
    let twice = extra
        .chunk("data: [DONE]\n\ndata: [DONE]\n\n")
        .chunk("data: {x\n\n");
    assert_eq!(ending(&events(twice.close_body())), "response.completed");
}
