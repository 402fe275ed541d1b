//! `GET /metrics` of the real program: names, values, bounds, and who may see it.
//!
//! Mutations tried: a stream that is never taken off its gauge; models without `other`; the dashboard
//! with a name changed. Each failed.

mod files;
pub(crate) mod page;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::upstream::script::{delta, finish, text, tool_call};
use crate::harness::{Client, Fake, Script, TestGateway};
use page::Page;

/// Every family that a gateway with SQLite alone has after it has worked, without the prefix.
const FAMILIES: &[(&str, &str)] = &[
    ("buffered_bytes", "gauge"),
    ("buffered_bytes_limit", "gauge"),
    ("build_info", "gauge"),
    ("child_restarts", "counter"),
    ("child_up", "gauge"),
    ("component_up", "gauge"),
    ("http_in_flight_requests", "gauge"),
    ("http_request_duration_seconds", "histogram"),
    ("http_requests", "counter"),
    ("inter_token_gap_seconds", "histogram"),
    ("limits_judged_alone", "counter"),
    ("max_descriptors", "gauge"),
    ("log_lines_dropped", "counter"),
    ("mcp_server_startup", "counter"),
    ("mcp_server_up", "gauge"),
    ("open_descriptors", "gauge"),
    ("prompts_shortened", "counter"),
    ("ready", "gauge"),
    ("refused_requests", "counter"),
    ("response_places", "gauge"),
    ("responses", "counter"),
    ("responses_in_flight", "gauge"),
    ("responses_not_stored", "counter"),
    ("responses_shed", "counter"),
    ("sse_connections_in_flight", "gauge"),
    ("sse_stream_duration_seconds", "histogram"),
    ("store_commit_duration_seconds", "histogram"),
    ("store_connections", "gauge"),
    ("store_group_size", "histogram"),
    ("store_purged", "counter"),
    ("store_queued_writes", "gauge"),
    ("store_read_duration_seconds", "histogram"),
    ("store_reads", "counter"),
    ("store_write_retries", "counter"),
    ("store_writes", "counter"),
    ("time_to_first_token_seconds", "histogram"),
    ("tokens", "counter"),
    ("tool_calls_requested", "counter"),
    ("unserved_tools", "counter"),
    ("upstream_extra_bytes", "counter"),
    ("upstream_request_duration_seconds", "histogram"),
    ("upstream_requests", "counter"),
    ("uptime_seconds", "gauge"),
];

