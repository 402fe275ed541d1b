//! The URL guard on the real program: canaries that nobody may touch.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::calls;
use super::peer::{Hang, Peer, tools};
use crate::api::keys::{ask as request, new_key};
use crate::harness::{Fake, Script, TestGateway};

/// Listeners on addresses that must see no connection.
struct Canaries {
    port: u16,
    touched: Arc<AtomicUsize>,
}

impl Canaries {
    fn start() -> Self {
        let touched = Arc::new(AtomicUsize::new(0));
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let others = ["127.0.0.2", "127.1.2.3", "[::1]"];
        let others = others
            .iter()
            .filter_map(|address| TcpListener::bind(format!("{address}:{port}")).ok());
        for listener in std::iter::once(first).chain(others) {
            let touched = Arc::clone(&touched);
            thread::spawn(move || {
                for _ in listener.incoming() {
                    touched.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { port, touched }
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(
            self.touched.load(Ordering::SeqCst),
            0,
            "a canary was touched"
        );
    }
}

fn ask(gateway: &TestGateway, url: &str) -> (u16, Value) {
    let tool = json!([{"type": "mcp", "server_label": "r", "server_url": url}]);
    let reply = gateway
        .client()
        .create(&json!({"model": "m", "input": "x", "tools": tool}));
    (reply.status, reply.json())
}

/// Section 10 of the fault list, as hosts of a URL.
const HOSTS: [&str; 35] = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "0",
    "0.0.0.0",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.0.0.2",
    "127.1.2.3",
    "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
    "127\u{3002}0\u{3002}0\u{3002}1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "ip6-localhost",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "good@127.0.0.1",
    "127.0.0.1#@good",
    "10.0.0.1",
    "169.254.169.254",
    "100.100.100.200",
    "192.168.1.1",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "no-such-name.invalid",
];

#[test]
fn no_spelling_reaches_a_canary_and_all_refusals_are_one() {
    let (fake, canaries) = (Fake::start(), Canaries::start());
    let gateway = TestGateway::on(&fake.url())
        .env(
            "HTTPS_PROXY",
            &format!("http://127.0.0.1:{}", canaries.port),
        )
        .env("ALL_PROXY", &format!("http://127.0.0.1:{}", canaries.port))
        .start();
    let port = canaries.port;
    let mut bodies = Vec::new();
    for host in HOSTS {
        let url = match host.split_once('#') {
            Some((host, rest)) => format!("https://{host}:{port}#{rest}"),
            None => format!("https://{host}:{port}/mcp"),
        };
        let (status, body) = ask(&gateway, &url);
        assert_eq!(status, 400, "{url}: {body}");
        bodies.push(body.to_string());
    }
    for url in [
        "http://example.com/",
        "ftp://example.com/",
        "https://example.com:22/",
        "file:///etc/passwd",
    ] {
        let (status, body) = ask(&gateway, url);
        assert_eq!(status, 400, "{url}");
        bodies.push(body.to_string());
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "refusals differ: {bodies:?}");
    let log = gateway.log();
    for why in ["it is not `https`", "its port is", "its host is not public"] {
        assert!(log.contains(why), "{why}: {log}");
    }
    canaries.assert_untouched();
}

#[test]
fn redirects_and_endpoints_do_not_lead_to_a_canary() {
    let (fake, canaries) = (Fake::start(), Canaries::start());
    let port = canaries.port;
    let targets = [
        format!("http://127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("//127.0.0.2:{port}/"),
        format!("http://localhost:{port}/"),
    ];
    for target in targets {
        let peer = Peer::with(tools(&["echo"]), Hang::Never, Some(target.clone()));
        let gateway = TestGateway::on(&fake.url())
            .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &peer.address.to_string())
            .start();
        let (status, body) = ask(&gateway, &peer.url());
        assert_eq!(status, 400, "{target}: {body}");
        assert!(peer.count("connections") > 0);
    }
    canaries.assert_untouched();
}

#[test]
fn urls_that_a_server_gives_are_not_fetched() {
    let (fake, canaries) = (Fake::start(), Canaries::start());
    let url = format!("http://127.0.0.1:{}/metadata", canaries.port);
    let login = Peer::with(tools(&["echo"]), Hang::Never, Some(format!("login:{url}")));
    let links = Peer::start(&["link"]);
    let allowed = format!("{},{}", login.address, links.address);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &allowed)
        .start();
    let (status, body) = ask(&gateway, &login.url());
    assert_eq!(status, 424);
    assert!(body.to_string().contains("HTTP status 401"), "{body}");
    let arguments = json!({ "text": url }).to_string();
    fake.set(
        "m",
        [
            calls(&[("mcp__r__link", &arguments)]),
            Script::completion("x"),
        ],
    );
    let tool = json!([{"type": "mcp", "server_label": "r", "server_url": links.url(), "require_approval": "never"}]);
    let resource = gateway
        .client()
        .create(&json!({"model": "m", "input": "x", "tools": tool}))
        .json();
    assert_eq!(
        resource["output"][1]["output"],
        format!("[a file]({url})\n[resource {url}]\nt")
    );
    canaries.assert_untouched();
}

#[test]
fn sessions_are_not_shared_between_owners() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let (ann, bob) = (new_key("ann"), new_key("bob"));
    std::fs::write(&file, format!("{}\n{}\n", ann.1, bob.1)).unwrap();
    let (fake, peer) = (Fake::start(), Peer::start(&["echo"]));
    fake.on("m", [Script::completion("x")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", file.to_str().unwrap())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &peer.address.to_string())
        .start();
    let tool = json!([{"type": "mcp", "server_label": "r", "server_url": peer.url(), "authorization": "same"}]);
    let body = json!({"model": "m", "input": "x", "tools": tool}).to_string();
    for (key, sessions) in [(&ann.0, 1), (&ann.0, 1), (&bob.0, 2), (&ann.0, 2)] {
        let reply = request(&gateway, Some(key), ("POST", "/v1/responses"), &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(peer.count("initialize"), sessions);
    }
}
