//! Whatever a model server says: it is stored, continued and taken back, and the prompt is the same.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::said::{asked_with, called, chain, run};
use super::*;
use crate::record::Chain;

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
}
