//! Tool calls as servers other than vLLM write them, streamed and whole.

use super::*;

/// A response to these chunks, as the client sees it at its end.
pub(super) fn streamed(body: &Value, chunks: &[Value]) -> Value {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let mut bench = Bench::new(&body).called();
    for chunk in chunks {
        let _actions = bench.bytes(&frame(chunk));
    }
    let _actions = bench.bytes(b"data: [DONE]\n\n");
    let _actions = bench.step(Input::Stored(Kept::Yes));
    let events = bench.events();
    assert_invariants(bench.text());
    events.last().unwrap()["response"].clone()
}

/// The same for a whole answer.
pub(super) fn whole(body: &Value, answer: &Value) -> Value {
    let mut bench = Bench::new(body).called();
    let _actions = bench.step(Input::UpstreamAnswer(answer.to_string().as_bytes()));
    let _actions = bench.step(Input::Stored(Kept::Yes));
    serde_json::from_slice(&bench.effects.bytes).unwrap()
}

pub(super) fn tools() -> Value {
    let tool = |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}, "strict": false});
    json!({"model": "m", "input": "x", "tools": [tool("f"), tool("g"), tool("get_time")]})
}

fn calls(body: &Value, pieces: &[Value]) -> Vec<(String, String, String)> {
    let chunk = |piece: &Value| json!({"choices": [{"index": 0, "delta": {"tool_calls": piece}, "finish_reason": ""}]});
    let mut chunks: Vec<Value> = pieces.iter().map(chunk).collect();
    chunks.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}));
    let told = streamed(body, &chunks);
    assert_eq!(told["status"], "completed");
    let items = told["output"].as_array().unwrap().iter();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    items
        .map(|item| {
            (
                text(item, "name"),
                text(item, "arguments"),
                text(item, "status"),
            )
        })
        .collect()
}

fn piece(index: Option<u64>, id: &str, name: &str, arguments: &str) -> Value {
    let mut piece = json!({"id": id, "function": {"name": name, "arguments": arguments}});
    if let Some(index) = index {
        piece["index"] = json!(index);
    }
    json!([piece])
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn s1_7_calls_are_neither_merged_nor_torn() {
    let (a, b) = (r#"{"a":1}"#, r#"{"b":2}"#);
    let at = Some(0);
    for (what, pieces, want) in [
        (
            "no ids, one index",
            vec![piece(at, "", "f", a), piece(at, "", "g", b)],
            vec![("f", a), ("g", b)],
        ),
        (
            "neither ids nor index",
            vec![piece(None, "", "f", a), piece(None, "", "f", b)],
            vec![("f", a), ("f", b)],
        ),
        (
            "a fresh id for every piece",
            vec![
                piece(at, "1", "f", ""),
                piece(at, "2", "", "{\"a\""),
                piece(at, "3", "", ":1}"),
            ],
            vec![("f", a)],
        ),
        (
            "pieces without a name go to the last call",
            vec![
                piece(at, "a", "f", ""),
                piece(at, "b", "g", ""),
                json!([{"index": 0, "function": {"arguments": b}}]),
            ],
            vec![("f", "{}"), ("g", b)],
        ),
        (
            "names without arguments, ids or index",
            vec![piece(None, "", "f", ""), piece(None, "", "g", "")],
            vec![("f", "{}"), ("g", "{}")],
        ),
        (
            "the name in pieces",
            vec![
                piece(at, "c", "get_", ""),
                piece(at, "", "time", ""),
                piece(at, "", "", a),
            ],
            vec![("get_time", a)],
        ),
        (
            "id and name again behind the whole",
            vec![piece(at, "c", "f", a), piece(at, "c", "f", "")],
            vec![("f", a)],
        ),
        (
            "arguments before the name",
            vec![piece(at, "c", "", "{\"a\""), piece(at, "", "f", ":1}")],
            vec![("f", a)],
        ),
        (
            "arguments as an object, the calls as one",
            vec![json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": {"a": 1}}})],
            vec![("f", a)],
        ),
        (
            "an empty object before the text",
            vec![
                json!([{"index": 0, "id": "c", "function": {"name": "f", "arguments": {}}}]),
                piece(at, "", "", a),
            ],
            vec![("f", a)],
        ),
    ] {
        let got = calls(&tools(), &pieces);
        let got: Vec<(&str, &str)> = got.iter().map(|c| (&*c.0, &*c.1)).collect();
        assert_eq!(got, want, "{what}");
    }
}

#[test]
fn s1_7_first_only_counts_calls() {
    let mut body = tools();
    body["parallel_tool_calls"] = json!(false);
    let pieces = [
        piece(Some(0), "a", "f", "{\"a\":1}"),
        piece(Some(0), "b", "g", "{\"b\""),
        piece(Some(0), "", "", ":2}"),
        piece(Some(7), "c", "g", "{}"),
    ];
    let got = calls(&body, &pieces);
    assert_eq!(got.len(), 1);
    assert_eq!((&*got[0].0, &*got[0].1), ("f", "{\"a\":1}"));
    // A call that is refused, or cannot be run, is not the one.
    body["tool_choice"] = json!({"type": "allowed_tools", "mode": "auto",
        "tools": [{"type": "function", "name": "g"}]});
    let pieces = [
        piece(Some(0), "a", "f", "{}"),
        piece(Some(1), "b", "", "{}"),
        piece(Some(2), "c", "g", "{}"),
    ];
    assert_eq!(calls(&body, &pieces)[0].0, "g");
}

#[test]
fn s1_2_a_call_without_a_name_is_left_out_and_told_to_the_operator() {
    let message = json!({"content": "hi", "tool_calls": [
        {"id": "c", "function": {"name": "", "arguments": "{}"}},
        {"id": "d", "function": {"name": "f", "arguments": "{}"}}]});
    let answer = json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]});
    let mut bench = Bench::new(&tools()).called();
    let actions = bench.step(Input::UpstreamAnswer(answer.to_string().as_bytes()));
    assert_eq!(actions, ["lost 1", "persist completed"]);
    let told = whole(&tools(), &answer);
    assert_eq!(told["output"].as_array().unwrap().len(), 2);
    let streamed = calls(
        &tools(),
        &[
            piece(Some(0), "c", "", "{}"),
            piece(Some(1), "d", "f", "{}"),
        ],
    );
    assert_eq!(streamed.len(), 1);
}

