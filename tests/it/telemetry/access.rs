//! The line of each request, a log that nobody reads, and lines of children.
//!
//! Mutation tried, it failed: the log written to stderr by the thread that logs.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::tree::{Tree, until};
use crate::harness::{Fake, Script, TestGateway, knobs};

/// More than fill the queue.
const REQUESTS: usize = 600;

/// Lines of requests to this route, once there are so many.
#[track_caller]
fn lines(gateway: &TestGateway, route: &str, count: usize) -> Vec<Value> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let log = gateway.log();
        let found: Vec<Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["target"] == "access" && line["route"] == route)
            .collect();
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < until, "{count} lines of {route}:\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn each_request_is_a_line_without_what_was_said() {
    let fake = Fake::start();
    fake.on("m", [Script::says("CANARY"), Script::completion("CANARY")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_LOG_FORMAT", "json")
        .start();
    let client = gateway.client();
    let made = client.create(&json!({"model": "m", "input": "CANARY", "stream": true}));
    assert_eq!(made.status, 200);
    let made = client
        .create(&json!({"model": "m", "input": "CANARY"}))
        .json();
    client.get("/v1/responses/CANARY?x=CANARY").error(404);
    client.get("/CANARY").error(404);
    let told = lines(&gateway, "/v1/responses", 2);
    for line in &told {
        assert_eq!(line["method"], "POST", "{line}");
        assert_eq!(
            (&line["status"], &line["model"]),
            (&json!(200), &json!("m"))
        );
        assert_eq!(
            (&line["input_tokens"], &line["output_tokens"]),
            (&json!(7), &json!(3))
        );
        assert!(line["ms"].is_u64() && line["request_id"].is_string() && line["cut"].is_null());
    }
    assert_eq!(told[1]["response_id"], made["id"]);
    assert_eq!(lines(&gateway, "/v1/responses/{id}", 1)[0]["status"], 404);
    assert_eq!(lines(&gateway, "unknown", 1)[0]["status"], 404);
    let log = gateway.log();
    assert!(
        !log.contains("\"input\"") && !log.contains("/health"),
        "{log}"
    );
    assert!(!log.contains("CANARY"), "{log}");
}

/// Who was denied asks by the id that the answer bore.
#[test]
fn a_denied_request_has_its_id_in_its_line() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, format!("ann {}\n", "0".repeat(64))).unwrap();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_LOG_FORMAT", "json")
        .env("VR_API_KEYS_FILE", keys.to_str().unwrap())
        .start();
    let denied = gateway.client().get("/v1/models");
    assert_eq!(denied.status, 401);
    let told = lines(&gateway, "/v1/models", 1);
    assert_eq!(told[0]["status"], 401);
    assert_eq!(
        told[0]["request_id"].as_str(),
        denied.header("x-request-id")
    );
}

#[test]
fn the_lines_of_requests_can_be_switched_off() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_LOG_ACCESS", "false")
        .start();
    gateway.client().get("/v1/models");
    assert!(!gateway.log().contains(" access: "), "{}", gateway.log());
}

/// What children write, and the gateway's own runtime, too.
#[test]
fn a_json_log_is_json_in_every_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mcp.json");
    let servers =
        json!({"mcpServers": {"s": {"command": "sh", "args": ["-c", "echo said by s >&2"]}}});
    std::fs::write(&file, servers.to_string()).unwrap();
    let flags = [
        "--code-interpreter",
        "disabled",
        "--mcp-config",
        file.to_str().unwrap(),
    ];
    let gateway = Tree::start("", &flags, &[("VR_LOG_FORMAT", "json")]);
    gateway.wait_ready();
    until("the server has written", || {
        gateway.log().contains("said by s")
    });
    let log = gateway.log();
    let mut components = std::collections::BTreeSet::new();
    // The last line may not be whole yet.
    for line in log
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?} in {log}"));
        assert!(
            object["time"].is_string() && object["level"].is_string(),
            "{line}"
        );
        components.extend(object["component"].as_str().map(str::to_owned));
    }
    assert!(
        components.contains("vllm") && components.contains("mcp-runtime"),
        "{components:?}"
    );
}

/// X4: a terminal that is stopped, a log driver that is stuck.
/// Lines of the log that had no room.
fn dropped(client: Client) -> u64 {
    let page = client.get("/metrics").text();
    let count = page
        .lines()
        .find_map(|line| line.strip_prefix("vllm_responses_log_lines_dropped_total "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[test]
fn a_log_that_nobody_reads_stops_neither_requests_nor_the_end() {
    let fake = Fake::start();
    fake.on("m", vec![Script::completion("ok"); REQUESTS]);
    let folder = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut child = Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
        .args([
            "serve",
            "--upstream",
            &fake.url(),
            "--gateway-host",
            "127.0.0.1",
        ])
        .args(["--gateway-port", &address.port().to_string()])
        .env("VR_LOG_MODEL_MESSAGES", "1")
        .env(knobs::DB_PATH, folder.path().join("it.db"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let client = Client { address };
    let until = Instant::now() + Duration::from_secs(30);
    while client
        .try_send("GET", "/health/ready", &[], b"")
        .map_or(0, |reply| reply.status)
        != 200
    {
        assert!(Instant::now() < until, "not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    // 64 KiB are in the pipe, 2 MiB in the queue; each request is logged with its 8 KiB.
    let body = json!({"model": "m", "input": "x".repeat(8192), "store": false});
    let mut asked = 0;
    while dropped(client) == 0 {
        assert!(asked < REQUESTS, "nothing is dropped");
        for _ in 0..20 {
            assert_eq!(client.create(&body).status, 200);
        }
        asked += 20;
    }
    assert_eq!(client.get("/health/ready").status, 200);
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        assert!(Instant::now() < until, "a full pipe holds the end up");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(ended.code(), Some(0));
    let mut rest = Vec::new();
    stderr.read_to_end(&mut rest).unwrap();
    // A full pipe is 16 pages, none of them need be full.
    assert!(rest.len() >= 16 * 1024, "{}", rest.len());
}
