//! Client faults C1 to C9: clients that leave, and bytes that no client should send.
//!
//! Mutation that fails this group: answer 413 with the socket closed at once instead of lingering
//! (`client_disconnect_timeout` of zero), or go on reading the upstream when the client has left.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection as _, RunQueryDsl as _};
use serde_json::{Value, json};

use crate::harness::client::{Open, request};
use crate::harness::upstream::Closed;
use crate::harness::upstream::script::{text, tool_call};
use crate::harness::{Fake, Reply, Script, TestGateway, knobs};

const JSON: (&str, &str) = ("content-type", "application/json");

/// One trial: the client leaves once `seen` shows up (or the upstream was asked), gives how long
/// the upstream's connection lived on.
fn leave(fake: &Fake, gateway: &TestGateway, model: &str, trial: usize, seen: &str) -> Duration {
    let body = json!({"model": model, "input": "x", "stream": model != "whole"});
    let mut open = gateway.client().open(&body);
    fake.wait_seen(model, 1 + trial);
    if !seen.is_empty() {
        open.read_until(seen);
    }
    let left = if trial.is_multiple_of(2) {
        open.leave_fin()
    } else {
        open.leave_reset()
    };
    let all = fake.wait_closed(model);
    let (how, at) = all[all.len() - 1].closed.expect("closed");
    assert_ne!(how, Closed::ByScript);
    at.saturating_duration_since(left)
}

#[test]
fn c1_c2_every_phase_is_noticed_and_the_gateway_goes_on() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url())
        .env(knobs::HOLD_STATUS, "100ms")
        .start();
    let call = tool_call(0, "c1", "f", &["{\"a\":", "1"]);
    let phases = [
        ("whole", "", Script::bare().hold()),
        ("before", "", Script::bare().hold()),
        ("prefill", "response.created", Script::stream().hold()),
        (
            "middle",
            "output_text.delta",
            Script::stream().data(&text("a")).hold(),
        ),
        (
            "call",
            "arguments.delta",
            Script::stream().all(&call).hold(),
        ),
    ];
    for (model, seen, script) in phases {
        fake.on(model, [script]);
        let mut times: Vec<_> = (0..knobs::rounds(4, 100))
            .map(|trial| leave(&fake, &gateway, model, trial, seen))
            .collect();
        times.sort();
        let worst = times[times.len() - 1];
        eprintln!(
            "{model}: upstream closed after {:?}, worst {worst:?}",
            times[times.len() / 2]
        );
        assert!(worst < Duration::from_secs(5), "{model}: {worst:?}");
    }
    fake.on("next", [Script::completion("ok")]);
    assert_eq!(
        gateway
            .client()
            .create(&json!({"model": "next", "input": "x"}))
            .status,
        200
    );
}

