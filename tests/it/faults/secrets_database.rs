//! T5 for the database's password: it stands in the environment of the gateway and nowhere else.
//!
//! Mutation tried, and it failed: the URL in the line that says the store is opened. Not tried yet: `VR_*`
//! left in the environment of children.

use std::fs;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::canary;
use crate::harness::postgres::{OwnServer, PASSWORD, Sql};
use crate::harness::tree::Tree;

/// In a prompt.
const PROMPT: &str = "canary-of-a-kept-prompt";
const PROGRAM: &str = env!("CARGO_BIN_EXE_vllm-responses");

#[track_caller]
fn search(sink: &str, bytes: &[u8]) {
    canary::search(sink, bytes, &[PASSWORD]);
}

/// An MCP server over pipes that only waits.
const MCP: &str = r#"
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("method") == "initialize":
        result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "s", "version": "1"}}
    elif asked.get("method") == "tools/list":
        result = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
    else:
        result = {}
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"#;

/// An `mcp.json` with that server.
fn mcp(folder: &TempDir) -> String {
    let script = folder.path().join("server.py");
    fs::write(&script, MCP).unwrap();
    let file = folder.path().join("mcp.json");
    let servers = json!({"mcpServers": {"s": {"command": "python3", "args": [script]}}});
    fs::write(&file, servers.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

/// What a command that names the database prints.
fn printed(arguments: &[&str], url: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(PROGRAM)
        .args(arguments)
        .current_dir(folder.path())
        .env("VR_DB_PATH", url)
        .env("RUST_LOG", "trace")
        .output()
        .unwrap();
    [output.stdout, output.stderr].concat()
}

/// Arguments and environment of everything that the gateway started.
fn search_children(gateway: u32) {
    let below = crate::harness::processes::descendants(gateway);
    assert!(
        below.len() >= 6,
        "guardians, vLLM, runtime, server: {below:?}"
    );
    for pid in below {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            if !bytes.is_empty() {
                search(&format!("{file} of a child"), &bytes);
            }
        }
    }
}

/// The tables, once the response of the client that left is there.
fn search_database(url: &str) {
    let mut sql = Sql::connect(url);
    crate::harness::tree::until("it is stored", || {
        sql.numbers("SELECT count(*) AS n FROM responses") == [1]
    });
    for table in ["responses", "settings", "seal_key", "cache_epoch"] {
        let found =
            format!("SELECT count(*) AS n FROM {table} AS r WHERE r::text LIKE '%{PASSWORD}%'");
        assert_eq!(sql.numbers(&found), [0], "{table}");
    }
}

#[test]
fn t5_the_database_password_stays_out_of_every_sink() {
    let Some(server) = OwnServer::start() else {
        return;
    };
    let (folder, url) = (TempDir::new().unwrap(), server.url());
    let env = [("VR_DB_PATH", url.as_str()), ("RUST_LOG", "trace")];
    let gateway = Tree::start("", &["--mcp-config", &mcp(&folder)], &env);
    gateway.wait_ready();
    let client = gateway.client();
    let body = json!({"model": "m", "input": PROMPT, "stream": true});
    let mut open = client.open(&body);
    open.read_until("output_text.delta");
    // It is kept although its client leaves.
    open.leave_fin();

    search_children(gateway.pid());
    let own = fs::read(format!("/proc/{}/cmdline", gateway.pid())).unwrap();
    search("the gateway's arguments", &own);
    for path in ["/v1/status", "/health/ready", "/v1/mcp/servers"] {
        search(path, &client.get(path).body);
    }
    search_database(&url);

    // Every way in which it cannot be reached.
    server.stop_at_once();
    let unread = client.get("/v1/responses/resp_0");
    assert_eq!(unread.status, 503, "{}", unread.text());
    search("the error of a read", &unread.body);
    search("the status page", &client.get("/v1/status").body);
    let log = gateway.log();
    // Statements have the prompt among their parameters, and the row of `seal_key` a secret.
    canary::search("the gateway's log", log.as_bytes(), &[PASSWORD, PROMPT]);
    assert!(!log.contains("tokio_postgres::query"), "{log}");
    let serve = [
        "serve",
        "--upstream",
        "http://127.0.0.1:9",
        "--gateway-port",
        "0",
    ];
    for url in [
        url.clone(),
        url.replace("tests:", "nobody:"),
        format!("{url}?sslmode=nonsense"),
    ] {
        search(
            "check-config",
            &printed(&["check-config", "--upstream", "http://h:1"], &url),
        );
        search("db status", &printed(&["db", "status"], &url));
        search("the error of a start", &printed(&serve, &url));
    }
    server.start_again();
    let wrong = url.replace("tests:", "nobody:");
    search("the error of a refusal", &printed(&serve, &wrong));
    search("db status", &printed(&["db", "status"], &url));
}
