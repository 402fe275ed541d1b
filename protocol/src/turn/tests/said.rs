//! What goes back to the model is what it said, and what clients were given is taken back.

use serde_json::{Value, json};

use super::*;
use crate::history;
use crate::record::{Chain, Link, Record, Stored};
use crate::responses::item::CodeOutputs;
use crate::tools::ToolOutcome;
use crate::tools::code_interpreter::CodeOutcome;

pub(super) fn called(id: &str, name: &str, arguments: &str) -> Vec<u8> {
    delta(
        &json!({"tool_calls": [{"index": 0, "id": id, "function": {"name": name, "arguments": arguments}}]}),
    )
}

fn bodies(actions: &[Action]) -> Vec<Value> {
    let bodies = actions.iter().filter_map(|action| {
        let Action::CallModel(body) = action else {
            return None;
        };
        serde_json::from_slice(body).ok()
    });
    bodies.collect()
}

fn step(bench: &mut Bench, input: Input<'_>) -> Vec<Action> {
    bench.turn.step(1_000, input, &mut bench.effects);
    std::mem::take(&mut bench.effects.actions)
}

fn link(record: &Record) -> Arc<Link> {
    Arc::new(Link {
        id: record.id.clone(),
        status: record.status,
        input_items: record.input_items.clone(),
        response: record.response.clone(),
    })
}

pub(super) fn chain(records: &[&Record]) -> Chain {
    Chain {
        links: records.iter().map(|record| link(record)).collect(),
        expires_at_ms: None,
        settings: None,
    }
}

/// Runs a turn whose one round is `answer`, with its code run; gives the body of the second round, if
/// there is one, and the record.
pub(super) fn run(body: &Value, earlier: &Chain, answer: &[u8]) -> (Option<Value>, Record) {
    let outcome = CodeOutcome {
        logs: "4".to_owned(),
        ..CodeOutcome::default()
    };
    run_with(body, earlier, answer, outcome)
}

/// The same with this outcome of the code.
pub(super) fn run_with(
    body: &Value,
    earlier: &Chain,
    answer: &[u8],
    outcome: CodeOutcome,
) -> (Option<Value>, Record) {
    let mut bench = Bench::new(body);
    let items = history::from_chain(earlier, Marks::new(0)).unwrap();
    step(&mut bench, Input::History(items));
    step(&mut bench, Input::UpstreamOpened);
    step(&mut bench, Input::UpstreamBytes(answer));
    let mut actions = step(&mut bench, Input::UpstreamEnded);
    let mut second = None;
    if let Some(Action::RunTool(call)) = actions
        .iter()
        .find(|action| matches!(action, Action::RunTool(_)))
    {
        let output_index = call.output_index;
        let ended = Input::ToolEnded {
            output_index,
            outcome: ToolOutcome::CodeInterpreter(outcome),
        };
        second = bodies(&step(&mut bench, ended)).pop();
        step(&mut bench, Input::UpstreamOpened);
        step(
            &mut bench,
            Input::UpstreamBytes(&[says("four"), finish("stop")].concat()),
        );
        actions = step(&mut bench, Input::UpstreamEnded);
    }
    let record = actions.into_iter().find_map(|action| {
        let Action::Persist(record) = action else {
            return None;
        };
        Some(*record)
    });
    (second, record.expect("stored"))
}

pub(super) fn asked_with(body: &Value, earlier: &Chain) -> Result<Value, String> {
    let mut bench = Bench::new(body);
    let items = history::from_chain(earlier, Marks::new(0)).unwrap();
    let actions = step(&mut bench, Input::History(items));
    let body = bodies(&actions).pop();
    body.ok_or_else(|| actions.iter().map(name).collect::<Vec<_>>().join(", "))
}

#[test]
fn calls_that_run_here_go_back_under_the_models_own_id() {
    let tools = json!([{"type": "code_interpreter", "container": {"type": "auto"}}]);
    let body = json!({"model": "m", "input": "x", "tools": tools, "stream": true});
    let said = "functions.code_interpreter:0";
    let answer = [
        called(said, "code_interpreter", "{\"code\":\"2+2\"}"),
        finish("tool_calls"),
    ]
    .concat();
    let (second, record) = run(&body, &Chain::default(), &answer);
    let second = second.unwrap();
    assert_eq!(second["messages"][1]["tool_calls"][0]["id"], said);
    assert_eq!(second["messages"][2]["tool_call_id"], said);
    // And on the next turn, from the store.
    let next = json!({"model": "m", "input": "y", "previous_response_id": "r", "tools": tools});
    let next = asked_with(&next, &chain(&[&record])).unwrap();
    assert_eq!(next["messages"][1]["tool_calls"][0]["id"], said);
    assert_eq!(next["messages"][2]["tool_call_id"], said);
    // No client ever sees it.
    let stored = Stored {
        response: record.response.clone(),
        settings: Arc::clone(&record.settings),
    };
    assert!(record.response.contains(said));
    for outputs in [CodeOutputs::Shown, CodeOutputs::Hidden] {
        let shown = stored.resource(outputs, Marks::new(0));
        assert!(!shown.contains(said) && !shown.contains("_said"), "{shown}");
        let resource: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(resource["output"][0]["type"], "code_interpreter_call");
    }
}

