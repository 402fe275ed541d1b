//! K1: files that the configuration names and that are bad, and that nothing starts before all is
//! good.
//!
//! Mutations tried, each failed: any number taken as a sample ratio; a name twice in the keys file.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use super::{Place, text};

/// Content of the file, and the problems that it has, without the place.
type Case = (&'static str, &'static [&'static str]);

const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const KEYS: &[Case] = &[
    ("", &["holds no key"]),
    ("# only words\n\n", &["holds no key"]),
    ("CANARY", &["line 1: must be `NAME SHA256HEX`"]),
    (
        "ann CANARY",
        &["line 1: the hash must be 64 hexadecimal digits"],
    ),
    ("a/b HASH", &["line 1: "]),
    ("ann HASH extra", &["line 1: behind the hash may stand"]),
    ("ann HASH\n\nann HASH", &["line 3: a name occurs twice"]),
    ("ann HASH\nbob HASH", &["line 2: a key occurs twice"]),
    ("x\ny", &["line 1: must be", "line 2: must be"]),
];

#[rustfmt::skip]
const MCP: &[Case] = &[
    ("{", &["the file must be one JSON object (line 1, column"]),
    ("[]", &["the file must be one JSON object"]),
    ("{}", &["`mcpServers` is required"]),
    (r#"{"mcpServers": 5}"#, &["`mcpServers` must be an object"]),
    (r#"{"mcpServers": {"a b": {"url": "https://h"}}}"#, &["`mcpServers.a b` must be named"]),
    (r#"{"mcpServers": {"a": 5}}"#, &["`mcpServers.a` must be an object"]),
    (r#"{"mcpServers": {"a": {}}}"#, &["`mcpServers.a.url` is required"]),
    (r#"{"mcpServers": {"a": {"command": "x", "url": "https://h"}}}"#, &["`mcpServers.a.url` must be absent"]),
    (r#"{"mcpServers": {"a": {"command": ""}}}"#, &["`mcpServers.a.command` must be a non-empty string"]),
    (r#"{"mcpServers": {"a": {"command": "x", "args": [1]}}}"#, &["`mcpServers.a.args[0]` must be a string"]),
    (r#"{"mcpServers": {"a": {"command": "x", "env": {"K": 2}}}}"#, &["`mcpServers.a.env.K` must be a string"]),
    (r#"{"mcpServers": {"a": {"url": "CANARY/mcp"}}}"#, &["`mcpServers.a.url` must be an absolute"]),
    (r#"{"mcpServers": {"a": {"url": "https://h", "headers": {"X": null}}}}"#, &["`mcpServers.a.headers.X` must be a string"]),
    (r#"{"mcpServers": {"a": {"url": "https://h", "transport": "pigeon"}}}"#, &["`mcpServers.a.transport` must be one of"]),
    (r#"{"mcpServers": {"a": {"transport": "stdio"}}}"#, &["`mcpServers.a.command` is required"]),
    (r#"{"mcpServers": {"a": {"url": "https://h/${UNSET}"}}}"#, &["`mcpServers.a.url` must be resolvable: `UNSET` is not set"]),
    (r#"{"mcpServers": {"a": 1, "b": {"url": "CANARY"}}}"#, &["`mcpServers.a` must be an object", "`mcpServers.b.url` must be an absolute"]),
];

/// For the count of all bad configurations.
pub(super) fn cases() -> usize {
    KEYS.len() + MCP.len()
}

#[track_caller]
fn check(variable: &str, name: &str, (content, errors): &Case) {
    for command in ["check-config", "serve"] {
        let place = Place::new();
        place.file(name, &content.replace("HASH", HASH));
        let output = place.run(&[command, "--upstream", "http://h"], &[(variable, name)]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{content}: {stderr}");
        assert!(!stderr.contains("CANARY"), "{content}: {stderr}");
        let told = stderr.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(told.count(), errors.len(), "{content}: {stderr}");
        for error in *errors {
            let wanted = format!("error: `{variable}`: {error}");
            let found = stderr.lines().any(|line| line.starts_with(&wanted));
            assert!(found, "{content}: no `{wanted}` in: {stderr}");
        }
    }
}

#[test]
fn k1_bad_keys_files() {
    for case in KEYS {
        check("VR_API_KEYS_FILE", "keys", case);
    }
}

#[test]
fn k1_bad_mcp_files() {
    for case in MCP {
        check("VR_MCP_CONFIG_PATH", "mcp.json", case);
    }
}

/// A taken port would be exit code 1, and a program that ran would leave a file.
#[test]
fn k1_no_port_and_no_child_before_everything_is_good() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let place = Place::new();
    place.file("program", "#!/bin/sh\ntouch ran\n");
    let program = place.0.path().join("program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let servers = format!(
        r#"{{"mcpServers": {{"a": {{"command": "{}"}}}}}}"#,
        program.display()
    );
    place.file("mcp.json", &servers);
    for bad in [
        ("VR_LOG_FORMAT", "xml"),
        ("VR_API_KEYS_FILE", "absent"),
        ("VR_TRACING_SAMPLE_RATIO", "2"),
    ] {
        let env = [
            ("VR_VLLM_BIN", program.to_str().unwrap()),
            ("VR_MCP_CONFIG_PATH", "mcp.json"),
            ("PATH", "/usr/bin:/bin"),
            bad,
        ];
        let host = [
            "serve",
            "--gateway-host",
            "127.0.0.1",
            "--gateway-port",
            &port,
        ];
        let args: Vec<&str> = host.into_iter().chain(["--", "m"]).collect();
        let output = place.run(&args, &env);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        let errors = stderr.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{stderr}");
        assert!(
            !place.0.path().join("ran").exists(),
            "a program was started"
        );
    }
}

/// The fault: `--config <(...)` and `/dev/stdin` were refused with other pipes.
#[test]
fn a_pipe_that_the_command_line_names_is_a_configuration() {
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_vllm-responses");
    let shell = |line: &str| {
        let line = line.replace("PROGRAM", program);
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &line]).current_dir(place.0.path());
        let output = command.env_clear().env("PATH", "/usr/bin:/bin").output();
        let output = output.unwrap();
        (
            output.status.code(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let toml = "printf '[gateway]\\nport = 5998\\n[upstream]\\nurl = \"http://h\"\\n'";
    for line in [
        "PROGRAM check-config --config <(sleep 0.3; TOML)",
        "TOML | PROGRAM check-config --config /dev/stdin",
        "TOML > c.toml; PROGRAM check-config --config /dev/stdin < c.toml",
        "mkfifo named; (TOML > named) & PROGRAM check-config --config named",
    ] {
        let (code, said) = shell(&line.replace("TOML", toml));
        assert_eq!(code, Some(0), "{line}: {said}");
        assert!(said.contains("port = 5998"), "{line}: {said}");
    }
    for (line, why) in [
        (
            "PROGRAM check-config --config /dev/zero",
            "it is no regular file but a device",
        ),
        (
            "mkfifo other; VR_CONFIG=other PROGRAM check-config",
            "it is no regular file but a pipe",
        ),
        (
            "yes '#' | PROGRAM check-config --config /dev/stdin",
            "it is larger than 16 MiB",
        ),
        (
            "PROGRAM check-config --upstream http://h --mcp-config <(echo '{}')",
            "it is no regular file but a pipe",
        ),
    ] {
        let (code, said) = shell(&line.replace("TOML", toml));
        assert_eq!(code, Some(2), "{line}: {said}");
        assert!(said.contains(why), "{line}: {said}");
    }
}
