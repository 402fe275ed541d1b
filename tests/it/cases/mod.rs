//! Inputs that people who use such gateways have met: `tests/cases` has a file for each, told as an
//! exchange of client and model server. `play` acts an exchange out in time order; the
//! modules say what must have come of it.
//!
//! Whatever the case is about, each answer that can be continued must be taken back: by
//! `previous_response_id`, and as items in `input`, with the same prompt for the model.

mod python;
mod requests;
mod setups;
mod streams;

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Client, Fake, Reply, Script, TestGateway, check_resource, check_stream};

/// One file of `tests/cases`.
pub(super) struct Case(Vec<Value>);

/// What became of one request of the client.
pub(super) struct Turn {
    pub(super) reply: Reply,
    /// The response of a successful request.
    pub(super) response: Value,
    /// What the model server was asked for it, in time order.
    pub(super) prompts: Vec<Value>,
}

impl Turn {
    /// Its items of one type.
    pub(super) fn items(&self, kind: &str) -> Vec<&Value> {
        let output = self.response["output"].as_array().into_iter().flatten();
        output.filter(|item| item["type"] == kind).collect()
    }

    /// The text of its messages.
    pub(super) fn text(&self) -> String {
        let items = self.items("message");
        let parts = items
            .iter()
            .flat_map(|item| item["content"].as_array().into_iter().flatten());
        parts.filter_map(|part| part["text"].as_str()).collect()
    }

    /// The name and arguments of its function calls.
    pub(super) fn calls(&self) -> Vec<(&str, &str)> {
        self.items("function_call")
            .into_iter()
            .map(|item| {
                assert_eq!(item["status"], "completed", "{item}");
                let name = item["name"].as_str().unwrap_or("");
                (name, item["arguments"].as_str().unwrap_or(""))
            })
            .collect()
    }

    /// The messages of the last prompt.
    #[track_caller]
    pub(super) fn messages(&self) -> &Vec<Value> {
        let last = self.prompts.last().expect("the model server was asked");
        last["messages"].as_array().expect("messages")
    }

    /// Asserts a successful answer.
    #[track_caller]
    pub(super) fn ok(&self) -> &Self {
        assert_eq!(self.reply.status, 200, "{}", self.reply.text());
        self
    }
}

impl Case {
    #[track_caller]
    pub(super) fn load(name: &str) -> Self {
        let path = folder().join(name).with_extension("json");
        let text = std::fs::read_to_string(path).expect("case");
        let mut case: Value = serde_json::from_str(&text).expect("JSON");
        Self(match case["exchange"].take() {
            Value::Array(exchange) => exchange,
            other => panic!("no exchange: {other}"),
        })
    }

    /// The entries that have this member.
    pub(super) fn entries(&self, member: &str) -> Vec<&Value> {
        let entries = self.0.iter();
        entries
            .filter(|entry| entry.get(member).is_some())
            .collect()
    }

    /// Acts the exchange out, and takes every answer back.
    #[track_caller]
    pub(super) fn play(&self, stage: &Stage) -> Vec<Turn> {
        let mut turns: Vec<Turn> = Vec::new();
        for (at, entry) in self.0.iter().enumerate() {
            let Some(line) = entry["client"].as_str() else {
                continue;
            };
            let answers = self.0[at + 1..]
                .iter()
                .take_while(|entry| entry.get("client").is_none())
                .filter(|entry| entry.get("model server").is_some());
            let known = turns.last().map(|turn| &turn.response);
            let body = filled(&entry["body"], known);
            let turn = stage.turn(&filled_text(line, known), &body, &scripts(answers, &body));
            if line.starts_with("POST") && turn.response["status"] == "completed" {
                stage.taken_back(&body, &turn);
            }
            turns.push(turn);
        }
        stage.fake.assert_sound();
        turns
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// The model server's answers to one request; a plain one where the case has none.
fn scripts<'a>(answers: impl Iterator<Item = &'a Value>, body: &Value) -> Vec<Script> {
    let mut scripts: Vec<Script> = answers.map(script).collect();
    if scripts.is_empty() {
        scripts.push(if body["stream"] == true {
            Script::says("ok")
        } else {
            Script::completion("ok")
        });
    }
    scripts
}

fn script(answer: &Value) -> Script {
    let status = answer["status"].as_u64().unwrap_or(200);
    match answer["chunks"].as_array() {
        Some(chunks) => Script::stream().all(chunks).done(),
        None => Script::json(u16::try_from(status).expect("status"), &answer["body"]),
    }
}

/// The text with the ids that the gateway gave out last; ids of one kind are used in their order.
fn filled_text(text: &str, response: Option<&Value>) -> String {
    let mut text = text.to_owned();
    let Some(response) = response else {
        return text;
    };
    let kinds = [
        ("<fc_id>", "function_call", "id"),
        ("<rs_id>", "reasoning", "id"),
        ("<msg_id>", "message", "id"),
        ("<ci_id>", "code_interpreter_call", "id"),
        ("<cntr_id>", "code_interpreter_call", "container_id"),
    ];
    if let Some(id) = response["id"].as_str() {
        text = text.replace("<resp_id>", id);
    }
    for (place, kind, member) in kinds {
        for item in response["output"].as_array().into_iter().flatten() {
            if let (true, Some(id)) = (item["type"] == kind, item[member].as_str()) {
                text = text.replacen(place, id, 1);
            }
        }
    }
    text
}

fn filled(body: &Value, response: Option<&Value>) -> Value {
    serde_json::from_str(&filled_text(&body.to_string(), response)).expect("JSON")
}

/// A gateway in front of a scripted model server.
pub(super) struct Stage {
    pub(super) fake: Fake,
    pub(super) gateway: TestGateway,
}

impl Stage {
    pub(super) fn open() -> Self {
        let fake = Fake::start();
        let gateway = TestGateway::on(&fake.url()).start();
        Self { fake, gateway }
    }

