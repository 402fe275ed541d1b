//! One test per transition of the machine, and properties that hold for any upstream.

mod any_answer;
mod bodies;
mod client_tools;
mod compaction;
mod foreign;
mod foreign_calls;
mod items;
mod linear;
mod mcp;
mod mcp_choices;
mod odd_numbers;
mod odd_streams;
mod repeated;
mod said;
mod taken_back;
mod thinking;
mod tools;
mod truncation;

use bodies::{roles, tool_names};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::effect::{Action, Cancel, Effects, Input, Kept};
use super::*;
use crate::chat::fault::{UpstreamFault, Waited};
use crate::ids::{CountingIds, ResponseId};
use crate::responses::request::Rules;
use crate::tools::code_interpreter::CodeCall;
use crate::tools::{Availability, GatewayCall};

const NOW: i64 = 1_700_000_000_000;

/// The code of a call.
fn code_of(call: &GatewayCall) -> &CodeCall {
    match call {
        GatewayCall::CodeInterpreter(call) => call,
        GatewayCall::Mcp(_) => panic!("not code"),
    }
}

/// A turn and all that it did so far.
struct Bench {
    turn: Turn,
    effects: Effects,
}

impl Bench {
    fn new(body: &Value) -> Self {
        Self::with(body, LoopLimits::default())
    }

    fn with(body: &Value, limits: LoopLimits) -> Self {
        Self::made(Purpose::Answer, body, limits)
    }

    fn of(purpose: Purpose, body: &Value) -> Self {
        Self::made(purpose, body, LoopLimits::default())
    }

    fn made(purpose: Purpose, body: &Value, limits: LoopLimits) -> Self {
        let bytes = body.to_string();
        let request = CreateRequest::decode(
            bytes.as_bytes(),
            &Rules::default(),
            &mut CountingIds::default(),
        )
        .unwrap();
        let identity = Identity {
            id: ResponseId::new("resp_1"),
            model: request.model.clone(),
            previous: None,
            created_at_ms: NOW,
            metadata: request.metadata.clone(),
            settings: request.settings.echo(),
            input_transformations: Vec::new(),
        };
        let turn = Turn::new(Seed {
            purpose,
            request,
            owner: Owner::new("o"),
            identity,
            expires_at_ms: None,
            reasoning_events: ReasoningEvents::default(),
            ids: Box::new(CountingIds::default()),
            offers: Offers {
                code_interpreter: Availability::Offered,
                ..Offers::default()
            },
            limits,
            seal_keys: Arc::new(SealKeys::new([7; 32], &[], None)),
            efforts: Efforts::AsAsked,
            marks: Marks::new(0),
        });
        Self {
            turn,
            effects: Effects::default(),
        }
    }

    fn stream() -> Self {
        Self::new(&json!({"model": "m", "input": "x", "stream": true}))
    }

    fn whole() -> Self {
        Self::new(&json!({"model": "m", "input": "x"}))
    }

    /// The model was called.
    fn called(mut self) -> Self {
        assert_eq!(self.step(Input::History(Vec::new())), ["call"]);
        self
    }

    /// Takes an input; names the actions that it led to.
    fn step(&mut self, input: Input<'_>) -> Vec<String> {
        self.turn.step(NOW, input, &mut self.effects);
        let done = self.effects.actions.drain(..);
        // What a call used has a test of its own.
        done.filter(|action| !matches!(action, Action::Used(_)))
            .map(|action| name(&action))
            .collect()
    }

    fn bytes(&mut self, bytes: &[u8]) -> Vec<String> {
        self.step(Input::UpstreamBytes(bytes))
    }

    /// The events so far, as `type`.
    fn types(&self) -> Vec<String> {
        let events = self.events().into_iter();
        events
            .map(|e| e["type"].as_str().unwrap().to_owned())
            .collect()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.effects.bytes).unwrap()
    }

    fn events(&self) -> Vec<Value> {
        let data = self.text().lines().filter_map(|l| l.strip_prefix("data: "));
        data.filter(|d| *d != "[DONE]")
            .map(|d| serde_json::from_str(d).unwrap())
            .collect()
    }
}

