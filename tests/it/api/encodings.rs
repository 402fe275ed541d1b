//! C6: compressed request bodies, good, hostile and unknown.
//!
//! Mutations tried, each failed: the limit of `encoding::unpack` raised a thousandfold; `br` read as no
//! coding.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::harness::{Fake, Reply, Script, TestGateway};

const JSON: (&str, &str) = ("content-type", "application/json");

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 3).unwrap()
}

fn send(gateway: &TestGateway, path: &str, coding: &str, body: &[u8]) -> Reply {
    let headers = [
        JSON,
        ("content-encoding", coding),
        ("accept-encoding", "gzip, zstd"),
    ];
    gateway.client().send("POST", path, &headers, body)
}

#[test]
fn c6_packed_bodies_are_read_like_plain_ones() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let count = json!({"count": 9, "max_model_len": 100, "tokens": [1]});
    fake.on("tokenize m", [Script::json(200, &count)]);
    let gateway = TestGateway::on(&fake.url()).start();
    let body = json!({"model": "m", "input": "packed"}).to_string();
    for (coding, packed) in [
        ("gzip", gzip(body.as_bytes())),
        ("x-gzip", gzip(body.as_bytes())),
        ("ZSTD", zstd(body.as_bytes())),
        ("identity", body.clone().into_bytes()),
    ] {
        let reply = send(&gateway, "/v1/responses", coding, &packed);
        assert_eq!(reply.status, 200, "{coding}: {}", reply.text());
        assert_eq!(reply.header("content-encoding"), None, "answers are plain");
        let reply = send(&gateway, "/v1/responses/input_tokens", coding, &packed);
        assert_eq!(
            reply.json()["input_tokens"],
            9,
            "{coding}: {}",
            reply.text()
        );
    }
    let sent = fake.seen("m")[0].raw.clone();
    assert!(String::from_utf8(sent).unwrap().contains("packed"));
}

#[test]
fn c6_bombs_stop_at_the_body_limit() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_BODY_LIMIT", "1MiB")
        .start();
    let bomb = vec![b' '; 64 * 1024 * 1024];
    for (coding, packed) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
        assert!(
            packed.len() < 1024 * 1024,
            "{coding}: not within the limit when packed"
        );
        for path in ["/v1/responses", "/v1/responses/input_tokens"] {
            let code = send(&gateway, path, coding, &packed).error(413);
            assert_eq!(code, "payload_too_large");
        }
        // What is too long already when packed is not unpacked at all.
        let long = vec![0; 1024 * 1024 + 1];
        send(&gateway, "/v1/responses", coding, &long).error(413);
    }
    // The largest that fits.
    let frame = r#"{"model":"m","input":""}"#.len();
    let text = "a".repeat(1024 * 1024 - frame);
    fake.on("m", [Script::completion("ok")]);
    let body = json!({"model": "m", "input": text}).to_string();
    assert_eq!(body.len(), 1024 * 1024);
    let reply = send(&gateway, "/v1/responses", "gzip", &gzip(body.as_bytes()));
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn c6_broken_bodies_are_400_and_unknown_codings_415() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let body = br#"{"model":"m","input":"x"}"#;
    let (gz, zs) = (gzip(body), zstd(body));
    let mut damaged = gz.clone();
    let last = damaged.len() - 5;
    damaged[last] ^= 1;
    for (coding, packed) in [
        ("gzip", &gz[..gz.len() - 1]),
        ("gzip", &gz[..5]),
        ("gzip", &damaged),
        ("gzip", &body[..]),
        ("gzip", &[]),
        ("gzip", &zs),
        ("zstd", &zs[..zs.len() - 1]),
        ("zstd", &body[..]),
        ("zstd", &gz),
        ("zstd", &[]),
    ] {
        let code = send(&gateway, "/v1/responses", coding, packed).error(400);
        assert_eq!(code, "invalid_json", "{coding} {packed:?}");
    }
    for coding in [
        "deflate",
        "br",
        "compress",
        "gzip, gzip",
        "gzip, zstd",
        "x-unknown",
        "\u{e9}",
    ] {
        let reply = send(&gateway, "/v1/responses", coding, &gz);
        assert_eq!(reply.error(415), "unsupported_encoding", "{coding}");
        assert_eq!(reply.header("accept-encoding"), Some("gzip, zstd"));
    }
    let twice = [
        JSON,
        ("content-encoding", "gzip"),
        ("content-encoding", "gzip"),
    ];
    let reply = gateway
        .client()
        .send("POST", "/v1/responses", &twice, &gzip(&gz));
    reply.error(415);
    assert!(fake.seen("m").is_empty(), "nothing of this goes upstream");
}

#[test]
fn c6_chat_bodies_pass_as_they_are() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let packed = gzip(br#"{"model":"m"}"#);
    // Whether it can be read is the upstream's affair; this one finds no model in it.
    send(&gateway, "/v1/chat/completions", "gzip", &packed);
    let seen = fake.all_seen();
    let sent = seen
        .iter()
        .find(|seen| seen.path == "/v1/chat/completions")
        .unwrap();
    assert_eq!(sent.raw, packed);
    assert!(
        sent.headers
            .contains(&("content-encoding".into(), "gzip".into()))
    );
}
