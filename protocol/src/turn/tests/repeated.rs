//! What a request, or an answer, has twice is taken once; what only looks alike is taken as what it is.

use std::time::{Duration, Instant};

use super::foreign_calls::{streamed, tools, whole};
use super::said::{asked_with, called, chain, run};
use super::*;
use crate::record::Chain;

fn asked(input: &Value) -> Result<Value, String> {
    asked_with(&json!({"model": "m", "input": input}), &Chain::default())
}

fn user(text: &str) -> Value {
    json!({"type": "message", "role": "user", "content": text})
}

fn call(id: &str, call_id: &str, arguments: &str) -> Value {
    json!({"type": "function_call", "id": id, "call_id": call_id, "name": "f", "arguments": arguments})
}

fn output(id: &str, call_id: &str, output: &str) -> Value {
    json!({"type": "function_call_output", "id": id, "call_id": call_id, "output": output})
}

/// What the model was told of calls: their arguments, each with what it gave.
fn pairs(body: &Value) -> Vec<(String, String)> {
    let messages = body["messages"].as_array().unwrap();
    let mut pairs = Vec::new();
    for message in messages {
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let arguments = call["function"]["arguments"].as_str().unwrap();
            pairs.push((arguments.to_owned(), String::new()));
        }
        if message["role"] == "tool" {
            let open = pairs.iter_mut().find(|(_, told)| told.is_empty());
            open.unwrap().1 = message["content"].as_str().unwrap().to_owned();
        }
    }
    pairs
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn what_a_request_has_twice_is_taken_once() {
    let (one, two) = (r#"{"a":1}"#, r#"{"a":2}"#);
    let reasoning = json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "thought"}]});
    for (what, input, want) in [
        (
            "call and output, with their ids",
            json!([
                user("q"),
                call("i", "c", one),
                output("o", "c", "x"),
                call("i", "c", one),
                output("o", "c", "x")
            ]),
            vec![(one, "x")],
        ),
        (
            "two equal calls, one output",
            json!([
                user("q"),
                call("i", "c", one),
                call("j", "c", one),
                output("o", "c", "x")
            ]),
            vec![(one, "x")],
        ),
        (
            "one call, two equal outputs",
            json!([
                user("q"),
                call("i", "c", one),
                output("o", "c", "x"),
                output("p", "c", "x")
            ]),
            vec![(one, "x")],
        ),
        (
            "one call, two outputs that differ",
            json!([
                user("q"),
                call("i", "c", one),
                output("o", "c", "x"),
                output("p", "c", "y")
            ]),
            vec![(one, "x"), (one, "y")],
        ),
        (
            "two calls that differ under one id",
            json!([
                user("q"),
                call("i", "c", one),
                call("i", "c", two),
                output("o", "c", "x"),
                output("o", "c", "y")
            ]),
            vec![(one, "x"), (two, "y")],
        ),
        (
            "the same call made anew",
            json!([
                user("q"),
                call("i", "c", one),
                output("o", "c", "x"),
                user("again"),
                call("j", "c", one),
                output("p", "c", "y")
            ]),
            vec![(one, "x"), (one, "y")],
        ),
        (
            "a call that was cut, and one that was made",
            json!([
                user("q"),
                json!({"type": "function_call", "status": "incomplete", "call_id": "c", "name": "f", "arguments": "{"}),
                call("j", "c", two),
                output("p", "c", "y")
            ]),
            vec![(two, "y")],
        ),
    ] {
        let body = asked(&input).unwrap_or_else(|status| panic!("{what}: {status}"));
        let told = pairs(&body);
        let told: Vec<_> = told.iter().map(|(a, o)| (&**a, &**o)).collect();
        assert_eq!(told, want, "{what}");
    }
    let thoughts =
        json!([user("q"), reasoning, reasoning, {"role": "assistant", "content": "a"}, user("b")]);
    let body = asked(&thoughts).unwrap();
    assert_eq!(body["messages"][1]["reasoning_content"], "thought");
    // People say the same thing twice, and clients have one id for all.
    let said = json!({"type": "message", "id": "m", "role": "user", "content": "yes"});
    assert_eq!(roles(&asked(&json!([said, said])).unwrap()), ["user"; 2]);
    // An output of nothing is refused still.
    assert_eq!(
        asked(&json!([user("q"), output("o", "c", "x")])),
        Err("refuse 400, end".to_owned())
    );
}

