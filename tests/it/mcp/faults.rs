//! Hostile and broken servers: M2, M3, M4, M9, M10, M13.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::peer::{Hang, Peer};
use super::{calls, free_port, wait_available, write_file};
use crate::harness::gateway::Builder;
use crate::harness::{Fake, Script, TestGateway};

/// How a result ends of which the rest was not taken.
pub(super) const CUT: &str = "of which the first 1 MiB is shown]";

fn on(fake: &Fake, folder: &TempDir, peer: &Peer) -> Builder {
    let file = write_file(folder.path(), &json!({"p": {"url": peer.url()}}));
    TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .flag("--mcp-port")
        .flag(&free_port().to_string())
        .env("VR_MCP_HOSTED_TOOL_TIMEOUT_SEC", "3s")
}

#[test]
fn m2_m3_m9_m13_calls_that_go_wrong_are_items_and_the_rest_goes_on() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let names = [
        "hang", "huge", "status", "cut", "nonsense", "wrong_id", "rpc", "echo",
    ];
    let peer = Peer::start(&names);
    let gateway = on(&fake, &folder, &peer).start();
    let client = gateway.client();
    wait_available(client, "p");
    let made: Vec<String> = names.iter().map(|name| format!("mcp__p__{name}")).collect();
    let made: Vec<_> = made.iter().map(|name| (name.as_str(), "{}")).collect();
    fake.set("m", [calls(&made), Script::completion("done")]);
    let tools = json!([{"type": "mcp", "server_label": "p"}]);
    let resource = client
        .create(&json!({"model": "m", "input": "x", "tools": tools}))
        .json();
    assert_eq!(resource["status"], "completed");
    let output = resource["output"].as_array().unwrap();
    let item = |name: &str| output.iter().find(|item| item["name"] == name).unwrap();
    let error = |name: &str| item(name)["error"].clone();
    let says = |name: &str, part: &str| {
        let message = error(name)["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(message.contains(part), "{name}: {message}");
    };
    says(
        "hang",
        "MCP server `p` failed at tools/call: no answer within 3s",
    );
    assert_eq!(error("status")["type"], "http_error");
    assert_eq!(error("status")["code"], 502);
    says("cut", "broke off");
    says("nonsense", "did not answer with an MCP message");
    says("wrong_id", "did not answer with an MCP message");
    assert_eq!(error("rpc")["code"], -32050);
    says("rpc", "nope");
    let huge = item("huge")["output"].as_str().unwrap();
    assert!(huge.ends_with(CUT), "{}", huge.len());
    assert_eq!(item("echo")["output"], "echo says nothing");
    let order: Vec<_> = output[1..=names.len()]
        .iter()
        .map(|item| &item["name"])
        .collect();
    assert_eq!(order, names);
    // The notice follows the call, which nobody waits for any more.
    let until = Instant::now() + Duration::from_secs(10);
    while peer.count("notifications/cancelled") == 0 {
        assert!(Instant::now() < until, "the server was not told");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn m10_a_lost_session_is_made_again_once() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let peer = Peer::start(&["lost"]);
    let gateway = on(&fake, &folder, &peer).start();
    let client = gateway.client();
    wait_available(client, "p");
    let before = peer.count("initialize");
    fake.set(
        "m",
        [calls(&[("mcp__p__lost", "{}")]), Script::completion("done")],
    );
    let tools = json!([{"type": "mcp", "server_label": "p"}]);
    let resource = client
        .create(&json!({"model": "m", "input": "x", "tools": tools}))
        .json();
    assert_eq!(resource["output"][1]["output"], "lost says nothing");
    assert_eq!(peer.count("initialize"), before + 1);
}

#[test]
fn m4_m6_bombs_and_hidden_words_do_not_reach_the_model() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let mut bombs: Value = (0..3000)
        .map(|at| json!({"name": format!("t{at:04}"), "inputSchema": {"type": "object"}}))
        .collect();
    let mut deep = json!({});
    for _ in 0..20 {
        deep = json!({"properties": {"a": deep}});
    }
    let list = bombs.as_array_mut().unwrap();
    list.insert(0, json!({"name": "deep", "inputSchema": deep}));
    list.insert(
        0,
        json!({"name": "fat", "inputSchema": {"type": "object", "title": "x".repeat(70_000)}}),
    );
    list.insert(0, json!({"name": "ok", "description": "fine\u{200b}\u{e0041} text", "inputSchema": {"type": "object",
        "properties": {"a": {"$ref": "http://127.0.0.1:1/schema"}}}}));
    let peer = Peer::with(bombs, Hang::Never, None);
    let gateway = on(&fake, &folder, &peer).start();
    let client = gateway.client();
    wait_available(client, "p");
    let listed = client.get("/v1/mcp/servers/p/tools").json();
    let names: Vec<_> = listed["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 1024);
    assert!(!names.contains(&"deep") && !names.contains(&"fat"));
    let tools = json!([{"type": "mcp", "server_label": "p"}]);
    let refused = client.create(&json!({"model": "m", "input": "x", "tools": tools}));
    refused.error(400);
    fake.set("m", [Script::completion("x")]);
    let tools = json!([{"type": "mcp", "server_label": "p", "allowed_tools": ["ok"]}]);
    client
        .create(&json!({"model": "m", "input": "x", "tools": tools}))
        .json();
    let seen = fake.seen("m");
    let shown = &seen[seen.len() - 1].body["tools"];
    assert_eq!(shown.as_array().unwrap().len(), 1);
    assert_eq!(shown[0]["function"]["description"], "fine text");
}
