//! The operator's servers: discovery, calls, restarts, what refuses to start.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

use super::peer::{self, Hang, Peer};
use super::{calls, eventually, free_port, is_available, stdio, wait_available, write_file};
use crate::harness::{Client, Fake, Script, TestGateway, check_resource, check_stream, processes};

fn on(
    fake: &Fake,
    folder: &TempDir,
    servers: &serde_json::Value,
) -> crate::harness::gateway::Builder {
    let file = write_file(folder.path(), servers);
    TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .flag("--mcp-port")
        .flag(&free_port().to_string())
}

#[test]
fn m1_one_server_that_hangs_delays_nobody() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let good = Peer::start(&["echo"]);
    let mut servers =
        json!({"good": {"url": good.url()}, "pipes": stdio(folder.path(), &json!({}))});
    for (label, hang) in [
        ("accept", Hang::Accept),
        ("initialize", Hang::Initialize),
        ("list", Hang::List),
    ] {
        let peer = Peer::with(peer::tools(&["echo"]), hang, None);
        servers[label] = json!({"url": peer.url()});
    }
    let gateway = on(&fake, &folder, &servers)
        .env("VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC", "2s")
        .start();
    let client = gateway.client();
    let list = client.get("/v1/mcp/servers").json();
    assert_eq!(list["object"], "list");
    let labels: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["server_label"])
        .collect();
    assert_eq!(labels, ["accept", "good", "initialize", "list", "pipes"]);
    wait_available(client, "good");
    let tools = client.get("/v1/mcp/servers/good/tools").json();
    assert_eq!(tools["server_label"], "good");
    assert_eq!(tools["tools"][0]["name"], "echo");
    assert_eq!(tools["tools"][0]["input_schema"]["type"], "object");
    client.get("/v1/mcp/servers/none/tools").error(404);
    for (label, phase) in [
        ("accept", "initialize"),
        ("initialize", "initialize"),
        ("list", "tools/list"),
    ] {
        let path = format!("/v1/mcp/servers/{label}/tools");
        let body = eventually(client, &path, |status, _| status == 409);
        let message = body["error"]["message"].as_str().unwrap();
        let wanted = format!("MCP server `{label}` failed at {phase}: no answer within 2s");
        assert!(message.contains(&wanted), "{message}");
    }
    wait_available(client, "pipes");
}

