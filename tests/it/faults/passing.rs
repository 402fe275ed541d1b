//! The chat pass-through under pressure, clients that read slowly, tokens of calls that were cut, and
//! keys that a model server quotes.
//!
//! Mutations that fail this group: no limit for silence in `http::passing`; the idle clock of a turn
//! not stopped while its client owes a read; no estimate; `Secrets` that find nothing.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::client::{Open, request};
use crate::harness::upstream::script::{error_body, finish, framed, text};
use crate::harness::{Fake, Script, TestGateway, check_stream, knobs};

const CHAT: &str = "/v1/chat/completions";
const KEY: &str = "sk-quoted-0123456789/abc";

fn open_chat(gateway: &TestGateway, body: &serde_json::Value) -> Open {
    let mut open = Open::connect(gateway.client().address).expect("connect");
    let json = [("content-type", "application/json")];
    let bytes = request("POST", CHAT, &json, body.to_string().as_bytes());
    open.write(&bytes).expect("write");
    open
}

fn chat(model: &str) -> serde_json::Value {
    json!({"model": model, "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "x"}]})
}

fn until_closed(fake: &Fake, model: &str, limit: Duration) {
    let began = Instant::now();
    fake.wait_closed(model);
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());
}

#[test]
fn a_chat_answer_that_falls_silent_is_ended() {
    let fake = Fake::start();
    fake.on("m", [Script::stream().data(&text("a")).hold()]);
    let gateway = TestGateway::on(&fake.url())
        .env(knobs::IDLE_TIMEOUT, "1s")
        .start();
    let mut open = open_chat(&gateway, &chat("m"));
    open.read_until("data: ");
    until_closed(&fake, "m", Duration::from_secs(15));
    assert!(
        open.reply().is_err(),
        "its end is not one of a whole answer"
    );
}

#[test]
fn a_chat_answer_hears_the_stop() {
    let fake = Fake::start();
    fake.on("m", [Script::stream().data(&text("a")).hold()]);
    fake.on("silent", [Script::bare().hold()]);
    let mut gateway = TestGateway::on(&fake.url())
        .env(knobs::SHUTDOWN_GRACE, "1s")
        .start();
    let mut open = open_chat(&gateway, &chat("m"));
    let mut silent = open_chat(&gateway, &chat("silent"));
    open.read_until("data: ");
    fake.wait_seen("silent", 1);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(silent.reply().expect("an answer").status, 503);
    assert!(open.reply().is_err(), "cut off");
    assert_eq!(gateway.wait_exit(Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn a_chat_request_is_let_go_of_when_it_is_sent() {
    const MEGABYTES: usize = 20;
    let fake = Fake::start();
    fake.on("m", [Script::stream().data(&text("a")).hold()]);
    let gateway = TestGateway::on(&fake.url()).start();
    let mut body = chat("m");
    body["messages"][0]["content"] = json!("x".repeat(MEGABYTES << 20));
    let mut open = open_chat(&gateway, &body);
    open.read_until("data: ");
    let page = gateway.client().get("/metrics").text();
    let line = page
        .lines()
        .find(|line| {
            line.contains("buffered_bytes") && !line.contains("limit") && !line.starts_with('#')
        })
        .expect("the gauge");
    let buffered: f64 = line
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .expect("a number");
    assert!(buffered < 1e6, "{line}");
}

/// While a client owes a read its model server is not read either, so it cannot be silent.
#[test]
fn a_slow_client_is_not_blamed_on_the_model_server() {
    let fake = Fake::start();
    let chunks: Vec<_> = (0..500)
        .map(|n| text(&format!("{n} {}", "x".repeat(8192))))
        .collect();
    fake.on("m", [Script::stream().all(&chunks).end("stop")]);
    let gateway = TestGateway::on(&fake.url())
        .env(knobs::IDLE_TIMEOUT, "1s")
        .start();
    let client = gateway.client();
    let mut turn = client.open(&json!({"model": "m", "input": "x", "stream": true}));
    let mut pass = open_chat(&gateway, &chat("m"));
    turn.read_until("response.created");
    thread::sleep(Duration::from_secs(4));
    let events = check_stream(&turn.reply().expect("whole").text());
    assert_eq!(events[events.len() - 1]["type"], "response.completed");
    let whole = pass.reply().expect("whole").text();
    assert!(whole.ends_with("data: [DONE]\n\n"));
}

/// A caller that leaves before the usage is told, or does not ask for it, is charged what was seen.
#[test]
fn t6_calls_that_tell_no_usage_are_charged() {
    let fake = Fake::start();
    let words: Vec<_> = (0..60).map(|n| text(&format!("w{n} "))).collect();
    fake.on("left", [Script::stream().all(&words).hold()]);
    fake.on("untold", [Script::stream().all(&words).done()]);
    fake.on("error", [Script::error(400, &"no ".repeat(400))]);
    let refused = |leave: &dyn Fn(&TestGateway)| {
        let gateway = TestGateway::on(&fake.url())
            .env("VR_TOKENS_PER_MINUTE", "50")
            .start();
        leave(&gateway);
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            let reply = gateway
                .client()
                .create(&json!({"model": "error", "input": "x"}));
            if reply.status == 429 {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    };
    assert!(refused(&|gateway| {
        let mut open = gateway
            .client()
            .open(&json!({"model": "left", "input": "x", "stream": true}));
        open.read_until("w59");
        open.leave_fin();
    }));
    assert!(refused(&|gateway| {
        let mut open = open_chat(gateway, &chat("left"));
        open.read_until("w59");
        open.leave_fin();
    }));
    assert!(refused(&|gateway| {
        drop(gateway.client().post(CHAT, &chat("untold")));
    }));
    assert!(
        !refused(&|gateway| {
            drop(gateway.client().post(CHAT, &chat("error")));
        }),
        "errors cost nothing"
    );
}

#[test]
fn a_key_that_the_model_server_quotes_is_shown_to_nobody() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_OPENAI_API_KEY", KEY)
        .start();
    let client = gateway.client();
    let hidden = |told: &str, case: &str| {
        assert!(
            !told.contains(KEY) && !told.contains("0123456789"),
            "{case}: {told}"
        );
    };
    for status in [400, 401, 403, 404, 422, 429, 500, 503] {
        let model = format!("m{status}");
        let body = error_body(status, &format!("key {KEY} is over its quota"));
        let headers = [("content-type", "application/json"), ("retry-after", KEY)];
        let script = Script::answer(status, &headers, body.to_string().as_bytes());
        fake.on(&model, [script]);
        for stream in [false, true] {
            let reply = client.create(&json!({"model": model, "input": "x", "stream": stream}));
            hidden(&reply.text(), &format!("{status} {stream}"));
            hidden(reply.header("retry-after").unwrap_or_default(), "header");
        }
        let reply = client.post(CHAT, &chat(&model));
        assert_eq!(reply.status, status);
        hidden(&reply.text(), &format!("{status} chat"));
        hidden(reply.header("retry-after").unwrap_or_default(), "header");
        assert!(reply.text().contains("key [redacted] is over its quota"));
    }
    // In a stream, an error or not, and cut within the key.
    let event = format!(
        "data: {}\n\n",
        json!({"error": {"message": format!("bad {KEY}!"), "code": 400}})
    );
    let cut = event.find("0123").expect("the key") + 2;
    let script = Script::stream()
        .data(&text(&format!("said {KEY}")))
        .wire(framed(&event.as_bytes()[..cut]))
        .sleep(20)
        .wire(framed(&event.as_bytes()[cut..]))
        .done();
    fake.on("stream", [script]);
    let reply = client.create(&json!({"model": "stream", "input": "x", "stream": true}));
    hidden(&reply.text(), "stream");
    let reply = client.post(CHAT, &chat("stream"));
    hidden(&reply.text(), "chat stream");
    assert!(reply.text().contains("bad [redacted]!"), "{}", reply.text());
    let log = gateway.log();
    hidden(&log, "log");
    assert!(log.contains("told of a fault inside its answer"), "{log}");
}

/// Some servers and chat templates quote what they were sent. An operator hears of the fault, and
/// of its words only where the log has what is said in any case.
#[test]
fn p17_a_fault_inside_an_answer_is_logged_without_the_prompt() {
    let fake = Fake::start();
    let words = "cannot tokenize: 'my CANARY secret'";
    let body = json!({"error": {"message": words, "code": 500, "type": "CANARY"}});
    let frame = Script::stream().data(&body).done();
    let event = Script::stream().chunk(format!("event: error\ndata: {body}\n\n"));
    let late = Script::stream().data(&text("x")).data(&body).done();
    let scripts = [frame, event.done(), late, Script::json(200, &body)];
    for (at, script) in scripts.into_iter().enumerate() {
        fake.on(&format!("m{at}"), [script]);
    }
    for said in [false, true] {
        let mut builder = TestGateway::on(&fake.url()).env("VR_LOG_LEVEL", "debug");
        if said {
            builder = builder.env("VR_LOG_MODEL_MESSAGES", "1");
        }
        let gateway = builder.start();
        for stream in [false, true] {
            for at in 0..4 {
                let body = json!({"model": format!("m{at}"), "input": "x", "stream": stream});
                let reply = gateway.client().create(&body);
                assert!(reply.text().contains(words), "the client is told");
            }
        }
        let log = gateway.log();
        assert_eq!(log.matches("told of a fault inside its answer").count(), 8);
        assert!(log.contains("upstream_status=500"), "{log}");
        assert_eq!(log.contains("CANARY"), said, "{log}");
    }
}

/// All that came is the client's, whether or not the model server ended it well: a client that is told
/// nothing asks again, and the model answers twice.
#[test]
fn p9_what_came_before_a_break_is_handed_on() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let answer = || Script::stream().data(&text("all")).data(&finish("stop"));
    let answer = || answer().chunk("data: [DONE]\n\n");
    let kind = "content-type: text/event-stream\r\ncontent-length: 4000\r\n\r\n";
    let short = format!("HTTP/1.1 200 OK\r\n{kind}data: all\n\ndata: [DONE]\n\n");
    let open_ended = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
                      data: all\n\ndata: [DONE]\n\n";
    let scripts = [
        answer().fin(),
        answer().reset(),
        answer().wire("xyz\r\n").fin(),
        Script::bare().wire(short).fin(),
        // A reset is no end, even where the end of the connection is that of the answer.
        Script::bare().wire(open_ended).sleep(50).reset(),
    ];
    for (at, script) in scripts.into_iter().enumerate() {
        let model = format!("m{at}");
        // In one piece, and in as many as it has.
        let mut at_once = script.clone();
        at_once.steps.clear();
        let mut at_once = at_once.wire(script.bytes());
        at_once.steps.extend(script.steps.last().cloned());
        // A reset may overtake what was written before it.
        let at_once = match at {
            1 | 4 => script.clone(),
            _ => at_once,
        };
        fake.on(&model, [at_once, script]);
        for _ in 0..2 {
            let mut open = open_chat(&gateway, &chat(&model));
            let ended = open.reply();
            let told = open.so_far();
            if matches!(at, 1 | 4) && told.starts_with("HTTP/1.1 502") {
                continue;
            }
            assert!(ended.is_err(), "{at}: the break is the client's too");
            assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{at}: {told}");
            assert!(
                told.contains("all") && told.contains("[DONE]"),
                "{at}: {told}"
            );
        }
    }
}

/// Where a model server points, nobody goes: neither the gateway with its key nor the client.
#[test]
fn redirects_of_a_chat_answer_are_not_passed_on() {
    let (fake, elsewhere) = (Fake::start(), Fake::start());
    let gateway = TestGateway::on(&fake.url())
        .env("VR_OPENAI_API_KEY", KEY)
        .start();
    let to = format!("{}/v1/chat/completions", elsewhere.url());
    for status in [301, 302, 303, 307, 308] {
        let model = format!("m{status}");
        fake.on(
            &model,
            [Script::answer(status, &[("location", &to)], b"go")],
        );
        for stream in [false, true] {
            let mut body = chat(&model);
            body["stream"] = json!(stream);
            let reply = gateway.client().post(CHAT, &body);
            assert_eq!(reply.error(502), "upstream_bad_response");
            assert_eq!(reply.header("location"), None);
            assert_eq!(reply.header("x-should-retry"), Some("false"));
            assert!(!reply.text().contains(&elsewhere.url()));
        }
    }
    assert_eq!(elsewhere.connections(), 0, "nobody followed");
}
