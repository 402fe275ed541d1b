//! MCP through the real program: the operator's servers, servers of requests, the guard, hostile
//! servers. `peer` plays an MCP server over HTTP, `stdio.py` one over pipes.
//!
//! Mutations, not tried yet, that should make the groups fail: in `guard/mod.rs`, `Reach::Any` for everybody (guard); in
//! `keep.rs`, no second session (`built_in`, `faults`); in `remote.rs`, an entry that is always stale
//! (remote).

mod approvals;
mod built_in;
mod docs;
mod faults;
mod foreign;
mod guard;
mod hostile;
mod large;
mod leave;
mod lists;
mod odd;
pub(crate) mod peer;
mod poison;
mod programs;
mod remote;
mod secrets;
mod tls;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Script};

const STDIO: &str = include_str!("stdio.py");

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    listener.local_addr().expect("address").port()
}

/// Writes an `mcp.json` with these servers and the stdio server beside it.
pub(crate) fn write_file(folder: &Path, servers: &Value) -> PathBuf {
    std::fs::write(folder.join("stdio.py"), STDIO).expect("script");
    let path = folder.join("mcp.json");
    std::fs::write(&path, json!({ "mcpServers": servers }).to_string()).expect("file");
    path
}

/// The stdio server's entry.
pub(crate) fn stdio(folder: &Path, env: &Value) -> Value {
    json!({"command": "python3", "args": [folder.join("stdio.py")], "env": env})
}

/// The model calls these tools.
pub(crate) fn calls(calls: &[(&str, &str)]) -> Script {
    let calls = calls.iter().enumerate().map(|(at, (name, arguments))| {
        json!({"id": format!("call_{at}"), "type": "function", "function": {"name": name, "arguments": arguments}})
    });
    let message =
        json!({"role": "assistant", "content": null, "tool_calls": calls.collect::<Vec<_>>()});
    Script::message(&message, "tool_calls")
}

/// Asks until the answer is as wanted; what changes here changes within seconds.
#[track_caller]
fn eventually(client: Client, path: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(40);
    loop {
        let reply = client.get(path);
        let body = reply.json();
        if wanted(reply.status, &body) {
            return body;
        }
        assert!(
            Instant::now() < until,
            "{path} stays {} {body}",
            reply.status
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_available(servers: &Value, label: &str) -> bool {
    let list = servers["data"].as_array();
    list.into_iter()
        .flatten()
        .any(|server| server["server_label"] == label && server["available"] == true)
}

/// Waits until a built-in server is available.
#[track_caller]
pub(crate) fn wait_available(client: Client, label: &str) {
    eventually(client, "/v1/mcp/servers", |_, body| {
        is_available(body, label)
    });
}
