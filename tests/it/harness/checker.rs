//! The universal checker: what every stream and every resource must satisfy, whatever the case.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Keys that a response resource always has.
const KEYS: &str = "id object created_at completed_at status incomplete_details model \
    previous_response_id instructions output error tools tool_choice truncation \
    parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs temperature \
    reasoning usage max_output_tokens max_tool_calls store background service_tier metadata \
    safety_identifier prompt_cache_key";

/// Checks a stream body; gives its events, the last of which is the terminal one.
#[track_caller]
pub(crate) fn check_stream(body: &str) -> Vec<Value> {
    match verdict(body) {
        Ok(events) => events,
        Err(problem) => panic!("{problem}\n--- stream ---\n{body}"),
    }
}

/// Checks a resource.
#[track_caller]
pub(crate) fn check_resource(resource: &Value) {
    if let Err(problem) = resource_verdict(resource) {
        panic!("{problem}: {resource}");
    }
}

/// Checks that counts which the upstream sent are told.
#[track_caller]
pub(crate) fn check_usage(resource: &Value, upstream: &[u8]) {
    let sent = String::from_utf8_lossy(upstream).contains("\"prompt_tokens\"");
    let told = !resource["usage"].is_null();
    assert_eq!(sent, told, "usage is told when it was sent: {resource}");
}

/// What a part says, whatever its kind.
fn text_of(part: &Value) -> &str {
    let said = part["text"].as_str().or(part["refusal"].as_str());
    said.unwrap_or("")
}

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}

fn resource_verdict(resource: &Value) -> Result<(), String> {
    for key in KEYS.split_whitespace() {
        ensure(resource.get(key).is_some(), || {
            format!("resource lacks {key}")
        })?;
    }
    let status = resource["status"].as_str().unwrap_or("");
    ensure((status == "failed") != resource["error"].is_null(), || {
        "status and error".into()
    })?;
    ensure(
        (status == "incomplete") != resource["incomplete_details"].is_null(),
        || "status and incomplete_details".into(),
    )?;
    let items = resource["output"].as_array().ok_or("output is no array")?;
    for item in items {
        ensure(item["id"].is_string(), || "item without id".into())?;
        ensure(item["status"] != "in_progress", || {
            "item left in progress".into()
        })?;
        if item["type"] == "function_call" && item["status"] == "completed" {
            let arguments = item["arguments"].as_str().unwrap_or("");
            ensure(serde_json::from_str::<Value>(arguments).is_ok(), || {
                "completed call with arguments that are no JSON".into()
            })?;
        }
    }
    Ok(())
}

/// Items and parts as the events built them.
#[derive(Default)]
struct Book {
    open: BTreeMap<u64, Value>,
    done: BTreeMap<u64, Value>,
    /// Joined deltas by item id, kind and part index.
    deltas: BTreeMap<(String, String, u64), String>,
    /// Parts that are open, by the same key without kind.
    parts: BTreeMap<(String, u64), Value>,
    /// Texts that were said whole, by the same key as the deltas.
    told: BTreeSet<(String, String, u64)>,
}

fn frames(body: &str) -> Result<(Vec<Value>, bool), String> {
    let (mut events, mut done) = (Vec::new(), false);
    for frame in body.split("\n\n").filter(|f| !f.is_empty()) {
        let lines: Vec<&str> = frame.lines().filter(|l| !l.starts_with(':')).collect();
        if lines.is_empty() {
            continue;
        }
        ensure(!done, || format!("frame after [DONE]: {frame}"))?;
        if lines == ["data: [DONE]"] {
            done = true;
            continue;
        }
        let [event, data] = lines[..] else {
            return Err(format!("odd frame: {frame}"));
        };
        let data = data.strip_prefix("data: ").ok_or("no data line")?;
        let data: Value = serde_json::from_str(data).map_err(|e| format!("{e}: {frame}"))?;
        let name = event.strip_prefix("event: ").ok_or("no event line")?;
        ensure(data["type"] == name, || {
            format!("event name differs from type: {frame}")
        })?;
        events.push(data);
    }
    Ok((events, done))
}

