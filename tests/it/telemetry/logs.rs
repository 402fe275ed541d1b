//! Log lines: ids on each that belongs to a request, the line of timings, and what is never in them.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Fake, Script, TestGateway};

const JSON: (&str, &str) = ("content-type", "application/json");
/// In a prompt, and in an answer.
const PROMPT: &str = "canary-of-the-prompt";
const ANSWER: &str = "canary-of-the-answer";

/// Lines of ours that belong to a request, by its id.
fn lines_of(log: &str, request_id: &str) -> Vec<Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["request_id"] == request_id)
        .collect()
}

/// Waits for a line of this request whose message has these words.
#[track_caller]
fn wait_line(gateway: &TestGateway, request_id: &str, words: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let log = gateway.log();
        let found = lines_of(&log, request_id).into_iter().find(|line| {
            line["message"]
                .as_str()
                .is_some_and(|message| message.contains(words))
        });
        if let Some(line) = found {
            return line;
        }
        assert!(
            Instant::now() < until,
            "no line {words:?} of {request_id}:\n{log}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn ask(gateway: &TestGateway, request_id: &str, line: (&str, &str), body: &Value) -> (u16, Value) {
    let headers = [JSON, ("x-request-id", request_id)];
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let reply = gateway
        .client()
        .send(line.0, line.1, &headers, text.as_bytes());
    assert_eq!(reply.header("x-request-id"), Some(request_id));
    (
        reply.status,
        serde_json::from_slice(&reply.body).unwrap_or_default(),
    )
}

/// Takes the table away under a running gateway.
fn break_database(path: &Path) {
    use diesel::connection::SimpleConnection as _;
    use diesel::{Connection as _, SqliteConnection};
    let mut database = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    database
        .batch_execute("PRAGMA busy_timeout=5000; ALTER TABLE responses RENAME TO gone;")
        .unwrap();
}

fn chatty(fake: &Fake) -> TestGateway {
    TestGateway::on(&fake.url())
        .env("VR_LOG_FORMAT", "json")
        .env("VR_LOG_LEVEL", "debug")
        .start()
}

#[test]
fn every_line_of_a_request_has_its_ids() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    fake.on("fails", [Script::error(503, "no")]);
    let gateway = chatty(&fake);
    let create = ("POST", "/v1/responses");
    let (_, first) = ask(
        &gateway,
        "rq-ok",
        create,
        &json!({"model": "m", "input": "a", "no_such_field": 1}),
    );
    let id = first["id"].as_str().unwrap();
    let warned = wait_line(&gateway, "rq-ok", "no_such_field");
    assert_eq!(warned["response_id"], id);

    let (status, _) = ask(
        &gateway,
        "rq-fails",
        create,
        &json!({"model": "fails", "input": "a"}),
    );
    assert_eq!(status, 503);
    let again = wait_line(&gateway, "rq-fails", "trying again");
    let failed = wait_line(&gateway, "rq-fails", "upstream call failed: status 503");
    assert_eq!(again["response_id"], failed["response_id"]);
    assert!(
        failed["response_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("resp_")),
        "{failed}"
    );
}

#[test]
fn every_line_about_the_store_has_its_ids() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = chatty(&fake);
    let create = ("POST", "/v1/responses");
    let body = json!({"model": "m", "input": "a"});
    let (_, first) = ask(&gateway, "rq-ok", create, &body);
    let id = first["id"].as_str().unwrap();
    break_database(&gateway.db());
    let (status, made) = ask(
        &gateway,
        "rq-commit",
        create,
        &json!({"model": "m", "input": "a"}),
    );
    assert_eq!((status, &made["store"]), (200, &json!(false)));
    let line = wait_line(&gateway, "rq-commit", "response not stored");
    assert_eq!(line["response_id"], made["id"]);
    let body = json!({"model": "m", "input": "a", "previous_response_id": id});
    let (status, _) = ask(&gateway, "rq-load", create, &body);
    assert_eq!(status, 503);
    let line = wait_line(&gateway, "rq-load", "stored responses not loaded");
    assert!(
        line["response_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("resp_")),
        "{line}"
    );
    for (request, method, tail) in [
        ("rq-get", "GET", ""),
        ("rq-delete", "DELETE", ""),
        ("rq-items", "GET", "/input_items"),
    ] {
        let path = format!("/v1/responses/{id}{tail}");
        ask(&gateway, request, (method, &path), &Value::Null);
        let line = wait_line(&gateway, request, "a stored response was not served");
        assert_eq!(line["response_id"], id, "{line}");
    }
}

#[test]
fn an_id_that_is_not_sane_is_replaced() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let long = "x".repeat(129);
    for wrong in ["", "two words", long.as_str()] {
        let headers = [("x-request-id", wrong)];
        let reply = gateway.client().send("GET", "/v1/models", &headers, b"");
        let id = reply.header("x-request-id").unwrap();
        assert!(id.starts_with("req_"), "{id}");
    }
}

