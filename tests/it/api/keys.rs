//! API keys: who may come in, and whose responses are whose.
//!
//! Mutations tried, each failed here: the owner left out of `fetch` or `chain` in the store's queries (T2);
//! SIGHUP that does not read keys again (T3); a request without a key that is let in (T4).

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::client::{Open, request};
use crate::harness::gateway::Builder;
use crate::harness::upstream::script::text;
use crate::harness::{Fake, Gate, Reply, Script, TestGateway, check_stream};

/// A fresh key and its line for the keys file.
pub(crate) fn new_key(name: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
        .args(["keys", "new", name])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let find = |start: &str| {
        text.lines()
            .find(|line| line.starts_with(start))
            .unwrap()
            .to_owned()
    };
    (find("vr-"), find(&format!("{name} ")))
}

pub(crate) fn ask(
    gateway: &TestGateway,
    key: Option<&str>,
    line: (&str, &str),
    body: &str,
) -> Reply {
    let bearer = key.map(|key| format!("Bearer {key}"));
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    gateway
        .client()
        .send(line.0, line.1, &headers, body.as_bytes())
}

#[test]
fn t2_t4_a_key_is_needed_and_sees_its_own_responses_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let ((ann, ann_line), (bob, bob_line)) = (new_key("ann"), new_key("bob"));
    fs::write(&file, format!("{ann_line}\n{bob_line}\n")).unwrap();
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", file.to_str().unwrap())
        .start();
    let create = ("POST", "/v1/responses");
    let body = json!({"model": "m", "input": "a"}).to_string();
    for stranger in [None, Some("vr-0"), Some("ann")] {
        for line in [create, ("GET", "/v1/models"), ("GET", "/v1/nowhere")] {
            let error = ask(&gateway, stranger, line, &body).error(401);
            assert_eq!(error, "invalid_api_key");
        }
    }
    let made = ask(&gateway, Some(&ann), create, &body).json();
    let id = made["id"].as_str().unwrap();
    let (mine, items) = (
        format!("/v1/responses/{id}"),
        format!("/v1/responses/{id}/input_items"),
    );
    let others = ask(&gateway, Some(&bob), ("GET", &mine), "");
    let unknown = ask(&gateway, Some(&bob), ("GET", "/v1/responses/resp_0"), "");
    assert_eq!(
        (others.status, others.text()),
        (unknown.status, unknown.text())
    );
    for line in [("GET", &*items), ("DELETE", &*mine)] {
        assert_eq!(ask(&gateway, Some(&bob), line, "").status, 404);
    }
    let next = json!({"model": "m", "input": "b", "previous_response_id": id}).to_string();
    let error = ask(&gateway, Some(&bob), create, &next).error(400);
    assert_eq!(error, "previous_response_not_found");
    assert_eq!(ask(&gateway, Some(&ann), ("GET", &mine), "").json(), made);
    assert_eq!(ask(&gateway, Some(&ann), create, &next).status, 200);

    // A bad file changes nothing; a good one takes a key away without a restart (fault T3).
    fs::write(&file, "nonsense\n").unwrap();
    gateway.signal(Signal::SIGHUP);
    sleep(Duration::from_millis(300));
    assert_eq!(
        ask(&gateway, Some(&bob), ("GET", "/v1/models"), "").status,
        200
    );
    fs::write(&file, format!("{ann_line}\n")).unwrap();
    gateway.signal(Signal::SIGHUP);
    let start = Instant::now();
    while ask(&gateway, Some(&bob), ("GET", "/v1/models"), "").status != 401 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the key is still good"
        );
        sleep(Duration::from_millis(20));
    }
    assert_eq!(ask(&gateway, Some(&ann), ("GET", &mine), "").status, 200);
    assert_eq!(gateway.client().get("/health").status, 200);
}

/// Paths that need no key: liveness, readiness, and metrics (decision 21).
const OPEN: [&str; 3] = ["/health", "/health/ready", "/metrics"];

