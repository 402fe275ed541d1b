//! CORS: off by default, exact origins or all, errors and streams included, and no credentials.
//!
//! Mutation tried, it failed: credentials allowed.

use serde_json::json;

use super::keys::new_key;
use crate::harness::{Fake, Reply, Script, TestGateway};

const PAGE: &str = "https://app.example.com";
const JSON: (&str, &str) = ("content-type", "application/json");

fn allowed(reply: &Reply) -> Option<&str> {
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    reply.header("access-control-allow-origin")
}

fn preflight(gateway: &TestGateway, path: &str, origin: &str, method: &str) -> Reply {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", method),
        (
            "access-control-request-headers",
            "authorization,content-type,x-request-id",
        ),
    ];
    gateway.client().send("OPTIONS", path, &headers, b"")
}

#[test]
fn off_by_default() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let reply = gateway
        .client()
        .send("GET", "/v1/models", &[("origin", PAGE)], b"");
    assert_eq!((reply.status, allowed(&reply)), (403, None));
    let reply = preflight(&gateway, "/v1/responses", PAGE, "POST");
    assert_eq!((reply.status, allowed(&reply)), (403, None));
    assert_eq!(reply.header("vary"), None);
}

/// A gateway with a key that lets the page in, and the `Authorization` of that key.
fn with_key(fake: &Fake) -> (TestGateway, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let (key, line) = new_key("ann");
    std::fs::write(&file, format!("{line}\n")).unwrap();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", file.to_str().unwrap())
        .env("VR_CORS_ORIGINS", &format!("http://localhost:3000, {PAGE}"))
        .start();
    (gateway, format!("Bearer {key}"))
}

#[test]
fn preflights_need_no_key_on_any_route() {
    let fake = Fake::start();
    let (gateway, _) = with_key(&fake);
    for (path, method) in [
        ("/v1/responses", "POST"),
        ("/v1/responses/input_tokens", "POST"),
        ("/v1/responses/resp_1", "GET"),
        ("/v1/responses/resp_1", "DELETE"),
        ("/v1/responses/resp_1/input_items", "GET"),
        ("/v1/models", "GET"),
        ("/v1/models/m", "GET"),
        ("/v1/mcp/servers", "GET"),
        ("/v1/chat/completions", "POST"),
        ("/v1/status", "GET"),
        ("/health", "GET"),
        ("/health/ready", "GET"),
    ] {
        let reply = preflight(&gateway, path, PAGE, method);
        assert_eq!((reply.status, allowed(&reply)), (200, Some(PAGE)), "{path}");
        let methods = reply.header("access-control-allow-methods").unwrap();
        assert!(methods.contains(method), "{path}: {methods}");
        let headers = reply.header("access-control-allow-headers").unwrap();
        assert!(
            headers.to_ascii_lowercase().contains("authorization"),
            "{path}: {headers}"
        );
    }
}

#[test]
fn answers_errors_and_streams_carry_the_headers() {
    let fake = Fake::start();
    fake.on("m", [Script::says("ok")]);
    let (gateway, bearer) = with_key(&fake);
    let page = ("origin", PAGE);
    let with_key = [JSON, page, ("authorization", bearer.as_str())];
    let body = json!({"model": "m", "input": "x", "stream": true}).to_string();
    let stream = gateway
        .client()
        .send("POST", "/v1/responses", &with_key, body.as_bytes());
    assert_eq!((stream.status, allowed(&stream)), (200, Some(PAGE)));
    assert!(stream.text().ends_with("data: [DONE]\n\n"));
    let exposed = stream
        .header("access-control-expose-headers")
        .unwrap_or_default();
    assert!(exposed.contains("x-request-id"), "{exposed}");
    for (status, line, headers, body) in [
        (401, ("POST", "/v1/responses"), vec![JSON, page], "{}"),
        (400, ("POST", "/v1/responses"), with_key.to_vec(), "{"),
        (404, ("GET", "/v1/responses/resp_1"), with_key.to_vec(), ""),
        (404, ("GET", "/nowhere"), vec![page], ""),
        (405, ("DELETE", "/v1/models"), with_key.to_vec(), ""),
        (
            415,
            ("POST", "/v1/responses"),
            [&with_key[..], &[("content-encoding", "br")]].concat(),
            "{}",
        ),
    ] {
        let reply = gateway
            .client()
            .send(line.0, line.1, &headers, body.as_bytes());
        assert_eq!(
            (reply.status, allowed(&reply)),
            (status, Some(PAGE)),
            "{line:?}"
        );
    }
}

/// Another page's browser is told nothing; programs that have a key and send an `Origin` are served.
#[test]
fn other_pages_are_not_let_in() {
    let fake = Fake::start();
    let (gateway, bearer) = with_key(&fake);
    let other = "https://app.example.com.evil.example";
    let reply = preflight(&gateway, "/v1/responses", other, "POST");
    assert_eq!(allowed(&reply), None, "{}", reply.status);
    let headers = [("origin", other), ("authorization", bearer.as_str())];
    let reply = gateway.client().send("GET", "/v1/models", &headers, b"");
    assert_eq!((reply.status, allowed(&reply)), (200, None));
    assert!(
        reply
            .header("vary")
            .is_some_and(|vary| vary.to_ascii_lowercase().contains("origin"))
    );
}

#[test]
fn a_star_lets_every_page_in_and_names_none() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_CORS_ORIGINS", "*")
        .start();
    let reply = preflight(&gateway, "/v1/responses", PAGE, "POST");
    assert_eq!((reply.status, allowed(&reply)), (200, Some("*")));
    let reply = gateway
        .client()
        .send("GET", "/v1/models", &[("origin", PAGE)], b"");
    assert_eq!((reply.status, allowed(&reply)), (200, Some("*")));
}
