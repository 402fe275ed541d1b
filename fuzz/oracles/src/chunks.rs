//! F2: whatever an upstream streams, the client is told a sound story: the grammar of events holds,
//! joined deltas equal the final text, there is one terminal event, and what is stored is what was told.

use std::sync::Arc;

use serde_json::{Value, json};
use vllm_responses_protocol::blob::Marks;
use vllm_responses_protocol::ids::{CountingIds, Owner, ResponseId};
use vllm_responses_protocol::record::Record;
use vllm_responses_protocol::responses::event::ReasoningEvents;
use vllm_responses_protocol::responses::request::{CreateRequest, Rules};
use vllm_responses_protocol::responses::response::Identity;
use vllm_responses_protocol::seal::SealKeys;
use vllm_responses_protocol::tools::{Availability, LoopLimits, Offers};
use vllm_responses_protocol::translate::Efforts;
use vllm_responses_protocol::turn::effect::{Action, Cancel, Effects, Input, Kept};
use vllm_responses_protocol::turn::{Purpose, Seed, Turn};

#[path = "../../../tests/it/harness/checker.rs"]
#[expect(
    dead_code,
    clippy::as_conversions,
    clippy::fn_params_excessive_bools,
    reason = "the integration tests' checker, as it is there"
)]
#[cfg_attr(
    test,
    expect(clippy::format_push_string, reason = "the same, of its tests")
)]
mod checker;

const NOW: i64 = 1_700_000_000_000;

/// A turn of this request.
pub(crate) fn turn_of(request: CreateRequest) -> Turn {
    let identity = Identity {
        id: ResponseId::new("resp_1"),
        model: request.model.clone(),
        previous: None,
        created_at_ms: NOW,
        metadata: request.metadata.clone(),
        settings: request.settings.echo(),
        input_transformations: Vec::new(),
    };
    Turn::new(Seed {
        purpose: Purpose::Answer,
        request,
        owner: Owner::new("o"),
        identity,
        expires_at_ms: None,
        reasoning_events: ReasoningEvents::default(),
        ids: Box::new(CountingIds::default()),
        offers: Offers {
            code_interpreter: Availability::Off,
            ..Offers::default()
        },
        limits: LoopLimits::default(),
        seal_keys: Arc::new(SealKeys::new([7; 32], &[], None)),
        efforts: Efforts::AsAsked,
        marks: Marks::new(0),
    })
}

fn request(flags: u8) -> Value {
    let mut body = json!({"model": "m", "input": "x", "stream": true});
    if flags & 1 == 1 {
        body["tools"] = json!([{"type": "function", "name": "f", "parameters": {"type": "object"}},
            {"type": "custom", "name": "c"}]);
    }
    if flags & 2 == 2 {
        body["parallel_tool_calls"] = json!(false);
    }
    if flags & 4 == 4 {
        body["store"] = json!(false);
    }
    if flags & 8 == 8 {
        body["include"] = json!(["message.output_text.logprobs"]);
    }
    if flags & 16 == 16 {
        body["reasoning"] = json!({"summary": "auto"});
    }
    body
}

fn chunk(delta: &Value, finish: &Value) -> String {
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
    format!("data: {chunk}\n\n")
}

const TEXTS: [&str; 8] = ["a", "", "\n", "  ", "é🦀", "\"}", "<think>", "{\"a\":"];
const FINISHES: [&str; 6] = [
    "stop",
    "length",
    "tool_calls",
    "content_filter",
    "abort",
    "?",
];

/// Two bytes are one chunk.
fn scripted(bytes: &[u8]) -> String {
    let mut wire = String::new();
    for pair in bytes.chunks(2) {
        let (kind, detail) = (pair[0], pair.get(1).copied().unwrap_or_default());
        let text = TEXTS[usize::from(detail % 8)];
        let index = (detail >> 3) % 4;
        let piece = match kind % 16 {
            0..=2 => chunk(&json!({"content": text}), &Value::Null),
            3 | 4 => chunk(&json!({"reasoning": text}), &Value::Null),
            5 => chunk(&json!({"content": text, "reasoning": text}), &Value::Null),
            6 | 7 => {
                let name = ["f", "c", "", "unknown"][usize::from(detail % 4)];
                let call = json!({"index": index, "id": format!("call_{detail}"), "type": "function",
                    "function": {"name": name, "arguments": ""}});
                chunk(&json!({"tool_calls": [call]}), &Value::Null)
            }
            8 | 9 => {
                let pieces = ["{", "}", "{\"a\":1}", "\"a\":", "1", "[", "é", ""];
                let piece = pieces[usize::from(detail % 8)];
                let call = json!({"index": index, "function": {"arguments": piece}});
                chunk(&json!({"tool_calls": [call]}), &Value::Null)
            }
            10 => chunk(
                &json!({}),
                &json!(FINISHES[usize::from(detail) % FINISHES.len()]),
            ),
            11 => {
                let usage = json!({"prompt_tokens": detail, "completion_tokens": 1,
                    "total_tokens": u16::from(detail) + 1});
                format!(
                    "data: {}\n\n",
                    json!({"id": "c", "choices": [], "usage": usage})
                )
            }
            12 => "data: [DONE]\n\n".to_owned(),
            13 => chunk(&json!({"role": "assistant", "content": null}), &Value::Null),
            14 => chunk(&json!({"refusal": text}), &Value::Null),
            _ if detail < 8 => "data: {\"error\":{\"message\":\"no\",\"code\":500}}\n\n".to_owned(),
            _ if detail < 16 => "data: {\n\n".to_owned(),
            _ => ": nothing\n\n".to_owned(),
        };
        wire.push_str(&piece);
    }
    wire
}

