//! Upstream fault U12: chunks that are sound JSON and odd all the same, streamed and whole.
//!
//! Mutation that fails this group: give a function call the status `completed` whatever its
//! arguments are (`CallDraft::close`).

use serde_json::{Value, json};

use super::stage::{Stage, ending, resource, said};
use crate::harness::upstream::script::{
    arguments, delta, finish, reasoning, role, text, tool_call, usage,
};
use crate::harness::{Script, check_stream};

/// What is expected of each call: name, arguments, status.
type Calls = &'static [(&'static str, &'static str, &'static str)];

fn calls_of(output: &Value) -> Vec<(&str, &str, &str)> {
    let items = output.as_array().expect("output").iter();
    items
        .filter(|item| item["type"] == "function_call")
        .map(|item| {
            let text = |key: &str| item[key].as_str().expect("text");
            (text("name"), text("arguments"), text("status"))
        })
        .collect()
}

fn named(index: u64, id: &str, name: &str) -> Value {
    delta(
        &json!({"tool_calls": [{"index": index, "id": id, "type": "function",
        "function": {"name": name}}]}),
    )
}

#[test]
fn u12_odd_chunks_are_normalised() {
    let stage = Stage::start();
    let null = json!({"choices": [{"index": 0, "delta": null, "finish_reason": null}]});
    let nulls = delta(&json!({"role": null, "content": null, "reasoning": null,
        "tool_calls": null, "refusal": null}));
    let empty = json!({"choices": []});
    let no_delta = json!({"choices": [{"index": 0}]});
    let null_choices = json!({"choices": null, "usage": null});
    let unknown = json!({"choices": [{"delta": {"content": "", "later": {"a": [1]}}}], "x": 1});
    for odd in [
        null,
        nulls,
        empty,
        no_delta,
        null_choices,
        unknown,
        role(),
        usage(1, 1),
        json!({}),
    ] {
        let script = Script::stream()
            .data(&odd)
            .data(&text("a"))
            .data(&odd)
            .data(&text("b"))
            .data(&odd)
            .end("stop");
        let events = stage.streamed(script);
        assert_eq!(ending(&events), "response.completed", "{odd}");
        assert_eq!(said(&events), "ab", "{odd}");
        assert_eq!(resource(&events)["usage"]["total_tokens"], 10, "{odd}");
    }
    // Nothing at all, and only the end.
    for script in [
        Script::stream().end("stop"),
        Script::stream().data(&role()).end("stop"),
    ] {
        let events = stage.streamed(script);
        assert_eq!(ending(&events), "response.completed");
        assert_eq!(resource(&events)["output"], json!([]));
    }
    // Thinking after text, and a call between: each has an item of its own.
    let mixed = [
        vec![text("a"), reasoning("r"), text("b")],
        tool_call(0, "c", "f", &["{}"]),
    ];
    let events = stage.streamed(Script::stream().all(&mixed.concat()).end("tool_calls"));
    let output = resource(&events)["output"].as_array().expect("output");
    let kinds: Vec<&Value> = output.iter().map(|i| &i["type"]).collect();
    assert_eq!(
        json!(kinds),
        json!(["message", "reasoning", "message", "function_call"])
    );
    let content = events_after_finish(&stage);
    assert_eq!(ending(&content), "response.completed");
}

/// Text after the finish reason is kept, not an error.
fn events_after_finish(stage: &Stage) -> Vec<Value> {
    let script = Script::stream().data(&text("a")).data(&finish("stop"));
    stage.streamed(script.data(&text("b")).done())
}

