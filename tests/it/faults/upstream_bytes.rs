//! Upstream faults U6, U9, U11, U13: bytes that are cut, endless, spelled oddly or not a stream.
//!
//! Mutation that fails this group: let the decoder take LF as the only line end (U11). Not tried yet: a
//! decoder without `MAX_FRAME` (U9).

use std::fs;

use serde_json::json;

use super::stage::{Stage, assert_failed, ending, resource, said};
use crate::harness::Script;
use crate::harness::upstream::script::{finish, framed, text};

#[test]
fn u6_characters_cut_at_every_byte() {
    let stage = Stage::start();
    let whole = "aé€😀z";
    let line = format!("data: {}\n\n", text(whole)).into_bytes();
    let start = line
        .windows(2)
        .position(|w| w == "é".as_bytes())
        .expect("place");
    for cut in start - 1..=start + "é€😀z".len() {
        let (front, back) = line.split_at(cut);
        let chunks = Script::stream().chunk(front).sleep(2).chunk(back);
        let frame = framed(&line);
        let at = frame.len() - line.len() - 2 + cut;
        let segments = Script::stream()
            .wire(&frame[..at])
            .sleep(2)
            .wire(&frame[at..]);
        for script in [chunks, segments] {
            let events = stage.streamed(script.end("stop"));
            assert_eq!(said(&events), whole, "cut {cut}");
        }
    }
    // Byte by byte, both ways at once.
    let bytes = line.iter().fold(Script::stream(), |s, b| s.chunk([*b]));
    assert_eq!(said(&stage.streamed(bytes.end("stop"))), whole);
    // Over two events: JSON text has no half characters, but halves of a pair of escapes.
    let escaped = text("😀").to_string().replace('😀', "\\ud83d\\ude00");
    let script = Script::stream().chunk(format!("data: {escaped}\n\n"));
    assert_eq!(said(&stage.streamed(script.end("stop"))), "😀");
    // Over the data lines of one event: the newline between them is white space to JSON.
    let value = text(whole).to_string();
    let (front, back) = value.split_at(value.find("\"delta\"").expect("place"));
    let script = Script::stream().chunk(format!("data: {front}\ndata: {back}\n\n"));
    assert_eq!(said(&stage.streamed(script.end("stop"))), whole);
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    let line = line.expect("peak memory");
    line.split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("number")
}

#[test]
fn u9_line_without_end() {
    let stage = Stage::start();
    assert_eq!(
        ending(&stage.streamed(Script::says("warm"))),
        "response.completed"
    );
    let before = resident(stage.gateway.pid());
    let megabyte = vec![b'x'; 1 << 20];
    let mut script = Script::stream().data(&text("par")).chunk("data: ");
    for _ in 0..100 {
        script = script.chunk(&megabyte);
    }
    let events = stage.streamed(script.hold());
    assert_failed(&events, "upstream_bad_response", "server_error");
    assert_eq!(said(&events), "par");
    let grown = resident(stage.gateway.pid()) - before;
    assert!(grown < 16 * 1024, "peak memory grew by {grown} KiB");
    let mut error = Script::bare().wire(
        "HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n",
    );
    for _ in 0..100 {
        error = error.wire(megabyte.clone());
    }
    assert_ne!(stage.refused(error.clone()).status, 200);
    assert_ne!(stage.whole(error).status, 200);
    let grown = resident(stage.gateway.pid()) - before;
    assert!(grown < 16 * 1024, "peak memory grew by {grown} KiB");
}

