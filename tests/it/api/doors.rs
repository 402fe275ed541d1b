//! Which browsers may come in, HEAD for every GET, and paths that are not served.
//!
//! Mutation tried, it failed: `door::keep` taken out of `listen.rs`.

use serde_json::{Value, json};

use super::keys::new_key;
use crate::harness::client::Open;
use crate::harness::{Fake, Script, TestGateway};

const JSON: (&str, &str) = ("content-type", "application/json");
const EVIL: (&str, &str) = ("origin", "http://evil.example");

fn asked(fake: &Fake) -> usize {
    fake.seen("m").len()
}

/// What a page can send without asking first (a "simple request"), and what it would do.
#[test]
fn a_web_page_cannot_make_a_gateway_without_keys_work() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let body = json!({"model": "m", "input": "x", "messages": [{"role": "user", "content": "x"}]});
    let body = body.to_string();
    for path in [
        "/v1/responses",
        "/v1/responses/compact",
        "/v1/responses/input_tokens",
        "/v1/chat/completions",
    ] {
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
        ] {
            let kind = ("content-type", kind);
            let told = client.send("POST", path, &[kind, EVIL], body.as_bytes());
            assert_eq!(told.error(403), "origin_not_allowed");
            let told = client.send("POST", path, &[kind], body.as_bytes());
            assert_eq!(told.error(415), "unsupported_media_type", "{path} {kind:?}");
            assert!(told.text().contains("Content-Type: application/json"));
            assert_eq!(told.header("accept"), Some("application/json"));
        }
        for origin in [
            "http://evil.example",
            "null",
            "https://127.0.0.1.evil.example",
        ] {
            let headers = [JSON, ("origin", origin)];
            client
                .send("POST", path, &headers, body.as_bytes())
                .error(403);
        }
        let rebound = [JSON, ("host", "evil.example"), EVIL];
        client
            .send("POST", path, &rebound, body.as_bytes())
            .error(403);
    }
    for path in [
        "/v1/models",
        "/v1/status",
        "/metrics",
        "/v1/responses/resp_1",
    ] {
        client
            .send("GET", path, &[("host", "evil.example")], b"")
            .error(403);
    }
    let health = client.send("GET", "/health", &[("host", "10.1.2.3"), EVIL], b"");
    assert_eq!((health.status, asked(&fake)), (200, 0));
}

/// Programs go on as before: without an origin, from this machine, with keys, and what JSON is called.
#[test]
fn programs_and_pages_of_this_machine_are_served() {
    let fake = Fake::start();
    fake.on("m", vec![Script::completion("ok"); 6]);
    let gateway = TestGateway::on(&fake.url()).start();
    let body = json!({"model": "m", "input": "x"}).to_string();
    for headers in [
        vec![],
        vec![("content-type", "application/json; charset=utf-8")],
        vec![("content-type", "application/problem+json")],
        vec![JSON, ("origin", "http://localhost:3000")],
        vec![JSON, ("host", "localhost:5969")],
        vec![
            JSON,
            ("host", "127.0.0.1:5969"),
            ("origin", "http://127.0.0.1:5969"),
        ],
    ] {
        let reply = gateway
            .client()
            .send("POST", "/v1/responses", &headers, body.as_bytes());
        assert_eq!(reply.status, 200, "{headers:?}: {}", reply.text());
    }
    let cancel = gateway
        .client()
        .send("POST", "/v1/responses/resp_1/cancel", &[], b"");
    assert_ne!(cancel.status, 415);
}

/// A browser does not add the key, so a page is a stranger already; proxies may call it as they like.
#[test]
fn a_gateway_with_keys_or_listed_hosts_is_called_by_any_of_its_names() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let (key, line) = new_key("ann");
    std::fs::write(&file, format!("{line}\n")).unwrap();
    let keyed = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", file.to_str().unwrap())
        .start();
    let bearer = format!("Bearer {key}");
    let foreign = [("host", "llm.example"), ("origin", "https://app.example")];
    keyed
        .client()
        .send("GET", "/v1/models", &foreign, b"")
        .error(401);
    let with_key = [&foreign[..], &[("authorization", bearer.as_str())]].concat();
    let reply = keyed.client().send("GET", "/v1/models", &with_key, b"");
    assert_eq!(reply.status, 200);
    let listed = TestGateway::on(&fake.url())
        .env("VR_ALLOWED_HOSTS", "other.example, LLM.example")
        .start();
    let own = [("host", "llm.example"), ("origin", "https://llm.example")];
    assert_eq!(
        listed.client().send("GET", "/v1/models", &own, b"").status,
        200
    );
}

