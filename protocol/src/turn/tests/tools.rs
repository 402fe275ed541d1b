//! Every rule of the tool loop.

use super::*;
use crate::tools::code_interpreter::{CodeOutcome, Container};
use crate::tools::{ToolCall, ToolOutcome};

/// A turn with the code interpreter and a function of the client, and what the model was sent.
struct Loop {
    bench: Bench,
    bodies: Vec<Value>,
    runs: Vec<ToolCall>,
    rest: Vec<String>,
    /// Tokens of each model call, as they were to be charged.
    used: Vec<u64>,
}

impl Loop {
    fn new(extra: &Value) -> Self {
        Self::with(extra, LoopLimits::default(), Vec::new())
    }

    fn with(extra: &Value, limits: LoopLimits, history: Vec<Item>) -> Self {
        let mut body = json!({
            "model": "m", "input": "x", "stream": true,
            "tools": [{"type": "code_interpreter", "container": {"type": "auto"}}, {"type": "function", "name": "f"}],
        });
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        let mut made = Self {
            bench: Bench::with(&body, limits),
            bodies: Vec::new(),
            runs: Vec::new(),
            rest: Vec::new(),
            used: Vec::new(),
        };
        made.step(Input::History(history));
        made
    }

    fn step(&mut self, input: Input<'_>) {
        self.bench.turn.step(NOW, input, &mut self.bench.effects);
        for action in self.bench.effects.actions.drain(..) {
            match action {
                Action::CallModel(body) => self.bodies.push(serde_json::from_slice(&body).unwrap()),
                Action::RunTool(call) => self.runs.push(call),
                Action::Used(call) => {
                    (self.used).push(call.prompt_tokens() + call.completion_tokens());
                }
                other @ (Action::ListTools { .. }
                | Action::ClaimApprovals(_)
                | Action::Suspect(_)
                | Action::FindItems(_)
                | Action::EffortRefused
                | Action::CountTokens(_)
                | Action::LeftOut(_)
                | Action::Complained(_)
                | Action::LostCalls(_)
                | Action::Begin
                | Action::Answer
                | Action::Refuse(_)
                | Action::Persist(_)
                | Action::End) => self.rest.push(name(&other)),
            }
        }
    }

    /// The model answers with these calls and 2 tokens.
    fn calls(&mut self, calls: &[(&str, &str)]) {
        for (index, (name, arguments)) in calls.iter().enumerate() {
            let call = json!({"index": index, "id": format!("u{index}"), "function": {"name": name, "arguments": arguments}});
            self.step(Input::UpstreamBytes(&delta(&json!({"tool_calls": [call]}))));
        }
        self.ends("tool_calls");
    }

    fn ends(&mut self, reason: &str) {
        self.step(Input::UpstreamBytes(&finish(reason)));
        self.step(Input::UpstreamBytes(USAGE));
        self.step(Input::UpstreamBytes(b"data: [DONE]\n\n"));
    }

    fn says(&mut self, text: &str) {
        self.step(Input::UpstreamBytes(&says(text)));
        self.ends("stop");
    }

    /// The oldest running call gives this text.
    fn gives(&mut self, logs: &str) {
        let call = self.runs.remove(0);
        self.ended(call.output_index, logs);
    }

    fn ended(&mut self, output_index: usize, logs: &str) {
        self.step(Input::ToolEnded {
            output_index,
            outcome: ToolOutcome::CodeInterpreter(CodeOutcome {
                logs: logs.to_owned(),
                ..CodeOutcome::default()
            }),
        });
    }

    /// The last resource that a client saw.
    fn resource(&self) -> Value {
        self.bench.events().last().unwrap()["response"].clone()
    }

    fn container(&self) -> &Container {
        let call = code_of(&self.runs[0].call);
        &call.container
    }

    /// Stores, and checks the status.
    fn stored(mut self, status: &str) -> Value {
        assert_eq!(self.rest, ["begin".to_owned(), format!("persist {status}")]);
        self.step(Input::Stored(Kept::Yes));
        let resource = self.resource();
        assert_eq!(resource["status"], status);
        resource
    }
}

