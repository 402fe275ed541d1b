//! Answers, faults and refusals of servers other than vLLM.

use super::foreign_calls::{streamed, tools, whole};
use super::*;
use crate::tools::ToolOutcome;
use crate::tools::code_interpreter::CodeOutcome;

/// What does not differ from run to run.
fn outcome(told: &Value) -> Value {
    fn same(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("id");
                map.values_mut().for_each(same);
            }
            Value::Array(list) => list.iter_mut().for_each(same),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut outcome = json!({});
    for key in ["status", "output", "usage", "incomplete_details", "error"] {
        outcome[key] = told[key].clone();
    }
    same(&mut outcome);
    outcome
}

macro_rules! samples {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../../../tests/cassettes/foreign/", $name, ".json")))),+]
    };
}

const SAMPLES: [(&str, &str); 15] = samples![
    "azure",
    "deepseek",
    "gemini-safety",
    "gemini",
    "groq",
    "llama-cpp",
    "lm-studio",
    "mistral-cut",
    "mistral",
    "moonshot",
    "ollama",
    "openrouter",
    "sglang",
    "tgi",
    "vllm",
];

/// One answer of each family of servers, streamed and whole: the outcome is a snapshot, and the same.
#[test]
fn every_family_of_servers_is_read() {
    for (name, sample) in SAMPLES {
        let sample: Value = serde_json::from_str(sample).unwrap();
        let chunks = sample["stream"].as_array().unwrap();
        let told = outcome(&streamed(&tools(), chunks));
        assert_eq!(outcome(&whole(&tools(), &sample["whole"])), told, "{name}");
        let pretty = serde_json::to_string_pretty(&told).unwrap();
        insta::assert_snapshot!(format!("foreign-{name}"), pretty);
    }
}

const CODE: &str = r#"{"choices":[{"message":{"tool_calls":[{"id":"c","function":{"name":"code_interpreter","arguments":"{\"code\":\"1\"}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;

/// A whole answer whose first round has run a gateway tool.
fn after_a_tool() -> Bench {
    let mut bench = Bench::new(&json!({"model": "m", "input": "x", "tools": [
        {"type": "code_interpreter", "container": {"type": "auto"}}]}))
    .called();
    assert_eq!(
        bench.step(Input::UpstreamAnswer(CODE.as_bytes())),
        ["run 0"]
    );
    bench
}

/// Ends the tool; the model is called again.
fn tool_done(bench: &mut Bench) {
    let outcome = ToolOutcome::CodeInterpreter(CodeOutcome {
        logs: "42".to_owned(),
        ..CodeOutcome::default()
    });
    let ended = Input::ToolEnded {
        output_index: 0,
        outcome,
    };
    assert_eq!(bench.step(ended), ["call"]);
}

