//! Starts that are cut short, children that misbehave, and what the process ends with.
//!
//! Mutations that fail this group: give a loading child its whole grace; end with 1 whatever the
//! child's code; bind the gateway's port after vLLM is started; look for signals after start-up only.

use std::process::Command;
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use nix::sys::signal::{Signal, kill};
use serde_json::json;

use super::Place;
use crate::harness::check_stream;
use crate::harness::tree::{Tree, free_port, until};

/// A clean exit of a start that was cut short.
const SOON: Duration = Duration::from_secs(5);
/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9";

#[test]
fn a_start_that_waits_for_its_upstream_is_cut_short_cleanly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut gateway = Tree::bare(&["--upstream", NOWHERE], &[]);
        gateway.wait_log("upstream: waiting");
        gateway.signal(signal);
        assert_eq!(gateway.wait_exit(SOON).code(), Some(0));
    }
}

#[test]
fn a_start_that_waits_for_its_database_is_cut_short_cleanly() {
    let place = Place::new();
    let file = place.0.path().join("a.db").to_str().unwrap().to_owned();
    // Somebody else writes, so that the migration waits.
    let mut other = SqliteConnection::establish(&file).unwrap();
    other
        .batch_execute("PRAGMA journal_mode = WAL; BEGIN IMMEDIATE;")
        .unwrap();
    let mut gateway = Tree::bare(&["--upstream", NOWHERE], &[("VR_DB_PATH", &file)]);
    gateway.wait_log("store: opening");
    until("health is served", || gateway.health().is_some());
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit(SOON).code(), Some(0));
}

/// vLLM does not hear SIGTERM while its engine starts.
#[test]
fn a_start_that_waits_for_its_model_is_cut_short_cleanly() {
    for fake in ["load=600", "load=600 deaf"] {
        let mut gateway = Tree::start(fake, &["--vllm-ready-interval", "1s"], &[]);
        gateway.wait_log("waiting for vllm");
        gateway.wait_log("its last line: loading weights");
        gateway.signal(Signal::SIGTERM);
        assert_eq!(gateway.wait_exit(SOON).code(), Some(0), "{fake}");
        gateway.wait_nothing_left();
    }
}

#[test]
fn p5_a_deaf_vllm_is_killed_at_a_stop() {
    let mut gateway = Tree::start("deaf", &[], &[]);
    gateway.wait_ready();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit(Duration::from_secs(20)).code(), Some(0));
    gateway.wait_nothing_left();
}

#[test]
fn a_second_signal_does_not_wait_for_a_deaf_vllm() {
    let mut gateway = Tree::start("deaf", &[], &[]);
    gateway.wait_ready();
    gateway.signal(Signal::SIGTERM);
    gateway.wait_log("stopping the child processes");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit(SOON).code(), Some(143));
    gateway.wait_nothing_left();
}

#[test]
fn p1_a_response_of_a_dead_vllm_fails_truthfully_and_the_next_works() {
    let gateway = Tree::start("", &[], &[]);
    gateway.wait_ready();
    let body = json!({"model": "m", "input": "x", "stream": true});
    let mut open = gateway.client().open(&body);
    open.read_until("output_text.delta");
    kill(gateway.pids()[0], Signal::SIGKILL).unwrap();
    let events = check_stream(&open.reply().expect("no bare reset").text());
    assert_eq!(events[events.len() - 1]["type"], "response.failed");
    gateway.wait_restarts(1);
    let mut open = gateway.client().open(&body);
    open.read_until("output_text.delta");
    let page = gateway.client().get("/v1/status").json();
    assert_eq!(
        page["children"][0]["last_error"],
        "it ended while it was serving: killed by SIGKILL"
    );
}

/// Five failures are the last; what does not need the model is served on.
#[test]
fn p1_a_vllm_that_keeps_failing_is_given_up_and_stored_responses_are_served() {
    let mut gateway = Tree::start("later exit=3", &[], &[]);
    gateway.wait_ready();
    let client = gateway.client();
    let body = json!({"model": "m", "input": "x", "stream": true});
    let mut open = client.open(&body);
    open.read_until("output_text.delta");
    kill(gateway.pids()[0], Signal::SIGKILL).unwrap();
    let events = check_stream(&open.reply().expect("no bare reset").text());
    let id = events[0]["response"]["id"].as_str().unwrap().to_owned();
    until("vLLM is given up", || {
        gateway
            .health()
            .is_some_and(|(_, seen)| seen["vllm"]["phase"] == "failed")
    });
    assert_eq!(gateway.pids().len(), 2 * 5);
    let kept = client.get(&format!("/v1/responses/{id}")).json();
    assert_eq!(
        (&kept["status"], &kept["id"]),
        (&json!("failed"), &json!(id))
    );
    assert!(client.create(&body).status >= 500);
    assert_eq!(client.get("/health").status, 200);
    let page = client.get("/v1/status").json();
    let vllm = &page["children"][0];
    assert_eq!(
        (&page["ready"], &vllm["restarts"]),
        (&json!(false), &json!(4))
    );
    assert!(
        vllm["last_lines"].to_string().contains("arguments"),
        "{vllm}"
    );
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit(Duration::from_secs(20)).code(), Some(0));
    gateway.wait_nothing_left();
}

