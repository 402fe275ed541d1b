//! What servers write that number, repeat or wrap an answer in their own way: all of it is told, once.

use super::foreign_calls::{streamed, tools, whole};
use super::said::{asked_with, chain, run};
use super::*;
use crate::record::Chain;

/// Text and calls of a response, each call as its name and arguments.
fn told(response: &Value) -> (String, Vec<String>) {
    assert_eq!(response["status"], "completed", "{response}");
    let (mut text, mut calls) = (String::new(), Vec::new());
    for item in response["output"].as_array().unwrap() {
        if item["type"] == "message" {
            text.push_str(item["content"][0]["text"].as_str().unwrap());
        }
        if item["type"] == "function_call" {
            let word = |key: &str| item[key].as_str().unwrap();
            calls.push(format!(
                "{} {} {}",
                word("name"),
                word("arguments"),
                word("status")
            ));
        }
    }
    (text, calls)
}

fn choice(index: usize, delta: &Value, finish: &Value) -> Value {
    json!({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})
}

fn call(index: usize, id: &str, name: &str, arguments: &str) -> Value {
    json!({"index": index, "id": id, "function": {"name": name, "arguments": arguments}})
}

const WORDS: [&str; 5] = ["The ", "answer ", "is ", "42", "."];

fn ended(mut chunks: Vec<Value>) -> Value {
    chunks.push(choice(0, &json!({}), &json!("stop")));
    streamed(&tools(), &chunks)
}

/// Before, only the first number was read.
#[test]
fn numbers_that_never_come_back_are_no_further_answers() {
    let said = |index, text: &str| choice(index, &json!({"content": text}), &Value::Null);
    let numbered = |count: usize| -> Vec<Value> {
        (0..count)
            .map(|at| said(at + 1, &format!("{at} ")))
            .collect()
    };
    for count in [1, 5, 17, 40] {
        let mut chunks = numbered(count);
        chunks.push(choice(
            count + 1,
            &json!({"content": ""}),
            &json!("eos_token"),
        ));
        let want: Vec<String> = (0..count).map(|at| format!("{at} ")).collect();
        assert_eq!(told(&streamed(&tools(), &chunks)).0, want.concat());
    }
    let mut chunks = vec![choice(
        0,
        &json!({"role": "assistant", "content": ""}),
        &Value::Null,
    )];
    chunks.extend(WORDS.map(|word| said(1, word)));
    chunks.push(choice(1, &json!({}), &json!("stop")));
    assert_eq!(told(&streamed(&tools(), &chunks)).0, WORDS.concat());
    let calls = json!({"tool_calls": [call(0, "c", "f", "{\"a\":1}")]});
    let apart = [
        said(0, "let me"),
        choice(1, &calls, &Value::Null),
        choice(1, &json!({}), &json!("tool_calls")),
    ];
    let want = (
        "let me".to_owned(),
        vec!["f {\"a\":1} completed".to_owned()],
    );
    assert_eq!(told(&streamed(&tools(), &apart)), want);
    for numbers in [
        [json!(0), json!(1)],
        [Value::Null, Value::Null],
        [json!(1), json!(0)],
    ] {
        let [first, second] = numbers;
        let answer = json!({"choices": [
            {"index": first, "message": {"content": "let me"}, "finish_reason": "tool_calls"},
            {"index": second, "message": calls, "finish_reason": "tool_calls"}]});
        assert_eq!(told(&whole(&tools(), &answer)), want);
    }
}