#[test]
fn u11_spellings_of_a_stream() {
    let stage = Stage::start();
    let (part, end) = (text("par"), finish("stop"));
    let (front, back) = {
        let value = part.to_string();
        let at = value.find("\"delta\"").expect("place");
        let (front, back) = value.split_at(at);
        (front.to_owned(), back.to_owned())
    };
    let spellings = [
        format!("data: {part}\r\n\r\ndata: {end}\r\n\r\ndata: [DONE]\r\n\r\n"),
        format!("data: {part}\r\rdata: {end}\r\rdata: [DONE]\r\r"),
        format!("\u{feff}data: {part}\n\ndata: {end}\n\ndata: [DONE]\n\n"),
        format!(": hello\n\ndata: {part}\n: between\n\ndata: {end}\n\n:\n\ndata: [DONE]\n\n"),
        format!("data:{part}\n\ndata:{end}\n\ndata:[DONE]\n\n"),
        format!("data: {front}\ndata: {back}\n\ndata: {end}\n\ndata: [DONE]\n\n"),
        format!("id: 1\nretry: 5\nfoo\ndata: {part}\n\n\n\ndata: {end}\n\ndata: [DONE]\n\n"),
    ];
    for spelling in spellings {
        let events = stage.streamed(Script::stream().chunk(&spelling).close_body());
        assert_eq!(ending(&events), "response.completed", "{spelling:?}");
        assert_eq!(said(&events), "par", "{spelling:?}");
    }
    let error = |code: u16| json!({"error": {"message": "no", "type": "T", "code": code}});
    let begun = Script::stream().data(&part);
    for (frame, code, response_code) in [
        (
            format!("data: {}\n\n", error(500)),
            "upstream_unavailable",
            "server_error",
        ),
        (
            format!("event: error\ndata: {}\n\n", error(503)),
            "server_is_overloaded",
            "server_is_overloaded",
        ),
        (
            format!("data: {}\n\n", error(429)),
            "rate_limit_exceeded",
            "rate_limit_exceeded",
        ),
        (
            format!("data: {}\n\n", error(400)),
            "invalid_request_error",
            "invalid_prompt",
        ),
    ] {
        let events = stage.streamed(begun.clone().chunk(frame).done());
        assert_failed(&events, code, response_code);
        assert_eq!(said(&events), "par", "partial text is kept");
    }
    let inside = stage.whole(Script::json(200, &error(500)));
    assert_eq!(inside.error(502), "upstream_unavailable");
}

#[test]
fn u13_what_is_no_answer() {
    let stage = Stage::start();
    let html = ("content-type", "text/html");
    let sse = ("content-type", "text/event-stream");
    let json = ("content-type", "application/json");
    let gzip = ("content-encoding", "gzip");
    let away = ("location", "/health");
    let scripts = [
        Script::answer(200, &[html], b"<html>"),
        Script::answer(200, &[], b"hello"),
        Script::answer(200, &[sse, gzip], b"\x1f\x8b"),
        Script::answer(200, &[json, gzip], b"\x1f\x8b"),
        Script::answer(204, &[], b""),
        Script::answer(302, &[away], b""),
        Script::answer(307, &[away], b""),
        Script::bare().wire("SSH-2.0-OpenSSH\r\n\r\n").fin(),
        Script::bare().fin(),
    ];
    for script in scripts {
        let shown = format!("{:?}", script.steps[0]);
        let reply = stage.refused(script.clone());
        assert_eq!(reply.status, 502, "{shown}: {}", reply.text());
        let reply = stage.whole(script);
        assert_eq!(reply.status, 502, "{shown}: {}", reply.text());
    }
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    assert_eq!(stage.whole(Script::bare().wire(upgrade)).status, 502);
    // Not compressed, and said so.
    let plain = ("content-encoding", "identity");
    let body = json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]});
    let body = body.to_string();
    let answer = Script::answer(200, &[json, plain], body.as_bytes());
    assert_eq!(stage.whole(answer).status, 200);
    // Words that are compressed are none.
    let packed = Script::answer(400, &[json, gzip], b"\x1f\x8b\x08CANARY");
    let told = stage.whole(packed);
    assert_eq!(told.error(400), serde_json::Value::Null);
    assert!(!told.text().contains("CANARY"), "{}", told.text());
    // Each kind where the other is due is read all the same, an error in its own words.
    assert_eq!(said(&stage.streamed(Script::completion("x"))), "x");
    assert_eq!(stage.whole(Script::says("x")).status, 200);
    let error = Script::answer(
        200,
        &[json],
        br#"{"error":{"message":"no such thing","code":400}}"#,
    );
    let events = stage.streamed(error);
    assert_eq!(ending(&events), "response.failed");
    let told = resource(&events)["error"]["message"]
        .as_str()
        .expect("message");
    assert!(told.contains("no such thing"), "{told}");
}
