//! Servers as they are: results in two forms, pictures, lists with a broken entry, sessions that are
//! forgotten in many ways, versions that are refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::odd::{Asked, Clock, Odd, Said};
use super::{calls, free_port, wait_available, write_file};
use crate::harness::{Fake, Script, TestGateway, check_resource};

const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

pub(super) fn get() -> Value {
    json!([{"name": "get", "description": "d", "inputSchema": {"type": "object", "properties": {}}}])
}

pub(super) fn remote(odd: &Odd) -> Value {
    json!([{"type": "mcp", "server_label": "r", "server_url": odd.url(), "require_approval": "never"}])
}

pub(super) fn gateway(fake: &Fake, odd: &Odd) -> TestGateway {
    TestGateway::on(&fake.url())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &odd.address.to_string())
        .start()
}

/// A server whose only tool gives this result.
fn giving(result: Value) -> Odd {
    Odd::start(move |asked| match asked.method() {
        "tools/call" => asked.result(&result),
        "" => Said::status(405),
        _ => asked.usual("2025-06-18", &get()),
    })
}

/// What the model was told in the last prompt, as content of the last tool message.
fn told(fake: &Fake) -> Value {
    let seen = fake.seen("m");
    let messages = seen[seen.len() - 1].body["messages"]
        .as_array()
        .unwrap()
        .clone();
    let tool = messages.iter().rfind(|message| message["role"] == "tool");
    tool.unwrap()["content"].clone()
}

#[test]
fn content_and_structured_content_both_reach_the_model() {
    let fake = Fake::start();
    for (result, output) in [
        (
            json!({"content": [{"type": "text", "text": "THE BODY"}], "structuredContent": {"bytes": 20}}),
            "THE BODY\n{\"bytes\":20}",
        ),
        (
            json!({"content": [{"type": "text", "text": "{\"bytes\": 20}"}], "structuredContent": {"bytes": 20}}),
            "{\"bytes\": 20}",
        ),
        (
            json!({"structuredContent": {"total": 36}}),
            "{\"total\":36}",
        ),
    ] {
        let odd = giving(result);
        let gateway = gateway(&fake, &odd);
        fake.set(
            "m",
            [calls(&[("mcp__r__get", "")]), Script::completion("end")],
        );
        let body = json!({"model": "m", "input": "x", "tools": remote(&odd)});
        let response = gateway.client().create(&body).json();
        check_resource(&response);
        assert_eq!(response["output"][1]["output"], output);
        assert_eq!(told(&fake), output);
    }
    let odd = giving(
        json!({"isError": true, "content": [{"type": "text", "text": "refused"}],
        "structuredContent": {"fault": "ASK"}}),
    );
    let gateway = gateway(&fake, &odd);
    fake.set(
        "m",
        [calls(&[("mcp__r__get", "")]), Script::completion("end")],
    );
    let body = json!({"model": "m", "input": "x", "tools": remote(&odd)});
    gateway.client().create(&body).json();
    assert_eq!(told(&fake), "error: refused\n{\"fault\":\"ASK\"}");
}

#[test]
fn pictures_reach_the_model_as_pictures_and_are_told_where_it_takes_none() {
    let fake = Fake::start();
    let odd = giving(json!({"content": [{"type": "text", "text": "shot"},
        {"type": "image", "data": PIXEL, "mimeType": "image/png"}]}));
    let gateway = gateway(&fake, &odd);
    let client = gateway.client();
    let url = format!("data:image/png;base64,{PIXEL}");
    let is_shown = |content: &Value| {
        assert_eq!(content[0]["text"], "shot\n[image image/png, 72 bytes]");
        assert_eq!(content[1]["image_url"]["url"], url, "{content}");
    };
    fake.set(
        "m",
        [calls(&[("mcp__r__get", "")]), Script::completion("end")],
    );
    let body = json!({"model": "m", "input": "x", "tools": remote(&odd)});
    let first = client.create(&body).json();
    is_shown(&told(&fake));
    assert!(
        !first["output"][1]["output"]
            .as_str()
            .unwrap()
            .contains("iVBOR")
    );
    // The picture is there in later turns: from the store, and from the client's own history.
    fake.set(
        "m",
        [Script::completion("two"), Script::completion("three")],
    );
    client
        .create(&json!({"model": "m", "input": "y", "previous_response_id": first["id"]}))
        .json();
    is_shown(&told(&fake));
    let mut history = first["output"].as_array().unwrap().clone();
    history.insert(0, json!({"role": "user", "content": "x"}));
    history.push(json!({"role": "user", "content": "y"}));
    client
        .create(&json!({"model": "m", "input": history}))
        .json();
    is_shown(&told(&fake));
    // A model without vision is asked again, in words.
    let refusal = Script::error(400, "m is not a multimodal model");
    fake.set(
        "m",
        [
            calls(&[("mcp__r__get", "")]),
            refusal,
            Script::completion("end"),
        ],
    );
    let blind = client.create(&body).json();
    assert_eq!(blind["status"], "completed", "{blind}");
    let words = told(&fake);
    assert!(
        words
            .as_str()
            .unwrap()
            .contains("not shown: this model takes none"),
        "{words}"
    );
}

