//! What model servers stream: calls in odd pieces, content in odd shapes, counts that are none.

use serde_json::{Value, json};

use super::{Case, Stage, Turn, folder};
use crate::harness::Script;
use crate::harness::upstream::script::{finish, text};

/// The only turn of a case that ended well.
#[track_caller]
fn only(name: &str) -> Turn {
    let mut turns = Case::load(name).play(&Stage::open());
    assert_eq!(turns.len(), 1);
    let turn = turns.remove(0);
    turn.ok();
    assert_eq!(turn.response["status"], "completed", "{}", turn.response);
    turn
}

#[track_caller]
fn all(name: &str) -> Vec<Turn> {
    let turns = Case::load(name).play(&Stage::open());
    for turn in &turns {
        turn.ok();
        assert_eq!(turn.response["status"], "completed", "{}", turn.response);
    }
    turns
}

#[test]
fn stream_two_calls_in_one_chunk() {
    let turn = only("stream-two-calls-in-one-chunk");
    let expected = [
        ("look", r#"{"a":"x"}"#),
        ("find", r#"{"a":"y"}"#),
        ("now", "{}"),
    ];
    assert_eq!(turn.calls(), expected);
}

#[test]
fn stream_calls_without_index() {
    let turns = all("stream-calls-without-index");
    let counts: Vec<usize> = turns.iter().map(|turn| turn.calls().len()).collect();
    assert_eq!(counts, [1, 2, 2]);
    for (_, arguments) in turns.iter().flat_map(Turn::calls) {
        let arguments: Value = serde_json::from_str(arguments).expect("JSON");
        assert!(arguments["a"].is_string(), "{arguments}");
    }
}

#[test]
fn stream_empty_id_in_continuation() {
    let turn = only("stream-empty-id-in-continuation");
    assert_eq!(turn.calls().len(), 1);
    assert_ne!(turn.items("function_call")[0]["call_id"], "");
}

#[test]
fn stream_interleaved_calls() {
    let turn = only("stream-interleaved-calls");
    let calls = turn.calls();
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0].1, calls[1].1);
    for (_, arguments) in calls {
        serde_json::from_str::<Value>(arguments).expect("JSON");
    }
}

#[test]
fn stream_last_chunk_without_delta() {
    for turn in all("stream-last-chunk-without-delta") {
        assert!(!turn.text().is_empty());
    }
}

#[test]
fn stream_call_with_finish_stop() {
    for turn in all("stream-call-with-finish-stop") {
        assert_eq!(turn.calls().len(), 1);
    }
}

#[test]
fn choices_without_index() {
    for turn in all("choices-without-index") {
        assert!(!turn.text().is_empty());
    }
}

#[test]
fn stream_text_and_call_in_one_delta() {
    let turn = only("stream-text-and-call-in-one-delta");
    let output = turn.response["output"].as_array().expect("output");
    let kinds: Vec<&Value> = output.iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
}

#[test]
fn stream_id_or_name_on_every_piece() {
    for name in [
        "stream-id-on-every-piece",
        "stream-name-on-every-piece",
        "stream-name-in-pieces",
    ] {
        let turn = only(name);
        let calls = turn.calls();
        assert_eq!(calls.len(), 1, "{name}");
        assert!(["look", "find", "now"].contains(&calls[0].0), "{name}");
    }
}

#[test]
fn content_as_list_of_parts() {
    for turn in all("content-as-list-of-parts") {
        assert_eq!(turn.text(), "The answer");
        let thought = turn.items("reasoning")[0].to_string();
        assert!(
            thought.contains("first I think") || thought.contains("hm"),
            "{thought}"
        );
    }
}

#[test]
fn stream_usage_twice() {
    let turn = only("stream-usage-twice");
    let usage = &turn.response["usage"];
    let case = Case::load("stream-usage-twice");
    let chunks = case.entries("chunks")[0]["chunks"].clone();
    let mut told = chunks.as_array().into_iter().flatten();
    let last = told.rfind(|chunk| !chunk["usage"].is_null());
    let last = &last.expect("usage")["usage"];
    assert_eq!(usage["input_tokens"], last["prompt_tokens"]);
    assert_eq!(
        usage["input_tokens_details"]["cached_tokens"],
        last["prompt_tokens_details"]["cached_tokens"]
    );
}

