//! Streams and histories of other servers, in shapes that only some of them write.

use super::foreign_calls::{streamed, tools, whole};
use super::*;

fn text_of(told: &Value) -> (Value, Value) {
    let output = told["output"].as_array().unwrap();
    let of = |kind: &str| {
        let item = output.iter().find(|item| item["type"] == kind);
        item.map_or(Value::Null, |item| item["content"][0]["text"].clone())
    };
    (of("reasoning"), of("message"))
}

fn choice(index: u64, delta: &Value, finish: &Value) -> Value {
    json!({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})
}

#[test]
fn one_choice_is_read_and_no_other() {
    let said = |index, text: &str| choice(index, &json!({"content": text}), &Value::Null);
    let end = |index| choice(index, &json!({}), &json!("stop"));
    for chunks in [
        vec![said(0, "a"), said(1, "x"), said(0, "b"), end(1), end(0)],
        vec![said(1, "a"), said(1, "b"), end(1)],
        vec![
            json!({"choices": [{"index": 1, "delta": {"content": "x"}}, {"index": 0, "delta": {"content": "ab"}}]}),
            end(0),
        ],
        // Other choices end without this one.
        vec![said(0, "ab"), end(1), end(0)],
    ] {
        assert_eq!(text_of(&streamed(&tools(), &chunks)).1, "ab", "{chunks:?}");
    }
    let answer = json!({"choices": [{"index": 1, "message": {"content": "x"}}, {"index": 0, "message": {"content": "ab"}, "finish_reason": "stop"}]});
    assert_eq!(text_of(&whole(&tools(), &answer)).1, "ab");
    let mut cut = Bench::stream().called();
    let bytes = [
        frame(&said(0, "a")),
        frame(&said(1, "x")),
        frame(&said(0, "b")),
        frame(&end(1)),
        b"data: [DONE]\n\n".to_vec(),
    ]
    .concat();
    assert_eq!(cut.bytes(&bytes), ["begin", "persist failed"]);
}