#[test]
fn pieces_in_messages_are_told_once() {
    let message = |message: Value, finish: &Value| json!({"choices": [{"message": message, "finish_reason": finish}]});
    let (none, stop) = (Value::Null, json!("stop"));
    let pieces: Vec<Value> = WORDS
        .iter()
        .map(|word| message(json!({"content": word}), &none))
        .collect();
    let growing = (1..=5).map(|count| message(json!({"content": WORDS[..count].concat()}), &none));
    let grown: Vec<Value> = growing
        .chain([message(json!({"content": WORDS.concat()}), &stop)])
        .collect();
    let whole_again = [
        pieces.clone(),
        vec![message(json!({"content": WORDS.concat()}), &stop)],
    ]
    .concat();
    for chunks in [
        ended(pieces),
        streamed(&tools(), &grown),
        streamed(&tools(), &whole_again),
    ] {
        assert_eq!(told(&chunks).0, WORDS.concat());
    }
    let calls = json!({"tool_calls": [call(0, "c", "f", "{\"a\":1}")]});
    let mixed = ended(vec![
        message(json!({"reasoning_content": "hm"}), &none),
        message(json!({"content": "let me"}), &none),
        message(calls, &json!("tool_calls")),
    ]);
    assert_eq!(
        told(&mixed),
        (
            "let me".to_owned(),
            vec!["f {\"a\":1} completed".to_owned()]
        )
    );
    assert_eq!(mixed["output"][0]["type"], "reasoning");
}

#[test]
fn a_placeholder_of_the_other_way_costs_no_call() {
    let f = json!({"name": "f", "arguments": "{\"a\":1}"});
    let want = ["f {\"a\":1} completed"];
    for empty in [
        json!([{}]),
        json!([null]),
        json!([]),
        json!({}),
        json!([{"index": 0}]),
        json!([{"index": 0, "id": "c9"}]),
        json!([call(0, "", "", "")]),
    ] {
        let message = json!({"function_call": f, "tool_calls": empty});
        let finish = json!("function_call");
        let answer = json!({"choices": [{"message": message, "finish_reason": finish}]});
        assert_eq!(told(&whole(&tools(), &answer)).1, want, "{empty}");
        assert_eq!(
            told(&ended(vec![choice(0, &message, &Value::Null)])).1,
            want,
            "{empty}"
        );
        let before = choice(0, &json!({"tool_calls": empty}), &Value::Null);
        let later = choice(0, &json!({"function_call": f}), &Value::Null);
        assert_eq!(told(&ended(vec![before, later])).1, want, "{empty}");
    }
    let empty = choice(
        0,
        &json!({"function_call": {"name": "f", "arguments": ""}}),
        &Value::Null,
    );
    let real = choice(
        0,
        &json!({"tool_calls": [call(0, "c", "f", "{\"a\":1}")]}),
        &Value::Null,
    );
    assert_eq!(told(&ended(vec![empty, real])).1, want);
    let old = choice(0, &json!({"function_call": f}), &Value::Null);
    let both =
        json!({"tool_calls": [call(0, "c", "f", "{\"a\":1}"), call(1, "d", "f", "{\"a\":2}")]});
    let all = told(&ended(vec![old, choice(0, &both, &Value::Null)])).1;
    assert_eq!(all, ["f {\"a\":1} completed", "f {\"a\":2} completed"]);
    let flat = choice(
        0,
        &json!({"tool_calls": [{"id": "c", "name": "f", "arguments": "{\"a\":1}"}]}),
        &Value::Null,
    );
    assert_eq!(told(&ended(vec![flat])).1, want);
}

/// Before, the tool was run without its arguments.
#[test]
fn an_empty_object_before_the_arguments_is_none() {
    let pieces = |pieces: &[&str]| {
        let mut chunks = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let (id, name) = if at == 0 { ("c", "f") } else { ("", "") };
            let calls = json!({"tool_calls": [call(0, id, name, piece)]});
            chunks.push(choice(0, &calls, &Value::Null));
        }
        told(&ended(chunks)).1
    };
    let want = ["f {\"a\":1} completed"];
    for cut in [
        &["{}", "", "{\"a\":", "1}"][..],
        &["{}{\"a\":1}"],
        &["{}", "\n{\"a\":1}", "</tool_call>"],
        &["{\"a\":1}", "{\"a\": 1}"],
    ] {
        assert_eq!(pieces(cut), want, "{cut:?}");
    }
    for nothing in [
        &["{}"][..],
        &["{}", "</tool_call>", "{\"a\":1}"],
        &[" {} ", ""],
    ] {
        assert_eq!(pieces(nothing), ["f {} completed"], "{nothing:?}");
    }
    for torn in [&["{\"a\":1}{\"a\":2}"][..], &["{\"a\":1}", "{\"a\":", "2}"]] {
        let got = pieces(torn);
        assert!(
            got[0].ends_with("} incomplete") && got.len() == 1,
            "{got:?}"
        );
    }
    let two = json!({"tool_calls": [call(0, "c", "f", "{}"), call(1, "d", "g", "{}"), call(0, "e", "f", "{}")]});
    let got = told(&ended(vec![choice(0, &two, &Value::Null)])).1;
    assert_eq!(got, ["f {} completed", "g {} completed", "f {} completed"]);
}