#[test]
fn s1_1_a_turn_that_ran_a_tool_never_ends_as_a_bare_error() {
    let status = |status| UpstreamFault::Status {
        status,
        retry_after: None,
        body: Box::from(
            &br#"{"error":{"message":"This model's maximum context length is 9"}}"#[..],
        ),
    };
    let faults = [
        UpstreamFault::Unreachable,
        UpstreamFault::Reset,
        UpstreamFault::TooLong,
        UpstreamFault::WrongContentType,
        UpstreamFault::TimedOut(Waited::Whole(std::time::Duration::from_secs(1))),
        status(400),
        status(401),
        status(500),
        status(503),
    ];
    let inputs = faults.into_iter().map(Input::UpstreamFailed).chain([
        Input::UpstreamAnswer(b"{}"),
        Input::UpstreamAnswer(b"<"),
        Input::UpstreamAnswer(br#"{"error":"no"}"#),
        Input::UpstreamAnswer(br#"{"choices":[{"message":{},"finish_reason":"error"}]}"#),
        Input::Cancelled(Cancel::Shutdown),
        Input::Cancelled(Cancel::Overloaded),
        Input::Cancelled(Cancel::ToolTimeSpent),
    ]);
    for input in inputs {
        let what = format!("{input:?}");
        let mut bench = after_a_tool();
        tool_done(&mut bench);
        let mut actions = bench.step(input);
        actions.retain(|action| action != "complained");
        assert_eq!(actions, ["persist failed"], "{what}");
        assert_eq!(
            bench.step(Input::Stored(Kept::Yes)),
            ["answer", "end"],
            "{what}"
        );
        let told: Value = serde_json::from_slice(&bench.effects.bytes).unwrap();
        assert_eq!(told["status"], "failed", "{what}");
        assert!(told["error"]["message"].is_string(), "{what}");
        assert_eq!(told["output"][0]["type"], "code_interpreter_call", "{what}");
        assert_eq!(told["usage"]["total_tokens"], 3, "{what}");
    }
    // While it runs as well.
    let mut bench = after_a_tool();
    assert_eq!(
        bench.step(Input::Cancelled(Cancel::Shutdown)),
        ["persist failed"]
    );
}

#[test]
fn tokens_of_an_answer_that_was_given_up_are_booked() {
    let mut bench = Bench::whole().called();
    let answer = br#"{"choices":[{"message":{"content":"x"},"finish_reason":"abort"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    bench
        .turn
        .step(NOW, Input::UpstreamAnswer(answer), &mut bench.effects);
    assert!(matches!(
        bench.effects.actions[..],
        [Action::Used(_), Action::Refuse(_), Action::End]
    ));
}

#[test]
fn an_error_inside_a_stream_is_told_in_its_own_words() {
    for (chunk, code, words) in [
        (
            json!({"error": "out of memory"}),
            "upstream_unavailable",
            "out of memory",
        ),
        (
            json!({"error": {"message": "out of memory", "code": 500}}),
            "upstream_unavailable",
            "out of memory",
        ),
        (
            json!({"object": "error", "message": "too hot", "code": 400}),
            "invalid_prompt",
            "too hot",
        ),
        (
            json!({"error": {"message": "too many", "type": "rate_limit_error"}}),
            "rate_limit_exceeded",
            "too many",
        ),
        (
            json!({"choices": [{"delta": {}, "error": {"code": 502, "message": "behind"}, "finish_reason": "error"}]}),
            "upstream_unavailable",
            "behind",
        ),
        (
            json!({"error": {"message": "Provider returned error", "code": 500, "metadata": {"raw": "{\"error\":{\"message\":\"deep\"}}"}}}),
            "upstream_unavailable",
            "deep",
        ),
    ] {
        let mut bench = Bench::stream().called();
        let _actions = bench.bytes(&says("a"));
        assert_eq!(
            bench.bytes(&frame(&chunk)),
            ["complained", "persist failed"],
            "{chunk}"
        );
        let _actions = bench.step(Input::Stored(Kept::Yes));
        let events = bench.events();
        let error = &events[events.len() - 2];
        assert!(
            error["message"].as_str().unwrap().contains(words),
            "{error}"
        );
        let got = [
            &error["code"],
            &events[events.len() - 1]["response"]["error"]["code"],
        ];
        assert!(got.contains(&&json!(code)), "{error}");
    }
}

#[test]
fn s2_2_a_prompt_that_is_too_long_is_shortened_inside_a_stream_too() {
    let body = json!({"model": "m", "stream": true, "truncation": "auto", "input": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}]});
    let error = json!({"error": {"code": "context_length_exceeded", "message": "no"}});
    let mut bench = Bench::new(&body).called();
    assert_eq!(bench.step(Input::UpstreamOpened), ["begin"]);
    let first = delta(&json!({"role": "assistant", "content": ""}));
    let bytes = [&first[..], &frame(&error), b"data: [DONE]\n\n"].concat();
    assert_eq!(bench.bytes(&bytes), ["complained", "count"]);
    assert!(bench.bytes(b"data: [DONE]\n\n").is_empty());
    assert!(bench.step(Input::UpstreamEnded).is_empty());
    assert_eq!(bench.step(Input::Counted(None)), ["left out 1", "call"]);
    let _actions = bench.bytes(&[says("hi"), finish("stop")].concat());
    assert_eq!(bench.step(Input::UpstreamEnded), ["persist completed"]);
    // Not once the model has spoken.
    let mut bench = Bench::new(&body).called();
    let _actions = bench.bytes(&says("hi"));
    assert_eq!(
        bench.bytes(&frame(&error)),
        ["complained", "persist failed"]
    );
}