    pub(super) fn client(&self) -> Client {
        self.gateway.client()
    }

    /// One request, and what it led to.
    #[track_caller]
    pub(super) fn turn(&self, line: &str, body: &Value, scripts: &[Script]) -> Turn {
        let (method, path) = line.split_once(' ').expect("method and path");
        self.fake.set("m", scripts.to_vec());
        let before = self.fake.seen("m").len();
        let reply = match method {
            "POST" => self.client().post(path, body),
            _ => self.client().send(method, path, &[], b""),
        };
        self.told(reply, before)
    }

    /// The turn that this reply is of; the model server had been asked `before` times.
    #[track_caller]
    pub(super) fn told(&self, reply: Reply, before: usize) -> Turn {
        let streamed = (reply.header("content-type"))
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        let response = match reply.status {
            200 if streamed => {
                let mut events = check_stream(&reply.text());
                events.pop().expect("an event")["response"].take()
            }
            200 => serde_json::from_slice(&reply.body).unwrap_or_default(),
            _ => Value::Null,
        };
        if response["object"] == "response" {
            check_resource(&response);
        }
        let seen = self.fake.seen("m").into_iter().skip(before);
        Turn {
            reply,
            response,
            prompts: seen.map(|seen| seen.body).collect(),
        }
    }

    /// The answer is taken back as a reference to it and as its items, to the same prompt.
    #[track_caller]
    fn taken_back(&self, body: &Value, turn: &Turn) {
        let outputs: Vec<Value> = turn
            .items("function_call")
            .iter()
            .map(|call| {
                json!({"type": "function_call_output", "call_id": call["call_id"], "output": "done"})
            })
            .chain([json!({"role": "user", "content": "and?"})])
            .collect();
        let with = |input: Vec<Value>, previous: &Value, store: bool| {
            let mut next = json!({"model": "m", "input": input, "store": store});
            if !body["tools"].is_null() {
                next["tools"] = body["tools"].clone();
            }
            if !previous.is_null() {
                next["previous_response_id"] = previous.clone();
            }
            next
        };
        let answers = [Script::completion("taken")];
        let mut prompts = Vec::new();
        if turn.response["store"] != false {
            let next = with(outputs.clone(), &turn.response["id"], true);
            prompts.push(self.turn("POST /v1/responses", &next, &answers));
        }
        let mut whole = match &body["input"] {
            Value::Array(items) => items.clone(),
            Value::String(text) => vec![json!({"role": "user", "content": text})],
            _ => Vec::new(),
        };
        whole.extend(
            turn.response["output"]
                .as_array()
                .into_iter()
                .flatten()
                .cloned(),
        );
        whole.extend(outputs);
        let next = with(whole, &body["previous_response_id"], false);
        prompts.push(self.turn("POST /v1/responses", &next, &answers));
        for taken in &prompts {
            taken.ok();
        }
        if let [referred, replayed] = prompts.as_slice() {
            assert_eq!(said(referred), said(replayed), "two ways, two prompts");
        }
    }
}

/// A prompt without what clients that keep items cannot send back: thinking, which they have sealed
/// only, and the model's own ids of calls that were run for them, which they are not told.
fn said(turn: &Turn) -> Vec<Value> {
    let mut messages = turn.messages().clone();
    let mut ids = Vec::new();
    let mut numbered = |id: &mut Value| {
        let known = ids.iter().position(|known| known == id);
        let at = known.unwrap_or_else(|| {
            ids.push(id.clone());
            ids.len() - 1
        });
        *id = json!(format!("call {at}"));
    };
    for message in &mut messages {
        for call in message["tool_calls"].as_array_mut().into_iter().flatten() {
            numbered(&mut call["id"]);
        }
        if let Some(id) = message.get_mut("tool_call_id") {
            numbered(id);
        }
        if let Some(members) = message.as_object_mut() {
            members.remove("reasoning");
            members.remove("reasoning_content");
        }
    }
    messages
}
