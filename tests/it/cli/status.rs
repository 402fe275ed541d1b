//! `GET /v1/status` and `vllm-responses status`.
//!
//! Mutations that fail this group: do not redact the upstream's key; leave `vllm` out of the
//! observers; serve the page outside `/v1`.

use std::fs;

use serde_json::{Value, json};
use vllm_responses::status::Status;

use super::{Place, text};
use crate::harness::tree::{Tree, until};
use crate::harness::upstream::script::text as word;
use crate::harness::{Fake, Script, TestGateway};

#[test]
fn every_component_is_on_the_page() {
    let gateway = Tree::start("", &["--code-interpreter", "disabled"], &[]);
    gateway.wait_ready();
    let reply = gateway.client().get("/v1/status");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen: Status = serde_json::from_slice(&reply.body).unwrap();
    assert!(!reply.text().contains("upstream-secret"));
    let child = &seen.children[0];
    let lines = child.last_lines.concat();
    assert!(
        lines.contains("arguments:") && lines.contains("***"),
        "{lines}"
    );
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"), "pid": seen.pid, "uptime_ms": seen.uptime_ms,
        "ready": true, "stop": "running", "in_flight": 0, "capacity": seen.capacity,
        "upstream": {"phase": "ready", "url": seen.upstream.url, "model": "m",
            "last_error": seen.upstream.last_error},
        "store": {"phase": "ready", "backend": "sqlite", "queued_writes": 0,
            "queue_capacity": 4096, "last_error": null},
        "cache": {"phase": "off", "redis": null},
        "children": [{"name": "vllm", "phase": "ready", "pid": gateway.pids()[0].as_raw(),
            "uptime_ms": child.uptime_ms.unwrap(), "restarts": 0, "last_error": null,
            "last_lines": child.last_lines}],
        "code_interpreter": null,
        "tools": [{"name": "code_interpreter", "state": "off", "remedy": null},
            {"name": "mcp", "state": "offered", "remedy": null}],
    });
    assert_eq!(reply.json(), expected);
}

#[test]
fn a_loading_vllm_is_on_the_page() {
    let gateway = Tree::start("once load=600", &[], &[]);
    until("the page is served while the model loads", || {
        let page = gateway.client().try_send("GET", "/v1/status", &[], b"");
        page.is_ok_and(|reply| {
            let page = reply.json();
            page["ready"] == false
                && page["upstream"]["phase"] == "starting"
                && page["children"][0]["last_lines"]
                    .to_string()
                    .contains("loading weights")
        })
    });
    assert_eq!(gateway.client().get("/health").status, 200);
}

/// Runs `status` against a gateway; exit code, stdout, stderr.
fn status(url: &str, args: &[&str], key: &str) -> (Option<i32>, String, String) {
    let all: Vec<&str> = ["status", "--url", url]
        .iter()
        .chain(args)
        .copied()
        .collect();
    let output = Place::new().run(&all, &[("VR_API_KEY", key)]);
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn the_command_shows_the_page_and_needs_the_key() {
    let place = Place::new();
    let made = text(&place.run(&["keys", "new", "ann"], &[]).stdout);
    let find = |start: &str| made.lines().find(|line| line.starts_with(start)).unwrap();
    let (key, file) = (find("vr-"), place.0.path().join("keys"));
    fs::write(&file, find("ann ")).unwrap();
    let fake = Fake::start();
    fake.on("m", [Script::stream().data(&word("a")).hold()]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", file.to_str().unwrap())
        .start();
    let url = format!("http://{}/v1", gateway.client().address);

    let (code, page, _) = status(&url, &[], key);
    assert_eq!(code, Some(0));
    assert!(
        page.contains(": ready\n") && page.contains("model test-model"),
        "{page}"
    );
    assert!(page.contains("SQLite") && page.contains("0 of"), "{page}");
    let (code, page, _) = status(&url, &["--json"], key);
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!((code, &page["ready"]), (Some(0), &json!(true)));

    let (code, out, error) = status(&url, &["--json"], "");
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.contains("`VR_API_KEY`"), "{error}");
    let (code, _, error) = status(&url, &[], "vr-CANARY");
    assert_eq!(code, Some(1));
    assert!(
        error.contains("refuses the key") && !error.contains("CANARY"),
        "{error}"
    );
    // A health check has no key.
    assert_eq!(status(&url, &["--ready"], "").0, Some(0));
}

#[test]
fn responses_that_run_are_counted() {
    let fake = Fake::start();
    fake.on("m", [Script::stream().data(&word("a")).hold()]);
    let gateway = TestGateway::on(&fake.url()).start();
    let mut open = gateway
        .client()
        .open(&json!({"model": "m", "input": "x", "stream": true}));
    open.read_until("output_text.delta");
    assert_eq!(gateway.client().get("/v1/status").json()["in_flight"], 1);
}

#[test]
fn a_gateway_that_is_not_there_is_code_1_and_bad_usage_2() {
    let nobody = format!("http://127.0.0.1:{}", crate::harness::tree::free_port());
    for args in [&[][..], &["--ready"]] {
        let (code, out, error) = status(&nobody, args, "");
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(
            error.contains("no gateway answers at http://127.0.0.1"),
            "{error}"
        );
    }
    assert_eq!(status("http://u:CANARY@h", &[], "").0, Some(2));
    assert_eq!(status(&nobody, &["--json", "--ready"], "").0, Some(2));
    // What answers but is no gateway.
    let fake = Fake::start();
    assert_eq!(status(&fake.url(), &[], "").0, Some(1));
}
