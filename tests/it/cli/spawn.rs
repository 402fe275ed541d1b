//! `serve -- MODEL`: vLLM and the gateway share one life. A script plays vLLM: it lists its model,
//! and starts a child that leaves its session, as vLLM's engine does.
//!
//! Mutation that makes the group fail: in `guardian.rs`, end at end-of-file without killing.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Place;

const FAKE: &str = r#"#!/usr/bin/env python3
import http.server, os, subprocess, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
engine = subprocess.Popen(["sleep", "600"], start_new_session=True)
with open("pids", "a") as pids:
    print(os.getpid(), engine.pid, file=pids, flush=True)
class Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", port), Models).serve_forever()
"#;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The gateway with its vLLM, and where its HTTP is.
fn start(place: &Place) -> (Child, u16) {
    let program = place.0.path().join("fake-vllm");
    fs::write(&program, FAKE).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let (port, vllm) = (free_port(), free_port());
    let child = Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
        .args([
            "serve",
            "--gateway-host",
            "127.0.0.1",
            "--gateway-port",
            &port.to_string(),
        ])
        .args(["--", "m", "--port", &vllm.to_string()])
        .env("VR_VLLM_BIN", &program)
        .current_dir(place.0.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, port)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(40), "{what}");
        sleep(Duration::from_millis(50));
    }
}

fn ready(port: u16) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .write_all(b"GET /health/ready HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// All processes that the fakes have been, engines included.
fn pids(folder: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(folder.join("pids")).unwrap_or_default();
    text.split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()))
        .collect()
}

fn is_alive(pid: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state
        .rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn p1_vllm_is_started_restarted_and_stopped_with_the_gateway() {
    let place = Place::new();
    let (mut gateway, port) = start(&place);
    until("the gateway is ready", || ready(port).is_some());
    let first = pids(place.0.path());
    kill(first[0], Signal::SIGKILL).unwrap();
    until("vLLM is back", || {
        ready(port).is_some_and(|seen| seen.contains("\"restarts\":1"))
    });
    until("the first one's engine is gone", || {
        !first.iter().copied().any(is_alive)
    });
    signal(&gateway, Signal::SIGTERM);
    assert_eq!(gateway.wait().unwrap().code(), Some(0));
    until("nothing is left", || {
        !pids(place.0.path()).into_iter().any(is_alive)
    });
}

#[test]
fn p4_a_killed_gateway_leaves_nothing_behind() {
    let place = Place::new();
    let (mut gateway, port) = start(&place);
    until("the gateway is ready", || ready(port).is_some());
    signal(&gateway, Signal::SIGKILL);
    gateway.wait().unwrap();
    until("nothing is left", || {
        !pids(place.0.path()).into_iter().any(is_alive)
    });
    assert_eq!(pids(place.0.path()).len(), 2);
}

#[test]
fn p10_a_taken_vllm_port_is_refused_before_anything_starts() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let args = [
        "serve",
        "--gateway-host",
        "127.0.0.1",
        "--gateway-port",
        "0",
    ];
    let args: Vec<&str> = args
        .into_iter()
        .chain(["--", "m", "--port", &port])
        .collect();
    let output = place.run(&args, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(super::text(&output.stderr).contains(&format!("vLLM's port {port} is taken")));
}