/// Looks until the page is so: a stream is off its gauge a moment after its last byte was read.
#[track_caller]
pub(crate) fn wait(client: Client, done: impl Fn(&Page) -> bool) -> Page {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let page = Page::of(client);
        if done(&page) {
            return page;
        }
        assert!(Instant::now() < until, "the page never became so");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stream_with_a_call() -> Script {
    Script::stream()
        .data(&delta(&json!({"role": "assistant", "content": ""})))
        .data(&text("hi"))
        .sleep(20)
        .all(&tool_call(0, "call_1", "f", &["{}"]))
        .end("tool_calls")
}

/// A gateway that has done a bit of everything.
fn worked(fake: &Fake) -> TestGateway {
    fake.on(
        "test-model",
        [
            stream_with_a_call(),
            Script::completion("ok"),
            Script::error(400, "no"),
        ],
    );
    fake.on("cut", [Script::stream().data(&text("a")).reset()]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let tools = json!([{"type": "function", "name": "f", "parameters": {}}, {"type": "computer"}, {"type": "made_up"}]);
    client.create(&json!({"model": "test-model", "input": "x", "stream": true, "tools": tools}));
    let made = client
        .create(&json!({"model": "test-model", "input": "x"}))
        .json();
    client.get(&format!("/v1/responses/{}", made["id"].as_str().unwrap()));
    client
        .create(&json!({"model": "test-model", "input": "x"}))
        .error(400);
    client
        .create(&json!({"model": "test-model", "input": 7}))
        .error(400);
    client.create(&json!({"model": "cut", "input": "x", "stream": true}));
    client.get("/v1/nothing/here").error(404);
    client.send("BREW", "/v1/models", &[], b"");
    client.get("/health");
    gateway
}

#[test]
fn every_family_is_there_once_it_has_something_to_say() {
    let fake = Fake::start();
    let gateway = worked(&fake);
    let page = Page::of(gateway.client());
    let found: Vec<(&str, &str)> = page
        .families
        .iter()
        .map(|(name, kind)| (name.strip_prefix("vllm_responses_").unwrap(), &**kind))
        // There where this machine has an interpreter.
        .filter(|(name, _)| !name.starts_with("interpreter_"))
        .collect();
    let missing: Vec<_> = FAMILIES.iter().filter(|f| !found.contains(f)).collect();
    let fresh: Vec<_> = found.iter().filter(|f| !FAMILIES.contains(f)).collect();
    assert!(
        missing.is_empty() && fresh.is_empty(),
        "missing {missing:?}, not listed {fresh:?}"
    );
}

/// Labels of one series.
type Labels = &'static [(&'static str, &'static str)];

const ROUTE: (&str, &str) = ("route", "/v1/responses");

/// What [`worked`] comes to.
const COUNTS: &[(&str, Labels, i64)] = &[
    (
        "http_requests_total",
        &[ROUTE, ("method", "POST"), ("status", "200")],
        3,
    ),
    ("http_requests_total", &[ROUTE, ("status", "400")], 2),
    (
        "http_requests_total",
        &[("route", "/v1/responses/{id}"), ("status", "200")],
        1,
    ),
    (
        "http_requests_total",
        &[("route", "unknown"), ("status", "404")],
        1,
    ),
    (
        "http_requests_total",
        &[("method", "other"), ("status", "405")],
        1,
    ),
    ("http_requests_total", &[], 8),
    ("http_request_duration_seconds_count", &[ROUTE], 5),
    ("http_in_flight_requests", &[], 0),
    ("sse_stream_duration_seconds_count", &[ROUTE], 2),
    (
        "responses_total",
        &[("status", "completed"), ("code", "none")],
        2,
    ),
    (
        "responses_total",
        &[("status", "failed"), ("code", "upstream_unavailable")],
        1,
    ),
    ("responses_total", &[("status", "refused")], 1),
    ("responses_total", &[], 4),
    ("upstream_requests_total", &[("outcome", "200")], 3),
    ("upstream_requests_total", &[("outcome", "400")], 1),
    ("upstream_requests_total", &[("outcome", "reset")], 1),
    (
        "time_to_first_token_seconds_count",
        &[("model", "test-model")],
        1,
    ),
    (
        "time_to_first_token_seconds_count",
        &[("model", "other")],
        1,
    ),
    (
        "tool_calls_requested_total",
        &[("tool_type", "function")],
        1,
    ),
    ("unserved_tools_total", &[("tool_type", "computer")], 1),
    ("unserved_tools_total", &[("tool_type", "other")], 1),
    ("store_writes_total", &[("outcome", "committed")], 3),
    ("store_reads_total", &[("outcome", "ok")], 1),
    ("store_group_size_sum", &[], 3),
    ("responses_not_stored_total", &[], 0),
    ("responses_in_flight", &[], 0),
    ("ready", &[], 1),
    ("component_up", &[], 2),
];

#[test]
fn what_happened_is_what_is_counted() {
    let fake = Fake::start();
    let gateway = worked(&fake);
    let page = wait(gateway.client(), |page| {
        page.count("sse_connections_in_flight", &[]) == 0
    });
    for (name, labels, expected) in COUNTS {
        assert_eq!(page.count(name, labels), *expected, "{name} {labels:?}");
    }
    let tokens = |kind| page.count("tokens_total", &[("model", "test-model"), ("kind", kind)]);
    assert_eq!((tokens("input"), tokens("output")), (14, 6));
    assert!(page.count("inter_token_gap_seconds_count", &[]) >= 1);
    assert!(page.count("open_descriptors", &[]) > 5);
    assert!(page.count("open_descriptors", &[]) < page.count("max_descriptors", &[]));
}

#[test]
fn a_stream_is_on_its_gauge_while_it_is_open() {
    let fake = Fake::start();
    fake.on("m", [Script::stream().data(&text("a")).hold()]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let open = client.open(&json!({"model": "m", "input": "x", "stream": true}));
    let open_now = |page: &Page| page.count("sse_connections_in_flight", &[]);
    let page = wait(client, |page| open_now(page) == 1);
    assert_eq!(page.count("responses_in_flight", &[]), 1);
    open.leave_reset();
    let page = wait(client, |page| {
        open_now(page) == 0 && page.count("responses_in_flight", &[]) == 0
    });
    assert_eq!(page.count("responses_total", &[("status", "cancelled")]), 1);
}

#[test]
fn t6_refusals_are_counted_by_their_reason() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_REQUESTS_PER_MINUTE", "1")
        .start();
    let client = gateway.client();
    let statuses =
        [200, 429, 429].map(|_| client.create(&json!({"model": "m", "input": "x"})).status);
    assert_eq!(statuses, [200, 429, 429]);
    let page = Page::of(client);
    let refused = |reason| page.count("refused_requests_total", &[("reason", reason)]);
    assert_eq!(["requests", "tokens", "places"].map(refused), [2, 0, 0]);
    assert!(page.count("buffered_bytes_limit", &[]) > 1_000_000);
}

#[test]
fn u10_bytes_behind_the_end_are_counted() {
    let fake = Fake::start();
    let script = Script::stream()
        .data(&text("a"))
        .data(&finish("stop"))
        .chunk("data: [DONE]\n\ndata: x\n\n")
        .close_body();
    fake.on("m", [script]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    client.create(&json!({"model": "m", "input": "x", "stream": true}));
    let page = wait(client, |page| page.count("responses_total", &[]) == 1);
    assert_eq!(page.count("upstream_extra_bytes_total", &[]), 9);
}

#[test]
fn t10_names_that_clients_invent_make_no_series() {
    let fake = Fake::start();
    let gateway = worked(&fake);
    let client = gateway.client();
    let before = Page::of(client).series();
    for number in 0..300 {
        client.create(&json!({"model": format!("m{number}"), "input": "x", "tools": [{"type": format!("t{number}")}]}));
        client.get(&format!("/v1/p{number}"));
        client.get(&format!("/p{number}"));
        client.get(&format!("/v1/responses/resp_{number}"));
        client.send(&format!("M{number}"), "/v1/models", &[], b"");
    }
    let page = Page::of(client);
    let fresh = page.series() - before;
    assert!(
        fresh <= 60 && page.series() < 2000,
        "{fresh} more, {} in all",
        page.series()
    );
    assert!(
        page.words("model")
            .is_subset(&["test-model", "other"].into()),
        "{:?}",
        page.words("model")
    );
}

#[test]
fn the_page_can_be_moved_closed_and_switched_off() {
    let fake = Fake::start();
    let off = TestGateway::on(&fake.url())
        .env("VR_METRICS_ENABLED", "0")
        .start();
    off.client().get("/metrics").error(404);
    let moved = TestGateway::on(&fake.url())
        .env("VR_METRICS_PATH", "/internal/m")
        .start();
    moved.client().get("/metrics").error(404);
    assert_eq!(moved.client().get("/internal/m").status, 200);
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let hash = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"; // of `foo`
    std::fs::write(&keys, format!("ann {hash}\n")).unwrap();
    for (closed, status) in [("0", 200), ("1", 401)] {
        let gateway = TestGateway::on(&fake.url())
            .env("VR_API_KEYS_FILE", keys.to_str().unwrap())
            .env("VR_METRICS_AUTH", closed)
            .start();
        let client = gateway.client();
        assert_eq!(
            client.get("/metrics").status,
            status,
            "VR_METRICS_AUTH={closed}"
        );
        let key = [("authorization", "Bearer foo")];
        assert_eq!(client.send("GET", "/metrics", &key, b"").status, 200);
    }
}
