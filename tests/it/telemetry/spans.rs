//! Spans of real requests: their names, who hangs below whom, and what other servers are told.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::collector::{Collector, Span};
use crate::harness::upstream::Seen;
use crate::harness::{Fake, Script, TestGateway};
use crate::mcp::peer::Peer;
use crate::mcp::{calls, free_port, stdio, wait_available, write_file};

const JSON: (&str, &str) = ("content-type", "application/json");
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

fn header(seen: &Seen, name: &str) -> Option<String> {
    let found = seen.headers.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone())
}

/// The only span of a name.
#[track_caller]
fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

fn has(spans: &[Span], name: &str) -> bool {
    spans.iter().any(|span| span.name == name)
}

#[test]
fn a_loop_with_a_tool_is_one_tree_below_the_client() {
    let (fake, collector, folder) = (Fake::start(), Collector::start(), TempDir::new().unwrap());
    let peer = Peer::start(&["echo"]);
    let file = write_file(folder.path(), &json!({"p": {"url": peer.url()}}));
    let gateway = TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .flag("--mcp-port")
        .flag(&free_port().to_string())
        .envs(&collector.env())
        // Of a trace that a client began, the client decides.
        .env("VR_TRACING_SAMPLE_RATIO", "0")
        .env("VR_OTEL_SERVICE_NAME", "gateway-under-test")
        .start();
    let client = gateway.client();
    wait_available(client, "p");
    let call = ("mcp__p__echo", r#"{"text":"hi"}"#);
    fake.set(
        "m",
        [
            Script::completion("first"),
            calls(&[call]),
            Script::completion("second"),
        ],
    );
    let first = client.create(&json!({"model": "m", "input": "x"})).json();
    let body = json!({"model": "m", "input": "x", "previous_response_id": first["id"],
        "tools": [{"type": "mcp", "server_label": "p", "require_approval": "never"}]});
    let parent = traceparent("01");
    let headers = [
        JSON,
        ("traceparent", parent.as_str()),
        ("tracestate", "vendor=1"),
        ("x-request-id", "rq-1"),
    ];
    let reply = client.send(
        "POST",
        "/v1/responses",
        &headers,
        body.to_string().as_bytes(),
    );
    assert_eq!(reply.status, 200, "{}", reply.text());
    let spans = collector.wait(|spans| has(spans, "POST /v1/responses"));
    assert!(
        spans.iter().all(|span| span.trace == TRACE),
        "ratio 0 begins no trace: {spans:#?}"
    );
    check_request(&spans, &reply.json());
    check_parts(&spans);
    check_told(&spans, &fake.seen("m")[1..], &peer.heads());
}

fn rounds(spans: &[Span]) -> Vec<&Span> {
    let rounds = spans.iter().filter(|span| span.name == "chat completions");
    rounds.collect()
}

#[track_caller]
fn check_request(spans: &[Span], made: &Value) {
    let request = only(spans, "POST /v1/responses");
    assert_eq!((request.parent.as_str(), request.kind), (PARENT, 2));
    assert_eq!(request.resource["service.name"], "gateway-under-test");
    assert_eq!(request.resource["service.instance.id"].len(), 32);
    let facts = [
        ("http.request.method", "POST"),
        ("http.route", "/v1/responses"),
        ("http.response.status_code", "200"),
        ("vllm_responses.request_id", "rq-1"),
        ("gen_ai.response.id", made["id"].as_str().unwrap()),
        ("gen_ai.usage.input_tokens", "14"),
        ("gen_ai.usage.output_tokens", "6"),
        ("vllm_responses.status", "completed"),
    ];
    for (name, value) in facts {
        assert_eq!(
            request.facts.get(name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
}

#[track_caller]
fn check_parts(spans: &[Span]) {
    let request = only(spans, "POST /v1/responses");
    for name in [
        "store load",
        "list_tools mcp",
        "execute_tool mcp",
        "store commit",
    ] {
        assert_eq!(
            (&only(spans, name).parent, only(spans, name).kind),
            (&request.id, 1),
            "{name}"
        );
    }
    let tool = only(spans, "execute_tool mcp");
    assert_eq!(tool.facts["vllm_responses.mcp_server"], "p");
    assert_eq!(rounds(spans).len(), 2);
    for round in rounds(spans) {
        assert_eq!((&round.parent, round.kind), (&request.id, 3));
        assert_eq!(round.facts["gen_ai.request.model"], "m");
        assert_eq!(round.facts["http.request.resend_count"], "0");
    }
}

/// What the model server and the MCP server were told.
#[track_caller]
fn check_told(spans: &[Span], seen: &[Seen], heads: &[String]) {
    let told: Vec<_> = seen
        .iter()
        .map(|seen| header(seen, "traceparent").unwrap())
        .collect();
    for round in rounds(spans) {
        assert!(
            told.contains(&format!("00-{TRACE}-{}-01", round.id)),
            "{told:?}"
        );
    }
    assert_eq!(header(&seen[0], "tracestate").as_deref(), Some("vendor=1"));
    let tool = only(spans, "execute_tool mcp");
    let called = format!("traceparent: 00-{TRACE}-{}-01", tool.id);
    assert!(
        heads
            .iter()
            .any(|head| head.contains(&called) && head.contains("tracestate: vendor=1")),
        "{heads:#?}"
    );
    assert!(
        heads.iter().all(|head| !head.contains("rq-1")),
        "only the trace goes on: {heads:#?}"
    );
}

#[test]
fn a_remote_server_is_told_of_the_trace_and_of_nothing_else() {
    let (fake, collector, peer) = (
        Fake::start(),
        Collector::start(),
        Peer::start(&["echo", "fail"]),
    );
    let gateway = TestGateway::on(&fake.url())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &peer.address.to_string())
        .envs(&collector.env())
        .start();
    let call = ("mcp__secretlabel__echo", r#"{"text":"hi"}"#);
    fake.set("m", [calls(&[call]), Script::completion("ok")]);
    let body = json!({"model": "m", "input": "x", "tools": [{"type": "mcp", "server_label": "secretlabel",
        "server_url": peer.url(), "require_approval": "never"}]});
    let headers = [
        JSON,
        ("cookie", "canary=1"),
        ("baggage", "canary=2"),
        ("x-request-id", "canary-3"),
    ];
    let reply = gateway.client().send(
        "POST",
        "/v1/responses",
        &headers,
        body.to_string().as_bytes(),
    );
    assert_eq!(
        reply.json()["output"][1]["output"],
        "echo says hi",
        "{}",
        reply.text()
    );
    let spans = collector.wait(|spans| has(spans, "POST /v1/responses"));
    let tool = only(&spans, "execute_tool mcp");
    assert_eq!(tool.parent, only(&spans, "POST /v1/responses").id);
    let called = format!("traceparent: 00-{}-{}-01", tool.trace, tool.id);
    let heads = peer.heads();
    assert!(
        heads.iter().any(|head| head.contains(&called)),
        "{heads:#?}"
    );
    assert!(
        heads.iter().all(|head| !head.contains("canary")),
        "{heads:#?}"
    );
    assert!(
        !collector.dump().contains("secretlabel"),
        "a client's label is the client's"
    );
}

#[test]
fn a_server_over_pipes_finds_the_trace_beside_the_arguments() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let file = write_file(
        folder.path(),
        &json!({"p": stdio(folder.path(), &json!({}))}),
    );
    let gateway = TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .flag("--mcp-port")
        .flag(&free_port().to_string())
        .start();
    wait_available(gateway.client(), "p");
    fake.set(
        "m",
        [calls(&[("mcp__p__meta", "{}")]), Script::completion("ok")],
    );
    let body = json!({"model": "m", "input": "x", "tools": [{"type": "mcp", "server_label": "p", "require_approval": "never"}]});
    let parent = traceparent("00");
    let headers = [JSON, ("traceparent", parent.as_str())];
    let reply = gateway.client().send(
        "POST",
        "/v1/responses",
        &headers,
        body.to_string().as_bytes(),
    );
    let said = reply.json()["output"][1]["output"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(said.contains(&parent), "{}", reply.text());
}

#[test]
fn ratio_one_records_and_ratio_zero_tells_others_so() {
    let (fake, collector) = (Fake::start(), Collector::start());
    fake.on("m", [Script::says("ok")]);
    let body = json!({"model": "m", "input": "x", "stream": true});
    let mut gateway = TestGateway::on(&fake.url()).envs(&collector.env()).start();
    assert_eq!(gateway.client().create(&body).status, 200);
    let spans = collector.wait(|spans| has(spans, "POST /v1/responses"));
    assert_eq!(only(&spans, "POST /v1/responses").parent, "");
    assert!(
        header(&fake.seen("m")[0], "traceparent")
            .unwrap()
            .ends_with("-01")
    );
    // An unsampled parent is honoured too; and what waits is sent at a stop.
    let parent = traceparent("00");
    let headers = [JSON, ("traceparent", parent.as_str())];
    gateway.client().send(
        "POST",
        "/v1/responses",
        &headers,
        body.to_string().as_bytes(),
    );
    assert_eq!(gateway.client().get("/v1/models").status, 200);
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit(Duration::from_secs(30)).success());
    let spans = collector.spans();
    only(&spans, "GET /v1/models");
    assert!(spans.iter().all(|span| span.trace != TRACE), "{spans:#?}");

    let silent = Collector::start();
    let mut gateway = TestGateway::on(&fake.url())
        .envs(&silent.env())
        .env("VR_TRACING_SAMPLE_RATIO", "0")
        .start();
    gateway.client().create(&body);
    let told = header(&fake.seen("m")[2], "traceparent").unwrap();
    assert!(told.ends_with("-00"), "{told}");
    gateway.signal(Signal::SIGTERM);
    gateway.wait_exit(Duration::from_secs(30));
    assert_eq!(silent.spans().len(), 0);
}

#[test]
fn while_off_a_clients_trace_goes_through_and_nothing_is_added() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let body = json!({"model": "m", "input": "x"}).to_string();
    let parent = traceparent("01");
    let given = ("traceparent", parent.as_str());
    for headers in [
        vec![JSON],
        vec![JSON, given, ("tracestate", "a=1"), ("tracestate", "b=2")],
        vec![JSON, given, given],
        vec![JSON, ("traceparent", "nonsense")],
    ] {
        gateway
            .client()
            .send("POST", "/v1/responses", &headers, body.as_bytes());
    }
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}).to_string();
    gateway.client().send(
        "POST",
        "/v1/chat/completions",
        &[JSON, given],
        chat.as_bytes(),
    );
    let told: Vec<_> = fake
        .seen("m")
        .iter()
        .map(|seen| header(seen, "traceparent"))
        .collect();
    let through = Some(parent.clone());
    assert_eq!(told, [None, through.clone(), None, None, through]);
    assert_eq!(
        header(&fake.seen("m")[1], "tracestate").as_deref(),
        Some("a=1,b=2")
    );
}

