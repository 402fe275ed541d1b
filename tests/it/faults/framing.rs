//! HTTP/1.1 of model servers as RFC 9112 has it: interim answers, each framing of a body, and bytes
//! that belong to nobody. Never is a byte of one exchange part of another.
//!
//! Mutations that fail this group: an interim answer taken for the final one; a body without length
//! read as empty; a connection with unread bytes used again.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::upstream::script::{finish, text, usage};
use crate::harness::{Client, Fake, Reply, Script, TestGateway, check_stream};

const INTERIM: [&str; 4] = [
    "",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n",
    "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\ncontent-length: 3\r\n\r\n",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunks,
    /// As nginx sends it with `chunked_transfer_encoding off`.
    UntilClose,
    Old,
    /// Says that it will close, and does not.
    LengthThenClose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Nothing,
    Rubbish,
    /// A whole answer that nobody asked for.
    Answer,
    /// The same, while the connection is idle.
    Late,
    /// The connection ends before the body does.
    Short,
}

/// How a client asks, and so how the answer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Stream,
    Whole,
    Chat,
}

const FORMS: [Form; 3] = [Form::Stream, Form::Whole, Form::Chat];

fn body(form: Form, words: &str) -> (&'static str, String) {
    if form == Form::Stream {
        let events = [text(words), finish("stop"), usage(7, 3)];
        let mut out = String::new();
        for event in events {
            out.push_str(&format!("data: {event}\n\n"));
        }
        out.push_str("data: [DONE]\n\n");
        return ("text/event-stream", out);
    }
    let message = json!({"role": "assistant", "content": words});
    let whole = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}});
    ("application/json", whole.to_string())
}

fn answer(form: Form, words: &str, framing: Framing, short: bool) -> Vec<u8> {
    let (kind, body) = body(form, words);
    let length = body.len() + if short { 10 } else { 0 };
    let lines = match framing {
        Framing::Length => format!("content-length: {length}\r\n"),
        Framing::LengthThenClose => format!("content-length: {length}\r\nconnection: close\r\n"),
        Framing::Chunks => "transfer-encoding: chunked\r\n".to_owned(),
        Framing::UntilClose | Framing::Old => String::new(),
    };
    let version = i32::from(framing != Framing::Old);
    let mut out = format!("HTTP/1.{version} 200 OK\r\ncontent-type: {kind}\r\n{lines}\r\n");
    if framing == Framing::Chunks {
        let (one, two) = body.split_at(body.len() / 2);
        let end = if short { "" } else { "0\r\n\r\n" };
        out.push_str(&format!(
            "{:x}\r\n{one}\r\n{:X};x=y\r\n{two}\r\n{end}",
            one.len(),
            two.len()
        ));
    } else {
        out.push_str(&body);
    }
    out.into_bytes()
}

fn script(form: Form, interim: &str, framing: Framing, behind: Behind) -> Script {
    let good = answer(form, "alpha", framing, behind == Behind::Short);
    let evil = answer(form, "evil", Framing::Length, false);
    let mut script = Script::bare();
    if !interim.is_empty() {
        script = script.wire(interim).sleep(10);
    }
    script = match behind {
        Behind::Nothing | Behind::Short => script.wire(good),
        Behind::Rubbish => script.wire([good, b"\r\nrubbish".to_vec()].concat()),
        Behind::Answer => script.wire([good, evil].concat()),
        Behind::Late => script.wire(good).sleep(20).wire(evil),
    };
    if behind == Behind::Short || matches!(framing, Framing::UntilClose | Framing::Old) {
        return script.fin();
    }
    script
}

fn ask(client: &Client, form: Form, model: &str) -> Reply {
    match form {
        Form::Chat => client.post(
            "/v1/chat/completions",
            &json!({"model": model, "messages": [{"role": "user", "content": "x"}]}),
        ),
        Form::Stream | Form::Whole => {
            client.create(&json!({"model": model, "input": "x", "stream": form == Form::Stream}))
        }
    }
}

/// The words that a reply tells, where it is a good one.
fn said(form: Form, reply: &Reply) -> Option<String> {
    if reply.status != 200 {
        return None;
    }
    let (text, at) = match form {
        Form::Chat => (reply.json(), "/choices/0/message/content"),
        Form::Whole => (reply.json(), "/output/0/content/0/text"),
        Form::Stream => {
            let mut events = check_stream(&reply.text());
            let last = events.pop()?;
            if last["type"] != "response.completed" {
                return None;
            }
            (last["response"].clone(), "/output/0/content/0/text")
        }
    };
    text.pointer(at).and_then(Value::as_str).map(str::to_owned)
}

fn gateway(fake: &Fake) -> TestGateway {
    // One worker: the second client finds the first one's connection.
    TestGateway::on(&fake.url())
        .flag("--gateway-workers=1")
        .start()
}

fn framings() -> Vec<(Framing, Behind)> {
    use Behind::{Answer, Late, Nothing, Rubbish, Short};
    use Framing::{Chunks, Length, LengthThenClose, Old, UntilClose};
    let mut all = Vec::new();
    for framing in [Length, Chunks, LengthThenClose] {
        all.extend([Nothing, Rubbish, Answer, Late, Short].map(|behind| (framing, behind)));
    }
    all.extend([UntilClose, Old].map(|framing| (framing, Nothing)));
    all
}