fn name(action: &Action) -> String {
    match action {
        Action::CallModel(_) => "call".to_owned(),
        Action::Used(_) => "used".to_owned(),
        Action::ListTools { tool_index, .. } => format!("list {tool_index}"),
        Action::CountTokens(_) => "count".to_owned(),
        Action::LeftOut(turns) => format!("left out {turns}"),
        Action::FindItems(wanted) => format!("find {wanted:?}"),
        Action::EffortRefused => "effort refused".to_owned(),
        Action::Complained(_) => "complained".to_owned(),
        Action::LostCalls(calls) => format!("lost {calls}"),
        Action::ClaimApprovals(_) => "claim".to_owned(),
        Action::Suspect(mentions) => format!("suspect {}", mentions.len()),
        Action::RunTool(call) => format!("run {}", call.output_index),
        Action::Begin => "begin".to_owned(),
        Action::Answer => "answer".to_owned(),
        Action::Refuse(refusal) => format!("refuse {}", refusal.error.status),
        Action::Persist(record) => format!("persist {}", record.status.as_str()),
        Action::End => "end".to_owned(),
    }
}

fn frame(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

fn delta(delta: &Value) -> Vec<u8> {
    frame(&json!({"choices": [{"index": 0, "delta": delta}]}))
}

fn says(text: &str) -> Vec<u8> {
    delta(&json!({"content": text}))
}

fn finish(reason: &str) -> Vec<u8> {
    frame(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
}

const USAGE: &[u8] = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}\n\n";

const OPENING: [&str; 2] = ["response.created", "response.in_progress"];
const MESSAGE: [&str; 3] = [
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
];
const CLOSING: [&str; 3] = [
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
];

#[test]
fn fresh_refused_is_an_http_error() {
    let mut bench = Bench::stream();
    let error = ApiError::new(crate::error::ApiErrorCode::ServerError, "no");
    assert_eq!(bench.step(Input::Refused(error)), ["refuse 500", "end"]);
    assert!(bench.turn.is_over() && bench.effects.bytes.is_empty());
}

#[test]
fn fresh_cancelled_ends_with_nothing_stored() {
    let mut bench = Bench::stream();
    assert_eq!(bench.step(Input::Cancelled(Cancel::ClientLeft)), ["end"]);
    let mut bench = Bench::stream();
    let actions = bench.step(Input::Cancelled(Cancel::Shutdown));
    assert_eq!(actions, ["refuse 500", "end"]);
}

#[test]
fn calling_to_completed_stores_before_it_tells() {
    let mut bench = Bench::stream().called();
    assert_eq!(bench.step(Input::UpstreamOpened), ["begin"]);
    assert_eq!(bench.types(), OPENING);
    assert!(bench.bytes(&says("hi")).is_empty());
    assert!(bench.bytes(&finish("stop")).is_empty());
    assert!(bench.bytes(USAGE).is_empty());
    assert_eq!(bench.bytes(b"data: [DONE]\n\n"), ["persist completed"]);
    let before = [&OPENING[..], &MESSAGE, &CLOSING].concat();
    assert_eq!(bench.types(), before, "no terminal event before the commit");
    assert!(bench.turn.is_decided() && !bench.turn.is_over());
    assert!(bench.bytes(&says("late")).is_empty());
    assert_eq!(bench.step(Input::Stored(Kept::Yes)), ["end"]);
    assert_eq!(
        bench.types(),
        [&before[..], &["response.completed"]].concat()
    );
    assert!(bench.text().ends_with("\n\ndata: [DONE]\n\n"));
    let told = &bench.events()[8]["response"];
    assert_eq!(
        (&told["store"], &told["usage"]["total_tokens"]),
        (&json!(true), &json!(3))
    );
}

#[test]
fn a_failed_commit_is_told() {
    let mut bench = Bench::stream().called();
    let _actions = bench.bytes(&[says("hi"), finish("stop")].concat());
    assert_eq!(bench.step(Input::UpstreamEnded), ["persist completed"]);
    assert_eq!(bench.step(Input::Stored(Kept::No)), ["end"]);
    let told = &bench.events()[8]["response"];
    assert_eq!(
        (&told["store"], &told["status"]),
        (&json!(false), &json!("completed"))
    );
}

#[test]
fn without_store_it_ends_at_once() {
    let body = json!({"model": "m", "input": "x", "stream": true, "store": false});
    let mut bench = Bench::new(&body).called();
    let _actions = bench.bytes(&[says("hi"), finish("stop")].concat());
    assert_eq!(bench.step(Input::UpstreamEnded), ["end"]);
    assert_eq!(bench.types()[8], "response.completed");
}

#[test]
fn finish_reasons_and_their_endings() {
    for (reason, end, last) in [
        ("stop", "persist completed", "response.completed"),
        ("tool_calls", "persist completed", "response.completed"),
        ("length", "persist incomplete", "response.incomplete"),
        (
            "content_filter",
            "persist incomplete",
            "response.incomplete",
        ),
        ("abort", "persist failed", "response.failed"),
    ] {
        let mut bench = Bench::stream().called();
        let _actions = bench.bytes(&[says("hi"), finish(reason)].concat());
        assert_eq!(bench.step(Input::UpstreamEnded), [end], "{reason}");
        let _actions = bench.step(Input::Stored(Kept::Yes));
        assert_eq!(bench.types().last().unwrap(), last, "{reason}");
    }
}

#[test]
fn a_fault_before_the_first_byte_is_a_status() {
    let waited = Waited::Head(std::time::Duration::from_secs(1));
    for (fault, status) in [
        (UpstreamFault::Unreachable, 502),
        (UpstreamFault::TimedOut(waited), 504),
        (UpstreamFault::WrongContentType, 502),
    ] {
        let mut bench = Bench::stream().called();
        let actions = bench.step(Input::UpstreamFailed(fault));
        assert_eq!(actions, [format!("refuse {status}"), "end".to_owned()]);
        assert!(bench.effects.bytes.is_empty());
    }
}

#[test]
fn a_fault_after_it_is_two_events_and_keeps_the_text() {
    let mut bench = Bench::stream().called();
    assert_eq!(bench.step(Input::HoldExpired), ["begin"]);
    assert!(bench.step(Input::HoldExpired).is_empty());
    assert!(bench.step(Input::UpstreamOpened).is_empty());
    assert!(bench.bytes(&says("par")).is_empty());
    let actions = bench.step(Input::UpstreamFailed(UpstreamFault::Reset));
    assert_eq!(actions, ["persist failed"]);
    assert_eq!(bench.step(Input::Stored(Kept::Yes)), ["end"]);
    let end = ["error", "response.failed"];
    assert_eq!(
        bench.types(),
        [&OPENING[..], &MESSAGE, &CLOSING, &end].concat()
    );
    let events = bench.events();
    let (error, told) = (&events[8], &events[9]["response"]);
    assert_eq!(error["code"], "upstream_unavailable");
    assert_eq!(error["error"]["code"], "upstream_unavailable");
    assert_eq!(told["error"]["code"], "server_error");
    assert_eq!(told["output"][0]["content"][0]["text"], "par");
    assert_eq!(told["output"][0]["status"], "incomplete");
}

#[test]
fn u5_a_bad_chunk_fails_and_what_follows_is_ignored() {
    for bad in ["{", "[1]", "{\"a\":}"] {
        let mut bench = Bench::stream().called();
        let bad = format!("data: {bad}\n\n").into_bytes();
        let bytes = [says("par"), bad, says("late")].concat();
        assert_eq!(bench.bytes(&bytes), ["begin", "persist failed"]);
        let _actions = bench.step(Input::Stored(Kept::Yes));
        assert!(!bench.text().contains("late"));
        assert_eq!(bench.events()[8]["code"], "upstream_bad_chunk");
    }
}

#[test]
fn u4_a_reset_after_the_finish_reason_is_completed() {
    let mut bench = Bench::stream().called();
    let _actions = bench.bytes(&[says("hi"), finish("stop")].concat());
    let actions = bench.step(Input::UpstreamFailed(UpstreamFault::Reset));
    assert_eq!(actions, ["persist completed"]);
}

#[test]
fn a_client_that_leaves_is_stored_as_cancelled_and_told_nothing() {
    let mut bench = Bench::stream().called();
    let _actions = bench.bytes(&says("par"));
    let actions = bench.step(Input::Cancelled(Cancel::ClientLeft));
    assert_eq!(actions, ["persist cancelled"]);
    assert_eq!(bench.step(Input::Stored(Kept::Yes)), ["end"]);
    assert!(!bench.text().contains("[DONE]"));
    assert!(bench.step(Input::Cancelled(Cancel::ClientLeft)).is_empty());
}

#[test]
fn a_shutdown_ends_a_stream_as_failed() {
    let mut bench = Bench::stream().called();
    let _actions = bench.bytes(&says("par"));
    let actions = bench.step(Input::Cancelled(Cancel::Shutdown));
    assert_eq!(actions, ["persist failed"]);
}

#[test]
fn a_whole_answer_is_told_after_its_commit() {
    let mut bench = Bench::whole().called();
    assert!(bench.step(Input::HoldExpired).is_empty());
    let body = json!({"choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "hi"}}]});
    let actions = bench.step(Input::UpstreamAnswer(body.to_string().as_bytes()));
    assert_eq!(actions, ["persist completed"]);
    assert!(bench.effects.bytes.is_empty());
    assert_eq!(bench.step(Input::Stored(Kept::Yes)), ["answer", "end"]);
    let told: Value = serde_json::from_slice(&bench.effects.bytes).unwrap();
    assert_eq!(told["output"][0]["content"][0]["text"], "hi");
}

#[test]
fn u4_u5_whole_answers_that_are_none() {
    for (body, code) in [
        ("", "upstream_unavailable"),
        ("{\"choices\": [", "upstream_unavailable"),
        ("<html>", "upstream_bad_response"),
        ("{}", "upstream_unavailable"),
    ] {
        let mut bench = Bench::whole().called();
        let input = Input::UpstreamAnswer(body.as_bytes());
        bench.turn.step(NOW, input, &mut bench.effects);
        let [Action::Refuse(refusal), Action::End] = &bench.effects.actions[..] else {
            panic!("{body:?}: {:?}", bench.effects.actions);
        };
        assert_eq!(refusal.error.status, 502, "{body:?}");
        assert_eq!(refusal.error.code.wire(), Some(code), "{body:?}");
    }
}

/// Runs bytes through a machine in these pieces, to the end; gives what the client gets.
fn run(pieces: &[&[u8]]) -> String {
    let mut bench = Bench::stream().called();
    let mut inputs = vec![Input::UpstreamOpened];
    inputs.extend(pieces.iter().map(|p| Input::UpstreamBytes(p)));
    inputs.extend([Input::UpstreamEnded, Input::Stored(Kept::Yes)]);
    for input in inputs {
        let _actions = bench.step(input);
    }
    assert!(bench.turn.is_over());
    bench.text().to_owned()
}

/// What a model may send, sound or not.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let call = (0u32..3, "[ab]?", "[fg]?", r#"\{?("x":1)?\}?"#).prop_map(|(i, id, name, text)| {
        delta(&json!({"tool_calls": [{"index": i, "id": id,
            "function": {"name": name, "arguments": text}}]}))
    });
    prop_oneof![
        4 => "[ aé€😀\\n\"]{0,4}".prop_map(|text| says(&text)),
        2 => "[ aé😀]{0,4}".prop_map(|text| delta(&json!({"reasoning": text}))),
        1 => "[a ]{0,2}".prop_map(|text| delta(&json!({"refusal": text}))),
        4 => call,
        1 => Just(USAGE.to_vec()),
        1 => Just(b": comment\r\n\r\n".to_vec()),
        1 => Just(finish("stop")),
        1 => Just(finish("length")),
    ]
}

