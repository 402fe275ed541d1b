//! `serve -- MODEL` with a process tree in vLLM's place: a server and a child that leaves its
//! session, as vLLM's engine does. The environment variable `FAKE` says how it misbehaves.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::client::Client;

/// `FAKE` is a list of words: `load=S` serves after S seconds, `deaf` ignores SIGTERM, `exit=N` ends
/// with N at once, `later` does the rest in every process but the first, and `once` in the first only.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import http.server, os, signal, subprocess, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
words = dict((word.split("=") + [""])[:2] for word in os.environ.get("FAKE", "").split())
first = not os.path.exists("pids")
if ("later" if first else "once") in words: words = {}
if "deaf" in words: signal.signal(signal.SIGTERM, signal.SIG_IGN)
engine = subprocess.Popen(["sleep", "600"], start_new_session=True)
with open("pids", "a") as pids:
    print(os.getpid(), engine.pid, file=pids, flush=True)
print("arguments:", sys.argv[1:], flush=True)
if "load" in words:
    print("loading weights", flush=True)
    time.sleep(float(words["load"]))
if "exit" in words: os._exit(int(words["exit"]))
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
                         b'[{"index":0,"delta":{"role":"assistant","content":"a"},"finish_reason":null}]}\n\n')
        self.wfile.flush()
        time.sleep(600)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Server).serve_forever()
"#;

/// A gateway with its tree, ended with it.
pub(crate) struct Tree {
    child: Child,
    address: SocketAddr,
    place: TempDir,
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Waits for something to hold, with a margin for a busy machine.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

impl Tree {
    /// Starts the gateway; `fake` are the words for its vLLM, `flags` stand before `--`.
    pub(crate) fn start(fake: &str, flags: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start_at(free_port(), fake, flags, env)
    }

    /// As [`Tree::start`], on a given port.
    pub(crate) fn start_at(port: u16, fake: &str, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let place = TempDir::new().unwrap();
        let program = place.path().join("fake-vllm");
        fs::write(&program, PROGRAM).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let vllm = free_port().to_string();
        let behind = ["--", "m", "--port", &vllm, "--api-key", "upstream-secret"];
        let flags: Vec<&str> = flags.iter().copied().chain(behind).collect();
        let program = program.to_str().unwrap().to_owned();
        let mut env = env.to_vec();
        env.extend([("VR_VLLM_BIN", program.as_str()), ("FAKE", fake)]);
        Self::launch(place, port, &flags, &env)
    }

    /// A gateway without a vLLM of its own.
    pub(crate) fn bare(flags: &[&str], env: &[(&str, &str)]) -> Self {
        Self::launch(TempDir::new().unwrap(), free_port(), flags, env)
    }

    fn launch(place: TempDir, port: u16, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let log = fs::File::create(place.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
            .args(["serve", "--gateway-host", "127.0.0.1", "--gateway-port"])
            .arg(port.to_string())
            .args(flags)
            .envs(env.iter().copied())
            .current_dir(place.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            address: ([127, 0, 0, 1], port).into(),
            place,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the gateway or its vLLM has written this.
    #[track_caller]
    pub(crate) fn wait_log(&self, text: &str) {
        until(text, || self.log().contains(text));
    }

    pub(crate) fn client(&self) -> Client {
        Client {
            address: self.address,
        }
    }

    /// What `GET /health/ready` says, once it is answered.
    pub(crate) fn health(&self) -> Option<(u16, Value)> {
        let reply = self
            .client()
            .try_send("GET", "/health/ready", &[], b"")
            .ok()?;
        Some((reply.status, reply.json()))
    }

    #[track_caller]
    pub(crate) fn wait_ready(&self) {
        until("the gateway is ready", || {
            self.health().is_some_and(|(status, _)| status == 200)
        });
    }

    /// Waits until the gateway is ready and its vLLM has been started again this often.
    #[track_caller]
    pub(crate) fn wait_restarts(&self, restarts: u32) {
        until("vLLM is back", || {
            self.health()
                .is_some_and(|(status, seen)| status == 200 && seen["vllm"]["restarts"] == restarts)
        });
    }

    /// All processes that the fakes have been, each followed by its engine.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        let text = fs::read_to_string(self.place.path().join("pids")).unwrap_or_default();
        text.split_whitespace()
            .map(|pid| Pid::from_raw(pid.parse().unwrap()))
            .collect()
    }

    #[track_caller]
    pub(crate) fn wait_nothing_left(&self) {
        until("nothing is left", || !self.pids().into_iter().any(is_alive));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the gateway to end by itself.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "still runs: {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the gateway and its vLLM wrote.
    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        fs::File::open(self.place.path().join("log"))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- gateway log ---\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Neither gone nor a zombie.
pub(crate) fn is_alive(pid: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state
        .rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}
