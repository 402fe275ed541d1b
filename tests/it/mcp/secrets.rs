//! T5 for MCP: credentials of the file and of requests, through success and failure, and then looked for
//! in everything that is written. What is said between model and tool is kept, and nowhere but there.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::peer::{Hang, Peer, tools};
use super::{calls, free_port, wait_available, write_file};
use crate::harness::canary::search;
use crate::harness::redis::{self, Redis};
use crate::harness::{Fake, Script, TestGateway};

/// Of clients and of the file; nobody but their server may have them.
const SECRETS: [&str; 7] = [
    "canary-token",
    "canary-header",
    "canary-user",
    "canary-auth",
    "canary-fixed",
    "canary-variable",
    "canary-path",
];
/// Said to a tool, and by it: for the database and the client, not for logs and status pages.
const CONTENT: [&str; 1] = ["canary-argument"];

fn remote(label: &str, url: &str) -> Value {
    json!({"type": "mcp", "server_label": label, "server_url": url, "authorization": "canary-token",
        "headers": {"X-Key": "canary-header"}, "require_approval": "never"})
}

/// Calls that work and fail, and what is kept of them.
fn answers(fake: &Fake, gateway: &TestGateway, peer: &Peer) -> Vec<u8> {
    let client = gateway.client();
    let mut told = Vec::new();
    let arguments = r#"{"text":"canary-argument"}"#;
    let mut ids = Vec::new();
    for (label, name) in [
        ("r", "echo"),
        ("r", "status"),
        ("r", "hang"),
        ("r", "none"),
        ("r", "leak"),
        ("r", "leak_error"),
        ("r", "leak_rpc"),
        ("b", "leak"),
        ("b", "leak_error"),
        ("b", "echo"),
        ("b", "status"),
    ] {
        let called = format!("mcp__{label}__{name}");
        fake.set(
            "m",
            [calls(&[(&called, arguments)]), Script::completion("x")],
        );
        let tool = if label == "r" {
            remote("r", &peer.url())
        } else {
            json!({"type": "mcp", "server_label": "b"})
        };
        let reply = client.create(&json!({"model": "m", "input": "x", "tools": [tool]}));
        assert_eq!(reply.status, 200, "{}", reply.text());
        ids.push(reply.json()["id"].as_str().unwrap().to_owned());
        told.extend(reply.body);
    }
    for id in ids {
        for tail in ["", "/input_items"] {
            told.extend(client.get(&format!("/v1/responses/{id}{tail}")).body);
        }
    }
    told
}

/// Requests that fail in the gateway and at the server, and pages of the gateway's own.
fn errors_and_pages(gateway: &TestGateway, peer: &Peer, hanging: &Peer) -> Vec<u8> {
    let client = gateway.client();
    let mut errors = Vec::new();
    let userinfo = peer
        .url()
        .replace("http://", "http://canary-user:canary-user@");
    let choice = |tool: Value| json!({"model": "m", "input": "x", "tools": [remote("r", &peer.url())], "tool_choice": tool});
    for body in [
        json!({"model": "m", "input": "x", "tools": [remote("h", &hanging.url())]}),
        json!({"model": "m", "input": "x", "tools": [remote("u", &userinfo)]}),
        json!({"model": "m", "input": "x", "tools": [remote("p", "https://10.0.0.1/")]}),
        json!({"model": "m", "input": "x", "tools": [{"type": "mcp", "server_label": "r", "server_url": peer.url(), "headers": {"Host": "canary-header"}}]}),
        json!({"model": "m", "input": "x", "tools": [{"type": "mcp", "server_label": "r", "headers": {"X": "canary-header"}}]}),
        choice(
            json!({"type": "mcp", "server_label": "canary-header", "authorization": "canary-token"}),
        ),
        choice(
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "server_label": "r", "name": "none", "headers": {"x": "canary-header"}}]}),
        ),
    ] {
        let reply = client.create(&body);
        assert!(reply.status >= 400, "{body}");
        errors.extend(reply.body);
    }
    for path in [
        "/v1/status",
        "/v1/mcp/servers",
        "/v1/mcp/servers/b/tools",
        "/health/ready",
        "/metrics",
    ] {
        errors.extend(client.get(path).body);
    }
    errors
}

/// Every value in Redis.
fn dump(redis: &Redis) -> Vec<u8> {
    let keys = redis.keys().into_iter();
    let values = keys.map(|key| redis.command::<Vec<u8>>(&format!("GET {key}")));
    values.flatten().collect()
}

/// The bytes of the database.
fn database(gateway: &TestGateway) -> Vec<u8> {
    ["", "-wal"]
        .iter()
        .filter_map(|tail| std::fs::read(format!("{}{tail}", gateway.db().display())).ok())
        .flatten()
        .collect()
}

/// The operator's: one that works, one that hangs, one that is no program.
fn servers(peer: &Peer, hanging: &Peer) -> Value {
    json!({
        "b": {"url": format!("{}?key=canary-path", peer.url()), "auth": "canary-auth", "headers": {"X-Fixed": "canary-fixed"}},
        "gone": {"url": hanging.url(), "auth": "${HIDDEN}"},
        "none": {"command": "/no/such/program", "args": ["canary-fixed"], "env": {"KEY": "canary-variable"}},
    })
}

#[test]
fn t5_credentials_of_mcp_stay_out_of_every_sink() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let peer = Peer::start(&["echo", "status", "hang", "leak", "leak_error", "leak_rpc"]);
    let hanging = Peer::with(tools(&["echo"]), Hang::Initialize, None);
    let redis = Redis::start(&[]);
    let redis_url = redis
        .as_ref()
        .map_or_else(|| redis::url(redis::free_port()), Redis::url);
    let servers = servers(&peer, &hanging);
    let file = write_file(folder.path(), &servers);
    let mut gateway = TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .flag("--mcp-port")
        .flag(&free_port().to_string())
        .env("HIDDEN", "canary-variable")
        .env(
            "VR_MCP_REMOTE_ALLOWED_HOSTS",
            &format!("{},{}", peer.address, hanging.address),
        )
        .env("VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC", "1s")
        .env("VR_MCP_HOSTED_TOOL_TIMEOUT_SEC", "1s")
        .env("VR_RESPONSE_STORE_CACHE", "1")
        .env("VR_REDIS_URL", &redis_url)
        .env("RUST_LOG", "trace")
        .start();
    wait_available(gateway.client(), "b");
    let told = answers(&fake, &gateway, &peer);
    let others = errors_and_pages(&gateway, &peer, &hanging);
    let heads = peer.heads().join("\n");
    for given in [
        "canary-token",
        "canary-header",
        "canary-auth",
        "canary-fixed",
        "canary-path",
    ] {
        assert!(
            heads.contains(given),
            "{given} did not reach its server: the search would find nothing"
        );
    }
    search("answers", &told, &SECRETS);
    let everything = [&SECRETS[..], &CONTENT].concat();
    search("errors and pages", &others, &everything);
    search("database", &database(&gateway), &SECRETS);
    if let Some(redis) = &redis {
        search("Redis", &dump(redis), &SECRETS);
    }
    for seen in fake.seen("m") {
        search("calls of the model", &seen.raw, &SECRETS);
    }
    gateway.signal(Signal::SIGTERM);
    gateway.wait_exit(Duration::from_secs(40));
    let log = gateway.log();
    assert!(
        log.contains("MCP server `gone` failed"),
        "the runtime's log is in it"
    );
    search("log at trace", log.as_bytes(), &everything);
}