#[test]
fn head_is_get_without_a_body() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let made = gateway
        .client()
        .create(&json!({"model": "m", "input": "x"}))
        .json();
    let stored = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    for (path, status) in [
        ("/health", 200),
        ("/health/ready", 200),
        ("/metrics", 200),
        ("/v1/models", 200),
        ("/v1/models/none", 404),
        ("/v1/status", 200),
        ("/v1/mcp/servers", 200),
        (&stored, 200),
        (&format!("{stored}/input_items"), 200),
        ("/v1/responses/resp_none", 404),
    ] {
        let mut open = Open::connect(gateway.client().address).unwrap();
        // Closed behind the answer, so that all of it is seen.
        let head = format!("HEAD {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n");
        open.write(head.as_bytes()).unwrap();
        while open.read_some(65536).unwrap() > 0 {}
        let text = open.so_far();
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {text}"
        );
        assert!(text.ends_with("\r\n\r\n"), "{path} has a body: {text}");
    }
    for (path, allow) in [
        ("/health", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/v1/models", "GET, HEAD"),
        (&stored, "GET, HEAD, DELETE"),
    ] {
        let reply = gateway.client().send("PUT", path, &[], b"");
        reply.error(405);
        assert_eq!(reply.header("allow"), Some(allow), "{path}");
    }
}

#[test]
fn a_path_that_is_not_served_is_named_with_the_one_that_is() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let body = json!({"model": "m", "input": "x"});
    for (path, words) in [
        (
            "/responses",
            "`/responses` is not served: did you mean `/v1/responses`?",
        ),
        ("/v1/responses/", "did you mean `/v1/responses`?"),
        ("//v1/responses", "did you mean `/v1/responses`?"),
        ("/v1/v1/responses", "did you mean `/v1/responses`?"),
        ("/v1/completions", "ask the model server itself"),
    ] {
        let told = gateway.client().post(path, &body);
        assert_eq!(told.error(404), Value::Null, "{path}");
        assert!(told.text().contains(words), "{path}: {}", told.text());
    }
}

/// The fault: gateways that had each other as model servers called each other without end, 600 times a
/// second, until their descriptors were gone.
#[test]
fn gateways_in_a_row_are_served_and_a_circle_of_them_is_not() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let mut row: Vec<TestGateway> = Vec::new();
    for _ in 0..4 {
        let next = row.last().map_or_else(
            || fake.url(),
            |gateway| format!("http://{}/v1", gateway.client().address),
        );
        row.push(TestGateway::on(&next).start());
    }
    let (last, first) = (row[0].client(), row[3].client());
    let body = json!({"model": "m", "input": "x"});
    let served = first.create(&body);
    assert_eq!(served.status, 200, "{}", served.text());
    let hops = |fake: &Fake| {
        let seen = fake.seen("m").pop().unwrap();
        let mut headers = seen.headers.into_iter();
        headers.find(|(name, _)| name == "x-vllm-responses-hops")
    };
    assert_eq!(hops(&fake).unwrap().1, "4");
    assert_eq!(asked(&fake), 1);
    // What has passed a gateway before the row comes to the last one as if it went round.
    let body = body.to_string();
    let sent = |count, client: crate::harness::Client| {
        let headers = [JSON, ("x-vllm-responses-hops", count)];
        client.send("POST", "/v1/responses", &headers, body.as_bytes())
    };
    let refused = sent("4", last);
    assert_eq!(refused.error(508), "loop_detected");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert!(refused.text().contains("in a circle"));
    let refused = sent("1", first);
    assert!(refused.status >= 500, "{}", refused.text());
    let listed = first.send("GET", "/v1/models", &[("x-vllm-responses-hops", "1")], b"");
    assert_eq!(listed.error(508), "loop_detected");
    assert_eq!(first.get("/v1/models").status, 200);
    assert_eq!(asked(&fake), 1);
}