#[test]
fn an_output_is_for_the_call_that_waits() {
    let tools = json!([{"type": "function", "name": "poll"}]);
    let ask = |input: Value| json!({"model": "m", "input": input, "tools": tools, "stream": true, "previous_response_id": "r"});
    let answer = [
        called("functions.poll:0", "poll", "{}"),
        finish("tool_calls"),
    ]
    .concat();
    let (_, first) = run(&ask(json!([user("go")])), &Chain::default(), &answer);
    let call_of = |record: &crate::record::Record| -> Value {
        let stored: Value = serde_json::from_str(&record.response).unwrap();
        stored["output"][0].clone()
    };
    let pending =
        |id: &Value| json!({"type": "function_call_output", "call_id": id, "output": "pending"});
    let one = pending(&call_of(&first)["call_id"]);
    let (_, second) = run(&ask(json!([one])), &chain(&[&first]), &answer);
    let made = call_of(&second);
    // The conversation has the id already.
    assert_ne!(made["call_id"], "functions.poll:0");
    let both = chain(&[&first, &second]);
    let two = pending(&made["call_id"]);
    for input in [json!([two]), json!([made, two])] {
        let body = asked_with(&ask(input), &both).unwrap();
        let told = pairs(&body);
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|(_, output)| output == "pending"));
        // The model finds its own.
        let calls = body["messages"].as_array().unwrap().iter();
        let calls = calls.filter(|message| message.get("tool_calls").is_some());
        assert!(
            calls
                .map(|call| &call["tool_calls"][0]["id"])
                .all(|id| id == "functions.poll:0")
        );
    }
    // Rows of earlier versions have one id for both calls.
    let earlier = |record: &crate::record::Record| {
        let mut record = record.clone();
        let id = made["call_id"].as_str().unwrap();
        record.response = record.response.replace(id, "functions.poll:0").into();
        record
    };
    let old = earlier(&second);
    let both = chain(&[&first, &old]);
    for input in [json!([one]), json!([call_of(&old), one])] {
        assert_eq!(pairs(&asked_with(&ask(input), &both).unwrap()).len(), 2);
    }
}

#[test]
fn a_whole_conversation_beside_its_response_is_known_or_not_at_all() {
    let answer = |text: &str| [says(text), finish("stop")].concat();
    let ask = |input: &Value| json!({"model": "m", "input": input, "stream": true, "previous_response_id": "r"});
    let (_, first) = run(
        &ask(&json!([user("first")])),
        &Chain::default(),
        &answer("hello"),
    );
    let (_, second) = run(
        &ask(&json!([user("second")])),
        &chain(&[&first]),
        &answer("hello"),
    );
    let both = chain(&[&first, &second]);
    let given = |record: &crate::record::Record| -> Value {
        let stored: Value = serde_json::from_str(&record.response).unwrap();
        stored["output"][0].clone()
    };
    let bare = json!({"role": "assistant", "content": "hello"});
    let want = ["first", "hello", "second", "hello", "third"];
    for input in [
        json!([user("third")]),
        json!([
            user("first"),
            given(&first),
            user("second"),
            given(&second),
            user("third")
        ]),
        json!([user("first"), bare, user("second"), bare, user("third")]),
        json!([{"type": "reasoning", "summary": []}, user("first"), bare, user("second"), bare, user("third")]),
    ] {
        let body = asked_with(&ask(&input), &both).unwrap();
        let told: Vec<&str> = body["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["content"].as_str().unwrap())
            .collect();
        assert_eq!(told, want, "{input}");
    }
    // Half of it is something that was said again.
    let input = json!([user("first"), bare, user("third")]);
    let body = asked_with(&ask(&input), &both).unwrap();
    assert_eq!(body["messages"].as_array().unwrap().len(), 7);
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn a_call_that_is_told_twice_is_made_once() {
    let f = json!({"name": "f", "arguments": "{\"a\":1}"});
    let whole_call = json!({"index": 0, "id": "c1", "type": "function", "function": f});
    let message = json!({"content": null, "tool_calls": [whole_call], "function_call": f});
    let end = json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]});
    let piece = |delta: Value| json!({"choices": [{"delta": delta}]});
    let calls = |piece_of: Value| piece(json!({"tool_calls": [piece_of]}));
    let begun = json!({"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}});
    let rest = json!({"index": 0, "function": {"arguments": "{\"a\":1}"}});
    let quoted = json!({"index": 0, "id": "c1", "function": {"name": "f", "arguments": "\"{\\\"a\\\":1}\""}});
    let second = json!({"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}});
    for (what, chunks, want) in [
        ("both ways", vec![piece(message.clone())], 1),
        (
            "the old way behind the new one",
            vec![
                calls(whole_call.clone()),
                piece(json!({"function_call": f})),
            ],
            1,
        ),
        (
            "whole once more",
            vec![calls(whole_call.clone()), calls(whole_call.clone())],
            1,
        ),
        (
            "in pieces and then whole",
            vec![calls(begun.clone()), calls(rest), calls(whole_call.clone())],
            1,
        ),
        ("quoted", vec![calls(whole_call.clone()), calls(quoted)], 1),
        (
            "with no arguments",
            vec![calls(whole_call.clone()), calls(begun)],
            1,
        ),
        (
            "behind another call",
            vec![
                calls(whole_call.clone()),
                calls(second.clone()),
                piece(json!({"tool_calls": [whole_call, second]})),
            ],
            2,
        ),
        (
            "other arguments under one id",
            vec![
                calls(whole_call.clone()),
                calls(
                    json!({"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{\"a\":2}"}}),
                ),
            ],
            2,
        ),
    ] {
        let told = streamed(&tools(), &[chunks, vec![end.clone()]].concat());
        let output = told["output"].as_array().unwrap();
        assert_eq!(output.len(), want, "{what}: {output:?}");
        assert!(
            output.iter().all(|call| call["status"] == "completed"),
            "{what}"
        );
    }
    let answer = json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]});
    assert_eq!(
        whole(&tools(), &answer)["output"].as_array().unwrap().len(),
        1
    );
}