/// The rules at the head of the module, over a whole stream.
fn assert_invariants(stream: &str) {
    let data = stream.lines().filter_map(|l| l.strip_prefix("data: "));
    let data: Vec<&str> = data.collect();
    let (done, events) = data.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let (mut open, mut closed) = (std::collections::BTreeMap::new(), Vec::new());
    let mut text = String::new();
    for (at, event) in events.iter().enumerate() {
        let event: Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["sequence_number"], at);
        let last = at == events.len() - 1;
        let kind = event["type"].as_str().unwrap();
        let ends = [
            "response.completed",
            "response.incomplete",
            "response.failed",
        ];
        assert_eq!(ends.contains(&kind), last, "{kind} at {at}");
        let index = event["output_index"].as_u64();
        match kind {
            "response.output_item.added" => {
                assert!(open.insert(index, event["item"]["id"].clone()).is_none());
            }
            "response.output_item.done" => {
                assert_eq!(open.remove(&index), Some(event["item"]["id"].clone()));
                closed.push((index, event["item"].clone()));
            }
            "response.output_text.delta" => text.push_str(event["delta"].as_str().unwrap()),
            _ => {}
        }
        if last {
            assert!(open.is_empty(), "items left open: {open:?}");
            closed.sort_by_key(|(index, _)| *index);
            let items: Vec<&Value> = closed.iter().map(|(_, item)| item).collect();
            assert_eq!(event["response"]["output"], json!(items));
            let parts = items
                .iter()
                .filter_map(|i| i["content"].as_array())
                .flatten();
            let texts = parts.filter(|p| p["type"] == "output_text");
            let joined: String = texts.filter_map(|p| p["text"].as_str()).collect();
            assert_eq!(joined.len(), text.len(), "deltas are the text");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn f2_any_sequence_and_any_split_satisfies_the_invariants(
        pieces in proptest::collection::vec(piece(), 0..12),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let bytes = pieces.concat();
        let whole = run(&[&bytes]);
        assert_invariants(&whole);
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        prop_assert_eq!(run(&pieces), whole);
    }
}
