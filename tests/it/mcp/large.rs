//! M3: results that are too large, or have no end.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::faults::CUT;
use super::peer::Peer;
use super::{calls, free_port, stdio, wait_available, write_file};
use crate::harness::{Fake, Script, TestGateway};

/// The most memory that a process had at once, in KiB.
fn peak(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let line = line.unwrap().trim().trim_end_matches(" kB");
    line.parse().unwrap()
}

#[track_caller]
fn assert_cut(item: &Value, begins: &str) {
    assert_eq!(item["status"], "completed", "{}", item["error"]);
    let output = item["output"].as_str().unwrap();
    assert!(output.starts_with(begins), "{}", output.len());
    assert!(output.ends_with(CUT), "{}", output.len());
    assert!(
        output.len() <= 1024 * 1024 && output.len() > 200_000,
        "{}",
        output.len()
    );
}

#[test]
fn m3_what_is_too_large_or_endless_is_cut_and_memory_stays_bounded() {
    let (fake, peer) = (
        Fake::start(),
        Peer::start(&["echo", "vast", "blocks", "endless", "endless_json"]),
    );
    let gateway = TestGateway::on(&fake.url())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &peer.address.to_string())
        .start();
    let tools = json!([{"type": "mcp", "server_label": "r", "server_url": peer.url(), "require_approval": "never"}]);
    let ask = |name: &str| {
        let name = format!("mcp__r__{name}");
        fake.set("m", [calls(&[(&name, "{}")]), Script::completion("x")]);
        let body = json!({"model": "m", "input": "x", "tools": tools, "store": false});
        gateway.client().create(&body).json()["output"][1].clone()
    };
    assert_eq!(ask("echo")["output"], "echo says nothing");
    let before = peak(gateway.pid());
    for (name, begins) in [
        ("vast", "beginsxxxx"),
        ("blocks", "one of a million\none of"),
        ("endless", "beginsxxxx"),
        ("endless_json", "beginsxxxx"),
    ] {
        assert_cut(&ask(name), begins);
    }
    let grown = peak(gateway.pid()) - before;
    assert!(grown < 64 * 1024, "{grown} KiB more");
    // The session is of use as before.
    let sessions = peer.count("initialize");
    assert_eq!(ask("echo")["output"], "echo says nothing");
    assert_eq!(peer.count("initialize"), sessions);
}

#[test]
fn m3_a_process_that_says_too_much_is_cut_and_goes_on() {
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
    let tools = json!([{"type": "mcp", "server_label": "p"}]);
    let ask = |name: &str| {
        let name = format!("mcp__p__{name}");
        fake.set("m", [calls(&[(&name, "{}")]), Script::completion("x")]);
        let body = json!({"model": "m", "input": "x", "tools": tools, "store": false});
        gateway.client().create(&body).json()["output"][1].clone()
    };
    let before = ask("pid")["output"].clone();
    assert_cut(&ask("big"), "yyyy");
    assert_eq!(ask("pid")["output"], before, "it is the same process");
    assert_cut(&ask("forever"), "zzzz");
}
