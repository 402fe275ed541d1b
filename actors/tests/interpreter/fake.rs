//! A worker that says what a test wants it to say.
//!
//! Its script is one word: what it does with its first call, or instead of starting.

use std::io::{Read, Write, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;

use vllm_responses_actors::mask::Mask;
use vllm_responses_actors::process::{ChildSpec, EnvPolicy, Output, Stdin};

/// The first argument that makes the test binary a fake worker.
pub(crate) const ARGUMENT: &str = "__fake_worker";

/// How to start one.
pub(crate) fn spec(script: &str) -> ChildSpec {
    ChildSpec {
        name: "fake".into(),
        program: std::env::current_exe().unwrap().into(),
        args: vec![ARGUMENT.into(), script.into()],
        directory: None,
        env: EnvPolicy::Only(Vec::new()),
        stdin: Stdin::Piped,
        output: Output::Exchange,
        grace: Duration::ZERO,
        secrets: Mask::default(),
        limits: Vec::new(),
        sandbox: None,
    }
}

pub(crate) fn run(script: &str) -> ExitCode {
    match script {
        "never_ready" => return ExitCode::from(3),
        "not_ready_but" => send(r#"{"type":"warmed","modules":[]}"#),
        _ => send(r#"{"type":"ready","pyodide":"fake"}"#),
    }
    let mut id = 0;
    while let Some(message) = receive() {
        // The sign of life after a call.
        if message.starts_with(br#"{"type":"warm""#) {
            rest(script);
            send(r#"{"type":"warmed","modules":[]}"#);
            continue;
        }
        id += 1;
        send(&out(id, "before"));
        act(script, id);
        send(&format!(
            r#"{{"type":"result","id":{id},"error":null,"truncated":false}}"#
        ));
    }
    ExitCode::SUCCESS
}

fn act(script: &str, id: u64) {
    match script {
        "good" | "restless" | "works_on" => {}
        "slow" => std::thread::sleep(Duration::from_millis(300)),
        "oversize" => raw(&u32::MAX.to_be_bytes()),
        "wrong_id" => send(&out(id + 1, "x")),
        "old_id" => send(&out(id - 1, "x")),
        "deep" => send(&format!("{}1{}", "[".repeat(5000), "]".repeat(5000))),
        "garbage" => send("}{"),
        "twice_ready" => send(r#"{"type":"ready","pyodide":"fake"}"#),
        "bad_image" => send(&format!(r#"{{"type":"image","id":{id},"png":"PHN2Zz4="}}"#)),
        "exit" => std::process::exit(0),
        "truncated" => {
            raw(&[0, 0, 1, 0, b'{']);
            std::process::exit(0);
        }
        "half" => {
            raw(&[0, 0, 1, 0, b'{']);
            std::thread::sleep(Duration::from_secs(3600));
        }
        "flood" => loop {
            send(&out(id, &"x".repeat(1024 * 1024)));
        },
        "tiny_flood" => loop {
            send(&out(id, "x"));
        },
        "extra_result" => send(&format!(
            r#"{{"type":"result","id":{id},"error":"first","truncated":false}}"#
        )),
        other => panic!("no script `{other}`"),
    }
}

fn out(id: u64, text: &str) -> String {
    format!(r#"{{"type":"out","id":{id},"text":"{text}"}}"#)
}

fn send(json: &str) {
    raw(&u32::try_from(json.len()).unwrap().to_be_bytes());
    raw(json.as_bytes());
}

/// A gateway that is gone is the end of a fake worker.
fn raw(bytes: &[u8]) {
    let mut stdout = stdout().lock();
    if stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .is_err()
    {
        std::process::exit(1);
    }
}

/// Takes one message; `None` when there are no more.
fn receive() -> Option<Vec<u8>> {
    let mut head = [0; 4];
    stdin().lock().read_exact(&mut head).ok()?;
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap();
    let mut message = vec![0; length];
    stdin().lock().read_exact(&mut message).ok()?;
    Some(message)
}

/// What code of a call that was answered goes on with.
fn rest(script: &str) {
    match script {
        "restless" => std::thread::sleep(Duration::from_secs(3600)),
        // Looks at rest, and is not.
        "works_on" => drop(std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        })),
        _ => {}
    }
}