/// Every path of the route table in `src/http/mod.rs`, with made-up ids.
fn routes() -> Vec<String> {
    let table = include_str!("../../../src/http/mod.rs");
    let mut routes = Vec::new();
    for (prefix, marker) in [("/v1", "web::resource(\""), ("", ".route(\"")] {
        for piece in table.split(marker).skip(1) {
            let path = piece.split('"').next().unwrap();
            let filled: String = path
                .split('{')
                .map(|part| {
                    part.split_once('}')
                        .map_or(part.to_owned(), |(_, rest)| format!("x{rest}"))
                })
                .collect();
            let prefix = if filled.starts_with("/health") {
                ""
            } else {
                prefix
            };
            routes.push(format!("{prefix}{filled}"));
        }
    }
    routes
}

#[test]
fn t4_every_route_denies_without_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, new_key("ann").1).unwrap();
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", file.to_str().unwrap())
        .start();
    let routes = routes();
    assert!(
        routes.len() >= 10 && routes.contains(&"/v1/responses/x/input_items".to_owned()),
        "{routes:?}"
    );
    for path in routes {
        for method in ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"] {
            let reply = ask(&gateway, None, (method, &path), "{}");
            if OPEN.contains(&&*path) {
                assert_ne!(reply.status, 401, "{method} {path}");
            } else {
                assert_eq!(reply.status, 401, "{method} {path} is open to everyone");
            }
        }
    }
    // Nothing of an open path tells what was asked of the gateway.
    assert!(
        !gateway
            .client()
            .get("/health/ready")
            .text()
            .contains("resp_")
    );
}

#[test]
fn t3_a_revoked_key_is_refused_within_a_second_and_its_stream_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let ((ann, ann_line), (bob, bob_line)) = (new_key("ann"), new_key("bob"));
    fs::write(&file, format!("{ann_line}\n{bob_line}\n")).unwrap();
    let (fake, gate) = (Fake::start(), Gate::default());
    fake.on(
        "m",
        [Script::stream().data(&text("a")).wait(&gate).end("stop")],
    );
    let gateway = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", file.to_str().unwrap())
        .start();
    let body = json!({"model": "m", "input": "a", "stream": true}).to_string();
    let bearer = format!("Bearer {bob}");
    let headers = [
        ("content-type", "application/json"),
        ("authorization", &*bearer),
    ];
    let mut open = Open::connect(gateway.client().address).unwrap();
    open.write(&request("POST", "/v1/responses", &headers, body.as_bytes()))
        .unwrap();
    open.read_until("output_text.delta");
    fs::write(&file, format!("{ann_line}\n")).unwrap();
    gateway.signal(Signal::SIGHUP);
    sleep(Duration::from_secs(1));
    for line in [("GET", "/v1/models"), ("POST", "/v1/responses")] {
        assert_eq!(
            ask(&gateway, Some(&bob), line, &body).error(401),
            "invalid_api_key"
        );
    }
    gate.open();
    let events = check_stream(&open.reply().unwrap().text());
    assert_eq!(events[events.len() - 1]["type"], "response.completed");
    assert_eq!(
        ask(&gateway, Some(&ann), ("GET", "/v1/models"), "").status,
        200
    );
}

#[test]
fn a_gateway_that_is_open_to_other_machines_says_so_once() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, new_key("ann").1).unwrap();
    let said = |settings: Builder| {
        let mut gateway = settings.start();
        gateway.signal(Signal::SIGTERM);
        gateway.wait_exit(Duration::from_secs(40));
        gateway.log().matches("no API keys are configured").count()
    };
    let local = TestGateway::on(&fake.url());
    let open = || local.clone().host("0.0.0.0");
    assert_eq!(said(local.clone()), 0);
    assert_eq!(said(open()), 1);
    assert_eq!(
        said(open().env("VR_API_KEYS_FILE", file.to_str().unwrap())),
        0
    );
}