/// Everything that a turn did, driven to its end.
struct Driven {
    turn: Turn,
    effects: Effects,
    kept: Kept,
    record: Option<Box<Record>>,
    refused: bool,
}

impl Driven {
    fn step(&mut self, input: Input<'_>) {
        self.turn.step(NOW, input, &mut self.effects);
        let actions: Vec<Action> = self.effects.actions.drain(..).collect();
        for action in actions {
            match action {
                Action::Persist(record) => {
                    assert!(self.record.is_none(), "one record");
                    self.record = Some(record);
                    self.step(Input::Stored(self.kept));
                }
                Action::Refuse(_) => self.refused = true,
                Action::Begin
                | Action::Answer
                | Action::End
                | Action::LeftOut(_)
                | Action::Complained(_)
                | Action::LostCalls(_)
                | Action::EffortRefused
                | Action::Used(_)
                | Action::Suspect(_)
                | Action::CallModel(_) => {}
                Action::RunTool(_)
                | Action::ListTools { .. }
                | Action::FindItems(_)
                | Action::ClaimApprovals(_)
                | Action::CountTokens(_) => panic!("nothing of this was asked for"),
            }
        }
    }
}

/// The first byte chooses the request, the second how bytes are cut and how it ends; the others are an
/// event stream as it stands, or a script of one.
pub fn check(bytes: &[u8]) {
    let [flags, manner, rest @ ..] = bytes else {
        return;
    };
    let body = request(*flags).to_string();
    let ids = &mut CountingIds::default();
    let request = CreateRequest::decode(body.as_bytes(), &Rules::default(), ids).expect("valid");
    let wire = if flags & 32 == 32 {
        rest.to_vec()
    } else {
        scripted(rest).into_bytes()
    };
    let mut driven = Driven {
        turn: turn_of(request),
        effects: Effects::default(),
        kept: if manner & 1 == 1 { Kept::Yes } else { Kept::No },
        record: None,
        refused: false,
    };
    driven.step(Input::History(Vec::new()));
    driven.step(Input::UpstreamOpened);
    for piece in wire.chunks(usize::from(manner >> 4) * 7 + 3) {
        driven.step(Input::UpstreamBytes(piece));
    }
    match manner >> 1 & 3 {
        0 => driven.step(Input::Cancelled(Cancel::Shutdown)),
        1 => driven.step(Input::Cancelled(Cancel::ToolTimeSpent)),
        _ => driven.step(Input::UpstreamEnded),
    }
    assert!(driven.turn.is_over(), "the turn ends with its upstream");
    assert!(!driven.refused, "the client was answered 200 already");
    let told = std::str::from_utf8(&driven.effects.bytes).expect("events are text");
    let events = checker::check_stream(told);
    let resource = &events[events.len() - 1]["response"];
    assert_stored(resource, driven.record.as_deref(), driven.kept, *flags);
}

/// What is stored says what the client was told.
fn assert_stored(told: &Value, record: Option<&Record>, kept: Kept, flags: u8) {
    let asked = flags & 4 == 0;
    assert_eq!(record.is_some(), asked, "a record where one is wanted");
    assert_eq!(told["store"], json!(asked && kept == Kept::Yes));
    let Some(record) = record else { return };
    assert_eq!(told["status"], record.status.as_str());
    let stored: Value = serde_json::from_str(&record.response).expect("the record is JSON");
    for member in ["id", "status", "output", "error", "usage"] {
        assert_eq!(stored[member], told[member], "{member}");
    }
}