#[test]
fn c1_one_who_left_is_stored_as_cancelled_and_no_anchor() {
    let fake = Fake::start();
    fake.on("m", [Script::stream().data(&text("part")).hold()]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let mut open = client.open(&json!({"model": "m", "input": "x", "stream": true}));
    open.read_until("output_text.delta");
    let id = response_id(&open.so_far());
    open.leave_fin();
    fake.wait_closed("m");
    let stored = wait_stored(&gateway, &id);
    assert_eq!(stored["status"], "cancelled");
    assert_eq!(stored["output"][0]["content"][0]["text"], "part");
    let next = client.create(&json!({"model": "m", "input": "y", "previous_response_id": id}));
    next.error(400);
    assert!(next.text().contains("cancelled"), "{}", next.text());
}

#[derive(diesel::QueryableByName)]
struct Row {
    #[diesel(sql_type = diesel::sql_types::Text)]
    id: String,
}

/// Who leaves while the record is on its way to the store is not waited for; what the store takes is whole.
#[test]
fn c1_c2_one_who_leaves_in_the_store_write_leaves_a_whole_record() {
    let fake = Fake::start();
    fake.on("s", [Script::says("yes")]);
    fake.on("m", [Script::completion("yes")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let mut other = SqliteConnection::establish(gateway.db().to_str().unwrap()).unwrap();
    for trial in 0..knobs::rounds(6, 100) {
        let (stream, input) = (trial % 4 < 2, format!("left {trial}"));
        let model = if stream { "s" } else { "m" };
        let before = fake.seen(model).len();
        other.batch_execute("BEGIN IMMEDIATE").unwrap();
        let body = json!({"model": model, "input": input, "stream": stream});
        let mut open = client.open(&body);
        fake.wait_seen(model, before + 1);
        if stream {
            open.read_until("output_text.done");
        }
        std::thread::sleep(Duration::from_millis(50));
        let left = if trial.is_multiple_of(2) {
            open.leave_fin()
        } else {
            open.leave_reset()
        };
        assert!(left.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(50));
        other.batch_execute("ROLLBACK").unwrap();
        let next = client.create(&json!({"model": "m", "input": "next"}));
        assert_eq!((next.status, &next.json()["store"]), (200, &json!(true)));
    }
    // Whatever was kept can be read, and says how it ended.
    let kept = diesel::sql_query("SELECT id FROM responses").load::<Row>(&mut other);
    let kept = kept.unwrap();
    assert!(kept.len() >= knobs::rounds(6, 100));
    for row in kept {
        let read = client.get(&format!("/v1/responses/{}", row.id)).json();
        assert!(["completed", "cancelled"].contains(&read["status"].as_str().unwrap()));
        assert_eq!(read["output"][0]["content"][0]["text"], "yes", "{read}");
    }
}

/// The id that a stream names first.
pub(super) fn response_id(wire: &str) -> String {
    wire.split('"')
        .find(|word| word.starts_with("resp_"))
        .expect("an id")
        .to_owned()
}

/// The stored resource, once it is there.
pub(super) fn wait_stored(gateway: &TestGateway, id: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let reply = gateway.client().get(&format!("/v1/responses/{id}"));
        if reply.status == 200 {
            return reply.json();
        }
        assert!(Instant::now() < until, "never stored: {}", reply.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn c4_a_body_over_the_limit_gets_its_413_and_no_reset() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let address = gateway.client().address;
    let body = vec![b' '; 40 * 1024 * 1024];
    for path in ["/v1/responses", "/v1/chat/completions"] {
        // A client that writes everything before it reads, as most do.
        let start = Instant::now();
        let mut open = Open::connect(address).unwrap();
        open.write(&request("POST", path, &[JSON], &body))
            .expect("no reset while writing");
        open.reply().expect("no reset while reading").error(413);
        eprintln!("{path}: 40 MiB refused after {:?}", start.elapsed());
        // The answer does not wait for the body.
        let mut open = Open::connect(address).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: g\r\ncontent-length: 104857600\r\n\r\n");
        open.write(head.as_bytes()).unwrap();
        open.reply().expect("an answer without a body").error(413);
    }
    let before = fake.connections();
    assert!(fake.seen("m").is_empty() && before > 0);
}

#[test]
fn c4_a_chunked_body_stops_at_the_limit() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_BODY_LIMIT", "1MiB")
        .start();
    let mut open = Open::connect(gateway.client().address).unwrap();
    open.write(b"POST /v1/responses HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 65536], b"\r\n"].concat();
    // Twice the limit: more than the gateway takes, so that it must refuse before the end.
    for _ in 0..32 {
        open.write(&chunk).expect("no reset while writing");
    }
    open.reply().expect("no reset while reading").error(413);
}

/// Bodies that are large, or deep.
fn large_json() -> Vec<(&'static str, Vec<u8>)> {
    let deep = "[".repeat(100_000);
    let keys: Vec<_> = (0..1_000_000).map(|n| format!("\"k{n}\":0")).collect();
    vec![
        (
            "nesting",
            format!("{{\"model\":\"m\",\"input\":{deep}").into_bytes(),
        ),
        (
            "keys",
            format!(
                "{{\"model\":\"m\",\"input\":\"x\",\"metadata\":{{{}}}}}",
                keys.join(",")
            )
            .into_bytes(),
        ),
        (
            "number",
            format!(
                "{{\"model\":\"m\",\"input\":\"x\",\"temperature\":{}}}",
                "1".repeat(10_000_000)
            )
            .into_bytes(),
        ),
        (
            "nested objects",
            format!(
                "{{\"model\":\"m\",\"input\":\"x\",\"metadata\":{}",
                "{\"a\":".repeat(100_000)
            )
            .into_bytes(),
        ),
        (
            "nested, closed",
            format!(
                "{{\"model\":\"m\",\"input\":{deep}{}}}",
                "]".repeat(100_000)
            )
            .into_bytes(),
        ),
        (
            "keys at the top",
            format!("{{\"model\":\"m\",\"input\":\"x\",{}}}", keys.join(",")).into_bytes(),
        ),
    ]
}

/// Bodies that are small and wrong.
fn wrong_json() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "infinite",
            br#"{"model":"m","input":"x","temperature":1e999}"#.to_vec(),
        ),
        (
            "duplicate",
            br#"{"model":"m","model":"n","input":"x"}"#.to_vec(),
        ),
        (
            "duplicate deep",
            br#"{"model":"m","input":"x","text":{"verbosity":"low","verbosity":"high"}}"#.to_vec(),
        ),
        (
            "infinite integer",
            br#"{"model":"m","input":"x","max_output_tokens":1e999}"#.to_vec(),
        ),
        (
            "nul behind",
            b"{\"model\":\"m\",\"input\":\"x\"}\0".to_vec(),
        ),
        ("raw nul", b"{\"model\":\"m\",\"input\":\"a\0b\"}".to_vec()),
        ("cut", br#"{"model":"m","input":"#.to_vec()),
        ("empty", Vec::new()),
        ("no object", b"[]".to_vec()),
        (
            "utf-8",
            b"{\"model\":\"m\",\"input\":\"\xff\xfe\"}".to_vec(),
        ),
    ]
}

#[test]
fn c5_hostile_json_is_refused_at_once() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    for (name, body) in large_json().into_iter().chain(wrong_json()) {
        let start = Instant::now();
        let reply = gateway
            .client()
            .send("POST", "/v1/responses", &[JSON], &body);
        eprintln!("{name}: {} after {:?}", reply.status, start.elapsed());
        reply.error(400);
    }
    assert!(fake.seen("m").is_empty(), "nothing of this goes upstream");
    assert_eq!(
        gateway
            .client()
            .create(&json!({"model": "m", "input": "x"}))
            .status,
        200
    );
}

#[test]
fn c6_content_codings_and_charsets() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let body = br#"{"model":"m","input":"x"}"#;
    for coding in ["deflate", "br", "gzip, gzip", "x-unknown"] {
        let headers = [JSON, ("content-encoding", coding)];
        let reply = gateway
            .client()
            .send("POST", "/v1/responses", &headers, body);
        reply.error(415);
    }
    let headers = [("content-type", "application/json; charset=utf-16")];
    let wide: Vec<u8> = "{\"model\":\"m\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    gateway
        .client()
        .send("POST", "/v1/responses", &headers, &wide)
        .error(400);
}