#[test]
fn json_in_the_place_of_text_is_text_as_it_was_written() {
    for (content, want) in [
        (
            r#"{"type":"circle","radius":5}"#,
            r#"{"type":"circle","radius":5}"#,
        ),
        (r#"{"answer":1,"type":"x"}"#, r#"{"answer":1,"type":"x"}"#),
        (r#"{"text":"a","answer":1}"#, r#"{"text":"a","answer":1}"#),
        (r#"[{"a":1},{"a":2}]"#, r#"[{"a":1},{"a":2}]"#),
        ("true", "true"),
        ("3.0", "3.0"),
        ("1.10", "1.10"),
        ("12345678901234567890123", "12345678901234567890123"),
        (r#"{"type":"text","text":"hi"}"#, "hi"),
        (
            r#"[{"text":"hi","index":0},{"type":"reference","ids":[1]}]"#,
            "hi",
        ),
    ] {
        let text = format!(r#"{{"choices":[{{"delta":{{"content":{content}}}}}]}}"#);
        let frames = [format!("data: {text}\n\n").into_bytes(), finish("stop")].concat();
        let mut bench = Bench::stream().called();
        let _actions = bench.bytes(&frames);
        assert_eq!(bench.step(Input::UpstreamEnded), ["persist completed"]);
        let _actions = bench.step(Input::Stored(Kept::Yes));
        let last = bench.events().pop().unwrap();
        assert_eq!(told(&last["response"]).0, want, "{content}");
    }
}

#[test]
fn errors_that_are_none_end_no_answer() {
    for bytes in [
        &b"event: error\ndata: null\n\n"[..],
        b"event: error\ndata: \n\n",
    ] {
        let mut bench = Bench::stream().called();
        let _actions = bench.bytes(&[&says("a"), bytes, &finish("stop")].concat());
        assert_eq!(bench.step(Input::UpstreamEnded), ["persist completed"]);
    }
    for none in [json!("none"), json!({"message": "success", "code": "0"})] {
        let chunk = json!({"error": none, "choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]});
        assert_eq!(told(&streamed(&tools(), &[chunk])).0, "a");
    }
    let alone = json!({"choices": {"delta": {"content": "a"}, "finish_reason": "stop"}});
    assert_eq!(told(&streamed(&tools(), &[alone])).0, "a");
}

/// Who repeats the words that got no answer wants one.
#[test]
fn words_that_are_said_again_are_heard() {
    let ask = |input: &Value| json!({"model": "m", "input": input, "stream": true, "previous_response_id": "r"});
    for input in [
        json!("go on"),
        json!([{"role": "developer", "content": "short"}, {"role": "user", "content": "go on"}]),
    ] {
        let thought = delta(&json!({"reasoning": "hm"}));
        for answer in [
            [thought, finish("length")].concat(),
            [says(""), finish("stop")].concat(),
        ] {
            let (_, first) = run(&ask(&input), &Chain::default(), &answer);
            let body = asked_with(&ask(&input), &chain(&[&first])).unwrap();
            let messages = body["messages"].as_array().unwrap();
            let is_said = |message: &Value| {
                message["content"]
                    .as_str()
                    .is_some_and(|text| text.ends_with("go on"))
            };
            assert!(is_said(messages.last().unwrap()), "{body}");
            assert_eq!(
                body["messages"].to_string().matches("go on").count(),
                2,
                "{body}"
            );
        }
    }
}
