//! Start-up that fails: one line on stderr that names cause and remedy, exit code 1 (fault K3).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

use super::{Place, text};

/// A server that answers every request with this status until the test ends.
fn upstream(status: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok_and(|read| read > 0) {
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    address
}

fn fails(args: &[&str], env: &[(&str, &str)]) -> String {
    let args: Vec<_> = ["serve", "--gateway-host", "127.0.0.1"]
        .iter()
        .chain(args)
        .collect();
    let args: Vec<&str> = args.into_iter().copied().collect();
    let output = Place::new().run(&args, env);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let stderr = text(&output.stderr);
    let error = stderr.lines().find(|line| line.starts_with("error: "));
    error
        .unwrap_or_else(|| panic!("no error line in\n{stderr}"))
        .to_owned()
}

#[test]
fn k3_an_upstream_that_refuses_the_key_ends_start_up_at_once() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let url = format!("http://{}", upstream(status));
        let error = fails(&["--gateway-port", "0", "--upstream", &url], &[]);
        assert!(error.contains("`VR_OPENAI_API_KEY`"), "{error}");
    }
}

#[test]
fn k3_an_upstream_that_never_answers_is_named_with_the_limit() {
    let url = format!("http://{}", upstream("500 Oops"));
    let flags = [
        "--gateway-port",
        "0",
        "--upstream",
        &url,
        "--upstream-ready-timeout",
        "1s",
    ];
    let error = fails(&flags, &[]);
    assert!(
        error.contains("within 1 s") && error.contains("status 500"),
        "{error}"
    );
}

#[test]
fn k3_a_taken_port_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = fails(
        &["--gateway-port", &port, "--upstream", "http://127.0.0.1:9"],
        &[],
    );
    assert!(
        error.contains(&port) && error.contains("`--gateway-port`"),
        "{error}"
    );
}

#[test]
fn k3_a_database_that_cannot_be_opened_is_named_with_its_setting() {
    let flags = ["--gateway-port", "0", "--upstream", "http://127.0.0.1:9"];
    let error = fails(&flags, &[("VR_DB_PATH", "no/such/folder/a.db")]);
    assert!(error.contains("`VR_DB_PATH` names another"), "{error}");
}

#[test]
fn k3_a_file_that_is_no_database_is_named_with_its_setting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "this is text, and no database at all\n".repeat(100)).unwrap();
    let flags = ["--gateway-port", "0", "--upstream", "http://127.0.0.1:9"];
    let error = fails(&flags, &[("VR_DB_PATH", path.to_str().unwrap())]);
    assert!(error.contains("`VR_DB_PATH`"), "{error}");
    assert!(
        std::fs::read_to_string(&path)
            .unwrap()
            .starts_with("this is text")
    );
}

#[test]
fn k3_a_schema_that_is_not_ours_is_named() {
    use diesel::connection::SimpleConnection as _;
    use diesel::{Connection as _, SqliteConnection};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    other
        .batch_execute("CREATE TABLE responses (id INTEGER); INSERT INTO responses VALUES (1);")
        .unwrap();
    drop(other);
    let flags = ["--gateway-port", "0", "--upstream", "http://127.0.0.1:9"];
    let error = fails(&flags, &[("VR_DB_PATH", path.to_str().unwrap())]);
    assert!(
        error.contains("`VR_DB_PATH`") || error.contains("migrat"),
        "{error}"
    );
}

#[test]
fn k3_a_postgres_that_is_down_is_named_without_its_password() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let url = format!("postgresql://u:CANARY@127.0.0.1:{port}/d");
    let flags = ["--gateway-port", "0", "--upstream", "http://127.0.0.1:9"];
    let error = fails(&flags, &[("VR_DB_PATH", &url)]);
    assert!(error.contains("`VR_DB_PATH`"), "{error}");
    assert!(!error.contains("CANARY"), "{error}");
}

#[test]
fn k3_a_vllm_that_is_not_installed_is_named_with_its_setting() {
    let flags = ["--gateway-port", "0", "--", "m"];
    let error = fails(&flags, &[("VR_VLLM_BIN", "/no/such/vllm")]);
    assert!(
        error.contains(
            "program `/no/such/vllm` of vllm not found; install it or give its full path"
        ) && error.contains("`VR_VLLM_BIN`"),
        "{error}"
    );
}

/// What was started before the fault is ended with it.
#[test]
fn k3_a_required_mcp_server_that_is_missing_is_named_and_leaves_no_process() {
    let upstream = crate::harness::Fake::start();
    let place = Place::new();
    place.file(
        "mcp.json",
        r#"{"mcpServers": {"needed": {"command": "/no/such/server", "required": true}}}"#,
    );
    let port = crate::mcp::free_port().to_string();
    let args = [
        "serve",
        "--gateway-host",
        "127.0.0.1",
        "--gateway-port",
        "0",
        "--upstream",
        &upstream.url(),
        "--mcp-config",
        "mcp.json",
        "--mcp-port",
        &port,
    ];
    let env = [
        ("VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC", "1s"),
        ("PATH", "/usr/bin:/bin"),
    ];
    let output = place.run(&args, &env);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let error = stderr
        .lines()
        .find(|line| line.starts_with("error: "))
        .unwrap_or_default();
    assert!(error.contains("MCP"), "{stderr}");
    assert!(stderr.contains("`needed`"), "{stderr}");
    TcpListener::bind(format!("127.0.0.1:{port}")).expect("the runtime still has its port");
}

/// Whoever came in before the process hid itself reads its secrets: that is told, not kept from.
#[test]
fn a_process_that_traces_the_gateway_is_told() {
    let url = format!("http://{}", upstream("500 Oops"));
    let line = [
        env!("CARGO_BIN_EXE_vllm-responses"),
        "serve",
        "--gateway-host",
        "127.0.0.1",
        "--gateway-port",
        "0",
        "--upstream",
        &url,
        "--upstream-ready-timeout",
        "1s",
    ];
    let place = Place::new();
    let run = |before: &[&str]| {
        let all: Vec<&str> = before.iter().chain(&line).copied().collect();
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).current_dir(place.0.path());
        let output = command.env_clear().env("PATH", "/usr/bin:/bin").output();
        output.ok().map(|output| text(&output.stderr))
    };
    let told = "another process traces this one";
    assert!(!run(&[]).unwrap().contains(told));
    match run(&["strace", "-f", "-e", "trace=none", "-o", "/dev/null"]) {
        Some(said) if said.contains("the upstream") => assert!(said.contains(told), "{said}"),
        _ => eprintln!("SKIPPED: `strace` is not there, or may not trace"),
    }
}
