//! Items that lead elsewhere: references, sealed reasoning, and prompts that are too long.

use serde_json::{Value, json};

use crate::harness::upstream::script::{delta, reasoning, text};
use crate::harness::{Client, Fake, Script, TestGateway, check_resource, check_stream};

fn thinks() -> Script {
    let message = json!({"role": "assistant", "reasoning": "deep thought", "content": "said"});
    Script::message(&message, "stop")
}

fn create(client: Client, body: &Value) -> Value {
    let reply = client.create(body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let resource = reply.json();
    check_resource(&resource);
    resource
}

/// The body that the model was sent last.
fn asked(fake: &Fake, model: &str) -> Value {
    fake.seen(model).pop().unwrap().body
}

#[test]
fn a_reference_stands_for_a_stored_item() {
    let fake = Fake::start();
    fake.on("m", [thinks(), Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let first = create(client, &json!({"model": "m", "input": "question"}));
    let path = format!(
        "/v1/responses/{}/input_items",
        first["id"].as_str().unwrap()
    );
    let question = client.get(&path).json()["data"][0]["id"].clone();
    let output: Vec<Value> = first["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["id"].clone())
        .collect();
    let input = json!([{"type": "item_reference", "id": question}, {"type": "item_reference", "id": output[0]},
        {"id": output[1]}, {"role": "user", "content": "next"}]);
    let next = create(client, &json!({"model": "m", "input": input}));
    assert_eq!(
        asked(&fake, "m")["messages"],
        json!([{"role": "user", "content": "question"},
            {"role": "assistant", "content": "said", "reasoning_content": "deep thought"},
            {"role": "user", "content": "next"}])
    );
    // Kept as what it stands for: deleting the first response changes nothing.
    client.delete(&format!("/v1/responses/{}", first["id"].as_str().unwrap()));
    let body = json!({"model": "m", "input": "more", "previous_response_id": next["id"]});
    create(client, &body);
    assert_eq!(asked(&fake, "m")["messages"].as_array().unwrap().len(), 5);
    let reply = client.create(&json!({"model": "m", "input": [{"id": output[0]}]}));
    assert_eq!(reply.error(400), "invalid_value");
    assert!(reply.text().contains("input[0].id"), "{}", reply.text());
}

#[test]
fn a_reference_to_someone_elses_item_leads_nowhere() {
    let fake = Fake::start();
    fake.on("m", [thinks()]);
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let line = |name: &str, key: &str| {
        use sha2::Digest as _;
        let hash = sha2::Sha256::digest(key.as_bytes());
        let digits = hash
            .iter()
            .fold(String::new(), |all, byte| format!("{all}{byte:02x}"));
        format!("{name} {digits}\n")
    };
    std::fs::write(&keys, line("a", "key-a") + &line("b", "key-b")).unwrap();
    let path = keys.to_str().unwrap();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", path)
        .start();
    let send = |key: &str, body: &Value| {
        let bearer = format!("Bearer {key}");
        let headers = [
            ("authorization", &*bearer),
            ("content-type", "application/json"),
        ];
        let body = body.to_string();
        gateway
            .client()
            .send("POST", "/v1/responses", &headers, body.as_bytes())
    };
    let first = send("key-a", &json!({"model": "m", "input": "x"})).json();
    let body = json!({"model": "m", "input": [{"id": first["output"][0]["id"]}]});
    assert_eq!(send("key-a", &body).status, 200);
    assert_eq!(send("key-b", &body).error(400), "invalid_value");
}

#[test]
fn sealed_reasoning_outlives_the_process_and_not_its_key() {
    let fake = Fake::start();
    fake.on("m", [thinks(), Script::completion("ok")]);
    let mut gateway = TestGateway::on(&fake.url()).start();
    let first = create(
        gateway.client(),
        &json!({"model": "m", "input": "x", "store": false}),
    );
    let sealed = first["output"][0]["encrypted_content"].clone();
    assert!(!sealed.as_str().unwrap().contains("deep"));
    let item = json!({"type": "reasoning", "summary": [], "encrypted_content": sealed});
    let body = json!({"model": "m", "store": false, "input": [{"role": "user", "content": "x"}, item,
        {"role": "assistant", "content": "said"}, {"role": "user", "content": "y"}]});
    gateway.restart();
    create(gateway.client(), &body);
    assert_eq!(
        asked(&fake, "m")["messages"][1]["reasoning_content"],
        "deep thought"
    );
    let elsewhere = TestGateway::on(&fake.url()).start();
    let told = create(elsewhere.client(), &body);
    assert_eq!(
        told["input_transformations"][0]["reason"],
        "organization_mismatch"
    );
    assert!(!asked(&fake, "m").to_string().contains("deep thought"));
    let shared = "ab".repeat(32);
    let one = TestGateway::on(&fake.url())
        .env("VR_SEAL_KEYS", &shared)
        .start();
    let rotated = format!("{}, {shared}", "cd".repeat(32));
    let other = TestGateway::on(&fake.url())
        .env("VR_SEAL_KEYS", &rotated)
        .start();
    fake.set("m", [thinks(), Script::completion("ok")]);
    let first = create(
        one.client(),
        &json!({"model": "m", "input": "x", "store": false}),
    );
    let mut body = body;
    body["input"][1]["encrypted_content"] = first["output"][0]["encrypted_content"].clone();
    create(other.client(), &body);
}

#[test]
fn without_retention_nothing_is_kept() {
    let fake = Fake::start();
    fake.on("m", [thinks()]);
    let gateway = TestGateway::on(&fake.url()).env("VR_ZDR", "1").start();
    let client = gateway.client();
    let told = create(client, &json!({"model": "m", "input": "x"}));
    assert_eq!(told["store"], false);
    assert!(told["output"][0]["encrypted_content"].is_string());
    client
        .get(&format!("/v1/responses/{}", told["id"].as_str().unwrap()))
        .error(404);
    for extra in [
        json!({"store": true}),
        json!({"previous_response_id": told["id"]}),
    ] {
        let mut body = json!({"model": "m", "input": "x"});
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        assert_eq!(client.create(&body).error(400), "unsupported_value");
    }
}

#[test]
fn summaries_stream_with_the_thinking() {
    let fake = Fake::start();
    let script = Script::stream()
        .data(&reasoning("First.\n"))
        .data(&reasoning("\nSecond."))
        .data(&text("a"))
        .end("stop");
    fake.on("m", [script]);
    let gateway = TestGateway::on(&fake.url()).start();
    let body =
        json!({"model": "m", "input": "x", "stream": true, "reasoning": {"summary": "auto"}});
    let events = check_stream(&gateway.client().create(&body).text());
    let kinds: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    let at = |kind: &str| kinds.iter().position(|k| *k == kind).unwrap();
    // The summary is done as soon as its paragraph is.
    assert!(at("response.reasoning_summary_part.done") < at("response.reasoning_text.done"));
    let item = &events.last().unwrap()["response"]["output"][0];
    assert_eq!(item["summary"][0]["text"], "First.");
    assert_eq!(item["content"][0]["text"], "First.\n\nSecond.");
}

fn too_long() -> Script {
    let message =
        "This model's maximum context length is 100 tokens. However, you requested 200 tokens.";
    Script::error(400, message)
}

fn long(model: &str, extra: &Value) -> Value {
    let mut input = Vec::new();
    for turn in 0..10 {
        input.push(json!({"role": "user", "content": format!("question {turn}")}));
        input.push(json!({"role": "assistant", "content": "answer ".repeat(20)}));
    }
    input.push(json!({"role": "user", "content": "last"}));
    let mut body = json!({"model": model, "input": input, "truncation": "auto"});
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[test]
fn a_prompt_that_is_too_long_goes_without_its_oldest_turns() {
    let fake = Fake::start();
    let count = Script::json(
        200,
        &json!({"count": 200, "max_model_len": 100, "tokens": [1, 2]}),
    );
    fake.on("tokenize counts", [count]);
    for (model, refusals) in [("counts", 1), ("halves", 2)] {
        let refused = std::iter::repeat_n(too_long(), refusals);
        fake.on(model, refused.chain([Script::completion("ok")]));
    }
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    for (model, left) in [("counts", 4), ("halves", 2)] {
        let told = create(client, &long(model, &json!({})));
        assert_eq!(told["status"], "completed");
        let messages = asked(&fake, model)["messages"].as_array().unwrap().clone();
        assert_eq!(messages.len(), 2 * left + 1, "{model}");
        assert_eq!(messages[0]["content"], format!("question {}", 10 - left));
        assert!(gateway.log().contains("oldest turns are left out"));
    }
    // What is told of the input is what was sent.
    fake.on("disabled", [too_long()]);
    let reply = client.create(&long("disabled", &json!({"truncation": "disabled"})));
    assert_eq!(reply.error(400), "context_length_exceeded");
}

#[test]
fn a_streamed_prompt_that_is_too_long_is_one_response() {
    let fake = Fake::start();
    fake.on("m", [too_long(), Script::says("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let body = long("m", &json!({"stream": true}));
    let events = check_stream(&gateway.client().create(&body).text());
    assert_eq!(events.last().unwrap()["type"], "response.completed");
}

#[test]
fn prompts_are_counted_as_they_are_sent() {
    let fake = Fake::start();
    let count = Script::json(
        200,
        &json!({"count": 42, "max_model_len": 100, "tokens": [1]}),
    );
    fake.on("tokenize m", [count]);
    fake.on("m", [thinks(), Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let first = create(client, &json!({"model": "m", "input": "x"}));
    let body = json!({"model": "m", "input": "y", "instructions": "be brief", "stream": true,
        "previous_response_id": first["id"], "tools": [{"type": "apply_patch"}]});
    let told = client.post("/v1/responses/input_tokens", &body);
    let expected = json!({"object": "response.input_tokens", "input_tokens": 42});
    assert_eq!((told.status, told.json()), (200, expected));
    let counted = asked(&fake, "m");
    create(
        client,
        &json!({"model": "m", "input": "y", "instructions": "be brief",
        "previous_response_id": first["id"], "tools": [{"type": "apply_patch"}]}),
    );
    let sent = asked(&fake, "m");
    for part in ["messages", "tools"] {
        assert_eq!(counted[part], sent[part]);
    }
    assert_eq!(counted.get("stream"), None);
    let unknown = client.post(
        "/v1/responses/input_tokens",
        &json!({"model": "other", "input": "y"}),
    );
    assert_eq!(unknown.error(502), "upstream_bad_response");
    client
        .post("/v1/responses/input_tokens", &json!({"input": "y"}))
        .error(400);
}

#[test]
fn a_forced_grammar_goes_through_the_model_server() {
    let fake = Fake::start();
    let script = Script::stream()
        .data(&delta(&json!({"content": "aa"})))
        .end("stop");
    fake.on("m", [script]);
    let gateway = TestGateway::on(&fake.url()).start();
    let body = json!({"model": "m", "input": "x", "stream": true, "tool_choice": {"type": "custom", "name": "c"},
        "tools": [{"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark", "definition": "start: \"a\"+"}}]});
    let events = check_stream(&gateway.client().create(&body).text());
    let item = &events.last().unwrap()["response"]["output"][0];
    assert_eq!(
        (&item["type"], &item["input"]),
        (&json!("custom_tool_call"), &json!("aa"))
    );
    assert_eq!(
        asked(&fake, "m")["structured_outputs"]["grammar"],
        "start: \"a\"+"
    );
}

#[test]
fn a_conversation_goes_on_from_its_summary_after_a_restart() {
    let fake = Fake::start();
    fake.on(
        "m",
        [
            Script::completion("said"),
            Script::completion("In short: red."),
            Script::completion("ok"),
        ],
    );
    let mut gateway = TestGateway::on(&fake.url()).start();
    let first = create(
        gateway.client(),
        &json!({"model": "m", "input": "paint it red"}),
    );
    let body = json!({"model": "m", "previous_response_id": first["id"], "input": [{"type": "compaction_trigger"}]});
    let summary = create(gateway.client(), &body);
    assert_eq!(summary["output"][0]["type"], "compaction");
    gateway.restart();
    let body = json!({"model": "m", "previous_response_id": summary["id"], "input": "and now?"});
    create(gateway.client(), &body);
    let messages = asked(&fake, "m")["messages"].clone();
    let told: Vec<&str> = messages
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["content"].as_str().unwrap())
        .collect();
    assert_eq!(told[0], "paint it red");
    assert!(told[1].ends_with("In short: red."), "{told:?}");
    assert_eq!(told[2..], ["and now?"]);
    let listed = gateway.client().get(&format!(
        "/v1/responses/{}/input_items",
        summary["id"].as_str().unwrap()
    ));
    assert_eq!(
        listed.json()["data"].as_array().unwrap().len(),
        2,
        "the trigger is no item of the conversation"
    );
}