#[test]
fn one_bad_entry_costs_that_entry_and_a_tool_without_arguments_works() {
    let fake = Fake::start();
    for (odd_tool, works) in [
        (
            json!({"name": "odd", "description": "d", "inputSchema": null}),
            true,
        ),
        (json!({"name": "odd"}), true),
        (
            json!({"name": "odd", "inputSchema": {"type": "object", "properties": null}}),
            true,
        ),
        (json!(null), false),
        (json!({"description": "no name"}), false),
        (
            json!({"name": "odd", "inputSchema": {"type": "array", "items": {}}}),
            false,
        ),
    ] {
        let good = json!({"name": "good", "description": "d", "inputSchema": {"type": "object"}});
        let tools = json!([good, odd_tool]);
        let odd = Odd::start(move |asked| asked.usual("2025-06-18", &tools));
        let gateway = gateway(&fake, &odd);
        let name = if works { "mcp__r__odd" } else { "mcp__r__good" };
        fake.set("m", [calls(&[(name, "")]), Script::completion("end")]);
        let body = json!({"model": "m", "input": "x", "tools": remote(&odd)});
        let response = gateway.client().create(&body).json();
        assert_eq!(response["output"][1]["output"], "fine", "{response}");
        let listed = response["output"][0]["tools"].as_array().unwrap().len();
        assert_eq!(listed, 1 + usize::from(works));
    }
}

/// A server that forgets its sessions at times, and says so in one of many ways.
fn forgetful(how: usize, generation: Arc<Clock>) -> Odd {
    Odd::start(move |asked| {
        let current = format!("s{}", generation.now());
        if asked.method() == "initialize" {
            return asked.usual("2025-06-18", &get()).in_session(&current);
        }
        if asked.message.is_null() {
            return Said::status(405);
        }
        if asked.session() == Some(&current) {
            return asked.usual("2025-06-18", &get());
        }
        let id = &asked.message["id"];
        match how {
            0 => Asked::error(400, -32001, "Session not found", id),
            1 => Asked::error(410, -32001, "Session not found", id),
            2 => Asked::error(500, -32001, "Session not found", id),
            3 => Asked::error(400, -32000, "that session is not known here", &Value::Null),
            4 => Asked::error(200, -32001, "Session not found", id),
            5 => Said::text(404, "gone"),
            _ => Asked::error(404, -32000, "what?", &Value::Null),
        }
    })
}

#[test]
fn m10_a_session_forgotten_in_any_way_is_made_again_at_once() {
    let fake = Fake::start();
    for how in 0..7 {
        let generation = Arc::new(Clock::default());
        let odd = forgetful(how, Arc::clone(&generation));
        let folder = TempDir::new().unwrap();
        let file = write_file(folder.path(), &json!({"b": {"url": odd.url()}}));
        let gateway = TestGateway::on(&fake.url())
            .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &odd.address.to_string())
            .flag("--mcp-config")
            .flag(file.to_str().unwrap())
            .flag("--mcp-port")
            .flag(&free_port().to_string())
            .start();
        let client = gateway.client();
        wait_available(client, "b");
        let built_in = json!([{"type": "mcp", "server_label": "b"}]);
        for (label, tools) in [("r", remote(&odd)), ("b", built_in)] {
            for forgets in [false, true, true] {
                if forgets {
                    generation.tick();
                }
                let name = format!("mcp__{label}__get");
                fake.set("m", [calls(&[(&name, "{}")]), Script::completion("end")]);
                let begin = Instant::now();
                let body = json!({"model": "m", "input": "x", "tools": tools});
                let response = client.create(&body).json();
                let call = response["output"].as_array().unwrap();
                let call = call.iter().find(|item| item["type"] == "mcp_call").unwrap();
                assert_eq!(call["output"], "fine", "{how} {label}: {call}");
                assert!(begin.elapsed() < Duration::from_secs(30), "{how} {label}");
            }
        }
        let made = odd.count("tools/call");
        assert!(
            (6..=10).contains(&made),
            "{how}: {made} calls, each once more at most"
        );
    }
}

fn version_of(asked: &Asked<'_>) -> String {
    asked.message["params"]["protocolVersion"]
        .as_str()
        .unwrap_or("")
        .to_owned()
}

fn output_of(fake: &Fake, odd: &Odd) -> Value {
    let gateway = gateway(fake, odd);
    fake.set(
        "m",
        [calls(&[("mcp__r__get", "")]), Script::completion("end")],
    );
    let body = json!({"model": "m", "input": "x", "tools": remote(odd)});
    gateway.client().create(&body).json()
}