#[test]
fn timings_say_where_the_time_went() {
    let fake = Fake::start();
    fake.on("m", [Script::says("ok")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_LOG_FORMAT", "json")
        .env("VR_LOG_TIMINGS", "1")
        .start();
    let create = ("POST", "/v1/responses");
    let body = json!({"model": "m", "input": "a", "stream": true});
    ask(&gateway, "rq-1", create, &body);
    let line = wait_line(&gateway, "rq-1", "timings");
    assert_eq!(
        (&line["input_tokens"], &line["output_tokens"]),
        (&json!(7), &json!(3))
    );
    for name in [
        "queue_ms",
        "hydrate_ms",
        "first_token_ms",
        "tools_ms",
        "store_ms",
        "total_ms",
    ] {
        assert!(
            line[name].as_i64().is_some_and(|ms| ms >= 0),
            "{name} in {line}"
        );
    }
    assert!(line["response_id"].as_str().unwrap().starts_with("resp_"));
    // What did not happen is -1.
    let body = json!({"model": "none", "input": "a", "store": false});
    ask(&gateway, "rq-2", create, &body);
    let line = wait_line(&gateway, "rq-2", "timings");
    for name in ["first_token_ms", "store_ms", "input_tokens"] {
        assert_eq!(line[name], -1, "{name} in {line}");
    }
    let lines = lines_of(&gateway.log(), "rq-1");
    let of = |message: &str| {
        lines
            .iter()
            .filter(|line| line["message"] == message)
            .count()
    };
    assert_eq!(
        (of("timings"), of("request"), lines.len()),
        (1, 1, 2),
        "{lines:?}"
    );
}

#[test]
fn messages_are_logged_when_asked_for_and_shortened() {
    let fake = Fake::start();
    fake.on("m", [Script::completion(ANSWER)]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_LOG_FORMAT", "json")
        .env("VR_LOG_MODEL_MESSAGES", "1")
        .start();
    let body = json!({"model": "m", "input": format!("{PROMPT} {}", "x".repeat(20_000))});
    ask(&gateway, "rq-1", ("POST", "/v1/responses"), &body);
    let to = wait_line(&gateway, "rq-1", PROMPT);
    let from = wait_line(&gateway, "rq-1", ANSWER);
    assert!(
        to["message"].as_str().unwrap().len() <= 8192 + 32,
        "not shortened"
    );
    assert!(to["bytes"].as_u64().unwrap() > 20_000);
    assert_eq!(to["response_id"], from["response_id"]);
}

/// T5's canaries are credentials; these are what people say.
#[test]
fn nothing_that_is_said_is_logged_otherwise() {
    let fake = Fake::start();
    fake.on("m", [Script::completion(ANSWER)]);
    fake.on("s", [Script::says(ANSWER)]);
    fake.on("fails", [Script::error(400, ANSWER)]);
    let gateway = TestGateway::on(&fake.url())
        .env("RUST_LOG", "trace")
        .env("VR_LOG_TIMINGS", "1")
        .start();
    let said = json!({"input": PROMPT, "instructions": PROMPT, "no_such_field": PROMPT,
        "metadata": {"a": PROMPT}, "tools": [{"type": "function", "name": "f", "description": PROMPT, "parameters": {}}]});
    for model in ["m", "s", "fails", "none"] {
        let mut body = said.clone();
        body["model"] = json!(model);
        body["stream"] = json!(model == "s");
        ask(
            &gateway,
            &format!("rq-{model}"),
            ("POST", "/v1/responses"),
            &body,
        );
    }
    let log = gateway.log();
    assert!(log.contains("timings"), "{log}");
    for canary in [PROMPT, ANSWER] {
        let line = log.lines().find(|line| line.contains(canary));
        assert_eq!(line, None);
    }
}