#[test]
fn a_whole_answer_in_place_of_a_stream_is_read_and_the_other_way_round() {
    let answer = br#" {"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#;
    let mut bench = Bench::stream().called();
    for part in answer.chunks(7) {
        let _actions = bench.bytes(part);
    }
    assert_eq!(bench.step(Input::UpstreamEnded), ["persist completed"]);
    let mut bench = Bench::stream().called();
    let _actions = bench.bytes(br#"{"error":{"message":"no such thing","code":400}}"#);
    assert_eq!(
        bench.step(Input::UpstreamEnded),
        ["complained", "persist failed"]
    );
    let _actions = bench.step(Input::Stored(Kept::Yes));
    assert!(bench.text().contains("no such thing"));

    let stream = [
        says("hi"),
        finish("stop"),
        USAGE.to_vec(),
        b"data: [DONE]\n\n".to_vec(),
    ]
    .concat();
    let mut bench = Bench::whole().called();
    assert_eq!(
        bench.step(Input::UpstreamAnswer(&stream)),
        ["persist completed"]
    );
    let _actions = bench.step(Input::Stored(Kept::Yes));
    assert!(bench.text().contains("\"text\":\"hi\""));
}

/// Proxies keep a connection alive with frames that say nothing, and some end the last one oddly.
#[test]
fn frames_that_say_nothing_fail_no_stream() {
    for odd in ["null", "\"\"", "[]", " null ", "{}"] {
        let mut bench = Bench::stream().called();
        let odd = format!("data: {odd}\n\n").into_bytes();
        let end = b"data: [DONE] \n\n".to_vec();
        let bytes = [odd.clone(), says("hi"), odd, finish("stop"), end].concat();
        assert_eq!(bench.bytes(&bytes), ["begin", "persist completed"]);
    }
}

#[test]
fn s2_9_an_empty_finish_reason_is_none() {
    let mut bench = Bench::stream().called();
    let chunk = json!({"choices": [{"delta": {"content": "a"}, "finish_reason": ""}]});
    let _actions = bench.bytes(&frame(&chunk));
    assert_eq!(
        bench.step(Input::UpstreamFailed(UpstreamFault::Reset)),
        ["persist failed"]
    );
}

fn token(bytes: &[u8]) -> Value {
    json!({"token": String::from_utf8_lossy(bytes), "bytes": bytes, "logprob": -12.783_279_292_603_929, "top_logprobs": null})
}

#[test]
fn s2_5_probabilities_spell_the_text() {
    let chunk = |delta: Value, tokens: &[&[u8]]| {
        let tokens: Vec<Value> = tokens.iter().map(|bytes| token(bytes)).collect();
        json!({"choices": [{"delta": delta, "logprobs": {"content": tokens}}]})
    };
    let told = streamed(
        &tools(),
        &[
            chunk(json!({}), &[b"<think>"]),
            chunk(json!({"reasoning": "th"}), &[b"th"]),
            chunk(json!({}), &[b"</think>"]),
            chunk(json!({"content": "a"}), &[b"a"]),
            chunk(json!({"content": ""}), &[&[0xF0, 0x9F]]),
            chunk(json!({"content": "😀"}), &[&[0x98, 0x80]]),
            chunk(json!({}), &[b"<|im_end|>"]),
            json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
        ],
    );
    let spelt = |told: &Value| {
        let entries = told["output"][1]["content"][0]["logprobs"]
            .as_array()
            .unwrap();
        let bytes = entries
            .iter()
            .flat_map(|entry| entry["bytes"].as_array().unwrap());
        let bytes = bytes.map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap());
        String::from_utf8(bytes.collect()).unwrap()
    };
    assert_eq!(spelt(&told), "a😀");
    let all: Vec<Value> = [
        &b"<think>"[..],
        b"th",
        b"</think>",
        b"a",
        &[0xF0, 0x9F],
        &[0x98, 0x80],
        b"<|im_end|>",
    ]
    .iter()
    .map(|bytes| token(bytes))
    .collect();
    let answer = json!({"choices": [{"message": {"reasoning": "th", "content": "a😀"},
        "logprobs": {"content": all}, "finish_reason": "stop"}]});
    let told = whole(&tools(), &answer);
    assert_eq!(spelt(&told), "a😀");
}

/// Clients' types want the bytes of each token; some servers leave them to be read off the token.
#[test]
fn tokens_without_bytes_are_given_theirs() {
    let likely =
        json!([{"token": "é", "logprob": -1}, {"token": "b", "logprob": -2, "bytes": null}]);
    let entry = json!({"token": "é", "logprob": -1, "bytes": null, "top_logprobs": likely});
    let logprobs = json!({"content": [entry]});
    let end = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]});
    let chunk = json!({"choices": [{"delta": {"content": "é"}, "logprobs": logprobs}]});
    let answer = json!({"choices": [{"message": {"content": "é"}, "logprobs": logprobs,
        "finish_reason": "stop"}]});
    for told in [streamed(&tools(), &[chunk, end]), whole(&tools(), &answer)] {
        let told = &told["output"][0]["content"][0]["logprobs"][0];
        assert_eq!(told["bytes"], json!([195, 169]));
        assert_eq!(told["top_logprobs"][0]["bytes"], json!([195, 169]));
        assert_eq!(told["top_logprobs"][1]["bytes"], json!([98]));
    }
}

/// A number is told as it came, to its last digit.
#[test]
fn probabilities_keep_their_digits() {
    let answer = r#"{"choices":[{"message":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-12.783279292603929,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-Infinity}]}]},"finish_reason":"stop"}]}"#;
    let mut bench = Bench::whole().called();
    let _actions = bench.step(Input::UpstreamAnswer(answer.as_bytes()));
    let _actions = bench.step(Input::Stored(Kept::Yes));
    assert!(bench.text().contains("\"logprob\":-12.783279292603929"));
    assert!(bench.text().contains("\"logprob\":-9999.0"));
}

#[test]
fn white_space_is_held_for_a_while_and_no_longer() {
    let mut bench = Bench::stream().called();
    for _ in 0..1000 {
        let _actions = bench.bytes(&says("\n"));
    }
    let deltas = bench.types().iter().filter(|t| *t == MESSAGE[2]).count();
    assert!(deltas > 700, "{deltas}");
    let mut bench = Bench::stream().called();
    let _actions = bench.bytes(&says("\n\n"));
    assert!(bench.types().iter().all(|t| t != MESSAGE[0]));
}
