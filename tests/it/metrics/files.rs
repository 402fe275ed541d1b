//! The dashboard and the alert rules of `deploy/` ask for nothing that a gateway does not show.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::page::Page;
use super::worked;
use crate::harness::redis::Redis;
use crate::harness::{Fake, Script, TestGateway};
use crate::mcp::peer::Peer;
use crate::mcp::{calls, free_port, wait_available, write_file};

const DASHBOARD: &str = include_str!("../../../deploy/grafana/vllm-responses.json");
const ALERTS: &str = include_str!("../../../deploy/prometheus/alerts.yaml");

/// Labels that the format or Prometheus itself adds.
const NO_LABELS: [&str; 2] = ["le", "instance"];

/// Every query of the dashboard, and of the rules.
fn queries() -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match value.as_str() {
                        Some(query) if name == "expr" => found.push(query.to_owned()),
                        _ => walk(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(&serde_json::from_str(DASHBOARD).unwrap(), &mut found);
    assert!(found.len() >= 20, "a dashboard of {} queries", found.len());
    let rules = ALERTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    let before = found.len();
    found.extend(rules.map(str::to_owned));
    assert!(found.len() >= before + 8, "{} rules", found.len() - before);
    found
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The metrics that a query names, each with the labels it selects by.
fn metrics(query: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (at, _) in query.match_indices("vllm_responses_") {
        let (_, rest) = query.split_at(at);
        let name: String = rest.chars().take_while(|letter| is_name(*letter)).collect();
        let (_, selected) = rest.split_at(name.len());
        let selected = selected.strip_prefix('{');
        let selected = selected.map_or("", |rest| rest.split('}').next().unwrap());
        let labels = selected
            .split(',')
            .filter_map(|pair| pair.split(['=', '!']).next());
        let labels = labels
            .map(|label| label.trim().to_owned())
            .filter(|label| !label.is_empty() && label != "instance");
        found.push((name, labels.collect()));
    }
    found
}

/// The labels that a query groups by.
fn grouped(query: &str) -> BTreeSet<&str> {
    let groups = query
        .split("by (")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    groups
        .flat_map(|labels| labels.split(',').map(str::trim))
        .collect()
}

#[test]
fn queries_are_taken_apart() {
    let query = r#"sum by (le, route) (rate(vllm_responses_a_bucket{route!="x",status=~"5.."}[5m])) / vllm_responses_b"#;
    let labels = vec!["route".to_owned(), "status".to_owned()];
    let expected = [
        ("vllm_responses_a_bucket".to_owned(), labels),
        ("vllm_responses_b".to_owned(), vec![]),
    ];
    assert_eq!(metrics(query), expected);
    assert_eq!(grouped(query), BTreeSet::from(["le", "route"]));
}

/// A gateway with Redis, a built-in MCP server and an interpreter where there is one.
fn with_everything(fake: &Fake, folder: &TempDir, (redis, peer): (&Redis, &Peer)) -> TestGateway {
    let servers = json!({"pipes": {"url": peer.url()}});
    let file = write_file(folder.path(), &servers);
    let gateway = TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .flag("--mcp-port")
        .flag(&free_port().to_string())
        .env("VR_RESPONSE_STORE_CACHE", "1")
        .env("VR_REDIS_URL", &redis.url())
        .start();
    wait_available(gateway.client(), "pipes");
    gateway
}

#[test]
fn dashboards_and_alerts_ask_for_what_there_is() {
    let fake = Fake::start();
    let folder = TempDir::new().unwrap();
    // Says why where there is none; CI has one.
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let plain = worked(&fake);
    let peer = Peer::start(&["echo", "fail"]);
    let full = with_everything(&fake, &folder, (&redis, &peer));
    fake.on(
        "calls",
        [
            calls(&[("mcp__pipes__echo", "{}"), ("mcp__pipes__fail", "{}")]),
            Script::completion("ok"),
        ],
    );
    let tools = json!([{"type": "mcp", "server_label": "pipes"}]);
    let made = full
        .client()
        .create(&json!({"model": "calls", "input": "x", "tools": tools}))
        .json();
    fake.on("test-model", [Script::completion("ok")]);
    full.client()
        .create(&json!({"model": "test-model", "input": "y", "previous_response_id": made["id"]}));
    let pages = [Page::of(plain.client()), Page::of(full.client())];
    let labels_of = |name: &str| pages.iter().find_map(|page| page.labels_of(name));
    let mut problems = Vec::new();
    for query in queries() {
        let mut known = BTreeSet::from(NO_LABELS);
        for (name, selected) in metrics(&query) {
            // Where no interpreter is installed its numbers are not there; CI has one.
            if name.starts_with("vllm_responses_interpreter_")
                && labels_of("vllm_responses_interpreter_processes").is_none()
            {
                continue;
            }
            let Some(labels) = labels_of(&name) else {
                problems.push(format!("{name} is not shown: {query}"));
                continue;
            };
            let unknown = selected
                .iter()
                .filter(|label| !labels.contains(label.as_str()));
            problems.extend(unknown.map(|label| format!("{name} has no label {label}: {query}")));
            known.extend(labels);
        }
        let unknown = grouped(&query)
            .into_iter()
            .filter(|label| !known.contains(label));
        problems.extend(unknown.map(|label| format!("nothing has the label {label}: {query}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