/// Chunks of odd calls, and what each call is to become.
#[expect(clippy::too_many_lines, reason = "a table")]
fn odd_calls() -> Vec<(&'static str, Vec<Value>, Calls)> {
    vec![
        (
            "name in pieces",
            vec![
                named(0, "c", "get_"),
                named(0, "", "time"),
                arguments(0, "{}"),
            ],
            &[("get_time", "{}", "completed")],
        ),
        (
            "index gaps",
            [
                tool_call(3, "a", "f", &["{", "}"]),
                tool_call(9, "b", "g", &["{}"]),
            ]
            .concat(),
            &[("f", "{}", "completed"), ("g", "{}", "completed")],
        ),
        (
            "interleaved",
            vec![
                named(0, "a", "f"),
                named(1, "b", "g"),
                arguments(0, "{\"x\""),
                arguments(1, "{\"y\""),
                arguments(0, ":1}"),
                arguments(1, ":2}"),
            ],
            &[
                ("f", "{\"x\":1}", "completed"),
                ("g", "{\"y\":2}", "completed"),
            ],
        ),
        (
            "one index, two ids",
            [
                tool_call(0, "a", "f", &["{}"]),
                tool_call(0, "b", "g", &["{}"]),
            ]
            .concat(),
            &[("f", "{}", "completed"), ("g", "{}", "completed")],
        ),
        (
            "name repeated",
            vec![named(0, "a", "f"), named(0, "a", "f"), arguments(0, "{}")],
            &[("f", "{}", "completed")],
        ),
        (
            "no id",
            vec![named(0, "", "f"), arguments(0, "{}")],
            &[("f", "{}", "completed")],
        ),
        (
            "no arguments",
            vec![named(0, "a", "f")],
            &[("f", "{}", "completed")],
        ),
        (
            "never closed",
            tool_call(0, "a", "f", &["{\"x\": "]),
            &[("f", "{\"x\": ", "incomplete")],
        ),
        (
            "never closed, two",
            [
                tool_call(0, "a", "f", &["{\"x"]),
                tool_call(1, "b", "g", &["{}"]),
            ]
            .concat(),
            &[("f", "{\"x", "incomplete"), ("g", "{}", "completed")],
        ),
        (
            "not JSON",
            tool_call(0, "a", "f", &["nonsense"]),
            &[("f", "nonsense", "incomplete")],
        ),
    ]
}

#[test]
fn u12_odd_calls_are_normalised() {
    let stage = Stage::start();
    for (what, chunks, want) in odd_calls() {
        let events = stage.streamed(Script::stream().all(&chunks).end("tool_calls"));
        let told = resource(&events);
        assert_eq!(calls_of(&told["output"]), want, "{what}");
        assert_eq!(told["status"], "completed", "{what}");
        next_turn(&stage, told, what);
    }
}

#[test]
fn u12_odd_whole_answers_are_normalised() {
    let stage = Stage::start();
    let call = |arguments: &str| {
        json!({"role": "assistant", "content": null, "tool_calls": [{"id": "a",
            "type": "function", "function": {"name": "f", "arguments": arguments}}]})
    };
    let table: &[(Value, Calls)] = &[
        (call("{}"), &[("f", "{}", "completed")]),
        (call(""), &[("f", "{}", "completed")]),
        (call("{\"x"), &[("f", "{\"x", "incomplete")]),
        (
            json!({"role": "assistant", "content": null, "tool_calls": null}),
            &[],
        ),
        (json!({}), &[]),
    ];
    for (message, want) in table {
        let reply = stage.whole(Script::message(message, "tool_calls"));
        assert_eq!(reply.status, 200, "{message}: {}", reply.text());
        assert_eq!(calls_of(&reply.json()["output"]), *want, "{message}");
        next_turn(&stage, &reply.json(), &message.to_string());
    }
}

/// A turn that answers the calls is served; the scripted upstream refuses unsound bodies itself.
fn next_turn(stage: &Stage, told: &Value, what: &str) {
    let model = format!("next-{}", told["id"].as_str().expect("id"));
    stage.fake.on(&model, [Script::says("thanks")]);
    let output = told["output"].as_array().expect("output").iter();
    let mut input: Vec<Value> = output
        .filter(|item| item["type"] == "function_call")
        .map(|call| {
            json!({"type": "function_call_output", "call_id": call["call_id"], "output": "ok"})
        })
        .collect();
    input.push(json!({"role": "user", "content": "go on"}));
    let body = json!({"model": model, "input": input, "stream": true,
        "previous_response_id": told["id"]});
    let reply = stage.gateway.client().create(&body);
    assert_eq!(reply.status, 200, "{what}: {}", reply.text());
    assert_eq!(
        ending(&check_stream(&reply.text())),
        "response.completed",
        "{what}"
    );
    stage.fake.assert_sound();
}
