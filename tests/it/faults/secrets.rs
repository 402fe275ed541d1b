//! T5: secrets through success and failure, and then looked for in everything that is written.
//!
//! Mutations tried: the tool's members echoed as they came; the tool choice echoed as it came; the
//! Redis URL in the line about an open breaker. Each failed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::api::keys::{ask, new_key};
use crate::harness::canary::search;
use crate::harness::collector::Collector;
use crate::harness::redis::{PASSWORD, Redis, free_port, url};
use crate::harness::{Fake, Reply, Script, TestGateway};

/// In tools and choices, at the places where clients put credentials, and where they should not.
const MCP_TOKEN: &str = "canary-mcp-token";
const MCP_HEADER: &str = "canary-mcp-header";
/// What the upstream wants; it alone may get it.
const UPSTREAM_KEY: &str = "canary-upstream-key";

/// A server that nobody reaches: what happens with one that answers is in `mcp::guard`.
fn mcp() -> Value {
    with_credentials("mcp")
}

/// A tool that is echoed and stored.
fn unserved() -> Value {
    with_credentials("carrier_pigeon")
}

fn with_credentials(kind: &str) -> Value {
    json!({"type": kind, "server_label": "s", "server_url": "https://mcp.example/",
        "authorization": MCP_TOKEN, "headers": {"x-token": MCP_HEADER},
        "deeper": [{"Authorization": MCP_TOKEN, "HEADERS": {"x": MCP_HEADER}}]})
}

/// Requests that are answered, fail in the gateway, and fail at the upstream.
fn requests(previous: &Value) -> Vec<Value> {
    let mut requests = Vec::new();
    for model in ["m", "s", "breaks", "refuses"] {
        let stream = model == "s" || model == "breaks";
        let base = json!({"model": model, "input": "a", "stream": stream, "tools": [unserved()]});
        let with = |name: &str, value: Value| {
            let mut body = base.clone();
            body[name] = value;
            body
        };
        let allowed = json!({"type": "allowed_tools", "mode": "auto", "tools": [unserved()]});
        requests.extend([
            base.clone(),
            with("store", json!(false)),
            with("previous_response_id", previous.clone()),
            with("previous_response_id", json!("resp_0")),
            with("tool_choice", unserved()),
            with("tool_choice", mcp()),
            with("tools", json!([mcp()])),
            with("tool_choice", allowed),
            with("tool_choice", json!(MCP_TOKEN)),
            with("authorization", json!(MCP_TOKEN)),
            with("headers", json!({"x": MCP_HEADER})),
            with("temperature", json!(MCP_TOKEN)),
            with("tools", json!([{"authorization": MCP_TOKEN}])),
            with(
                "tools",
                json!([unserved(), {"type": "function", "headers": MCP_HEADER}]),
            ),
            with("tools", json!(MCP_TOKEN)),
        ]);
    }
    requests
}

/// Answers, breaks off, or refuses, as the model says.
fn upstream() -> Fake {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    fake.on("s", [Script::says("ok")]);
    fake.on("breaks", [Script::stream().close_body()]);
    fake.on("refuses", [Script::error(400, "no")]);
    fake
}

/// Everything that clients were told, and the ids that they may ask for.
fn talk(gateway: &TestGateway, key: &str, told: &mut Vec<u8>) {
    let mut take = |reply: Reply| {
        for (name, value) in &reply.headers {
            told.extend_from_slice(format!("{name}: {value}\n").as_bytes());
        }
        told.extend_from_slice(&reply.body);
        reply
    };
    let create = ("POST", "/v1/responses");
    let first = json!({"model": "m", "input": "a", "tools": [unserved()]}).to_string();
    let first = take(ask(gateway, Some(key), create, &first)).json();
    let mut ids = vec![first["id"].clone()];
    for body in requests(&first["id"]) {
        let reply = take(ask(gateway, Some(key), create, &body.to_string()));
        if let Ok(resource) = serde_json::from_slice::<Value>(&reply.body) {
            ids.push(resource["id"].clone());
        }
    }
    for wrong in ["", "{", "[]", MCP_TOKEN] {
        take(ask(gateway, Some(key), create, wrong));
    }
    take(ask(gateway, Some("canary-wrong-key"), create, "{}"));
    for id in ids.iter().filter_map(Value::as_str) {
        for tail in ["", "/input_items"] {
            let path = format!("/v1/responses/{id}{tail}");
            take(ask(gateway, Some(key), ("GET", &path), ""));
        }
    }
    for path in ["/health/ready", "/v1/models", "/v1/nowhere", "/metrics"] {
        take(ask(gateway, Some(key), ("GET", path), ""));
    }
}