const CODE: (&str, &str) = ("code_interpreter", r#"{"code":"print(1)"}"#);
const TWO: (&str, &str) = ("code_interpreter", r#"{"code":"2"}"#);

#[test]
fn a_round_and_an_answer() {
    let mut turn = Loop::new(&json!({}));
    assert_eq!(tool_names(&turn.bodies[0]), ["code_interpreter", "f"]);
    turn.calls(&[CODE]);
    assert_eq!(turn.runs.len(), 1);
    turn.gives("1\n");
    assert_eq!(roles(&turn.bodies[1]), ["user", "assistant", "tool"]);
    assert_eq!(turn.bodies[1]["messages"][2]["content"], "1\n");
    assert_eq!(turn.used.len(), 1, "charged before the next call (T6)");
    turn.says("one");
    assert_eq!(turn.used, [turn.used[0]; 2]);
    let types = turn.bench.types();
    assert_eq!(
        types[2..9],
        [
            "response.output_item.added",
            "response.code_interpreter_call.in_progress",
            "response.code_interpreter_call_code.delta",
            "response.code_interpreter_call_code.done",
            "response.code_interpreter_call.interpreting",
            "response.code_interpreter_call.completed",
            "response.output_item.done",
        ]
    );
    let resource = turn.stored("completed");
    assert_eq!(resource["output"][0]["code"], "print(1)");
    // The client did not ask for outputs; tokens of both calls are counted.
    assert_eq!(resource["output"][0]["outputs"], Value::Null);
    assert_eq!(resource["output"][1]["content"][0]["text"], "one");
    assert_eq!(resource["usage"]["output_tokens"], 4);
}

#[test]
fn outputs_are_shown_to_those_who_ask_and_stored_in_any_case() {
    for include in [json!([]), json!(["code_interpreter_call.outputs"])] {
        let mut turn = Loop::new(&json!({ "include": include }));
        turn.calls(&[CODE]);
        let index = turn.runs.remove(0).output_index;
        let outcome = ToolOutcome::CodeInterpreter(CodeOutcome {
            logs: "1".to_owned(),
            images: vec!["data:image/png;base64,AA==".into()],
            ..CodeOutcome::default()
        });
        turn.step(Input::ToolEnded {
            output_index: index,
            outcome,
        });
        turn.step(Input::UpstreamBytes(&says("x")));
        turn.step(Input::UpstreamBytes(&finish("stop")));
        let before = turn.bench.effects.bytes.len();
        turn.bench
            .turn
            .step(NOW, Input::UpstreamEnded, &mut turn.bench.effects);
        let Some(Action::Persist(record)) = turn.bench.effects.actions.pop() else {
            panic!("nothing stored")
        };
        assert!(
            record.response.contains(r#""logs":"1"#),
            "{}",
            record.response
        );
        turn.step(Input::Stored(Kept::Yes));
        let asked = include != json!([]);
        let text = std::str::from_utf8(&turn.bench.effects.bytes[before..]).unwrap();
        assert_eq!(text.contains("data:image/png"), asked);
        assert_eq!(record.response.contains("data:image/png"), asked);
        // What GET says is what the client was sent.
        let stored = crate::record::Stored {
            response: record.response.clone(),
            settings: Arc::clone(&record.settings),
        };
        let shown = if asked {
            CodeOutputs::Shown
        } else {
            CodeOutputs::Hidden
        };
        assert!(text.contains(&stored.resource(shown, Marks::new(0))));
    }
}

#[test]
fn calls_of_one_answer_run_together_and_keep_their_order() {
    let mut turn = Loop::new(&json!({"include": ["code_interpreter_call.outputs"]}));
    turn.calls(&[CODE, TWO]);
    assert_eq!(turn.runs.len(), 2);
    turn.ended(1, "two");
    assert_eq!(turn.bodies.len(), 1, "the round is not over");
    turn.ended(0, "one");
    // Each call stands with its result, in the model's order.
    assert_eq!(
        roles(&turn.bodies[1]),
        ["user", "assistant", "tool", "assistant", "tool"]
    );
    assert_eq!(turn.bodies[1]["messages"][2]["content"], "one");
    turn.says("done");
    let output = turn.stored("completed")["output"].clone();
    assert_eq!(output[0]["outputs"][0]["logs"], "one");
    assert_eq!(output[1]["outputs"][0]["logs"], "two");
}

#[test]
fn a_mixed_round_runs_the_gateways_calls_and_ends_with_the_clients() {
    let mut turn = Loop::new(&json!({}));
    turn.calls(&[("f", "{}"), CODE]);
    turn.gives("1");
    assert_eq!(turn.bodies.len(), 1, "the client has the word");
    let output = turn.stored("completed")["output"].clone();
    assert_eq!(output[0]["type"], "function_call");
    assert_eq!(output[1]["status"], "completed");
}

#[test]
fn max_tool_calls_leads_to_one_last_answer_without_the_gateways_tools() {
    let mut turn =
        Loop::new(&json!({"max_tool_calls": 1, "include": ["code_interpreter_call.outputs"]}));
    turn.calls(&[CODE, TWO]);
    assert_eq!(turn.runs.len(), 1, "one call is left");
    turn.gives("1");
    assert_eq!(tool_names(&turn.bodies[1]), ["f"]);
    assert_eq!(turn.bodies[1]["tool_choice"], Value::Null);
    // A model that calls the tool all the same is answered, and that is the end.
    turn.calls(&[("code_interpreter", r#"{"code":"print(3)"}"#)]);
    assert!(turn.runs.is_empty());
    let output = turn.stored("completed")["output"].clone();
    assert_eq!(output[1]["status"], "failed");
    assert_eq!(output[1]["outputs"][0]["logs"], super::super::tools::SPENT);
    assert_eq!(output[2]["status"], "failed");
}

#[test]
fn the_rounds_cap_leads_to_one_last_answer() {
    let limits = LoopLimits {
        rounds: 2,
        ..LoopLimits::default()
    };
    let mut turn = Loop::with(&json!({}), limits, Vec::new());
    turn.calls(&[CODE]);
    turn.gives("1");
    turn.calls(&[TWO]);
    turn.gives("2");
    assert_eq!(tool_names(&turn.bodies[1]), ["code_interpreter", "f"]);
    assert_eq!(tool_names(&turn.bodies[2]), ["f"]);
    turn.says("enough");
    turn.stored("completed");
}

#[test]
fn the_third_same_call_in_a_row_is_not_run() {
    let mut turn = Loop::new(&json!({}));
    for _ in 0..2 {
        turn.calls(&[CODE]);
        turn.gives("1");
    }
    turn.calls(&[CODE]);
    assert!(turn.runs.is_empty());
    let messages = turn.bodies[3]["messages"].as_array().unwrap();
    assert_eq!(
        messages.last().unwrap()["content"],
        super::super::tools::REPEATED
    );
    // Another call in between, and it may run again.
    turn.calls(&[TWO]);
    turn.gives("2");
    turn.calls(&[CODE]);
    assert_eq!(turn.runs.len(), 1);
}

#[test]
fn a_forced_choice_holds_for_the_first_round_alone() {
    for (choice, sent) in [
        (json!("required"), json!("required")),
        (
            json!({"type": "code_interpreter"}),
            json!({"type": "function", "function": {"name": "code_interpreter"}}),
        ),
    ] {
        let mut turn = Loop::new(&json!({ "tool_choice": choice }));
        assert_eq!(turn.bodies[0]["tool_choice"], sent);
        turn.calls(&[CODE]);
        turn.gives("1");
        assert_eq!(turn.bodies[1]["tool_choice"], "auto");
    }
}

#[test]
fn allowed_tools_hold_in_every_round() {
    let only =
        json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "code_interpreter"}]});
    let mut turn = Loop::new(&json!({ "tool_choice": only }));
    turn.calls(&[CODE]);
    turn.gives("1");
    for body in &turn.bodies {
        assert_eq!(tool_names(body), ["code_interpreter"]);
    }
}

#[test]
fn unusable_arguments_are_told_to_the_model() {
    let mut turn = Loop::new(&json!({}));
    turn.calls(&[("code_interpreter", r#"{"cod":1}"#)]);
    assert!(turn.runs.is_empty());
    let told = turn.bodies[1]["messages"][2]["content"].as_str().unwrap();
    assert!(told.contains("`code`"), "{told}");
    turn.says("sorry");
    assert_eq!(turn.stored("completed")["output"][0]["status"], "failed");
}

#[test]
fn a_tool_that_fails_does_not_end_the_response() {
    let mut turn = Loop::new(&json!({}));
    turn.calls(&[CODE]);
    let index = turn.runs.remove(0).output_index;
    let outcome = ToolOutcome::CodeInterpreter(CodeOutcome {
        failure: Some("timed out after 30 s".into()),
        ..CodeOutcome::default()
    });
    turn.step(Input::ToolEnded {
        output_index: index,
        outcome,
    });
    assert_eq!(
        turn.bodies[1]["messages"][2]["content"],
        "timed out after 30 s"
    );
    turn.says("too slow");
    let output = turn.stored("completed")["output"].clone();
    assert_eq!(output[0]["status"], "failed");
}

#[test]
fn output_tokens_are_bounded_over_all_rounds() {
    let mut turn = Loop::new(&json!({"max_output_tokens": 3}));
    turn.calls(&[CODE]);
    turn.gives("1");
    assert_eq!(turn.bodies[1]["max_completion_tokens"], 1);
    turn.calls(&[TWO]);
    turn.gives("2");
    let resource = turn.stored("incomplete");
    assert_eq!(
        resource["incomplete_details"]["reason"],
        "max_output_tokens"
    );
}

#[test]
fn an_answer_cut_by_its_limit_runs_nothing() {
    let mut turn = Loop::new(&json!({}));
    let call = json!({"index": 0, "id": "u", "function": {"name": CODE.0, "arguments": CODE.1}});
    turn.step(Input::UpstreamBytes(&delta(&json!({"tool_calls": [call]}))));
    turn.ends("length");
    assert!(turn.runs.is_empty());
    assert_eq!(
        turn.stored("incomplete")["output"][0]["status"],
        "incomplete"
    );
}

#[test]
fn stops_while_tools_run_close_their_items() {
    for (why, status) in [
        (Cancel::ClientLeft, "cancelled"),
        (Cancel::Shutdown, "failed"),
        (Cancel::ToolTimeSpent, "failed"),
        (Cancel::Overloaded, "failed"),
    ] {
        let mut turn = Loop::new(&json!({}));
        assert_eq!(turn.bench.turn.overdue_at_ms(), None);
        turn.calls(&[CODE]);
        let limit = LoopLimits::default().wall_ms;
        assert_eq!(turn.bench.turn.overdue_at_ms(), Some(NOW + limit));
        turn.step(Input::Cancelled(why));
        assert_eq!(turn.rest, ["begin".to_owned(), format!("persist {status}")]);
        let done = turn.bench.events().pop().unwrap();
        let done = if why == Cancel::ClientLeft {
            done
        } else {
            turn.bench.events().remove(7)
        };
        assert_eq!(done["item"]["status"], "incomplete");
        // A late outcome changes nothing.
        turn.ended(0, "late");
        assert!(turn.bodies.len() == 1 && turn.rest.len() == 2);
    }
}

#[test]
fn an_upstream_fault_in_a_later_round_keeps_what_is_there() {
    let mut turn = Loop::new(&json!({}));
    turn.calls(&[CODE]);
    turn.gives("1");
    turn.step(Input::UpstreamFailed(UpstreamFault::Unreachable));
    let failed = turn.stored("failed");
    assert_eq!(failed["output"][0]["status"], "completed");
}

#[test]
fn the_container_is_the_named_the_chains_or_a_fresh_one() {
    let named = json!({"tools": [{"type": "code_interpreter", "container": "cntr_mine"}]});
    let mut turn = Loop::new(&named);
    turn.calls(&[CODE]);
    assert_eq!(turn.container(), &Container::Named("cntr_mine".into()));

    turn = Loop::new(&json!({}));
    turn.calls(&[CODE]);
    assert!(matches!(turn.container(), Container::Fresh(id) if id.starts_with("cntr_")));
    let first = turn.container().id().to_owned();
    turn.gives("1");
    turn.calls(&[TWO]);
    assert_eq!(turn.container(), &Container::Continued(first.into()));

    let earlier = crate::history::parse_items(
        r#"[{"type":"code_interpreter_call","id":"ci_1","status":"completed","code":"1","container_id":"cntr_old","outputs":[]}]"#,
    );
    let mut turn = Loop::with(&json!({}), LoopLimits::default(), earlier.unwrap());
    // The earlier call and its result are shown to the model.
    assert_eq!(roles(&turn.bodies[0]), ["assistant", "tool", "user"]);
    assert_eq!(turn.bodies[0]["messages"][1]["content"], "(no output)");
    turn.calls(&[CODE]);
    assert_eq!(turn.container(), &Container::Continued("cntr_old".into()));
}

#[test]
fn a_missing_interpreter_is_refused_and_one_switched_off_is_not_shown() {
    let body = json!({"model": "m", "input": "x", "tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]});
    let mut bench = Bench::new(&body);
    bench.turn.offers.code_interpreter = Availability::Missing("install it".into());
    assert_eq!(
        bench.step(Input::History(Vec::new())),
        ["refuse 400", "end"]
    );
    let mut bench = Bench::new(&body);
    bench.turn.offers.code_interpreter = Availability::Off;
    assert_eq!(bench.step(Input::History(Vec::new())), ["call"]);
}

#[test]
fn a_client_that_does_not_stream_gets_the_same() {
    let mut turn = Loop::new(&json!({"stream": false, "store": false}));
    let answer = |message: &Value| {
        let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
        json!({"choices": [choice]}).to_string()
    };
    let call = json!({"id": "u", "function": {"name": CODE.0, "arguments": CODE.1}});
    let calling = answer(&json!({"tool_calls": [call]}));
    turn.step(Input::UpstreamAnswer(calling.as_bytes()));
    turn.gives("1");
    turn.step(Input::UpstreamAnswer(
        answer(&json!({"content": "one"})).as_bytes(),
    ));
    assert_eq!(turn.rest, ["answer", "end"]);
    let resource: Value = serde_json::from_slice(&turn.bench.effects.bytes).unwrap();
    assert_eq!(resource["output"][1]["content"][0]["text"], "one");
}

proptest! {
    /// The code that a client sees grow is the code that runs, however the arguments are cut.
    #[test]
    fn code_deltas_join_to_the_code_that_runs(code in "[^\u{0}]{0,40}", cut in 1_usize..5) {
        let mut turn = Loop::new(&json!({}));
        let characters: Vec<char> = json!({ "code": code }).to_string().chars().collect();
        for piece in characters.chunks(cut).map(String::from_iter) {
            let call = json!({"index": 0, "id": "u", "function": {"name": CODE.0, "arguments": piece}});
            turn.step(Input::UpstreamBytes(&delta(&json!({"tool_calls": [call]}))));
        }
        turn.ends("tool_calls");
        prop_assert_eq!(&*code_of(&turn.runs[0].call).code, code.as_str());
        let shown: String = turn.bench.events().iter()
            .filter(|event| event["type"] == "response.code_interpreter_call_code.delta")
            .map(|event| event["delta"].as_str().unwrap().to_owned())
            .collect();
        prop_assert_eq!(shown, code);
    }
}