#[test]
fn m12_a_call_and_a_warm_list() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let peer = Peer::start(&["echo", "fail", "big"]);
    let gateway = on(&fake, &folder, &json!({"p": {"url": peer.url()}})).start();
    let client = gateway.client();
    wait_available(client, "p");
    let lists = peer.count("tools/list");
    let tools = json!([{"type": "mcp", "server_label": "p"}]);
    fake.set(
        "m",
        [
            calls(&[
                ("mcp__p__echo", r#"{"text":"hi"}"#),
                ("mcp__p__fail", "{}"),
                ("mcp__p__big", "{}"),
                ("mcp__p__echo", r#"{"text":5}"#),
            ]),
            Script::completion("done"),
            Script::says("again"),
        ],
    );
    let first = client
        .create(&json!({"model": "m", "input": "x", "tools": tools}))
        .json();
    check_resource(&first);
    let output = first["output"].as_array().unwrap();
    assert_eq!(output[0]["type"], "mcp_list_tools");
    assert_eq!(output[1]["output"], "echo says hi");
    assert_eq!(output[2]["error"]["type"], "mcp_tool_execution_error");
    let big = output[3]["output"].as_str().unwrap();
    assert!(
        big.len() <= 1024 * 1024 && big.ends_with("are shown]"),
        "{}",
        big.len()
    );
    assert_eq!(output[4]["error"]["code"], -32602);
    assert_eq!(peer.count("call echo"), 1, "bad arguments were sent");
    let body = json!({"model": "m", "input": "y", "tools": tools, "stream": true, "previous_response_id": first["id"]});
    let events = check_stream(&client.create(&body).text());
    let last = &events[events.len() - 1]["response"];
    assert_eq!(
        last["output"].as_array().unwrap().len(),
        1,
        "the list is told once"
    );
    assert_eq!(
        peer.count("tools/list"),
        lists,
        "a warm list costs no request"
    );
    fake.assert_sound();
}

#[test]
fn stdio_servers_see_what_they_are_given_and_come_back() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let env = json!({"GIVEN": "${FROM_OUTSIDE}"});
    let gateway = on(&fake, &folder, &json!({"p": stdio(folder.path(), &env)}))
        .env("FROM_OUTSIDE", "inside")
        .env("VR_OPENAI_API_KEY", "hush")
        .start();
    let client = gateway.client();
    wait_available(client, "p");
    let tools = json!([{"type": "mcp", "server_label": "p"}]);
    let ask = |name: &str| {
        fake.set("m", [calls(&[(name, "{}")]), Script::completion("x")]);
        let reply = client.create(&json!({"model": "m", "input": "x", "tools": tools}));
        let resource = reply.json();
        let items = resource["output"].as_array().unwrap();
        items
            .iter()
            .find(|item| item["type"] == "mcp_call")
            .unwrap_or_else(|| panic!("{name}: {resource}"))
            .clone()
    };
    let env = ask("mcp__p__env")["output"].as_str().unwrap().to_owned();
    assert!(env.contains(r#""GIVEN": "inside""#), "{env}");
    assert!(
        !env.contains("hush") && !env.contains("VR_") && !env.contains("FROM_OUTSIDE"),
        "{env}"
    );
    assert_eq!(ask("mcp__p__noise")["output"], "done");
    let before = ask("mcp__p__pid")["output"].clone();
    assert_eq!(ask("mcp__p__die")["status"], "failed");
    eventually(client, "/v1/mcp/servers", |_, body| {
        !is_available(body, "p")
    });
    wait_available(client, "p");
    let after = ask("mcp__p__pid")["output"].clone();
    assert_ne!(before, after);
    // A storm of notices, and the list is read again.
    assert_eq!(ask("mcp__p__grow")["output"], "grown");
    eventually(client, "/v1/mcp/servers/p/tools", |_, body| {
        body["tools"]
            .as_array()
            .is_some_and(|tools| tools.iter().any(|tool| tool["name"] == "grown"))
    });
    let pid = Pid::from_raw(after.as_str().unwrap().parse().unwrap());
    drop(gateway);
    let until = Instant::now() + Duration::from_secs(10);
    while kill(pid, None).is_ok() {
        assert!(
            Instant::now() < until,
            "the stdio server outlives the gateway"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_refuses_to_start() {
    let folder = TempDir::new().unwrap();
    let start = |servers: &serde_json::Value| {
        let file = write_file(folder.path(), servers);
        Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
            .args([
                "serve",
                "--upstream",
                &Fake::start().url(),
                "--gateway-host",
                "127.0.0.1",
            ])
            .args([
                "--gateway-port",
                &free_port().to_string(),
                "--mcp-port",
                &free_port().to_string(),
            ])
            .arg("--mcp-config")
            .arg(file)
            .env("VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC", "500ms")
            .env("VR_DB_PATH", folder.path().join("it.db"))
            .output()
            .unwrap()
    };
    let bad = start(
        &json!({"a b": {"url": "CANARY"}, "c": {"command": 5}, "d": {"url": "https://h/", "headers": {"Host": "CANARY"}}}),
    );
    let said = String::from_utf8_lossy(&bad.stderr);
    assert_eq!(bad.status.code(), Some(2), "{said}");
    for part in [
        "`mcpServers.a b`",
        "`mcpServers.a b.url`",
        "`mcpServers.c.command`",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("CANARY"), "{said}");
    let hanging = Peer::with(peer::tools(&["echo"]), Hang::List, None);
    let missing = start(&json!({"need": {"url": hanging.url(), "required": true}}));
    let said = String::from_utf8_lossy(&missing.stderr);
    assert_eq!(missing.status.code(), Some(1), "{said}");
    let line = said.lines().last().unwrap();
    assert!(
        line.starts_with("error: the MCP runtime: ")
            && line.contains("`need` failed at tools/list"),
        "{said}"
    );
}

#[test]
fn a_runtime_that_dies_is_started_again() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let peer = Peer::start(&["echo"]);
    let gateway = on(&fake, &folder, &json!({"p": {"url": peer.url()}})).start();
    let client = gateway.client();
    wait_available(client, "p");
    kill_runtime(gateway.pid());
    eventually(client, "/v1/mcp/servers", |status, _| status == 503);
    assert_eq!(client.get("/v1/mcp/servers/p/tools").status, 503);
    assert_eq!(
        client.get("/health/ready").status,
        200,
        "only its tools are missing"
    );
    wait_available(client, "p");
    // Nobody else on this machine may use the runtime.
    let log = gateway.log();
    let line = log
        .lines()
        .find(|line| line.contains("the MCP runtime listens on "))
        .unwrap();
    let address = line.rsplit("http://").next().unwrap().trim();
    let stranger = Client {
        address: address.parse().unwrap(),
    };
    assert_eq!(stranger.get("/internal/mcp/servers").status, 401);
}

/// The fault: whoever listened on the runtime's port was sent its token, and could use the tools.
#[test]
fn no_port_of_this_machine_leads_to_the_tools() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let peer = Peer::start(&["echo"]);
    let thief = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    thief.set_nonblocking(true).unwrap();
    let port = thief.local_addr().unwrap().port().to_string();
    let file = write_file(folder.path(), &json!({"good": {"url": peer.url()}}));
    let gateway = TestGateway::on(&fake.url())
        .flag("--mcp-config")
        .flag(file.to_str().unwrap())
        .flag("--mcp-port")
        .flag(&port)
        .start();
    wait_available(gateway.client(), "good");
    kill_runtime(gateway.pid());
    eventually(gateway.client(), "/health/ready", |_, body| {
        body["mcp_runtime"]["restarts"] == 1
    });
    wait_available(gateway.client(), "good");
    assert!(thief.accept().is_err(), "somebody called the port");
}

/// Kills the process below the gateway whose command line says `mcp-runtime`.
fn kill_runtime(gateway: u32) {
    let runtime = processes::below(gateway, |line| line.ends_with(b"\0mcp-runtime\0"));
    assert_eq!(runtime.len(), 1, "no runtime below {gateway}");
    processes::kill_hard(&runtime);
}

/// The model calls three tools at once; `fault` strikes while two of them hang.
fn struck(
    fake: &Fake,
    client: Client,
    (made, hanging): (&[(&str, &str)], &Peer),
    fault: impl FnOnce(),
) -> serde_json::Value {
    let tools =
        json!([{"type": "mcp", "server_label": "pipes"}, {"type": "mcp", "server_label": "p"}]);
    fake.set("m", [calls(made), Script::completion("done")]);
    let before = hanging.count("tools/call");
    let asked = std::thread::spawn(move || {
        let reply = client.create(&json!({"model": "m", "input": "x", "tools": tools}));
        (reply.json(), Instant::now())
    });
    let until = Instant::now() + Duration::from_secs(30);
    while hanging.count("tools/call") == before {
        assert!(Instant::now() < until, "no call comes");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    let at = Instant::now();
    fault();
    let (response, answered) = asked.join().unwrap();
    assert!(
        answered.duration_since(at) < Duration::from_secs(8),
        "{response}"
    );
    check_resource(&response);
    assert_eq!(response["status"], "completed");
    response
}

fn item<'a>(response: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let output = response["output"].as_array().unwrap();
    let found = output
        .iter()
        .find(|item| item["type"] == "mcp_call" && item["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {response}"))
}

#[test]
fn p3_kill_of_the_runtime_mid_call_fails_its_items_only() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let peer = Peer::start(&["hang", "echo"]);
    let servers = json!({"p": {"url": peer.url()}, "pipes": stdio(folder.path(), &json!({}))});
    let gateway = on(&fake, &folder, &servers).start();
    let client = gateway.client();
    wait_available(client, "p");
    wait_available(client, "pipes");
    let made = [("mcp__pipes__hang", "{}"), ("mcp__p__hang", "{}")];
    let response = struck(&fake, client, (&made, &peer), || {
        kill_runtime(gateway.pid());
    });
    let failed = response["output"].as_array().unwrap().iter();
    let failed = failed.filter(|item| item["type"] == "mcp_call" && item["status"] == "failed");
    assert_eq!(failed.count(), 2, "{response}");
    let seen = fake.seen("m");
    let told = seen[seen.len() - 1].body["messages"].to_string();
    assert!(told.contains("MCP runtime"), "the model is told: {told}");
    assert_eq!(client.get("/health/ready").status, 200);
    // It comes back with all its servers, and calls work again.
    wait_available(client, "pipes");
    wait_available(client, "p");
    fake.set(
        "m",
        [calls(&[("mcp__p__echo", "{}")]), Script::completion("x")],
    );
    let tools = json!([{"type": "mcp", "server_label": "p"}]);
    let next = client
        .create(&json!({"model": "m", "input": "x", "tools": tools}))
        .json();
    assert_eq!(item(&next, "echo")["output"], "echo says nothing");
}

#[test]
fn p3_kill_of_a_stdio_server_mid_call_fails_its_item_only() {
    let (fake, folder) = (Fake::start(), TempDir::new().unwrap());
    let peer = Peer::start(&["echo"]);
    let servers = json!({"p": {"url": peer.url()}, "pipes": stdio(folder.path(), &json!({}))});
    let gateway = on(&fake, &folder, &servers).start();
    let client = gateway.client();
    wait_available(client, "p");
    wait_available(client, "pipes");
    let made = [("mcp__pipes__hang", "{}"), ("mcp__p__echo", "{}")];
    let response = struck(&fake, client, (&made, &peer), || {
        let script = folder.path().join("stdio.py");
        let script = script.to_str().unwrap().as_bytes().to_vec();
        let server = processes::below(gateway.pid(), |line| {
            line.windows(script.len()).any(|part| part == script)
        });
        assert_eq!(server.len(), 1);
        processes::kill_hard(&server);
    });
    assert_eq!(item(&response, "hang")["status"], "failed", "{response}");
    assert_eq!(item(&response, "echo")["output"], "echo says nothing");
    eventually(client, "/v1/mcp/servers", |_, body| {
        !is_available(body, "pipes") && is_available(body, "p")
    });
    wait_available(client, "pipes");
    let page = client.get("/v1/status").json();
    let names: Vec<_> = page["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| &tool["name"])
        .collect();
    assert_eq!(names, ["code_interpreter", "mcp", "mcp:p", "mcp:pipes"]);
    fake.set(
        "m",
        [calls(&[("mcp__pipes__pid", "{}")]), Script::completion("x")],
    );
    let tools = json!([{"type": "mcp", "server_label": "pipes"}]);
    let next = client
        .create(&json!({"model": "m", "input": "x", "tools": tools}))
        .json();
    assert_eq!(item(&next, "pid")["status"], "completed");
}