#[test]
fn a_version_that_is_refused_is_tried_again_with_one_that_is_named() {
    let fake = Fake::start();
    for way in 0..3 {
        let odd = Odd::start(move |asked| {
            if asked.method() != "initialize" || version_of(asked) == "2025-06-18" {
                return asked.usual("2025-06-18", &get());
            }
            match way {
                0 => Said::json(
                    &json!({"jsonrpc": "2.0", "id": asked.message["id"], "error": {"code": -32602,
                    "message": "protocol version not supported", "data": {"supported": ["2025-06-18"]}}}),
                ),
                1 => Said::text(
                    400,
                    "not spoken here; 2025-06-18, 2025-03-26 and 2024-11-05 are",
                ),
                _ => Asked::error(
                    400,
                    -32000,
                    "Unsupported protocol version (supported versions: 2025-06-18)",
                    &Value::Null,
                ),
            }
        });
        let response = output_of(&fake, &odd);
        assert_eq!(response["output"][1]["output"], "fine", "{way}: {response}");
        assert_eq!(odd.count("initialize"), 2, "{way}");
    }
    let odd = Odd::start(|asked| match asked.method() {
        "initialize" => Said::text(400, "only friends may come in"),
        _ => Said::status(404),
    });
    let refused = output_of(&fake, &odd);
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("HTTP status 400: only friends may come in"),
        "{message}"
    );
}

/// A server of 2026-07-28: no `initialize`, no session, no `ping`.
fn modern(asked: &Asked<'_>, polls: &Clock) -> Said {
    let meta = &asked.message["params"]["_meta"];
    let version = meta["io.modelcontextprotocol/protocolVersion"].as_str();
    let id = &asked.message["id"];
    match asked.method() {
        "initialize" | "ping" => Asked::error(404, -32601, "Method not found", id),
        _ if version != Some("2026-07-28") => Asked::error(400, -32022, "Unsupported protocol version", id),
        "server/discover" => asked.result(&json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "serverInfo": {"name": "new", "version": "1"},
            "ttlMs": 1000, "cacheScope": "private"})),
        "tools/list" => asked.result(&json!({"resultType": "complete", "ttlMs": 60000, "cacheScope": "private",
            "tools": [{"name": "get", "inputSchema": {"type": "object"}}, {"name": "ask", "inputSchema": {"type": "object"}},
                {"name": "later", "inputSchema": {"type": "object"}}]})),
        "tools/call" => match asked.message["params"]["name"].as_str() {
            Some("ask") => asked.result(&json!({"resultType": "input_required", "requestState": "s",
                "inputRequests": {"a": {"method": "elicitation/create", "params": {"mode": "form", "message": "who?",
                    "requestedSchema": {"type": "object", "properties": {}}}}}})),
            Some("later") => asked.result(&task("task", "working", None)),
            _ => asked.result(&json!({"resultType": "complete", "content": [{"type": "text", "text": "fine"}]})),
        },
        "tasks/get" if polls.tick() < 1 => asked.result(&task("complete", "working", None)),
        "tasks/get" => asked.result(&task("complete", "completed", Some(json!({"content": [{"type": "text", "text": "at last"}]})))),
        _ => Said::status(202),
    }
}

fn task(kind: &str, status: &str, result: Option<Value>) -> Value {
    let mut task = json!({"resultType": kind, "taskId": "t1", "status": status, "createdAt": "2026-11-29T00:00:00Z",
        "lastUpdatedAt": "2026-11-29T00:00:00Z", "ttlMs": 60000, "pollIntervalMs": 100});
    if let Some(result) = result {
        task["result"] = result;
    }
    task
}

#[test]
fn a_server_of_2026_07_28_is_discovered_its_tasks_are_polled_and_its_questions_end_the_call() {
    let fake = Fake::start();
    let polls = Clock::default();
    let odd = Odd::start(move |asked| modern(asked, &polls));
    let gateway = gateway(&fake, &odd);
    let made = [
        ("mcp__r__get", "{}"),
        ("mcp__r__ask", "{}"),
        ("mcp__r__later", "{}"),
    ];
    fake.set("m", [calls(&made), Script::completion("end")]);
    let body = json!({"model": "m", "input": "x", "tools": remote(&odd)});
    let response = gateway.client().create(&body).json();
    let output = response["output"].as_array().unwrap();
    assert_eq!(output[1]["output"], "fine", "{response}");
    let error = output[2]["error"]["message"].as_str().unwrap();
    assert!(error.contains("input from a person"), "{error}");
    assert_eq!(output[3]["output"], "at last", "{response}");
    assert_eq!(odd.count("tasks/get"), 2);
}