fn is_terminal(event: &Value) -> bool {
    let kind = event["type"].as_str().unwrap_or("");
    [
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    .contains(&kind)
}

fn verdict(body: &str) -> Result<Vec<Value>, String> {
    let (events, done) = frames(body)?;
    ensure(done, || "no [DONE]".into())?;
    ensure(events.len() >= 3, || "fewer than three events".into())?;
    for (at, event) in events.iter().enumerate() {
        ensure(event["sequence_number"] == json!(at), || {
            format!("sequence number at {at}")
        })?;
    }
    ensure(events[0]["type"] == "response.created", || {
        "first is not created".into()
    })?;
    ensure(events[1]["type"] == "response.in_progress", || {
        "second is not in_progress".into()
    })?;
    for event in &events[..2] {
        let resource = &event["response"];
        ensure(
            resource["output"] == json!([]) && resource["usage"].is_null(),
            || "output or usage before the end".into(),
        )?;
    }
    let opening = ["response.created", "response.in_progress"];
    let again = events[2..]
        .iter()
        .any(|e| opening.iter().any(|o| e["type"] == *o));
    ensure(!again, || "created or in_progress twice".into())?;
    let last = events.len() - 1;
    let mut book = Book::default();
    for (at, event) in events.iter().enumerate() {
        ensure(is_terminal(event) == (at == last), || {
            format!("terminal event at {at}")
        })?;
        if event["type"] == "error" {
            let flat = event["message"].is_string() && event["error"]["message"].is_string();
            ensure(flat, || "error event is not in superset form".into())?;
            ensure(events[at + 1]["type"] == "response.failed", || {
                "error event not before response.failed".into()
            })?;
        }
        book.take(event)?;
    }
    book.close(&events[last])?;
    Ok(events)
}

impl Book {
    fn take(&mut self, event: &Value) -> Result<(), String> {
        let kind = event["type"].as_str().unwrap_or("");
        let index = event["output_index"].as_u64().unwrap_or(u64::MAX);
        let item = event["item_id"].as_str().unwrap_or("").to_owned();
        let part = event["content_index"]
            .as_u64()
            .or(event["summary_index"].as_u64());
        let part = part.unwrap_or(0);
        if !item.is_empty() {
            let open = self
                .open
                .get(&index)
                .is_some_and(|i| i["id"] == item.as_str());
            ensure(open, || format!("{kind} for an item that is not open"))?;
        }
        match kind {
            "response.output_item.added" => {
                let known = self.open.contains_key(&index) || self.done.contains_key(&index);
                ensure(!known, || format!("index {index} added twice"))?;
                self.open.insert(index, event["item"].clone());
            }
            "response.output_item.done" => self.item_done(index, &event["item"])?,
            "response.content_part.added" => {
                let fresh = self
                    .parts
                    .insert((item, part), event["part"].clone())
                    .is_none();
                ensure(fresh, || "part added twice".into())?;
            }
            "response.content_part.done" => {
                let kind = event["part"]["type"].as_str().unwrap_or("");
                let stem = format!("response.{kind}");
                ensure(self.told.contains(&(item.clone(), stem, part)), || {
                    format!("part done without its {kind}.done")
                })?;
                ensure(self.parts.remove(&(item.clone(), part)).is_some(), || {
                    "part done but not open".into()
                })?;
                let text = text_of(&event["part"]);
                let joined: String = self.joined(&item, part);
                ensure(joined == text, || {
                    format!("part text {text:?}, deltas {joined:?}")
                })?;
            }
            _ => self.take_text(kind, item, part, event)?,
        }
        Ok(())
    }

    fn take_text(&mut self, kind: &str, id: String, part: u64, e: &Value) -> Result<(), String> {
        if let Some(stem) = kind.strip_suffix(".delta") {
            let joined = self.deltas.entry((id, stem.to_owned(), part)).or_default();
            joined.push_str(e["delta"].as_str().ok_or("delta is no string")?);
        } else if let Some(stem) = kind.strip_suffix(".done") {
            let whole = ["text", "arguments", "input", "refusal", "code"];
            let Some(text) = whole.iter().find_map(|k| e[k].as_str()) else {
                return Ok(());
            };
            let key = (id, stem.to_owned(), part);
            ensure(self.told.insert(key.clone()), || format!("{kind} twice"))?;
            let joined = self.deltas.get(&key);
            let joined = joined.map_or("", String::as_str);
            ensure(joined == text, || {
                format!("{kind} {text:?}, deltas {joined:?}")
            })?;
        }
        Ok(())
    }

    fn joined(&self, id: &str, part: u64) -> String {
        let texts = [
            "response.output_text",
            "response.reasoning_text",
            "response.refusal",
        ];
        let find = |t: &str| {
            self.deltas
                .get(&(id.to_owned(), t.to_owned(), part))
                .cloned()
        };
        texts.iter().find_map(|t| find(t)).unwrap_or_default()
    }

    fn item_done(&mut self, index: u64, item: &Value) -> Result<(), String> {
        let added = self
            .open
            .remove(&index)
            .ok_or(format!("index {index} done, not open"))?;
        let same = added["id"] == item["id"] && added["type"] == item["type"];
        ensure(same, || {
            format!("item changed between added and done: {added} {item}")
        })?;
        let id = item["id"].as_str().unwrap_or("");
        ensure(!self.parts.keys().any(|(of, _)| of == id), || {
            "part left open".into()
        })?;
        for (part, content) in item["content"].as_array().into_iter().flatten().enumerate() {
            let (text, part) = (text_of(content), part as u64);
            let joined = self.joined(id, part);
            ensure(joined == text, || {
                format!("item text {text:?}, deltas {joined:?}")
            })?;
        }
        if let Some(arguments) = item["arguments"].as_str() {
            let stem = "response.function_call_arguments".to_owned();
            let key = (id.to_owned(), stem, 0);
            let joined = self.deltas.get(&key).map_or("", String::as_str);
            let ours = item["type"] == "function_call";
            ensure(!ours || joined == arguments, || {
                format!("arguments {arguments:?}")
            })?;
            ensure(!ours || self.told.contains(&key), || {
                "call done without arguments.done".into()
            })?;
        }
        self.done.insert(index, item.clone());
        Ok(())
    }

    fn close(&self, terminal: &Value) -> Result<(), String> {
        ensure(self.open.is_empty(), || {
            format!("items left open: {:?}", self.open)
        })?;
        let resource = &terminal["response"];
        let done: Vec<&Value> = self.done.values().collect();
        ensure(json!(done) == resource["output"], || {
            "output differs from the done items".into()
        })?;
        let status = resource["status"].as_str().unwrap_or("");
        let named = terminal["type"]
            .as_str()
            .unwrap_or("")
            .strip_prefix("response.");
        ensure(named == Some(status), || {
            format!("terminal event with status {status}")
        })?;
        resource_verdict(resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(status: &str, output: &Value) -> Value {
        let mut out = json!({});
        for key in KEYS.split_whitespace() {
            out[key] = Value::Null;
        }
        out["status"] = json!(status);
        out["output"] = output.clone();
        out
    }

    fn good() -> Vec<Value> {
        let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
        let item = |status: &str, content: Value| {
            json!({"id": "i", "type": "message",
            "status": status, "content": content})
        };
        let done = item("completed", json!([part("hi")]));
        vec![
            json!({"type": "response.created", "response": resource("in_progress", &json!([]))}),
            json!({"type": "response.in_progress", "response": resource("in_progress", &json!([]))}),
            json!({"type": "response.output_item.added", "output_index": 0,
                "item": item("in_progress", json!([]))}),
            json!({"type": "response.content_part.added", "item_id": "i", "output_index": 0,
                "content_index": 0, "part": part("")}),
            json!({"type": "response.output_text.delta", "item_id": "i", "output_index": 0,
                "content_index": 0, "delta": "hi"}),
            json!({"type": "response.output_text.done", "item_id": "i", "output_index": 0,
                "content_index": 0, "text": "hi"}),
            json!({"type": "response.content_part.done", "item_id": "i", "output_index": 0,
                "content_index": 0, "part": part("hi")}),
            json!({"type": "response.output_item.done", "output_index": 0, "item": done}),
            json!({"type": "response.completed", "response": resource("completed", &json!([done]))}),
        ]
    }

    fn written(events: Vec<Value>) -> String {
        let mut out = String::from(": ping\n\n");
        for (at, mut event) in events.into_iter().enumerate() {
            event["sequence_number"] = json!(at);
            let name = event["type"].as_str().unwrap().to_owned();
            out.push_str(&format!("event: {name}\ndata: {event}\n\n"));
        }
        out + "data: [DONE]\n\n"
    }

    #[test]
    fn a_good_stream_passes_and_each_loss_is_seen() {
        assert_eq!(verdict(&written(good())).map(|e| e.len()), Ok(9));
        for at in 0..9 {
            let mut events = good();
            events.remove(at);
            assert!(
                verdict(&written(events)).is_err(),
                "event {at} missed unseen"
            );
        }
        for at in 0..9 {
            let mut events = good();
            events.insert(at, events[at].clone());
            assert!(
                verdict(&written(events)).is_err(),
                "event {at} doubled unseen"
            );
        }
    }

    #[test]
    fn broken_streams_are_seen() {
        let body = written(good());
        assert!(verdict(&body.replace("data: [DONE]\n\n", "")).is_err());
        assert!(verdict(&format!("{body}data: [DONE]\n\n")).is_err());
        assert!(verdict(&body.replace("\"sequence_number\":4", "\"sequence_number\":5")).is_err());
        assert!(verdict(&body.replace("\"delta\":\"hi\"", "\"delta\":\"ho\"")).is_err());
        assert!(verdict(&body.replace("event: response.created", "event: x")).is_err());
        let mut events = good();
        events.insert(
            8,
            json!({"type": "error", "message": "m", "error": {"message": "m"}}),
        );
        assert!(
            verdict(&written(events)).is_err(),
            "error event before completed"
        );
    }
}
