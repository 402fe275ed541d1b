//! G1, G2, G4: a stop ends every stream with a terminal event, then the tools, then the model server.
//!
//! Mutations that fail this group: exit as soon as the listener is closed; end the places without
//! waiting for the last words; the model server stopped before the tools.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::tree::{Tree, is_alive, until};
use crate::harness::upstream::script::text;
use crate::harness::{Fake, Gate, Script, TestGateway, check_stream, knobs};

#[test]
fn g1_stop_with_50_streams() {
    let (fake, gate) = (Fake::start(), Gate::default());
    fake.on(
        "ends",
        [Script::stream().data(&text("a")).wait(&gate).end("stop")],
    );
    fake.on("endless", [Script::stream().data(&text("a")).hold()]);
    let mut gateway = TestGateway::on(&fake.url())
        .env(knobs::SHUTDOWN_GRACE, "3s")
        .start();
    let mut streams: Vec<_> = (0..50)
        .map(|n| {
            let model = if n % 2 == 0 { "ends" } else { "endless" };
            let body = json!({"model": model, "input": "x", "stream": true});
            (model, gateway.client().open(&body))
        })
        .collect();
    for (_, open) in &mut streams {
        open.read_until("output_text.delta");
    }
    gateway.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(200));
    gate.open();
    for (model, mut open) in streams {
        let events = check_stream(&open.reply().expect("no bare reset").text());
        let want = if model == "ends" {
            "response.completed"
        } else {
            "response.failed"
        };
        assert_eq!(events[events.len() - 1]["type"], want);
    }
    assert_eq!(gateway.wait_exit(Duration::from_secs(20)).code(), Some(0));
}

/// Readiness goes, those that can finish do, the others fail and say so, and all of it is stored.
#[test]
fn g1_stop_with_500_streams() {
    let (fake, gate) = (Fake::start(), Gate::default());
    let begun = || Script::stream().data(&text("a"));
    fake.on("ends", [begun().wait(&gate).end("stop")]);
    fake.on("endless", [begun().hold()]);
    let mut gateway = TestGateway::on(&fake.url())
        .env(knobs::SHUTDOWN_GRACE, "5s")
        .start();
    let mut streams: Vec<_> = (0..500)
        .map(|n| {
            let model = if n % 2 == 0 { "ends" } else { "endless" };
            let body = json!({"model": model, "input": "x", "stream": true});
            (model, gateway.client().open(&body))
        })
        .collect();
    for (_, open) in &mut streams {
        open.read_until("output_text.delta");
    }
    gateway.signal(Signal::SIGTERM);
    let told_to_stop = Instant::now();
    while gateway.client().get("/health/ready").status != 503 {
        assert!(
            told_to_stop.elapsed() < Duration::from_secs(4),
            "still ready"
        );
    }
    let refused = gateway
        .client()
        .create(&json!({"model": "ends", "input": "x"}));
    refused.error(503);
    assert!(refused.header("retry-after").is_some());
    gate.open();
    let told: Vec<Value> = streams
        .into_iter()
        .map(|(model, mut open)| {
            let events = check_stream(&open.reply().expect("no bare reset").text());
            let last = &events[events.len() - 1]["response"];
            let status = if model == "ends" {
                "completed"
            } else {
                "failed"
            };
            assert_eq!(last["status"], status, "{model}");
            if model == "endless" {
                assert_eq!(last["error"]["code"], "server_error");
            }
            assert_eq!(last["store"], true);
            last.clone()
        })
        .collect();
    assert_eq!(gateway.wait_exit(Duration::from_secs(20)).code(), Some(0));
    gateway.restart();
    for told in told {
        let path = format!("/v1/responses/{}", told["id"].as_str().expect("id"));
        assert_eq!(gateway.client().get(&path).json(), told);
    }
}