/// What raw bytes lead to: a status, or none when the gateway only closed.
fn raw(gateway: &TestGateway, bytes: &[u8]) -> Option<Reply> {
    let mut open = Open::connect(gateway.client().address).unwrap();
    open.set_timeout(Duration::from_secs(20));
    open.write(bytes).ok()?;
    open.reply().ok()
}

#[test]
fn c7_ambiguous_framing_reaches_no_handler() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let body = r#"{"model":"m","input":"x"}"#;
    let length = body.len();
    let head =
        |fields: &str| format!("POST /v1/responses HTTP/1.1\r\nhost: g\r\n{fields}\r\n{body}");
    let cases = [
        (
            "both",
            head(&format!(
                "content-length: {length}\r\ntransfer-encoding: chunked\r\n"
            )),
        ),
        (
            "two lengths",
            head(&format!(
                "content-length: {length}\r\ncontent-length: 3\r\n"
            )),
        ),
        ("signed", head(&format!("content-length: +{length}\r\n"))),
        ("not last", head("transfer-encoding: chunked, gzip\r\n")),
        (
            "fold",
            head(&format!("content-length: {length}\r\nx-a: b\r\n c\r\n")),
        ),
        ("space", head(&format!("content-length : {length}\r\n"))),
        ("bare LF within a name", head("content\n-length: 3\r\n")),
        (
            "bare LF in chunks",
            format!(
                "POST /v1/responses HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n\
                 {length:x}\n{body}\n0\n\n"
            ),
        ),
        (
            "bare CR",
            format!("POST /v1/responses HTTP/1.1\rhost: g\rcontent-length: {length}\r\r{body}"),
        ),
    ];
    for (name, bytes) in cases {
        let reply = raw(&gateway, bytes.as_bytes());
        let status = reply.map(|reply| reply.status);
        eprintln!("{name}: {status:?}");
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{name}: {status:?}"
        );
    }
    let long = head(&format!("x-long: {}\r\n", "a".repeat(1024 * 1024)));
    let status = raw(&gateway, long.as_bytes()).map(|reply| reply.status);
    assert!(
        status.is_none_or(|status| [400, 431].contains(&status)),
        "{status:?}"
    );
    assert!(
        fake.seen("m").is_empty(),
        "no ambiguous request went upstream"
    );
}

