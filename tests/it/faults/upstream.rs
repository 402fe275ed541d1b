//! Upstream faults U1 to U5, U7, U8, U10: who does not answer, who breaks off, who says no.
//!
//! Mutation that fails this group: treat the end of the upstream body as `completed` without
//! looking for a `finish_reason` (`conclude_or` in the turn machine).

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use super::stage::{Stage, assert_failed, ending, said};
use crate::harness::upstream::script::{finish, framed, text};
use crate::harness::{Fake, Script, TestGateway};

fn begun() -> Script {
    Script::stream().data(&text("par"))
}

/// The head of an answer that does not stream, and the first part of its body.
fn half_whole() -> Script {
    Script::bare().wire(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n\
         {\"choices\": [",
    )
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
    let fake = Fake::start_at(gone);
    fake.on("m", [Script::completion("back")]);
    let reply = gateway
        .client()
        .create(&json!({"model": "m", "input": "x"}));
    assert_eq!(
        reply.status, 200,
        "serves again as soon as the upstream does"
    );
}

#[test]
fn u2_accepts_and_never_answers() {
    let stage = Stage::impatient();
    let body = stage.body(Script::bare().hold());
    assert!(
        body.contains(": keep-alive\n\n"),
        "keep-alives while waiting"
    );
    let events = crate::harness::check_stream(&body);
    assert_failed(&events, "upstream_timeout", "server_error");
    let reply = stage.whole(Script::bare().hold());
    assert_eq!(reply.error(504), "upstream_timeout");
}

#[test]
fn u3_headers_then_silence() {
    let stage = Stage::impatient();
    let body = stage.body(begun().hold());
    assert!(
        body.contains(": keep-alive\n\n"),
        "keep-alives in the silence"
    );
    let events = crate::harness::check_stream(&body);
    assert_failed(&events, "upstream_timeout", "server_error");
    assert_eq!(said(&events), "par", "partial text is kept");
    let events = stage.streamed(Script::stream().hold());
    assert_failed(&events, "upstream_timeout", "server_error");
    let reply = stage.whole(half_whole().hold());
    assert_eq!(reply.error(504), "upstream_timeout");
}

/// A server, or a proxy before one that is gone, that sends for ever what says nothing.
#[test]
fn p14_signs_of_life_do_not_keep_a_call_alive() {
    let stage = Stage::impatient();
    let drip = |script: Script, bytes: &[u8]| {
        let script = (0..60).fold(script, |script, _| script.sleep(100).chunk(bytes));
        script.fin()
    };
    let empty = format!("data: {}\n\n", text(""));
    for bytes in [&b": ping\n\n"[..], b"data: null\n\n", empty.as_bytes()] {
        let shown = String::from_utf8_lossy(bytes);
        let begun = Instant::now();
        let events = stage.streamed(drip(self::begun(), bytes));
        assert_failed(&events, "upstream_timeout", "server_error");
        assert_eq!(said(&events), "par", "{shown}");
        let whole = drip(Script::stream(), bytes);
        assert_eq!(stage.whole(whole).error(504), "upstream_timeout", "{shown}");
        assert!(begun.elapsed() < Duration::from_secs(9), "{shown}");
    }
    // White space before the JSON, a byte at a time.
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let whole = drip(Script::bare().wire(json), b" ");
    assert_eq!(stage.whole(whole).error(504), "upstream_timeout");
}

#[test]
fn u4_reset_at_every_place() {
    let stage = Stage::start();
    let line = framed(format!("data: {}\n\n", text("tial")).as_bytes());
    let inside_chunk = begun().wire(&line[..line.len() / 2]);
    let inside_line = begun().chunk("data: {\"choices\": [{\"del");
    for script in [inside_chunk, inside_line, begun()] {
        for script in [script.clone().sleep(50).reset(), script.sleep(50).fin()] {
            let events = stage.streamed(script);
            assert_failed(&events, "upstream_unavailable", "server_error");
            assert_eq!(said(&events), "par", "partial text is kept");
        }
    }
    let finished = begun().data(&finish("stop"));
    let last_byte = finished.clone().chunk("data: [DONE]\n\n");
    for script in [finished, last_byte.clone(), last_byte.close_body()] {
        let events = stage.streamed(script.sleep(50).reset());
        assert_eq!(ending(&events), "response.completed");
        assert_eq!(said(&events), "par");
    }
    for script in [half_whole().sleep(50).reset(), half_whole().fin()] {
        assert_eq!(stage.whole(script).error(502), "upstream_unavailable");
    }
    let after = stage.whole(Script::completion("all").sleep(50).reset());
    assert_eq!(after.json()["status"], "completed");
}

#[test]
fn u5_malformed_chunk() {
    let stage = Stage::start();
    for bad in ["{\"choices\": [", "{secret}"] {
        let events = stage.streamed(begun().chunk(format!("data: {bad}\n\n")).hold());
        assert_failed(&events, "upstream_bad_chunk", "server_error");
        assert_eq!(said(&events), "par", "partial text is kept");
    }
    let kind = [("content-type", "application/json")];
    for bad in ["{\"choices\": [", "", "[]", "{}", "{\"choices\": []}"] {
        let reply = stage.whole(Script::answer(200, &kind, bad.as_bytes()));
        assert_eq!(reply.status, 502, "{bad}: {}", reply.text());
    }
    assert!(
        !stage.gateway.log().contains("secret"),
        "no content is logged"
    );
}

#[test]
fn u7_server_errors_are_retried_at_most_twice() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    for status in [500, 502, 503] {
        for stream in [false, true] {
            let model = format!("m{status}{stream}");
            fake.on(&model, [Script::error(status, "down")]);
            let body = json!({"model": model, "input": "x", "stream": stream});
            let reply = gateway.client().create(&body);
            let passed_on = if status == 503 { 503 } else { 502 };
            // Asserts status and shape.
            let _code = reply.error(passed_on);
            let seen = fake.seen(&model);
            // Behind 500 and 502 the model may have worked already.
            assert_eq!(seen.len(), if status == 503 { 3 } else { 1 });
            let pauses: Vec<_> = seen.windows(2).map(|two| two[1].at - two[0].at).collect();
            assert!(
                pauses.iter().all(|p| p.as_millis() >= 40),
                "pauses between tries: {pauses:?}"
            );
            if status != 503 {
                continue;
            }
            let model = format!("up{status}{stream}");
            let good = if stream {
                Script::says("up")
            } else {
                Script::completion("up")
            };
            fake.on(&model, [Script::error(status, "down"), good]);
            let body = json!({"model": model, "input": "x", "stream": stream});
            assert_eq!(gateway.client().create(&body).status, 200);
            assert_eq!(fake.seen(&model).len(), 2);
        }
    }
}