#[test]
fn a_message_is_read_where_a_delta_should_be_and_the_other_way_round() {
    let message = json!({"role": "assistant", "content": "ab", "reasoning_content": "h",
        "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]});
    let chunk = json!({"choices": [{"message": message, "finish_reason": "stop"}]});
    let told = streamed(&tools(), std::slice::from_ref(&chunk));
    assert_eq!(text_of(&told), (json!("h"), json!("ab")));
    assert_eq!(told["output"][2]["name"], "f");
    // What was said in pieces is not said again.
    let said = choice(0, &json!({"content": "ab"}), &Value::Null);
    let both =
        json!({"choices": [{"delta": {}, "message": {"content": "ab"}, "finish_reason": "stop"}]});
    assert_eq!(text_of(&streamed(&tools(), &[said, both])).1, "ab");
    let answer = json!({"choices": [{"delta": message, "finish_reason": "stop"}]});
    assert_eq!(
        text_of(&whole(&tools(), &answer)),
        (json!("h"), json!("ab"))
    );
}

#[test]
fn thinking_has_many_names_and_shapes() {
    for (name, value) in [
        ("reasoning", json!("hm")),
        ("reasoning_content", json!("hm")),
        ("thinking", json!("hm")),
        ("reasoning", json!({"text": "hm"})),
        (
            "reasoning",
            json!({"content": [{"type": "text", "text": "hm"}]}),
        ),
        ("reasoning_content", json!(["h", "m"])),
        (
            "reasoning_details",
            json!([{"type": "reasoning.text", "text": "h", "signature": "s"},
            {"type": "reasoning.encrypted", "data": "x"}, {"type": "reasoning.summary", "summary": "m"}]),
        ),
        ("thinking", json!({"thinking": "hm"})),
    ] {
        let delta = json!({"content": "ab", name: value});
        let told = streamed(&tools(), &[choice(0, &delta, &json!("stop"))]);
        assert_eq!(text_of(&told), (json!("hm"), json!("ab")), "{name} {value}");
        let answer = json!({"choices": [{"message": delta, "finish_reason": "stop"}]});
        assert_eq!(
            text_of(&whole(&tools(), &answer)),
            (json!("hm"), json!("ab")),
            "{name} {value}"
        );
    }
    // Under two names it is the same thinking.
    let twice = json!({"content": "ab", "reasoning": "hm", "reasoning_details": [{"text": "hm"}]});
    let told = streamed(&tools(), &[choice(0, &twice, &json!("stop"))]);
    assert_eq!(text_of(&told).0, "hm");
}

#[test]
fn text_that_was_made_a_number_or_an_object_is_text() {
    let said = |content: Value| choice(0, &json!({"content": content}), &Value::Null);
    let end = choice(0, &json!({}), &json!("stop"));
    let told = streamed(
        &tools(),
        &[
            said(json!("The answer is ")),
            said(json!(42)),
            said(json!(".")),
            end,
        ],
    );
    assert_eq!(text_of(&told).1, "The answer is 42.");
    for (content, want) in [
        (json!(-1.5), json!("-1.5")),
        (json!({"answer": 1}), json!("{\"answer\":1}")),
        (json!({"type": "text", "text": "t"}), json!("t")),
        (json!({"text": ""}), Value::Null),
        (json!({}), Value::Null),
        (json!([5, "t"]), json!("5t")),
    ] {
        let answer =
            json!({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]});
        assert_eq!(text_of(&whole(&tools(), &answer)).1, want, "{content}");
    }
}

#[test]
fn words_between_chunks_end_no_stream() {
    for noise in ["ping", "5", "keep-alive", "<!-- -->"] {
        let mut bench = Bench::stream().called();
        let noise = format!("data: {noise}\n\n").into_bytes();
        let bytes = [
            noise.clone(),
            says("a"),
            noise.clone(),
            finish("stop"),
            noise,
        ]
        .concat();
        assert_eq!(bench.bytes(&bytes), ["begin"]);
        assert_eq!(bench.step(Input::UpstreamEnded), ["persist completed"]);
    }
    // Nothing but words is no stream, and there is an end to them.
    let mut bench = Bench::stream().called();
    let _actions = bench.bytes(b"data: Internal Server Error\n\n");
    assert_eq!(bench.step(Input::UpstreamEnded), ["persist failed"]);
    let _actions = bench.step(Input::Stored(Kept::Yes));
    assert!(bench.text().contains("upstream_bad_chunk"));
    let mut bench = Bench::stream().called();
    let bytes = [says("a"), b"data: ping\n\n".repeat(5_000)].concat();
    assert_eq!(bench.bytes(&bytes), ["begin", "persist failed"]);
}

#[test]
fn errors_in_fields_and_events_of_their_own_are_told() {
    for bytes in [
        &b"error: {\"code\":500,\"message\":\"the slot is gone\",\"type\":\"server_error\"}\n\n"[..],
        b"event: error\ndata: {\"message\":\"the slot is gone\"}\n\n",
        b"event: error\ndata: the slot is gone\n\n",
        b"event: error\ndata: {\"error\":\"the slot is gone\"}\n\n",
    ] {
        let mut bench = Bench::stream().called();
        let bytes = [&says("a"), bytes].concat();
        assert_eq!(
            bench.bytes(&bytes),
            ["begin", "complained", "persist failed"]
        );
        let _actions = bench.step(Input::Stored(Kept::Yes));
        assert!(bench.text().contains("the slot is gone"));
    }
    // Some name the event of every chunk, whatever it is.
    let mut bench = Bench::stream().called();
    let named = [b"event: error\n".to_vec(), says("a"), finish("stop")].concat();
    let _actions = bench.bytes(&named);
    assert_eq!(bench.step(Input::UpstreamEnded), ["persist completed"]);
    // An error that says that there is none.
    for none in [
        json!({"code": 0, "message": ""}),
        json!({"code": "200", "message": ""}),
    ] {
        let chunk = json!({"error": none, "choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]});
        assert_eq!(streamed(&tools(), &[chunk])["status"], "completed");
    }
}

/// No call has so many: they would close a limit for hours, and clients could not read them.
#[test]
fn counts_that_cannot_be_are_none() {
    for count in [
        json!(u64::MAX),
        json!(1_000_000_000_000_000_u64),
        json!(1e18),
    ] {
        let mut bench = Bench::whole().called();
        let usage = json!({"prompt_tokens": count, "input_tokens": 7, "completion_tokens": count,
            "prompt_tokens_details": {"cached_tokens": count, "cache_write_tokens": count}});
        let answer = json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
            "usage": usage});
        let answer = answer.to_string();
        let _actions = bench.step(Input::UpstreamAnswer(answer.as_bytes()));
        let _actions = bench.step(Input::Stored(Kept::Yes));
        let told: Value = serde_json::from_slice(&bench.effects.bytes).unwrap();
        assert_eq!(told["usage"]["input_tokens"], 7, "{count}");
        assert_eq!(told["usage"]["output_tokens"], 0, "{count}");
        assert_eq!(told["usage"]["total_tokens"], 7, "{count}");
    }
}

#[test]
fn counts_that_come_in_halves_are_joined() {
    let said = |usage: Value| json!({"choices": [{"delta": {"content": "a"}}], "usage": usage});
    let end = choice(0, &json!({}), &json!("stop"));
    let told = streamed(
        &tools(),
        &[
            said(json!({"prompt_tokens": 5})),
            said(json!({"completion_tokens": 7})),
            said(json!({"prompt_tokens": 0, "completion_tokens": 0})),
            end,
        ],
    );
    assert_eq!(told["usage"]["input_tokens"], 5);
    assert_eq!(told["usage"]["output_tokens"], 7);
}

#[test]
fn long_answers_and_marks_at_their_beginning_are_read_in_place_of_a_stream() {
    let text = "x".repeat(5 << 20);
    let answer = json!({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]});
    let answer = [b"\xef\xbb\xbf", answer.to_string().as_bytes()].concat();
    let mut bench = Bench::stream().called();
    for part in answer.chunks(1 << 16) {
        let _actions = bench.bytes(part);
    }
    assert_eq!(
        bench.turn.written(),
        answer.len(),
        "it is counted while it is kept"
    );
    assert_eq!(bench.step(Input::UpstreamEnded), ["persist completed"]);
    let mut bench = Bench::whole().called();
    let small = b"\xef\xbb\xbf{\"choices\":[{\"message\":{\"content\":\"a\"}}]}";
    assert_eq!(
        bench.step(Input::UpstreamAnswer(small)),
        ["persist completed"]
    );
}