#[test]
fn failures_are_said_in_fixed_words() {
    let (fake, collector) = (Fake::start(), Collector::start());
    fake.on(
        "m",
        [Script::error(503, "canary-words"), Script::completion("ok")],
    );
    fake.on(
        "broken",
        [Script::stream()
            .data(&crate::harness::upstream::script::role())
            .reset()],
    );
    let gateway = TestGateway::on(&fake.url()).envs(&collector.env()).start();
    let client = gateway.client();
    assert_eq!(
        client
            .create(&json!({"model": "m", "input": "canary-prompt"}))
            .status,
        200
    );
    client
        .create(&json!({"model": "none", "input": "canary-prompt"}))
        .error(404);
    let broken = json!({"model": "broken", "input": "canary-prompt", "stream": true});
    client.create(&broken);
    client
        .send("POST", "/v1/responses", &[JSON], b"{")
        .error(400);
    let spans = collector.wait(|spans| {
        spans
            .iter()
            .filter(|span| span.name == "POST /v1/responses")
            .count()
            == 4
    });
    let attempts: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "chat completions")
        .collect();
    let of = |attempt: &str, failure: &str| {
        attempts
            .iter()
            .filter(|span| {
                span.facts["http.request.resend_count"] == attempt && span.failure == failure
            })
            .count()
    };
    assert_eq!(
        of("0", "the model server answered with an error"),
        2,
        "{attempts:#?}"
    );
    assert_eq!(of("1", ""), 1, "{attempts:#?}");
    assert_eq!(of("0", "the model server broke off"), 1, "{attempts:#?}");
    let statuses: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "POST /v1/responses")
        .map(|span| span.facts["http.response.status_code"].clone())
        .collect();
    assert_eq!(statuses, ["200", "404", "200", "400"]);
    assert!(!collector.dump().contains("canary"), "{}", collector.dump());
}