#[test]
fn c8_errors_are_short_name_the_field_and_echo_nothing() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let canary = "Q0FOQVJZ".repeat(20 * 1024 * 1024 / 8);
    for (field, value) in [
        ("temperature", json!(canary)),
        ("tool_choice", json!(canary)),
        ("input", json!([{"type": canary}])),
        ("tools", json!([canary])),
    ] {
        let mut body = json!({"model": "m", "input": "x"});
        body[field] = value;
        let reply = gateway.client().create(&body);
        reply.error(400);
        assert!(
            reply.json()["error"]["param"]
                .as_str()
                .unwrap_or("")
                .starts_with(field)
        );
        assert!(!reply.text().contains("Q0FOQVJZ"), "{}", reply.text());
    }
    assert!(
        !gateway.log().contains("Q0FOQVJZ"),
        "the payload is in the log"
    );
}

#[test]
fn c9_half_closed_clients_are_cut_off_and_errors_keep_the_connection() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    fake.on("slow", [Script::bare().hold()]);
    let gateway = TestGateway::on(&fake.url()).start();
    let mut open = gateway
        .client()
        .open(&json!({"model": "slow", "input": "x"}));
    fake.wait_seen("slow", 1);
    open.half_close();
    fake.wait_closed("slow");
    assert!(
        open.reply().is_err(),
        "decision 9: half-closed clients are cut off"
    );
    let mut open = Open::connect(gateway.client().address).unwrap();
    for _ in 0..3 {
        open.write(&request("POST", "/v1/responses", &[JSON], b"{"))
            .unwrap();
        open.reply().unwrap().error(400);
        open.write(&request("GET", "/v1/responses/resp_none", &[], b""))
            .unwrap();
        open.reply().unwrap().error(404);
        let body = json!({"model": "m", "input": "x"}).to_string();
        open.write(&request("POST", "/v1/responses", &[JSON], body.as_bytes()))
            .unwrap();
        assert_eq!(open.reply().unwrap().status, 200);
    }
    let silent: Vec<_> = (0..1000)
        .map(|_| Open::connect(gateway.client().address).expect("connect"))
        .collect();
    assert_eq!(
        gateway
            .client()
            .create(&json!({"model": "m", "input": "x"}))
            .status,
        200
    );
    drop(silent);
    assert_eq!(gateway.client().get("/health").status, 200);
}