/// A server that streams what was asked for whole: what follows the stream is a call of its own.
#[test]
fn a_stream_in_place_of_a_whole_answer_may_be_followed_by_a_call() {
    let body = json!({"model": "m", "truncation": "auto", "input": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]});
    let mut bench = Bench::new(&body).called();
    let error = frame(&json!({"error": {"code": "context_length_exceeded", "message": "no"}}));
    assert_eq!(
        bench.step(Input::UpstreamAnswer(&error)),
        ["complained", "count"]
    );
    assert_eq!(bench.step(Input::Counted(None)), ["left out 1", "call"]);
    let answer = [says("hi"), finish("stop")].concat();
    assert_eq!(
        bench.step(Input::UpstreamAnswer(&answer)),
        ["persist completed"]
    );
    // A call that is refused at once leads to the next round within the same step.
    let tools = json!([{"type": "code_interpreter", "container": {"type": "auto"}}]);
    let mut bench = Bench::new(&json!({"model": "m", "input": "x", "tools": tools})).called();
    let broken = json!({"tool_calls": [{"index": 0, "id": "c",
        "function": {"name": "code_interpreter", "arguments": "[1]"}}]});
    let calling = [delta(&broken), finish("tool_calls")].concat();
    assert_eq!(bench.step(Input::UpstreamAnswer(&calling)), ["call"]);
    assert_eq!(
        bench.step(Input::UpstreamAnswer(&answer)),
        ["persist completed"]
    );
}

#[test]
fn what_a_server_wants_back_with_a_call_goes_back_whatever_the_tool() {
    let tools = json!([{"type": "custom", "name": "free"}, {"type": "apply_patch"}, {"type": "tool_search", "execution": "client"}]);
    for (name, arguments, output) in [
        ("free", r#"{"input":"x"}"#, "custom_tool_call_output"),
        (
            "apply_patch",
            r#"{"type":"delete_file","path":"a"}"#,
            "apply_patch_call_output",
        ),
        ("tool_search", r#"{"q":"a"}"#, "tool_search_output"),
    ] {
        let body = json!({"model": "m", "input": "x", "tools": tools, "stream": true});
        let answer = [delta(&json!({"tool_calls": [{"index": 0, "id": "c1", "extra_content": {"google": {"thought_signature": "sig"}},
            "function": {"name": name, "arguments": arguments}}]})), finish("tool_calls")].concat();
        let (_, record) = said::run(&body, &crate::record::Chain::default(), &answer);
        let result = json!({"type": output, "call_id": "c1", "output": "o", "status": "completed", "tools": []});
        let next =
            json!({"model": "m", "input": [result], "tools": tools, "previous_response_id": "r"});
        let asked = said::asked_with(&next, &said::chain(&[&record])).unwrap();
        assert_eq!(
            asked["messages"][1]["tool_calls"][0]["extra_content"]["google"]["thought_signature"],
            "sig",
            "{name}"
        );
    }
}

/// What other gateways and older versions wrote into a history is read, as far as it says anything.
#[test]
fn histories_begun_elsewhere_go_on() {
    let thought = |content: Value| json!({"type": "reasoning", "role": "assistant", "summary": [], "content": content});
    for item in [
        thought(json!([{"type": "output_text", "text": "hm"}])),
        thought(json!([{"type": "text", "text": "hm"}])),
        thought(json!("hm")),
        json!({"type": "reasoning", "summary": ["hm"]}),
        json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": ""}),
        json!({"type": "reasoning", "status": "failed", "summary": [{"type": "summary_text", "text": "hm"}]}),
    ] {
        let input = json!([{"role": "user", "content": "q"}, item, {"role": "assistant", "content": "a", "status": "cancelled", "phase": "later"},
            {"role": "user", "content": "r"}]);
        let mut bench = Bench::new(&json!({"model": "m", "input": input}));
        bench
            .turn
            .step(NOW, Input::History(Vec::new()), &mut bench.effects);
        let Some(Action::CallModel(body)) = bench.effects.actions.pop() else {
            panic!("{item}");
        };
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["messages"][1]["reasoning_content"], "hm", "{item}");
    }
    for status in ["failed", "", "cancelled"] {
        let input = json!([{"role": "user", "content": "q"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": status},
            {"type": "function_call_output", "call_id": "c", "output": "o", "status": status}]);
        assert_eq!(
            Bench::new(&json!({"model": "m", "input": input})).step(Input::History(Vec::new())),
            ["call"]
        );
    }
}
