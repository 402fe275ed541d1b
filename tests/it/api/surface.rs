//! Headers, models, the chat passthrough, and the table of errors.

use serde_json::{Value, json};

use crate::harness::tree::until;
use crate::harness::{Fake, Script, TestGateway};

const JSON: (&str, &str) = ("content-type", "application/json");

/// vLLM keeps what it runs by `x-request-id`: two of one name fail or end each other, whoever sent them.
#[test]
fn p20_each_call_of_the_model_server_has_an_id_of_its_own() {
    let fake = Fake::start();
    let whole = || Script::completion("ok");
    // A second call, a second attempt, and an answer at once.
    let unknown = "reasoning_effort='minimal' is not supported by Harmony";
    fake.on("twice", [Script::error(400, unknown), whole()]);
    fake.on("m", [Script::error(503, "not yet")]);
    fake.on("m", [whole(), whole(), whole(), whole()]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_LOG_FORMAT", "json")
        .start();
    let client = gateway.client();
    let headers = [JSON, ("x-request-id", "mine-1")];
    let ask = |path: &str, body: &Value| {
        let reply = client.send("POST", path, &headers, body.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("x-request-id"), Some("mine-1"));
        reply.json()["id"].as_str().expect("an id").to_owned()
    };
    let effort = json!({"effort": "minimal"});
    let twice = json!({"model": "twice", "input": "a", "reasoning": effort});
    let twice = ask("/v1/responses", &twice);
    let plain = json!({"model": "m", "input": "a"});
    let tried = ask("/v1/responses", &plain);
    let other = ask("/v1/responses", &plain);
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    ask("/v1/chat/completions", &chat);
    ask("/v1/chat/completions", &chat);
    let ids = |model: &str| -> Vec<String> {
        let seen = fake.seen(model);
        let ids = seen.iter().map(|seen| seen.header("x-request-id"));
        ids.map(|id| id.expect("an id").to_owned()).collect()
    };
    assert_eq!(ids("twice"), [format!("{twice}-1"), format!("{twice}-2")]);
    let of_m = ids("m");
    let expected = [
        format!("{tried}-1"),
        format!("{tried}-1.1"),
        format!("{other}-1"),
    ];
    assert_eq!(of_m[..3], expected);
    let passed: Vec<&String> = of_m[3..].iter().collect();
    assert!(passed.len() == 2 && passed[0] != passed[1], "{passed:?}");
    for id in passed {
        assert!(id.starts_with("req_"), "{id}");
        // Where an operator finds it again.
        let noted = format!("\"upstream_id\":\"{id}\"");
        let told = |line: &str| line.contains("\"mine-1\"") && line.contains(&noted);
        until(&noted, || gateway.log().lines().any(told));
    }
}

#[test]
fn request_ids_go_in_and_out() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let body = json!({"model": "m", "input": "a"}).to_string();
    let headers = [JSON, ("x-request-id", "mine-1")];
    let reply = gateway
        .client()
        .send("POST", "/v1/responses", &headers, body.as_bytes());
    assert_eq!(reply.header("x-request-id"), Some("mine-1"));
    assert!(
        reply
            .header("openai-processing-ms")
            .is_some_and(|ms| ms.parse::<u64>().is_ok())
    );
    assert!(
        gateway
            .client()
            .get("/v1/models")
            .header("x-request-id")
            .is_some()
    );
}

#[test]
fn models_are_the_upstreams() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let list = client.get("/v1/models").json();
    assert_eq!(list["data"][0]["max_model_len"], 4096);
    assert_eq!(client.get("/v1/models/test-model").json(), list["data"][0]);
    assert_eq!(client.get("/v1/models/none").error(404), "model_not_found");
}

#[test]
fn chat_completions_pass_unchanged() {
    let fake = Fake::start();
    fake.on("m", [Script::says("hi")]);
    fake.on("bad", [Script::error(400, "the upstream's own words")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let body = json!({"model": "m", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "x"}]});
    let reply = client.post("/v1/chat/completions", &body);
    assert!(
        reply.text().ends_with("data: [DONE]\n\n"),
        "{}",
        reply.text()
    );
    assert_eq!(fake.seen("m")[0].raw, body.to_string().as_bytes());
    let body = json!({"model": "bad", "messages": [{"role": "user", "content": "x"}]});
    let reply = client.post("/v1/chat/completions", &body);
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["error"]["message"], "the upstream's own words");
    // A gateway that has no connection to it yet.
    let gateway = TestGateway::on(&fake.url()).start();
    drop(fake);
    let client = gateway.client();
    let code = client.post("/v1/chat/completions", &body).error(502);
    assert_eq!(code, "upstream_unavailable");
}

#[test]
fn request_errors_have_their_codes() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let answer = json!([{"type": "function_call_output", "call_id": "c", "output": "x"}]);
    let cases = [
        (
            json!({"model": "m", "input": 1}),
            400,
            json!("invalid_type"),
        ),
        (
            json!({"model": "m", "input": "x", "temperature": 9}),
            400,
            json!("invalid_value"),
        ),
        (
            json!({"input": "x"}),
            400,
            json!("missing_required_parameter"),
        ),
        (json!({"model": "m", "input": answer}), 400, json!(null)),
        (
            json!({"model": "unknown", "input": "x"}),
            404,
            json!("model_not_found"),
        ),
    ];
    for (body, status, code) in cases {
        assert_eq!(client.create(&body).error(status), code, "{body}");
    }
    client.get("/v1/none").error(404);
    client.get("/v1/responses").error(405);
}

#[test]
fn what_sdks_can_call_and_is_not_served_is_refused_clearly() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let made = client.create(&json!({"model": "m", "input": "x"})).json();
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());

    let cancelled = client.send("POST", &format!("{path}/cancel"), &[], b"");
    assert_eq!(cancelled.error(400), json!(null));
    assert!(cancelled.text().contains("`background`"));
    let unknown = client.send("POST", "/v1/responses/resp_0/cancel", &[], b"");
    assert_eq!(unknown.error(404), json!(null));

    let streamed = client.get(&format!("{path}?stream=true&starting_after=3"));
    assert_eq!(streamed.error(400), "unsupported_value");
    assert_eq!(streamed.json()["error"]["param"], "stream");
    assert_eq!(client.get(&format!("{path}?stream=false")).json(), made);

    let conversations = client.post("/v1/conversations", &json!({"items": []}));
    assert_eq!(conversations.error(404), json!(null));
    assert!(conversations.text().contains("`previous_response_id`"));
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    let socket = client.send("GET", "/v1/responses", &upgrade, b"");
    assert_eq!(socket.error(405), json!(null));
    assert!(socket.text().contains("WebSockets are not served"));
}

#[test]
fn images_and_structured_output_go_upstream_as_chat_has_them() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("{}")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let image = "data:image/png;base64,AAAA";
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let body = json!({"model": "m",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "what"},
            {"type": "input_image", "image_url": image, "detail": "auto"}]}],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema,
            "strict": true}}});
    assert_eq!(gateway.client().create(&body).status, 200);
    let sent = &fake.seen("m")[0].body;
    assert_eq!(sent["messages"][0]["content"][1]["image_url"]["url"], image);
    let format = &sent["response_format"];
    assert_eq!(format["type"], "json_schema");
    assert_eq!(format["json_schema"]["name"], "n");
    assert_eq!(format["json_schema"]["schema"], schema);
    assert_eq!(format["json_schema"]["strict"], true);
}
