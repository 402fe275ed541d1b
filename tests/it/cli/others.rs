//! Other users of the machine, and signals and limits that mean nothing to a gateway.
//!
//! Mutations, not tried yet: without `sys::hide` the secret is read in
//! `another_process_of_the_same_user_cannot_read_secrets`; without `sys::brace` the first signal ends the
//! gateway; with a vLLM whose socket is not looked for, the gateway calls the impostor ready.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use super::{Place, text};
use crate::harness::processes;
use crate::harness::tree::{Tree, free_port, until};
use crate::harness::{Fake, TestGateway};

/// `nobody`, on every Linux.
const OTHER: &str = "65534";

/// A command of another user; `None`, told loudly, where only root could be one.
fn as_other(program: &str) -> Option<Command> {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: a test with another user needs root");
        return None;
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            OTHER,
            "--regid",
            OTHER,
            "--clear-groups",
            "--",
            program,
        ])
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    Some(command)
}

/// Ended with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A copy of the program that everybody may run, wherever it was built.
fn program(place: &Place) -> String {
    let path = place.0.path().join("vllm-responses");
    std::fs::copy(env!("CARGO_BIN_EXE_vllm-responses"), &path).unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, open).unwrap();
    let all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(place.0.path(), all).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A third-party MCP server runs as the gateway's user: it must not find the gateway's secrets in `/proc`.
#[test]
fn another_process_of_the_same_user_cannot_read_secrets() {
    let (place, fake) = (Place::new(), Fake::start());
    let port = free_port();
    let Some(mut command) = as_other(&program(&place)) else {
        return;
    };
    crate::mcp::write_file(place.0.path(), &serde_json::json!({}));
    let child = command
        .args([
            "serve",
            "--upstream",
            &fake.url(),
            "--gateway-host",
            "127.0.0.1",
        ])
        .args([
            "--gateway-port",
            &port.to_string(),
            "--mcp-config",
            "mcp.json",
        ])
        .env("VR_OPENAI_API_KEY", "CANARY-KEY")
        .current_dir(place.0.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(place.0.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let gateway = Ended(child);
    let client = crate::harness::Client {
        address: ([127, 0, 0, 1], port).into(),
    };
    until("the gateway of another user is ready", || {
        let reply = client.try_send("GET", "/health/ready", &[], b"");
        reply.is_ok_and(|reply| reply.status == 200)
    });
    let mut all = vec![i32::try_from(gateway.0.id()).unwrap()];
    let runtime = processes::below(gateway.0.id(), |line| line.ends_with(b"\0mcp-runtime\0"));
    assert_eq!(runtime.len(), 1);
    all.extend(runtime);
    for pid in all {
        for secret in ["environ", "maps", "fd"] {
            let path = format!("/proc/{pid}/{secret}");
            let reading = if secret == "fd" { "ls" } else { "cat" };
            let output = as_other(reading).unwrap().arg(&path).output().unwrap();
            assert!(!output.status.success(), "{path}: {}", text(&output.stdout));
        }
    }
}

/// What started the gateway may have put secrets into its environment: `/proc` shows them nowhere, not to
/// root either, and no child has them. Without `sys::move_environment` the gateway's own is found.
#[test]
fn no_secret_of_the_environment_is_shown_or_handed_on() {
    let secrets = [
        ("VR_OPENAI_API_KEY", "CANARY-OF-THE-UPSTREAM"),
        ("VR_REDIS_URL", "redis://:CANARY-OF-THE-CACHE@127.0.0.1:9"),
        ("VR_ANYTHING_ELSE", "CANARY-OF-NOBODY"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let server = crate::mcp::stdio(folder.path(), &serde_json::json!({}));
    let file = crate::mcp::write_file(folder.path(), &serde_json::json!({"s": server}));
    let gateway = Tree::start("", &["--mcp-config", file.to_str().unwrap()], &secrets);
    gateway.wait_ready();
    until("the MCP server runs", || {
        processes::below(gateway.pid(), |line| line.ends_with(b"stdio.py\0")).len() == 1
    });
    let mut all = processes::descendants(gateway.pid());
    all.push(i32::try_from(gateway.pid()).unwrap());
    assert!(all.len() >= 8, "guardians, runtime, server, vLLM: {all:?}");
    for pid in all {
        let Ok(shown) = std::fs::read(format!("/proc/{pid}/environ")) else {
            continue;
        };
        let shown = String::from_utf8_lossy(&shown);
        assert!(!shown.contains("CANARY"), "{pid}: {shown}");
    }
}

#[test]
fn signals_without_a_meaning_end_nothing() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let pid = nix::unistd::Pid::from_raw(gateway.pid().try_into().unwrap());
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM] {
        nix::sys::signal::kill(pid, signal).unwrap();
    }
    thread::sleep(Duration::from_millis(200));
    assert_eq!(gateway.client().get("/health").status, 200);
}

/// Anybody who reaches the port can send what is no HTTP: it is told, and not once for each.
#[test]
fn strangers_that_do_not_speak_http_are_counted_in_one_line() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    for _ in 0..20 {
        let mut stream = std::net::TcpStream::connect(gateway.client().address).unwrap();
        std::io::Write::write_all(
            &mut stream,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        )
        .ok();
        stream.read_to_end(&mut Vec::new()).ok();
    }
    until("it is told", || {
        gateway.log().contains("no HTTP/1.1 request")
    });
    let log = gateway.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("no HTTP/1.1 request"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(
        lines[0].contains(" WARN ") && !log.contains(" ERROR "),
        "{log}"
    );
}

#[test]
fn too_few_descriptors_are_an_error_with_a_remedy() {
    let place = Place::new();
    let output = Command::new("sh")
        .arg("-c")
        .arg("ulimit -n 40; exec \"$0\" serve --upstream http://127.0.0.1:9 --gateway-port 0")
        .arg(env!("CARGO_BIN_EXE_vllm-responses"))
        .current_dir(place.0.path())
        .env_clear()
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("40 descriptors") && said.contains("ulimit -n"),
        "{said}"
    );
}

/// Whoever binds vLLM's port while vLLM loads gets neither the key nor a prompt, and is not taken for it.
#[test]
fn who_takes_the_port_of_a_vllm_that_loads_is_not_vllm() {
    let gateway = Tree::start("load=600", &[], &[]);
    gateway.wait_log("it will be at http://127.0.0.1:");
    let log = gateway.log();
    let (_, rest) = log.split_once("it will be at http://127.0.0.1:").unwrap();
    let port: u16 = rest.split('/').next().unwrap().parse().unwrap();
    gateway.wait_log("loading weights");
    let impostor = TcpListener::bind(("127.0.0.1", port)).unwrap();
    impostor.set_nonblocking(true).unwrap();
    let mut heard = Vec::new();
    for _ in 0..60 {
        if let Ok((mut stream, _)) = impostor.accept() {
            stream
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            stream.read_to_end(&mut heard).ok();
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(String::from_utf8_lossy(&heard), "");
    assert_ne!(gateway.health().map(|(status, _)| status), Some(200));
    gateway.wait_log("is held by another process");
}