#[test]
fn one_id_for_two_calls() {
    let case = Case::load("one-id-for-two-calls");
    let stage = Stage::open();
    let first = &case.play(&stage)[0];
    let ids: Vec<&Value> = (first.items("function_call").iter())
        .map(|call| &call["call_id"])
        .collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    // The outputs come in the other order, each by its own id.
    let outputs = json!([
        {"type": "function_call_output", "call_id": ids[1], "output": "OF FIND"},
        {"type": "function_call_output", "call_id": ids[0], "output": "OF LOOK"}]);
    let next =
        json!({"model": "m", "previous_response_id": first.response["id"], "input": outputs});
    let turn = stage.turn("POST /v1/responses", &next, &[Script::completion("ok")]);
    let messages = turn.ok().messages();
    for (name, output) in [("look", "OF LOOK"), ("find", "OF FIND")] {
        let call = (messages.iter())
            .flat_map(|message| message["tool_calls"].as_array().into_iter().flatten())
            .find(|call| call["function"]["name"] == name)
            .expect("the call");
        let answer = (messages.iter())
            .find(|message| message["tool_call_id"] == call["id"])
            .expect("its output");
        assert!(answer["content"].to_string().contains(output), "{answer}");
    }
}

#[test]
fn thinking_only() {
    let turns = all("thinking-only");
    assert_eq!(turns[0].items("reasoning").len(), 1);
    for message in turns[1].messages() {
        let empty = message["content"].as_str().is_none_or(str::is_empty)
            && message["tool_calls"].is_null()
            && message["reasoning"].is_null()
            && message["reasoning_content"].is_null();
        assert!(!(message["role"] == "assistant" && empty), "{message}");
    }
}

#[test]
fn usage_that_is_no_integer() {
    let stage = Stage::open();
    let usages = Case::load("usage-that-is-no-integer").entries("usage")[0]["usage"].clone();
    for usage in usages.as_array().expect("usages") {
        let whole = json!({"choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "said"}}], "usage": usage});
        let streamed = Script::stream().all(&[
            text("said"),
            finish("stop"),
            json!({"choices": [], "usage": usage}),
        ]);
        let mut counts = Vec::new();
        for (stream, script) in [(false, Script::json(200, &whole)), (true, streamed.done())] {
            let body = json!({"model": "m", "input": "go", "stream": stream});
            let turn = stage.turn("POST /v1/responses", &body, &[script]);
            assert_eq!(turn.ok().response["status"], "completed");
            assert_eq!(turn.text(), "said");
            counts.push(turn.response["usage"].clone());
        }
        assert_eq!(counts[0], counts[1], "streamed and whole differ: {usage}");
        assert_eq!(counts[0]["input_tokens"], 11);
        let said = usage["completion_tokens"]
            .as_f64()
            .filter(|count| *count >= 0.0);
        assert_eq!(
            counts[0]["output_tokens"].as_f64(),
            Some(said.unwrap_or(0.0))
        );
    }
}

#[test]
fn nul_in_model_text() {
    let turns = Case::load("nul-in-model-text").play(&Stage::open());
    assert!(turns.iter().any(|turn| turn.text().starts_with("a\0b")));
}

#[test]
fn stream_line_ends() {
    let stage = Stage::open();
    let read = |name: &str| std::fs::read(folder().join(name)).expect("stream");
    let crlf = read("stream-line-ends-crlf.sse");
    let close = String::from_utf8_lossy(&crlf).replace("data: ", "data:");
    let pieces = |bytes: &[u8], size: usize| {
        let script = bytes.chunks(size).fold(Script::stream(), Script::chunk);
        script.close_body()
    };
    let mut texts = Vec::new();
    for script in [
        pieces(&crlf, usize::MAX),
        pieces(close.as_bytes(), usize::MAX),
        pieces(&read("stream-line-ends-cr.sse"), usize::MAX),
        pieces(&read("stream-line-ends-fields.sse"), 7),
    ] {
        let body = json!({"model": "m", "input": "go", "stream": true});
        let turn = stage.turn("POST /v1/responses", &body, &[script]);
        assert_eq!(turn.ok().response["status"], "completed");
        texts.push(turn.text());
    }
    assert!(!texts[0].is_empty());
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}