/// Some servers give every call of a whole answer the same index.
#[test]
fn entries_of_a_whole_answer_are_calls_of_their_own() {
    let call = |name: &str, arguments: &str| json!({"index": 0, "id": "", "function": {"name": name, "arguments": arguments}});
    let message =
        json!({"tool_calls": [call("", "{}"), call("f", ""), call("g", "{"), call("f", "{}")]});
    let answer = json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]});
    let told = whole(&tools(), &answer);
    let got: Vec<(&str, &str)> = told["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let text = |key: &str| item[key].as_str().unwrap();
            (text("name"), text("arguments"))
        })
        .collect();
    assert_eq!(got, [("f", "{}"), ("g", "{"), ("f", "{}")]);
}

#[test]
fn one_id_for_two_calls_becomes_two() {
    let call = |name: &str| json!({"id": "call_1", "function": {"name": name, "arguments": "{}"}});
    let message = json!({"tool_calls": [call("f"), call("g"), call("f")]});
    let answer = json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]});
    let told = whole(&tools(), &answer);
    let ids: std::collections::HashSet<&str> = told["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["call_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.contains("call_1"), "the first keeps the model's");
}

#[test]
fn a_call_of_old_is_a_call() {
    let delta = |call: Value| json!({"choices": [{"delta": {"function_call": call}}]});
    let told = streamed(
        &tools(),
        &[
            delta(json!({"name": "f"})),
            delta(json!({"arguments": "{\"a\""})),
            delta(json!({"arguments": ":1}"})),
            json!({"choices": [{"delta": {}, "finish_reason": "function_call"}]}),
        ],
    );
    assert_eq!(told["output"][0]["arguments"], "{\"a\":1}");
    assert_eq!(told["output"].as_array().unwrap().len(), 1);
}

/// A typed call that is written slowly keeps its place before a later one.
#[test]
fn typed_calls_keep_the_models_order() {
    let mut body = tools();
    body["tools"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "shell"}));
    let piece = |index: u64, name: &str, arguments: &str| {
        json!({"choices": [{"delta": {"tool_calls": [{"index": index, "id": format!("c{index}"),
            "function": {"name": name, "arguments": arguments}}]}}]})
    };
    let told = streamed(
        &body,
        &[
            piece(0, "shell", "{\"commands\":"),
            piece(1, "f", "{\"a\""),
            piece(2, "g", "{}"),
            piece(1, "", ":1}"),
            piece(0, "", "[\"ls\"]}"),
            json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}),
        ],
    );
    let kinds: Vec<&str> = told["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["shell_call", "function_call", "function_call"]);
    assert_eq!(told["output"][1]["arguments"], "{\"a\":1}");
}

#[test]
fn the_arguments_of_a_search_can_be_read_by_everybody() {
    let mut body = tools();
    body["tools"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "tool_search", "execution": "client"}));
    for (arguments, kind) in [
        ("{\"q\":\"\\ud800\"}", "tool_search_call"),
        ("{\"q\":1e999}", "function_call"),
    ] {
        let call = json!({"id": "c", "function": {"name": "tool_search", "arguments": arguments}});
        let answer =
            json!({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "stop"}]});
        assert_eq!(whole(&body, &answer)["output"][0]["type"], kind);
    }
}

#[test]
fn code_under_an_escaped_name_is_run() {
    let body = json!({"model": "m", "input": "x", "tools": [
        {"type": "code_interpreter", "container": {"type": "auto"}}]});
    let call = json!({"id": "c", "function": {"name": "code_interpreter",
        "arguments": "{\"\\u0063ode\":\"print(1)\"}"}});
    let answer = json!({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "stop"}]});
    let mut bench = Bench::new(&body).called();
    let answer = answer.to_string();
    bench.turn.step(
        NOW,
        Input::UpstreamAnswer(answer.as_bytes()),
        &mut bench.effects,
    );
    let Some(Action::RunTool(call)) = bench.effects.actions.first() else {
        panic!("{:?}", bench.effects.actions)
    };
    assert_eq!(&*code_of(&call.call).code, "print(1)");
}
