//! Servers that mean harm, or are not there: streams that end at once, tokens that are repeated, lists
//! and results that are bombs, silence.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::foreign::{gateway, get, remote};
use super::odd::{Odd, Said};
use super::{calls, free_port};
use crate::harness::{Fake, Script, TestGateway};

#[test]
fn x11_streams_that_end_at_once_are_opened_ever_less() {
    let fake = Fake::start();
    let odd = Odd::start(|asked| {
        if asked.message.is_null() && asked.head.starts_with("GET") {
            return Said {
                kind: "text/event-stream",
                ..Said::text(200, "retry: 0\nid: 1\n\n")
            };
        }
        asked.usual("2025-06-18", &get()).in_session("s")
    });
    let response = output_of_kept(&fake, &odd, Duration::from_secs(6));
    assert_eq!(response["output"][1]["output"], "fine");
    let opened = odd.count("GET");
    assert!((1..=9).contains(&opened), "{opened}");
}

/// As [`output_of`], and the gateway lives on for a while.
fn output_of_kept(fake: &Fake, odd: &Odd, time: Duration) -> Value {
    let gateway = gateway(fake, odd);
    fake.set(
        "m",
        [calls(&[("mcp__r__get", "")]), Script::completion("end")],
    );
    let body = json!({"model": "m", "input": "x", "tools": remote(odd)});
    let response = gateway.client().create(&body).json();
    std::thread::sleep(time);
    response
}

#[test]
fn x13_a_token_in_a_tool_list_is_taken_out() {
    let fake = Fake::start();
    let tools = json!([{"name": "get", "description": "you are Bearer CALLERS-SECRET-TOKEN",
        "inputSchema": {"type": "object", "properties": {"a": {"description": "CALLERS-SECRET-TOKEN"}}}}]);
    let odd = Odd::start(move |asked| asked.usual("2025-06-18", &tools));
    let gateway = gateway(&fake, &odd);
    let mut tools = remote(&odd);
    tools[0]["authorization"] = json!("CALLERS-SECRET-TOKEN");
    fake.set("m", [Script::completion("end")]);
    let reply = gateway
        .client()
        .create(&json!({"model": "m", "input": "x", "tools": tools}));
    assert_eq!(reply.status, 200);
    assert!(!reply.text().contains("CALLERS-SECRET"), "{}", reply.text());
    let prompt = fake.seen("m").pop().unwrap().body.to_string();
    assert!(!prompt.contains("CALLERS-SECRET") && prompt.contains("you are ***"));
}

#[test]
fn a_remote_server_that_is_not_reached_is_told_in_one_way_and_the_log_knows_why() {
    let fake = Fake::start();
    let closed = free_port();
    let plain = Odd::start(|_| Said::status(200));
    let hosts = format!("127.0.0.1:{closed},{}", plain.address);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &hosts)
        .start();
    let refusal = |url: String| {
        let tool = json!([{"type": "mcp", "server_label": "r", "server_url": url}]);
        let body = json!({"model": "m", "input": "x", "tools": tool});
        let reply = gateway.client().create(&body);
        assert_eq!(reply.status, 424, "{}", reply.text());
        reply.json()["error"]["message"].clone()
    };
    let refused = refusal(format!("http://127.0.0.1:{closed}/mcp"));
    let no_tls = refusal(format!("https://{}/mcp", plain.address));
    assert_eq!(refused, no_tls);
    let log = gateway.log();
    assert!(
        log.contains("it cannot be reached") && log.contains("TLS"),
        "{log}"
    );
    let unknown = json!([{"type": "mcp", "server_label": "typo"}]);
    let body = json!({"model": "m", "input": "x", "tools": unknown});
    let reply = gateway.client().create(&body);
    reply.error(400);
    let told = reply.text();
    assert!(told.contains("label `typo`; there are none"), "{told}");
}

#[test]
fn a_remote_call_that_takes_too_long_ends_with_its_limit() {
    let fake = Fake::start();
    let odd = Odd::start(|asked| {
        if matches!(asked.method(), "tools/call" | "ping") {
            std::thread::sleep(Duration::from_secs(60));
        }
        asked.usual("2025-06-18", &get())
    });
    let gateway = TestGateway::on(&fake.url())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &odd.address.to_string())
        .env("VR_MCP_HOSTED_TOOL_TIMEOUT_SEC", "2s")
        .start();
    fake.set(
        "m",
        [calls(&[("mcp__r__get", "")]), Script::completion("end")],
    );
    let body = json!({"model": "m", "input": "x", "tools": remote(&odd)});
    let begin = Instant::now();
    let response = gateway.client().create(&body).json();
    assert!(
        begin.elapsed() < Duration::from_millis(6500),
        "{:?}",
        begin.elapsed()
    );
    let error = response["output"][1]["error"]["message"].as_str().unwrap();
    assert!(error.contains("no answer within 2s"), "{error}");
}

#[test]
fn hostile_lists_and_results_leave_the_memory_alone() {
    fn numbers() -> String {
        format!("[{}0]", "0,".repeat(1_900_000))
    }
    let fake = Fake::start();
    let odd = Odd::start(|asked| {
        let id = &asked.message["id"];
        let numbers = match asked.method() {
            "tools/list" => format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"nextCursor":"{id}","tools":[{{"name":"get"}},{{"name":"x","inputSchema":{{"x":{}}}}}]}}}}"#,
                numbers()
            ),
            "tools/call" => format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"structuredContent":{{"x":{}}}}}}}"#,
                numbers()
            ),
            _ => return asked.usual("2025-06-18", &get()),
        };
        Said {
            body: numbers,
            ..Said::status(200)
        }
    });
    let gateway = TestGateway::on(&fake.url())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &odd.address.to_string())
        .env("VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC", "60s")
        .start();
    let resident = || {
        let path = format!("/proc/{}/status", gateway.pid());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let line = line.unwrap().trim().trim_end_matches(" kB");
        line.parse::<usize>().unwrap() / 1024
    };
    let before = resident();
    let scripts = (0..4).map(|_| calls(&[("mcp__r__get", "{}")]));
    let ends = (0..4).map(|_| Script::completion("end"));
    fake.set("m", scripts.chain(ends));
    std::thread::scope(|threads| {
        for at in 0..4 {
            let (client, tools) = (gateway.client(), remote(&odd));
            threads.spawn(move || {
                let mut tools = tools;
                tools[0]["authorization"] = json!(format!("token-of-{at}"));
                let body = json!({"model": "m", "input": "x", "tools": tools, "store": false});
                assert_eq!(client.create(&body).status, 200);
            });
        }
    });
    let grown = resident() - before;
    assert!(grown < 200, "{grown} MiB more");
}
