//! TLS: roots from `SSL_CERT_FILE`, and servers that do not finish the handshake.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::peer::{Hang, Peer, tools};
use super::{calls, eventually, free_port, wait_available, write_file};
use crate::harness::{Fake, Script, TestGateway};

/// An authority of our own (`ca.pem`), and a certificate of it for 127.0.0.1 (`leaf.pem`).
fn certificates(folder: &Path) -> bool {
    let ext = "subjectAltName = IP:127.0.0.1\nbasicConstraints = critical, CA:FALSE\n";
    std::fs::write(folder.join("ext"), ext).unwrap();
    let commands = [
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:TRUE",
        "req -newkey rsa:2048 -nodes -subj /CN=leaf -keyout leaf.key -out leaf.csr",
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out leaf.pem",
    ];
    commands.iter().all(|arguments| {
        let openssl = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .output();
        openssl.is_ok_and(|output| output.status.success())
    })
}

/// TLS in front of a plain server.
struct Front {
    child: Child,
    port: u16,
}

impl Front {
    fn start(folder: &Path, behind: &Peer) -> Self {
        std::fs::write(folder.join("front.py"), include_str!("front.py")).unwrap();
        let mut child = Command::new("python3")
            .args(["front.py", &behind.address.port().to_string()])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap();
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}/mcp", self.port)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(fake: &Fake, gateway: &TestGateway, tool: &Value) -> (u16, Value) {
    fake.set(
        "m",
        [calls(&[("mcp__t__echo", "{}")]), Script::completion("x")],
    );
    let reply = gateway
        .client()
        .create(&json!({"model": "m", "input": "x", "tools": [tool]}));
    (reply.status, reply.json())
}

#[test]
fn ssl_cert_file_is_who_is_trusted() {
    let folder = TempDir::new().unwrap();
    if !certificates(folder.path()) {
        eprintln!("skipped: there is no `openssl`");
        return;
    }
    let (fake, peer) = (Fake::start(), Peer::start(&["echo"]));
    let front = Front::start(folder.path(), &peer);
    let authority = folder.path().join("ca.pem");
    let file = write_file(folder.path(), &json!({"t": {"url": front.url()}}));
    let remote = json!({"type": "mcp", "server_label": "t", "server_url": front.url(), "require_approval": "never"});
    let built_in = json!({"type": "mcp", "server_label": "t"});
    let on = || {
        TestGateway::on(&fake.url())
            .flag("--mcp-config")
            .flag(file.to_str().unwrap())
            .flag("--mcp-port")
            .flag(&free_port().to_string())
            .env(
                "VR_MCP_REMOTE_ALLOWED_HOSTS",
                &format!("127.0.0.1:{}", front.port),
            )
    };
    let trusting = on()
        .env("SSL_CERT_FILE", authority.to_str().unwrap())
        .start();
    wait_available(trusting.client(), "t");
    for tool in [&remote, &built_in] {
        let (status, resource) = ask(&fake, &trusting, tool);
        assert_eq!(status, 200, "{resource}");
        assert_eq!(resource["output"][1]["output"], "echo says nothing");
    }
    let calls = peer.count("initialize");
    let strict = on().start();
    let (status, body) = ask(&fake, &strict, &remote);
    assert_eq!(status, 424);
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("cannot be reached"), "{message}");
    let log = strict.log();
    assert!(log.contains("its TLS certificate"), "{log}");
    eventually(
        strict.client(),
        "/v1/mcp/servers/t/tools",
        |status, body| status == 409 && body.to_string().contains("its TLS certificate"),
    );
    assert_eq!(
        peer.count("initialize"),
        calls,
        "nothing was said to a server that is not trusted"
    );
}

#[test]
fn m1_a_server_that_hangs_in_tls_is_told_with_its_phase() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let peer = Peer::with(tools(&["echo"]), Hang::Accept, None);
    let url = format!("https://{}/mcp", peer.address);
    let file = write_file(folder.path(), &json!({"b": {"url": url}}));
    let gateway = TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .flag("--mcp-port")
        .flag(&free_port().to_string())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &peer.address.to_string())
        .env("VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC", "1s")
        .start();
    let tool = json!({"type": "mcp", "server_label": "t", "server_url": url});
    let (status, body) = ask(&fake, &gateway, &tool);
    assert_eq!(status, 424);
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("MCP server `t` cannot be reached"),
        "{message}"
    );
    let log = gateway.log();
    assert!(log.contains("no answer within 1s"), "{log}");
    eventually(
        gateway.client(),
        "/v1/mcp/servers/b/tools",
        |status, body| {
            status == 409
                && body
                    .to_string()
                    .contains("failed at connect: no answer within 1s")
        },
    );
}