#[test]
fn u8_retry_after_is_passed_on() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    for (at, wait) in ["7", "Wed, 21 Oct 2099 07:28:00 GMT", "soon", "-1"]
        .iter()
        .enumerate()
    {
        for (status, stream) in [(429, false), (429, true), (503, false), (503, true)] {
            let model = format!("m{at}{status}{stream}");
            let script = Script::answer(status, &[("retry-after", wait)], b"{}");
            fake.on(&model, [script]);
            let body = json!({"model": model, "input": "x", "stream": stream});
            let reply = gateway.client().create(&body);
            assert_eq!(
                (reply.status, reply.header("retry-after")),
                (status, Some(*wait))
            );
            // Asserts the shape.
            let _code = reply.error(status);
            assert_eq!(fake.seen(&model).len(), 1, "no retry of its own");
        }
    }
}

#[test]
fn u10_ends() {
    let stage = Stage::start();
    let events = stage.streamed(begun().close_body());
    assert_failed(&events, "upstream_unavailable", "server_error");
    let events = stage.streamed(begun().done());
    assert_failed(&events, "upstream_unavailable", "server_error");
    let finished = begun().data(&finish("stop"));
    let twice = finished
        .clone()
        .chunk("data: [DONE]\n\ndata: [DONE]\n\n")
        .chunk("data: {x\n\n");
    for script in [finished.close_body(), twice.close_body()] {
        let events = stage.streamed(script);
        assert_eq!(ending(&events), "response.completed");
        assert_eq!(said(&events), "par");
    }
    // A whole answer is whole by its JSON; some servers give no reason in it.
    let unended = json!({"choices": [{"index": 0, "finish_reason": null,
        "message": {"role": "assistant", "content": "x"}}]});
    assert_eq!(stage.whole(Script::json(200, &unended)).status, 200);
}
