//! The examples of `docs/mcp.md`, each run as it stands but for addresses.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::peer::Peer;
use super::{calls, free_port, stdio, wait_available, write_file};
use crate::harness::{Fake, Script, TestGateway};

/// The example with this name behind its fence.
fn example(name: &str) -> Value {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/mcp.md")).unwrap();
    let fence = format!("```json {name}\n");
    let (_, rest) = page
        .split_once(&fence)
        .unwrap_or_else(|| panic!("no example {name}"));
    let (text, _) = rest.split_once("```").unwrap();
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_file_is_accepted_and_says_what_it_lacks() {
    let folder = TempDir::new().unwrap();
    let path = write_file(folder.path(), &example("mcp.json")["mcpServers"]);
    let check = |token: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vllm-responses"));
        command
            .args(["check-config", "--upstream", "http://h", "--mcp-config"])
            .arg(&path)
            .current_dir(folder.path())
            .env_clear();
        command.envs(token.map(|token| ("TICKETS_TOKEN", token)));
        command.output().unwrap()
    };
    assert_eq!(check(Some("t")).status.code(), Some(0));
    let lacking = check(None);
    let said = String::from_utf8_lossy(&lacking.stderr);
    assert_eq!(lacking.status.code(), Some(2));
    assert!(
        said.contains("`mcpServers.tickets.auth` must be resolvable: `TICKETS_TOKEN` is not set"),
        "{said}"
    );
}

#[test]
fn the_requests_do_what_the_page_says() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let (peer, mine) = (Peer::start(&["search", "close"]), Peer::start(&["search"]));
    let servers =
        json!({"tickets": {"url": peer.url()}, "files": stdio(folder.path(), &json!({}))});
    let file = write_file(folder.path(), &servers);
    let gateway = TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .flag("--mcp-port")
        .flag(&free_port().to_string())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &mine.address.to_string())
        .start();
    let client = gateway.client();
    wait_available(client, "tickets");
    fake.set(
        "MODEL",
        [
            calls(&[("mcp__tickets__search", "{}")]),
            Script::completion("done"),
        ],
    );
    let built_in = client.create(&example("built-in")).json();
    let listed = built_in["output"][0]["tools"].as_array().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(built_in["output"][1]["output"], "search says nothing");

    let mut remote = example("remote");
    remote["tools"][0]["server_url"] = json!(mine.url());
    fake.set("MODEL", [calls(&[("mcp__mine__search", "{}")])]);
    let waiting = client.create(&remote).json();
    let request = &waiting["output"][1];
    assert_eq!(request["type"], "mcp_approval_request");

    let mut approval = example("approval");
    approval["previous_response_id"] = waiting["id"].clone();
    approval["input"][0]["approval_request_id"] = request["id"].clone();
    approval["tools"][0]["server_url"] = json!(mine.url());
    fake.set("MODEL", [Script::completion("done")]);
    let done = client.create(&approval).json();
    assert_eq!(done["output"][0]["output"], "search says nothing", "{done}");
}
