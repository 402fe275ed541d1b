//! The code interpreter through the real program, with the real runtime: its processes below the
//! gateway (`spawned`), and as a service that gateways share (`service`, `faults`).
//!
//! `TEST_INTERPRETER_BUNDLE` names a bundle; without it these tests say that they are skipped.

mod faults;
mod hostile;
mod service;
mod spawned;

use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::client::{Open, request};
use crate::harness::tree::{free_port, until};
use crate::harness::{Client, Fake, Reply, Script, TestGateway, gateway, processes};

const TOKEN: &str = "service-CANARY";
const EXECUTE: &str = "/internal/interpreter/execute";
const STATUS: &str = "/internal/interpreter/status";

/// The bundle's folder.
fn bundle() -> Option<String> {
    let folder = std::env::var("TEST_INTERPRETER_BUNDLE").ok();
    if folder.is_none() {
        eprintln!("SKIPPED: set TEST_INTERPRETER_BUNDLE to an installed interpreter");
    }
    folder
}

/// The model runs this code, then says so.
fn runs(code: &str) -> [Script; 2] {
    let call = json!({"id": "call_0", "type": "function",
        "function": {"name": "code_interpreter", "arguments": json!({"code": code}).to_string()}});
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    [
        Script::message(&message, "tool_calls"),
        Script::completion("done"),
    ]
}

fn body(model: &str, container: &Value) -> Value {
    json!({"model": model, "input": "x", "include": ["code_interpreter_call.outputs"],
        "tools": [{"type": "code_interpreter", "container": container}]})
}

fn auto() -> Value {
    json!({"type": "auto"})
}

/// Runs code through the gateway in a fresh container; the whole response.
#[track_caller]
fn run(fake: &Fake, client: Client, code: &str) -> Value {
    fake.set("m", runs(code));
    let reply = client.create(&body("m", &auto()));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// The interpreter's item of a response.
#[track_caller]
fn call_of(response: &Value) -> &Value {
    let output = response["output"].as_array().expect("output");
    let item = output
        .iter()
        .find(|item| item["type"] == "code_interpreter_call");
    item.unwrap_or_else(|| panic!("no call in {response}"))
}

fn logs_of(response: &Value) -> String {
    let outputs = call_of(response)["outputs"].as_array();
    let logs = outputs.into_iter().flatten();
    logs.filter_map(|output| output["logs"].as_str()).collect()
}

/// What the model was told of its call.
fn told(fake: &Fake) -> String {
    let seen = fake.seen("m");
    let messages = &seen[seen.len() - 1].body["messages"];
    let last = messages.as_array().expect("messages").last().expect("one");
    assert_eq!(last["role"], "tool");
    last["content"].to_string()
}

/// A service that runs until it is dropped.
struct Service {
    child: Child,
    port: u16,
    folder: TempDir,
    bundle: String,
    env: Vec<(String, String)>,
}

impl Service {
    fn start(bundle: &str, env: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let port = free_port();
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let child = spawn(&folder, port, bundle, &env);
        let service = Self {
            child,
            port,
            folder,
            bundle: bundle.to_owned(),
            env,
        };
        service.wait_ready();
        service
    }

    /// Starts again on the same port.
    fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.folder, self.port, &self.bundle, &self.env);
        self.wait_ready();
    }

    fn wait_ready(&self) {
        until("the service is ready", || {
            let reply = self.client().try_send("GET", "/health", &[], b"");
            reply.is_ok_and(|reply| reply.status == 200)
        });
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn wait_exit(&mut self) -> ExitStatus {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < limit, "still runs: {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn client(&self) -> Client {
        Client {
            address: ([127, 0, 0, 1], self.port).into(),
        }
    }

    /// Asks it directly.
    fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        self.open(method, path, body).reply().expect("answer")
    }

    fn open(&self, method: &str, path: &str, body: &str) -> Open {
        let token = format!("Bearer {TOKEN}");
        let mut open = Open::connect(self.client().address).unwrap();
        let headers = [
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
        ];
        open.write(&request(method, path, &headers, body.as_bytes()))
            .unwrap();
        open
    }

    fn interpreters(&self) -> Value {
        self.ask("GET", STATUS, "").json()["status"].clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- service log ---\n{}", self.log());
        }
        self.kill();
    }
}

fn spawn(folder: &TempDir, port: u16, bundle: &str, env: &[(String, String)]) -> Child {
    let log = File::options()
        .append(true)
        .create(true)
        .open(folder.path().join("log"))
        .unwrap();
    Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
        .args(["code-interpreter", "--code-interpreter-bundle", bundle])
        .args(["--code-interpreter-port", &port.to_string()])
        .env("VR_CODE_INTERPRETER_TOKEN", TOKEN)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A gateway that uses the service at this URL.
fn gateway_on(fake: &Fake, url: &str) -> gateway::Builder {
    TestGateway::on(&fake.url())
        .flag("--code-interpreter")
        .flag("external")
        .flag("--code-interpreter-url")
        .flag(url)
        .env("VR_CODE_INTERPRETER_TOKEN", TOKEN)
}

/// An order as a gateway sends it.
fn order(owner: &str, container: &Value, code: &str) -> String {
    json!({"owner": owner, "container": container, "code": code,
        "limits": {"wall_ms": 30_000, "output_bytes": 1_048_576, "images": 10, "image_bytes": 5_242_880}})
    .to_string()
}
