//! Programs of `mcp.json`: how their end is told, and what of their variables is.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{STDIO, calls, eventually, wait_available, write_file};
use crate::harness::tree::until;
use crate::harness::{Fake, Script, TestGateway};

fn start(fake: &Fake, folder: &TempDir, servers: &Value) -> TestGateway {
    let file = write_file(folder.path(), servers);
    TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .start()
}

fn shell(line: &str, env: &Value) -> Value {
    json!({"command": "/bin/sh", "args": ["-c", line], "env": env})
}

/// The fault: a program that ended at once was `the connection broke off`, without how and why.
#[test]
fn a_program_that_ends_is_told_with_its_end_and_its_last_line() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let servers = json!({
        "coded": shell("echo one >&2; echo 'boom: no such module' >&2; exit 3", &json!({})),
        "struck": shell("kill -9 $$", &json!({})),
        "hushed": shell("echo \"bad key $SOME_TOKEN\" >&2; exit 1", &json!({"SOME_TOKEN": "abcdefgh-1"})),
    });
    let gateway = start(&fake, &folder, &servers);
    for (label, expected) in [
        (
            "coded",
            "its program `sh` ended (exit status 3; its last line: boom: no such module)",
        ),
        (
            "struck",
            "its program `sh` ended (killed by SIGKILL; without a word on standard error)",
        ),
        (
            "hushed",
            "its program `sh` ended (exit status 1; its last line: bad key ***)",
        ),
    ] {
        let error = |servers: &Value| {
            let mut all = servers["data"]
                .as_array()
                .cloned()
                .unwrap_or_default()
                .into_iter();
            let own = all.find(|server| server["server_label"] == label);
            own.map_or(Value::Null, |own| own["error"].clone())
        };
        let servers = eventually(gateway.client(), "/v1/mcp/servers", |_, servers| {
            error(servers).is_string()
        });
        let said = error(&servers).to_string();
        assert!(said.contains(expected), "{said}");
        assert!(said.contains(&format!("`mcpServers.{label}`")), "{said}");
        until("the log has it", || gateway.log().contains(expected));
    }
    assert!(!gateway.log().contains("abcdefgh-1"));
}

/// What the operator gave a program may be a secret whatever its name: it comes back nowhere.
#[test]
fn t5_variables_of_a_program_come_back_in_no_result_list_or_log() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    std::fs::write(
        folder.path().join("said.py"),
        STDIO.replace("All variables", "For acc-00112233"),
    )
    .unwrap();
    let line = format!(
        "echo \"for $ACCOUNT with $GITHUB_TOKEN\" >&2; exec python3 {}/said.py",
        folder.path().display()
    );
    let env =
        json!({"ACCOUNT": "acc-00112233", "GITHUB_TOKEN": "correct-horse", "PLACE": "/srv/place"});
    let gateway = start(&fake, &folder, &json!({"p": shell(&line, &env)}));
    wait_available(gateway.client(), "p");
    fake.set(
        "m",
        [calls(&[("mcp__p__env", "{}")]), Script::completion("x")],
    );
    let tools = json!([{"type": "mcp", "server_label": "p"}]);
    let reply = gateway
        .client()
        .create(&json!({"model": "m", "input": "x", "tools": tools}));
    let said = reply.text();
    assert!(
        said.contains("/srv/place") && said.contains("For ***"),
        "{said}"
    );
    until("the log has it", || {
        gateway.log().contains("mcp p| for *** with ***")
    });
    let listed = gateway.client().get("/v1/mcp/servers/p/tools").text();
    for text in [said, listed, gateway.log(), format!("{:?}", fake.seen("m"))] {
        assert!(
            !text.contains("acc-00112233") && !text.contains("correct-horse"),
            "{text}"
        );
    }
}