#[test]
fn g2_second_signal_ends_at_once_with_terminal_events() {
    let fake = Fake::start();
    fake.on("m", [Script::stream().data(&text("a")).hold()]);
    let mut gateway = TestGateway::on(&fake.url()).start();
    let body = json!({"model": "m", "input": "x", "stream": true});
    let mut streams: Vec<_> = (0..50).map(|_| gateway.client().open(&body)).collect();
    for open in &mut streams {
        open.read_until("output_text.delta");
    }
    gateway.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(200));
    gateway.signal(Signal::SIGTERM);
    for mut open in streams {
        let events = check_stream(&open.reply().expect("no bare reset").text());
        assert_eq!(events[events.len() - 1]["type"], "response.failed");
    }
    assert_eq!(gateway.wait_exit(Duration::from_secs(10)).code(), Some(143));
}

/// An MCP server that says which process it is.
const SERVER: &str = r#"
import json, os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
for line in sys.stdin:
    asked = json.loads(line)
    result = {"tools": []}
    if asked.get("method") == "initialize":
        result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "s", "version": "1"}}
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"#;

#[test]
fn g4_streams_end_first_then_tools_then_the_model_server() {
    let folder = TempDir::new().unwrap();
    let [script, noted, file] =
        ["server.py", "pid", "mcp.json"].map(|name| folder.path().join(name));
    std::fs::write(&script, SERVER).unwrap();
    let servers = json!({"mcpServers": {"s": {"command": "python3", "args": [script, noted]}}});
    std::fs::write(&file, servers.to_string()).unwrap();
    // A model server that does not hear SIGTERM outlives the tools by its grace.
    let flags = [
        "--mcp-config",
        file.to_str().unwrap(),
        "--shutdown-grace",
        "3s",
    ];
    let mut gateway = Tree::start("deaf", &flags, &[]);
    gateway.wait_ready();
    until("the MCP server runs", || noted.exists());
    let server = || {
        std::fs::read_to_string(&noted)
            .unwrap_or_default()
            .parse()
            .ok()
    };
    until("it says who it is", || server().is_some());
    let (server, vllm) = (Pid::from_raw(server().unwrap()), gateway.pids()[0]);
    let client = gateway.client();
    let mut open = client.open(&json!({"model": "m", "input": "x", "stream": true}));
    open.read_until("output_text.delta");
    gateway.signal(Signal::SIGTERM);
    gateway.wait_log("stopping: running responses");
    client
        .create(&json!({"model": "m", "input": "x"}))
        .error(503);
    assert!(is_alive(server) && is_alive(vllm), "the stream needs them");
    let events = check_stream(&open.reply().expect("no bare reset").text());
    assert_eq!(events[events.len() - 1]["type"], "response.failed");
    until("the tools are gone", || !is_alive(server));
    assert!(is_alive(vllm), "the model server goes last");
    assert_eq!(gateway.wait_exit(Duration::from_secs(40)).code(), Some(0));
    gateway.wait_nothing_left();
}

/// The fault: a store that was being opened was not closed, so that most of the database was in a file
/// beside it.
#[test]
fn a_stop_while_the_store_opens_leaves_one_file() {
    let fake = Fake::start();
    for delay in 0..10 {
        let place = TempDir::new().unwrap();
        let db = place.path().join("it.db");
        let mut gateway = TestGateway::on(&fake.url()).db(&db).begin();
        // Whoever looks seldom comes too late.
        let until = Instant::now() + Duration::from_secs(30);
        while !db.exists() {
            assert!(Instant::now() < until, "{}", gateway.log());
            thread::sleep(Duration::from_micros(200));
        }
        thread::sleep(Duration::from_millis(3 * delay));
        gateway.signal(Signal::SIGTERM);
        let status = gateway.wait_exit(Duration::from_secs(20));
        assert!(status.success(), "{status}");
        let beside = ["-wal", "-shm", "-journal"];
        let left: Vec<_> = beside
            .iter()
            .filter(|end| place.path().join(format!("it.db{end}")).exists())
            .collect();
        assert!(left.is_empty(), "{left:?} after {delay}: {}", gateway.log());
    }
}