/// Wherever the server cuts, what stands behind a whole object is no part of it.
#[test]
fn what_stands_behind_arguments_is_dropped_however_it_is_cut() {
    let text = "{\"a\":1}</tool_call>";
    for cut in 0..=text.len() {
        let (head, tail) = text.split_at(cut);
        let piece = |arguments: &str| {
            json!({"choices": [{"delta": {"tool_calls": [
            {"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}]}}]})
        };
        let tail = json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": tail}}]}}]});
        let end = json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]});
        let told = streamed(&tools(), &[piece(head), tail, end]);
        assert_eq!(told["output"].as_array().unwrap().len(), 1, "{cut}");
        assert_eq!(told["output"][0]["arguments"], "{\"a\":1}", "{cut}");
        assert_eq!(told["output"][0]["status"], "completed", "{cut}");
    }
}

fn took(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// Twice as much takes about twice as long, whatever is in an answer or a request.
#[test]
fn no_answer_and_no_history_is_quadratic() {
    let nameless = |count: usize| {
        let piece = |at| json!({"choices": [{"delta": {"tool_calls": [{"index": at, "id": format!("c{at}"), "function": {"arguments": "{\"a\""}}]}}]});
        let mut bytes: Vec<u8> = (0..count).flat_map(|at| frame(&piece(at))).collect();
        bytes.extend(finish("stop"));
        bytes
    };
    let answered = |bytes: Vec<u8>| {
        took(|| {
            let mut bench = Bench::new(&{
                let mut body = tools();
                body["stream"] = json!(true);
                body
            })
            .called();
            let _actions = bench.bytes(&bytes);
        })
    };
    let pairs =
        |count: usize, which: &str| -> Vec<Value> {
            let parts = |at| json!([{"type": "input_text", "text": format!("{which} {at}")}]);
            (0..count).flat_map(|at| [call(&format!("{which}{at}"), "c", "{}"),
            json!({"type": "function_call_output", "call_id": "c", "output": parts(at)})]).collect()
        };
    let continued = |count: usize| {
        let history = crate::history::parse_items(&json!(pairs(count, "old")).to_string()).unwrap();
        let body = json!({"model": "m", "input": pairs(count, "new")});
        let mut bench = Bench::new(&body);
        took(|| assert_eq!(bench.step(Input::History(history)), ["call"]))
    };
    // Before, half a minute and twenty.
    assert!(answered(nameless(10_000)) < Duration::from_secs(15));
    assert!(continued(9_000) < Duration::from_secs(15));
}

#[test]
fn an_answer_has_so_many_items_and_calls_and_not_more() {
    let piece = |at: usize| json!({"choices": [{"delta": {"tool_calls": [{"index": at, "id": format!("c{at}"), "function": {"name": "f", "arguments": "{}"}}]}}]});
    let mut bytes: Vec<u8> = (0..1_500).flat_map(|at| frame(&piece(at))).collect();
    bytes.extend(finish("tool_calls"));
    let mut body = tools();
    body["stream"] = json!(true);
    let mut bench = Bench::new(&body).called();
    let _actions = bench.bytes(&bytes);
    assert_eq!(
        bench.step(Input::UpstreamEnded),
        ["lost 476", "persist completed"]
    );
    // One that changes between text and thinking for ever.
    for template in [false, true] {
        let mut bench = Bench::stream().called();
        let mut bytes = Vec::new();
        for at in 0..9_000 {
            bytes.extend(says(if template { "a" } else { "b" }));
            bytes.extend(delta(&json!({"reasoning": format!("{at}")})));
        }
        assert_eq!(bench.bytes(&bytes), ["begin", "persist failed"]);
        let _actions = bench.step(Input::Stored(Kept::Yes));
        let last = bench.events().pop().unwrap();
        assert_eq!(last["response"]["output"].as_array().unwrap().len(), 4096);
    }
    // What is stored is read, however much it is.
    let items: Vec<Value> = (0..20_500).map(|_| user("x")).collect();
    assert_eq!(
        crate::history::parse_items(&json!(items).to_string())
            .unwrap()
            .len(),
        20_500
    );
}