#[test]
fn a_conversation_with_a_call_without_a_name_goes_on() {
    let stored = json!([{"type": "function_call", "id": "fc_1", "status": "completed", "call_id": "c",
        "name": "", "arguments": "{}"}]);
    let input = json!([{"type": "message", "id": "m_1", "role": "user", "content": "q"}]);
    let record = |output: &Value| Link {
        id: ResponseId::new("r"),
        status: Status::Completed,
        input_items: input.to_string().into(),
        response: json!({"output": output}).to_string().into(),
    };
    let chain = |output: &Value| Chain {
        links: vec![Arc::new(record(output))],
        ..Chain::default()
    };
    let next = json!({"model": "m", "input": "go on", "previous_response_id": "r"});
    let body = asked_with(&next, &chain(&stored)).unwrap();
    assert_eq!(body["messages"].as_array().unwrap().len(), 2);
    // A client that answers it is understood too.
    let next = json!({"model": "m", "previous_response_id": "r", "input": [
        {"type": "function_call_output", "call_id": "c", "output": "no such tool"}]});
    let body = asked_with(&next, &chain(&stored)).unwrap();
    assert_eq!(
        body["messages"][1]["tool_calls"][0]["function"]["name"],
        "unnamed"
    );
    // What cannot be read costs itself alone.
    let odd = json!([{"type": "of_another_time", "id": "x_1"}, {"type": "message", "id": "msg_1",
        "role": "assistant", "content": [{"type": "output_text", "text": "A"}, {"type": "hologram"}]}]);
    let next = json!({"model": "m", "input": "go on", "previous_response_id": "r"});
    let body = asked_with(&next, &chain(&odd)).unwrap();
    assert_eq!(body["messages"][1]["content"], "A");
}

fn a_call() -> (Value, Record) {
    let tools = json!([{"type": "function", "name": "look"}]);
    let body = json!({"model": "m", "input": "x", "tools": tools, "stream": true});
    let answer = [called("c1", "look", "{\"a\": 1}"), finish("tool_calls")].concat();
    let (_, record) = run(&body, &Chain::default(), &answer);
    (tools, record)
}

#[test]
fn items_that_the_chain_has_are_not_said_twice() {
    let (tools, record) = a_call();
    let output = json!({"type": "function_call_output", "call_id": "c1", "output": "O"});
    let call =
        json!({"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{\"a\":1}"});
    let next = |input: Value| json!({"model": "m", "previous_response_id": "r", "tools": tools, "input": input});
    let chain = chain(&[&record]);
    let once = asked_with(&next(json!([output])), &chain).unwrap();
    assert_eq!(
        asked_with(&next(json!([call, output])), &chain).unwrap(),
        once
    );
    let stored: Value = serde_json::from_str(&record.response).unwrap();
    let own = &stored["output"][0];
    assert_eq!(
        asked_with(&next(json!([own, output])), &chain).unwrap(),
        once
    );
    // Another call under the same number is another call.
    let other =
        json!({"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{\"a\":2}"});
    let two = next(json!([output, other, output]));
    let two = asked_with(&two, &chain).unwrap();
    let calls = two["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|message| message.get("tool_calls").is_some());
    assert_eq!(calls.count(), 2);
}

#[test]
fn an_effort_that_a_model_refuses_is_asked_for_in_a_common_word() {
    let body = json!({"model": "m", "input": "x", "reasoning": {"effort": "minimal"}});
    let mut bench = Bench::new(&body);
    let first = bodies(&step(&mut bench, Input::History(Vec::new())));
    assert_eq!(first[0]["reasoning_effort"], "minimal");
    let refusal = |text: &str| UpstreamFault::Status {
        status: 400,
        retry_after: None,
        body: text.as_bytes().into(),
    };
    let words = r#"{"error":{"message":"reasoning_effort='minimal' is not supported by Harmony"}}"#;
    let again = step(&mut bench, Input::UpstreamFailed(refusal(words)));
    assert!(matches!(again[0], Action::EffortRefused));
    assert_eq!(bodies(&again)[0]["reasoning_effort"], "low");
    // Once.
    let over = step(&mut bench, Input::UpstreamFailed(refusal(words)));
    assert!(bodies(&over).is_empty());
    // A common word is not tried again.
    let body = json!({"model": "m", "input": "x", "reasoning": {"effort": "high"}});
    let mut bench = Bench::new(&body);
    step(&mut bench, Input::History(Vec::new()));
    assert!(bodies(&step(&mut bench, Input::UpstreamFailed(refusal(words)))).is_empty());
}

#[test]
fn a_summary_leaves_tools_settings_and_the_container() {
    let input = json!([{"type": "additional_tools", "id": "at_1", "role": "developer",
            "tools": [{"type": "function", "name": "loaded"}]},
        {"type": "configuration_update", "id": "cfg_1", "reasoning": {"effort": "low"}},
        {"type": "message", "id": "m_1", "role": "user", "content": "q"},
        {"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "code": "1",
            "container_id": "cntr_1", "outputs": []}]);
    let output = json!([{"type": "compaction", "id": "cmp_1", "encrypted_content": "x"}]);
    let chain = Chain {
        links: vec![Arc::new(Link {
            id: ResponseId::new("r"),
            status: Status::Completed,
            input_items: input.to_string().into(),
            response: json!({"output": output}).to_string().into(),
        })],
        ..Chain::default()
    };
    let items = history::from_chain(&chain, Marks::new(0)).unwrap();
    let kinds: Vec<Value> = items
        .iter()
        .map(|item| json!(item)["type"].clone())
        .collect();
    assert_eq!(
        kinds,
        [
            "additional_tools",
            "configuration_update",
            "message",
            "code_interpreter_call",
            "compaction"
        ]
    );
}
