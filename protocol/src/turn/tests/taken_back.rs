//! Whatever a model server says: it is stored, continued and taken back, and the prompt is the same.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::said::{asked_with, called, chain, run, run_with};
use super::*;
use crate::record::Chain;
use crate::tools::code_interpreter::CodeOutcome;

/// Texts as models and tools write them: with NUL, escapes and characters of all planes.
fn text() -> impl Strategy<Value = String> {
    "[a\\u{0}\"\\\\\n{}é😀\u{fffd} ]{0,6}"
}

/// One piece of an answer: words, thinking, or a call under any id, of any name, with any arguments.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just("look".to_owned()),
        Just("free".to_owned()),
        Just("find.it".to_owned()),
        Just("apply_patch".to_owned()),
        text(),
    ];
    let arguments = prop_oneof![
        Just("{}".to_owned()),
        Just("{\"input\":\"x\\u0000\"}".to_owned()),
        Just("{\"type\":\"delete_file\",\"path\":\"a\"}".to_owned()),
        text(),
    ];
    prop_oneof![
        text().prop_map(|text| says(&text)),
        text().prop_map(|text| delta(&json!({"reasoning": text}))),
        ("[a-z:.é]{0,200}", name, arguments, 0..3_u32).prop_map(|(id, name, arguments, index)| {
            let mut called = called(&id, &name, &arguments);
            let text = String::from_utf8(std::mem::take(&mut called)).unwrap();
            text.replace("\"index\":0", &format!("\"index\":{index}"))
                .into_bytes()
        }),
    ]
}

/// The outputs that a client gives to the calls it was shown.
fn outputs(output: &[Value]) -> Vec<Value> {
    let answered = output.iter().filter_map(|item| {
        let kind = match item["type"].as_str()? {
            "function_call" => "function_call_output",
            "custom_tool_call" => "custom_tool_call_output",
            "apply_patch_call" => "apply_patch_call_output",
            _ => return None,
        };
        let whole = item["status"] == "completed" && item["name"] != "";
        let output = json!({"type": kind, "call_id": item["call_id"], "output": "\0done", "status": "completed"});
        whole.then_some(output)
    });
    answered.collect()
}

/// Messages without what differs where the client keeps its own history: the model's own ids.
fn without_ids(body: &Value) -> Value {
    let mut messages = body["messages"].clone();
    for message in messages.as_array_mut().unwrap() {
        message.as_object_mut().unwrap().remove("tool_call_id");
        if let Some(calls) = message.get_mut("tool_calls") {
            for call in calls.as_array_mut().unwrap() {
                call.as_object_mut().unwrap().remove("id");
            }
        }
    }
    messages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_was_given_out_is_taken_back(pieces in prop::collection::vec(piece(), 0..6), asked in text()) {
        let tools = json!([{"type": "function", "name": "look"}, {"type": "custom", "name": "free"},
            {"type": "function", "name": "find.it"}, {"type": "apply_patch"}]);
        let question = json!({"type": "message", "role": "user", "content": asked});
        let body = json!({"model": "m", "input": [question], "tools": tools, "stream": true});
        let answer = [pieces.concat(), finish("stop")].concat();
        let (_, record) = run(&body, &Chain::default(), &answer);
        let stored: Value = serde_json::from_str(&record.response).unwrap();
        let output = stored["output"].as_array().unwrap();
        let next = [outputs(output), vec![json!({"role": "user", "content": "next"})]].concat();

        let continued = json!({"model": "m", "previous_response_id": "r", "input": next, "tools": tools});
        let continued = asked_with(&continued, &chain(&[&record])).unwrap();
        let whole = [vec![question.clone()], output.clone(), next.clone()].concat();
        let replayed = json!({"model": "m", "input": whole, "tools": tools});
        let replayed = asked_with(&replayed, &Chain::default()).unwrap();
        prop_assert_eq!(without_ids(&continued), without_ids(&replayed));
        // Sent again beside the chain, what we made is not said twice.
        let again = [output.clone(), next].concat();
        let again = json!({"model": "m", "previous_response_id": "r", "input": again, "tools": tools});
        let again = asked_with(&again, &chain(&[&record])).unwrap();
        let calls = |body: &Value| {
            let messages = body["messages"].as_array().unwrap().iter();
            messages.filter(|message| message["role"] == "tool").count()
        };
        prop_assert_eq!(calls(&again), calls(&continued));
    }

    /// What the interpreter and MCP servers gave too, and by reference.
    #[test]
    fn what_tools_gave_is_taken_back_and_referred_to(
        told in (text(), text(), text(), any::<[bool; 3]>()),
        thinking in text(),
    ) {
        let (logs, failure, output, [failed, shown, tool_failed]) = told;
        let tools = json!([{"type": "code_interpreter", "container": {"type": "auto"}}]);
        let question = json!({"type": "message", "role": "user", "content": "q"});
        let include = if shown { json!(["code_interpreter_call.outputs"]) } else { json!([]) };
        let body = json!({"model": "m", "input": [question], "tools": tools, "stream": true, "include": include});
        let answer = [delta(&json!({"reasoning": thinking})), called("c", "code_interpreter", "{\"code\":\"1\\u0000\"}"),
            finish("tool_calls")].concat();
        let outcome = CodeOutcome { logs, failure: failed.then(|| failure.into()), ..CodeOutcome::default() };
        let (_, record) = run_with(&body, &Chain::default(), &answer, outcome);
        let stored: Value = serde_json::from_str(&record.response).unwrap();
        let mut output_items = stored["output"].as_array().unwrap().clone();
        let error = tool_failed.then(|| json!({"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": output}]}));
        let given = if tool_failed { Value::Null } else { json!(output) };
        output_items.push(json!({"type": "mcp_call", "status": if tool_failed { "failed" } else { "completed" }, "server_label": "s",
            "name": "n", "arguments": "{}", "output": given, "error": error, "approval_request_id": null}));
        for (number, item) in output_items.iter_mut().enumerate() {
            item["id"] = json!(format!("x_{:032x}{number:04x}", 5));
        }
        let mut kept = record.clone();
        kept.response = json!({"output": output_items}).to_string().into();
        let next = json!({"role": "user", "content": "next"});
        let asked = |input: Vec<Value>| json!({"model": "m", "input": input, "tools": tools});
        let continued = asked_with(&asked(vec![next.clone()]), &chain(&[&kept])).unwrap();
        let replayed = [vec![question.clone()], output_items.clone(), vec![next.clone()]].concat();
        let replayed = asked_with(&asked(replayed), &Chain::default()).unwrap();
        prop_assert_eq!(without_ids(&continued), without_ids(&replayed));
        // Each twice: said once.
        let reference = |item: &Value| json!({"type": "item_reference", "id": item["id"]});
        let references: Vec<Value> = output_items.iter().chain(&output_items).map(reference).collect();
        let referred = [vec![question], references, vec![next]].concat();
        let mut bench = Bench::new(&asked(referred));
        let found = crate::history::parse_items(&json!(output_items).to_string()).unwrap();
        bench.step(Input::History(Vec::new()));
        bench.turn.step(NOW, Input::Found(found), &mut bench.effects);
        let Some(Action::CallModel(body)) = bench.effects.actions.pop() else {
            return Err(TestCaseError::fail("not asked"));
        };
        let body: Value = serde_json::from_slice(&body).unwrap();
        prop_assert_eq!(without_ids(&body), without_ids(&continued));
    }
}