#[test]
fn an_answer_is_read_as_it_is_framed_and_never_by_another() {
    let fake = Fake::start();
    let gateway = gateway(&fake);
    let client = gateway.client();
    for form in FORMS {
        let model = format!("beta {form:?}");
        let beta = answer(form, "beta", Framing::Length, false);
        fake.on(&model, [Script::bare().wire(beta)]);
        for interim in INTERIM {
            for (framing, behind) in framings() {
                let case = format!("{form:?} {interim:?} {framing:?} {behind:?}");
                fake.on(&case, [script(form, interim, framing, behind)]);
                // A verbatim answer that breaks off does so for the client too.
                if (form, behind) != (Form::Chat, Behind::Short) {
                    let told = said(form, &ask(&client, form, &case));
                    let cut = behind == Behind::Short
                        && (form == Form::Whole || framing == Framing::Chunks);
                    match told.as_deref() {
                        Some("alpha") => {}
                        None if cut => {}
                        other => panic!("{case}: {other:?}"),
                    }
                }
                if behind == Behind::Late {
                    thread::sleep(Duration::from_millis(60));
                }
                let next = said(form, &ask(&client, form, &model));
                assert_eq!(next.as_deref(), Some("beta"), "behind {case}");
                let asked = fake.seen(&case).len();
                let once = usize::from((form, behind) != (Form::Chat, Behind::Short));
                assert_eq!(asked, once, "{case} was asked once");
            }
        }
    }
}

/// Two clients at once, each with odd answers, on the same connections.
#[test]
fn two_clients_never_get_each_others_answers() {
    let fake = Fake::start();
    let gateway = gateway(&fake);
    for (at, form) in FORMS.into_iter().enumerate() {
        for n in 0..2 {
            let words = format!("own-{n}");
            let scripts = INTERIM.iter().map(|interim| {
                let good = answer(form, &words, Framing::Length, false);
                let behind: &[u8] = if n == 0 {
                    b"HTTP/1.1 200 OK\r\n\r\nevil"
                } else {
                    b""
                };
                Script::bare()
                    .wire(*interim)
                    .sleep(3)
                    .wire([&good, behind].concat())
            });
            fake.on(&format!("{at} {n}"), scripts);
        }
    }
    thread::scope(|scope| {
        for n in 0..2 {
            let client = gateway.client();
            scope.spawn(move || {
                for round in 0..30 {
                    let at = round % FORMS.len();
                    let reply = ask(&client, FORMS[at], &format!("{at} {n}"));
                    let told = said(FORMS[at], &reply);
                    assert_eq!(told, Some(format!("own-{n}")), "{round}: {}", reply.text());
                }
            });
        }
    });
}

#[test]
fn a_good_connection_is_used_again_and_an_odd_one_is_not() {
    let fake = Fake::start();
    let gateway = gateway(&fake);
    let client = gateway.client();
    for (framing, behind, again) in [
        (Framing::Length, Behind::Nothing, true),
        (Framing::Chunks, Behind::Nothing, true),
        (Framing::LengthThenClose, Behind::Nothing, false),
        (Framing::Length, Behind::Rubbish, false),
    ] {
        for form in FORMS {
            let case = format!("{form:?} {framing:?} {behind:?}");
            fake.on(&case, [script(form, INTERIM[2], framing, behind)]);
            ask(&client, form, &case);
            let before = fake.connections();
            for _ in 0..3 {
                assert_eq!(
                    said(form, &ask(&client, form, &case)).as_deref(),
                    Some("alpha")
                );
            }
            let fresh = fake.connections() - before;
            // The model list is asked for beside it.
            assert_eq!(fresh < 3, again, "{case}: {fresh} new connections");
        }
    }
}

/// A model server that is asked for the second time may have worked on the first.
#[test]
fn a_request_that_was_sent_is_not_sent_again() {
    let fake = Fake::start();
    let gateway = gateway(&fake);
    let client = gateway.client();
    for form in FORMS {
        let lost = [
            ("at once", Script::bare().fin()),
            ("with a reset", Script::bare().sleep(50).reset()),
            ("after a while", Script::bare().sleep(1500).fin()),
            (
                "within the head",
                Script::bare().wire("HTTP/1.1 103 x\r\n\r\n").fin(),
            ),
        ];
        for (at, (case, script)) in lost.into_iter().enumerate() {
            let model = format!("{form:?} {case}");
            fake.on(&model, [script.clone()]);
            // On a fresh connection; the one before has been closed.
            let reply = ask(&client, form, &model);
            let code = if form == Form::Stream && reply.status == 200 {
                let events = check_stream(&reply.text());
                events[events.len() - 2]["code"].clone()
            } else {
                reply.error(502)
            };
            assert_eq!(code, "upstream_unavailable", "{model}");
            assert_eq!(fake.seen(&model).len(), 1, "{model}");
            if at < 2 {
                continue;
            }
            // On one that was used before, too, unless it fails at once.
            let good = answer(form, "alpha", Framing::Length, false);
            let model = format!("{model} again");
            fake.on(&model, [Script::bare().wire(good), script]);
            assert_eq!(ask(&client, form, &model).status, 200);
            drop(ask(&client, form, &model));
            assert_eq!(fake.seen(&model).len(), 2, "{model}");
        }
    }
}
