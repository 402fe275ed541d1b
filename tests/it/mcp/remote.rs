//! Servers of requests: credentials, approvals, what is cached, what is never kept.

use serde_json::{Value, json};

use super::calls;
use super::peer::{Hang, Peer, tools as peer_tools};
use crate::harness::{Fake, Script, TestGateway, check_resource, check_stream};

fn gateway(fake: &Fake, peer: &Peer) -> TestGateway {
    TestGateway::on(&fake.url())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &peer.address.to_string())
        .env("VR_LOG_LEVEL", "debug")
        .start()
}

#[test]
fn credentials_go_to_the_server_and_nowhere_else() {
    let (fake, peer) = (Fake::start(), Peer::start(&["echo"]));
    let gateway = gateway(&fake, &peer);
    let client = gateway.client();
    let tool = json!([{"type": "mcp", "server_label": "r", "server_url": peer.url(), "authorization": "CANARY-token",
        "headers": {"X-Key": "CANARY-header"}, "require_approval": "never"}]);
    let call = ("mcp__r__echo", r#"{"text":"hi"}"#);
    fake.set(
        "m",
        [
            calls(&[call]),
            Script::completion("one"),
            Script::completion("two"),
        ],
    );
    let first = client
        .create(&json!({"model": "m", "input": "x", "tools": tool}))
        .json();
    check_resource(&first);
    assert_eq!(first["output"][1]["output"], "echo says hi");
    let heads = peer.heads();
    for head in &heads {
        let head = head.to_ascii_lowercase();
        assert!(
            head.contains("authorization: bearer canary-token"),
            "{head}"
        );
        assert!(head.contains("x-key: canary-header"), "{head}");
    }
    let asked = heads.len();
    // A warm request: the session and the list are there.
    let second = client.create(
        &json!({"model": "m", "input": "y", "tools": tool, "previous_response_id": first["id"]}),
    );
    assert_eq!(peer.heads().len(), asked, "a warm request asked the server");
    let stored = client
        .get(&format!("/v1/responses/{}", first["id"].as_str().unwrap()))
        .text();
    let database = std::fs::read(gateway.db()).unwrap();
    let wal = std::fs::read(gateway.db().with_extension("db-wal")).unwrap_or_default();
    let texts = [
        first.to_string(),
        second.text(),
        stored,
        gateway.log(),
        String::from_utf8_lossy(&database).into_owned(),
        String::from_utf8_lossy(&wal).into_owned(),
    ];
    for text in &texts {
        assert!(!text.contains("CANARY"), "a secret was kept");
    }
    assert!(
        texts[5].contains("mcp_call") || texts[4].contains("mcp_call"),
        "the search finds nothing at all"
    );
}

#[test]
fn approvals_end_a_response_and_resume_it() {
    let (fake, peer) = (Fake::start(), Peer::start(&["echo"]));
    let gateway = gateway(&fake, &peer);
    let client = gateway.client();
    let tool = json!([{"type": "mcp", "server_label": "r", "server_url": peer.url()}]);
    for stream in [false, true] {
        let final_of = |reply: crate::harness::Reply| -> Value {
            if stream {
                let events = check_stream(&reply.text());
                events[events.len() - 1]["response"].clone()
            } else {
                reply.json()
            }
        };
        let before = peer.count("call echo");
        let script = if stream {
            Script::stream()
                .all(&crate::harness::upstream::script::tool_call(
                    0,
                    "c",
                    "mcp__r__echo",
                    &[r#"{"text":"hi"}"#],
                ))
                .end("tool_calls")
        } else {
            calls(&[("mcp__r__echo", r#"{"text":"hi"}"#)])
        };
        fake.set("m", [script]);
        let first = final_of(
            client.create(&json!({"model": "m", "input": "x", "tools": tool, "stream": stream})),
        );
        assert_eq!(first["status"], "completed");
        let request = first["output"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(request["type"], "mcp_approval_request");
        assert_eq!(peer.count("call echo"), before, "the call did not wait");
        let answer = json!([{"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": true}]);
        let body = json!({"model": "m", "input": answer, "tools": tool, "stream": stream, "previous_response_id": first["id"]});
        let says = if stream {
            Script::says("done")
        } else {
            Script::completion("done")
        };
        fake.set("m", [says]);
        let second = final_of(client.create(&body));
        assert_eq!(second["output"][0]["approval_request_id"], request["id"]);
        assert_eq!(second["output"][0]["output"], "echo says hi");
        assert_eq!(peer.count("call echo"), before + 1);
        let mut again = body.clone();
        again["previous_response_id"] = second["id"].clone();
        client.create(&again).error(400);
        assert_eq!(peer.count("call echo"), before + 1);
    }
    fake.assert_sound();
}

#[test]
fn decision_26_a_remote_server_that_fails_is_424() {
    let fake = Fake::start();
    let hanging = Peer::with(peer_tools(&["echo"]), Hang::Initialize, None);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_MCP_REMOTE_ALLOWED_HOSTS", &hanging.address.to_string())
        .env("VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC", "1s")
        .start();
    for stream in [false, true] {
        let tool = json!([{"type": "mcp", "server_label": "r", "server_url": hanging.url()}]);
        let body = json!({"model": "m", "input": "x", "tools": tool, "stream": stream});
        let reply = gateway.client().create(&body);
        assert_eq!(reply.status, 424);
        let error = &reply.json()["error"];
        assert_eq!(error["type"], "external_connector_error");
        assert_eq!(error["param"], "tools[0]");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("MCP server `r` failed at initialize: no answer within 1s"),
            "{message}"
        );
    }
    assert!(fake.seen("m").is_empty());
}

#[test]
fn what_a_request_may_not_ask_for() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_MCP_REQUEST_REMOTE_ENABLED", "false")
        .start();
    let client = gateway.client();
    assert_eq!(
        client.get("/v1/mcp/servers").json(),
        json!({"object": "list", "data": []})
    );
    client.get("/v1/mcp/servers/none/tools").error(404);
    for tool in [
        json!({"type": "mcp", "server_label": "none"}),
        json!({"type": "mcp", "server_label": "r", "server_url": "https://mcp.example.com/"}),
        json!({"type": "mcp", "server_label": "r", "connector_id": "c"}),
        json!({"type": "mcp"}),
    ] {
        let reply = client.create(&json!({"model": "m", "input": "x", "tools": [tool]}));
        assert_eq!(reply.status, 400, "{tool}: {}", reply.text());
        assert!(
            reply.json()["error"]["param"]
                .as_str()
                .unwrap()
                .starts_with("tools[0]")
        );
    }
}