/// The bytes of every file of the database.
fn database(file: &Path) -> Vec<u8> {
    ["", "-wal", "-shm"]
        .iter()
        .filter_map(|tail| fs::read(format!("{}{tail}", file.display())).ok())
        .flatten()
        .collect()
}

/// Every key of Redis with its value.
fn redis_dump(redis: &Redis) -> Vec<u8> {
    let mut dump = Vec::new();
    for key in redis.keys() {
        let value: Vec<u8> = redis.command(&format!("GET {key}"));
        dump.extend_from_slice(key.as_bytes());
        dump.extend(value);
    }
    dump
}

fn check_config(redis_url: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
        .args(["check-config", "--upstream", "http://127.0.0.1:9"])
        .current_dir(folder.path())
        .env("VR_OPENAI_API_KEY", UPSTREAM_KEY)
        .env("VR_RESPONSE_STORE_CACHE", "1")
        .env("VR_REDIS_URL", redis_url)
        .env(
            "VR_DB_PATH",
            "postgres://tests:canary-database-password@127.0.0.1:9/tests",
        )
        .output()
        .unwrap();
    assert!(output.status.success());
    [output.stdout, output.stderr].concat()
}

fn canaries(key: &str) -> [&str; 6] {
    let wrong = "canary-wrong-key";
    [MCP_TOKEN, MCP_HEADER, UPSTREAM_KEY, PASSWORD, key, wrong]
}

/// One fault for each gateway: both make it say that it leaves Redis alone, and why.
fn break_redis(redis: &mut Redis, level: &str, meanwhile: impl FnOnce()) {
    if level == "debug" {
        redis.signal(Signal::SIGSTOP);
        meanwhile();
        redis.signal(Signal::SIGCONT);
    } else {
        redis.kill();
        meanwhile();
        redis.restart();
    }
}

#[test]
fn t5_secrets_stay_out_of_every_sink() {
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("keys");
    let (key, line) = new_key("ann");
    fs::write(&file, format!("{line}\n")).unwrap();
    let fake = upstream();
    // Without a Redis, the one that refuses is still a way for its password to get out.
    let mut redis = Redis::start(&[]);
    let redis_url = redis.as_ref().map_or_else(|| url(free_port()), Redis::url);
    let collector = Collector::start();
    for level in ["debug", "trace"] {
        let mut gateway = TestGateway::on(&fake.url())
            .env("VR_API_KEYS_FILE", file.to_str().unwrap())
            .env("VR_OPENAI_API_KEY", UPSTREAM_KEY)
            .env("VR_RESPONSE_STORE_CACHE", "1")
            .env("VR_REDIS_URL", &redis_url)
            .env("VR_INHERIT_TOOLS", "1")
            .env("RUST_LOG", level)
            .envs(&collector.env())
            .start();
        let mut told = Vec::new();
        talk(&gateway, &key, &mut told);
        let canaries = canaries(&key);
        search("database", &database(&gateway.db()), &canaries);
        if let Some(redis) = &mut redis {
            search("Redis", &redis_dump(redis), &canaries);
            break_redis(redis, level, || talk(&gateway, &key, &mut told));
        }
        assert!(gateway.log().contains("Redis is left alone"));
        search("answers", &told, &canaries);
        gateway.signal(Signal::SIGTERM);
        gateway.wait_exit(Duration::from_secs(40));
        search(
            &format!("log at {level}"),
            gateway.log().as_bytes(),
            &canaries,
        );
    }
    // Every canary begins so.
    let spans = collector.dump();
    search("spans", spans.as_bytes(), &[PASSWORD, &key, "canary-"]);
    for seen in fake.seen("m") {
        let sent = [format!("{:?}", seen.headers).into_bytes(), seen.raw].concat();
        search(
            "calls of the model",
            &sent,
            &[MCP_TOKEN, MCP_HEADER, PASSWORD, &key],
        );
    }
    let canaries = [UPSTREAM_KEY, PASSWORD, "canary-database-password"];
    search("check-config", &check_config(&redis_url), &canaries);
}