#[test]
fn p6_a_frozen_vllm_is_found_and_replaced() {
    let gateway = Tree::start("", &[], &[]);
    gateway.wait_ready();
    kill(gateway.pids()[0], Signal::SIGSTOP).unwrap();
    gateway.wait_restarts(1);
    let log = gateway.log();
    assert!(log.contains("has not answered 3 probes in a row"), "{log}");
}

#[test]
fn p10_a_second_gateway_on_the_port_starts_nothing() {
    let port = free_port();
    let first = Tree::start_at(port, "", &[], &[]);
    first.wait_ready();
    let mut second = Tree::start_at(port, "", &[], &[]);
    assert_eq!(second.wait_exit(Duration::from_secs(20)).code(), Some(1));
    assert_eq!(second.pids(), []);
    let log = second.log();
    assert!(log.contains("`--gateway-port`"), "{log}");
    assert_eq!(first.client().get("/health/ready").status, 200);
}

/// The code of a vLLM that never worked; its success is none.
#[test]
fn a_vllm_that_ends_before_it_is_ready_gives_its_code() {
    for (fake, code) in [("exit=3", 3), ("exit=0", 1)] {
        let mut gateway = Tree::start(fake, &[], &[]);
        let status = gateway.wait_exit(Duration::from_secs(30));
        assert_eq!(status.code(), Some(code), "{fake}");
        let log = gateway.log();
        assert!(log.contains("error: vLLM was given up"), "{log}");
        gateway.wait_nothing_left();
    }
}

#[test]
fn on_vllm_exit_stop_ends_the_gateway_with_the_code_of_the_signal() {
    let mut gateway = Tree::start("", &["--on-vllm-exit", "stop"], &[]);
    gateway.wait_ready();
    kill(gateway.pids()[0], Signal::SIGKILL).unwrap();
    let status = gateway.wait_exit(Duration::from_secs(20));
    assert_eq!(status.code(), Some(137));
    gateway.wait_nothing_left();
}

#[test]
fn exit_code_130_is_for_a_second_ctrl_c() {
    let mut gateway = Tree::start("", &[], &[]);
    gateway.wait_ready();
    let body = json!({"model": "m", "input": "x", "stream": true});
    let mut open = gateway.client().open(&body);
    open.read_until("output_text.delta");
    gateway.signal(Signal::SIGINT);
    gateway.wait_log("stopping: running responses");
    gateway.signal(Signal::SIGINT);
    let events = check_stream(&open.reply().expect("no bare reset").text());
    assert_eq!(events[events.len() - 1]["type"], "response.failed");
    let status = gateway.wait_exit(Duration::from_secs(20));
    assert_eq!(status.code(), Some(130));
    gateway.wait_nothing_left();
}

/// On a terminal there is a banner, and its command works as it stands.
#[test]
fn the_banner_s_command_can_be_pasted() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: curl is not installed");
        return;
    }
    let fake = crate::harness::Fake::start();
    let word = crate::harness::upstream::script::text("hello");
    let answer = crate::harness::Script::stream().data(&word).end("stop");
    fake.on("test-model", [answer]);
    let place = Place::new();
    let script = r#"
import os, pty, re, signal, subprocess, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b""
while b"Ctrl-C stops it" not in shown:
    shown += os.read(terminal, 65536)
command = re.search(r"Try it:\n(.*?)\n\n", shown.decode().replace("\r", ""), re.S)[1]
print(command)
print(subprocess.run(["sh", "-c", command], capture_output=True, text=True).stdout)
os.kill(pid, signal.SIGTERM)
try:
    while os.read(terminal, 65536): pass
except OSError: pass
"#;
    let output = Command::new("python3")
        .args(["-c", script, env!("CARGO_BIN_EXE_vllm-responses"), "serve"])
        .args(["--upstream", &fake.url(), "--gateway-host", "127.0.0.1"])
        .args(["--gateway-port", &free_port().to_string()])
        .current_dir(place.0.path())
        .output()
        .unwrap();
    let shown = super::text(&output.stdout);
    assert!(shown.contains(r#""model":"test-model""#), "{shown}");
    assert!(shown.contains("event: response.completed"), "{shown}");
}

/// Elsewhere there is one line, with every fact in a field of its own.
#[test]
fn json_logs_have_one_line_for_ready() {
    let fake = crate::harness::Fake::start();
    let gateway = Tree::bare(&["--upstream", &fake.url()], &[("VR_LOG_FORMAT", "json")]);
    gateway.wait_ready();
    gateway.wait_log("ready_ms");
    let log = gateway.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ready: Vec<_> = lines.iter().filter(|l| l["message"] == "ready").collect();
    assert_eq!(ready.len(), 1, "{log}");
    let api = format!("http://{}/v1", gateway.client().address);
    assert_eq!(ready[0]["url"], api);
    assert_eq!(ready[0]["model"], "test-model");
    assert_eq!(ready[0]["store"], "SQLite, vllm_responses.db");
    assert!(!log.contains("curl"));
}
