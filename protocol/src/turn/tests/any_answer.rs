//! Whatever a model server answers: what is stored is read again as it was told, what is told may be
//! sent back, and a streamed answer becomes the same as a whole one.

use proptest::collection::vec;

use super::foreign_calls::{streamed, whole};
use super::*;
use crate::history;
use crate::record::{Chain, Link, Record};

fn request() -> Value {
    let function = |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}, "strict": false});
    json!({"model": "m", "input": "x", "tools": [function("f"), function("g"),
        {"type": "custom", "name": "text"}, {"type": "shell"}, {"type": "apply_patch"},
        {"type": "local_shell"}, {"type": "tool_search", "execution": "client"}]})
}

/// Feeds a turn until nothing is to come; gives what was stored and what the client was told.
fn played(delivery: Delivery, bytes: &[u8]) -> (Option<Box<Record>>, Value) {
    let mut body = request();
    let stream = delivery == Delivery::Events;
    body["stream"] = json!(stream);
    let mut bench = Bench::new(&body).called();
    let inputs = if stream {
        vec![Input::UpstreamBytes(bytes), Input::UpstreamEnded]
    } else {
        vec![Input::UpstreamAnswer(bytes)]
    };
    let mut record = None;
    for input in inputs {
        bench.turn.step(NOW, input, &mut bench.effects);
        for action in bench.effects.actions.drain(..) {
            if let Action::Persist(made) = action {
                record = Some(made);
            }
        }
    }
    let _actions = bench.step(Input::Stored(Kept::Yes));
    if !stream {
        let told = serde_json::from_slice(&bench.effects.bytes).unwrap_or_default();
        return (record, told);
    }
    assert_invariants(bench.text());
    (record, bench.events().pop().unwrap()["response"].clone())
}

/// What is stored is read again, and what was told is taken back.
fn holds(delivery: Delivery, bytes: &[u8]) {
    let (record, told) = played(delivery, bytes);
    let Some(record) = record else { return };
    let link = Link {
        id: record.id.clone(),
        status: record.status,
        input_items: record.input_items.clone(),
        response: record.response.clone(),
    };
    let chain = Chain {
        links: vec![Arc::new(link)],
        ..Chain::default()
    };
    let items = history::from_chain(&chain, Marks::new(0)).expect("a record that is read");
    let output: Value = serde_json::from_str(&history::items_json(&items[1..])).unwrap();
    assert_eq!(output, told["output"]);
    let mut again = request();
    let mut input = vec![json!({"role": "user", "content": "x"})];
    input.extend(told["output"].as_array().unwrap().iter().cloned());
    again["input"] = json!(input);
    let taken = CreateRequest::decode(
        again.to_string().as_bytes(),
        &Rules::default(),
        &mut CountingIds::default(),
    );
    assert!(taken.is_ok(), "{again}");
}

/// Odd values for any member.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(-3)),
        Just(json!(1.5)),
        Just(json!(true)),
        Just(json!("")),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null, 1, {"type": "text", "text": "t"}])),
        Just(json!({"type": "thinking", "thinking": "h"})),
        "[a \u{1}\n\\{}\"é😀]{0,6}".prop_map(|text| json!(text)),
    ]
}

fn name() -> impl Strategy<Value = Value> {
    let names = [
        "",
        "f",
        "g",
        "text",
        "shell",
        "apply_patch",
        "local_shell",
        "tool_search",
        "x.y",
    ];
    prop_oneof![
        9 => proptest::sample::select(names.to_vec()).prop_map(|name| json!(name)),
        1 => odd(),
    ]
}

fn arguments() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "{}",
        "{\"a\":1}",
        "{\"a\":",
        "1}",
        "nonsense",
        "{\"input\":\"t\"}",
        "{\"q\":\"\\ud800\"}",
        "{\"commands\":[\"ls\"]}",
        "{\"command\":[\"ls\"],\"env\":null}",
        "{\"q\":1e999}",
        "null",
        "{\"type\":\"delete_file\",\"path\":\"a\"}",
    ];
    prop_oneof![
        9 => proptest::sample::select(texts.to_vec()).prop_map(|text| json!(text)),
        1 => odd(),
    ]
}

fn call() -> impl Strategy<Value = Value> {
    let index = prop_oneof![(0u32..3).prop_map(|index| json!(index)), odd()];
    let id = prop_oneof!["[ab]?".prop_map(|id| json!(id)), odd()];
    (index, id, name(), arguments(), any::<[bool; 4]>()).prop_map(
        |(index, id, name, arguments, has)| {
            let mut call = json!({"type": "function", "function": {}});
            if has[0] {
                call["index"] = index;
            }
            if has[1] {
                call["id"] = id;
            }
            if has[2] {
                call["function"]["name"] = name;
            }
            if has[3] {
                call["function"]["arguments"] = arguments;
            }
            call
        },
    )
}

/// What a delta or a message has.
fn message() -> impl Strategy<Value = Value> {
    let text = || prop_oneof![4 => "[ aé😀\n]{0,4}".prop_map(|text| json!(text)), 1 => odd()];
    let calls =
        prop_oneof![8 => vec(call(), 0..3).prop_map(|calls| json!(calls)), 1 => call(), 1 => odd()];
    (text(), text(), text(), calls, odd(), any::<[bool; 5]>()).prop_map(
        |(content, reasoning, refusal, calls, legacy, has)| {
            let mut message = json!({"role": "assistant"});
            let members = [
                ("content", content),
                ("reasoning_content", reasoning),
                ("refusal", refusal),
                ("tool_calls", calls),
                ("function_call", legacy),
            ];
            for ((name, value), has) in members.into_iter().zip(has) {
                if has {
                    message[name] = value;
                }
            }
            message
        },
    )
}

fn reason() -> impl Strategy<Value = Value> {
    let words = [
        "stop",
        "length",
        "tool_calls",
        "content_filter",
        "error",
        "",
    ];
    prop_oneof![
        9 => proptest::sample::select(words.to_vec()).prop_map(|word| json!(word)),
        1 => odd(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn s1_2_what_is_stored_of_a_stream_is_read_again(
        messages in vec((message(), odd()), 0..8),
        last in reason(),
        usage in odd(),
    ) {
        let mut bytes = Vec::new();
        for (delta, other) in messages {
            let choice = json!({"index": 0, "delta": delta, "logprobs": other, "finish_reason": null});
            bytes.extend(frame(&json!({"choices": [choice]})));
        }
        let choice = json!({"delta": {}, "finish_reason": last});
        bytes.extend(frame(&json!({"choices": [choice], "usage": usage})));
        bytes.extend(b"data: [DONE]\n\n");
        holds(Delivery::Events, &bytes);
    }

    #[test]
    fn s1_2_what_is_stored_of_a_whole_answer_is_read_again(
        message in message(),
        last in reason(),
        usage in odd(),
    ) {
        let choice = json!({"index": 0, "message": message, "finish_reason": last});
        let answer = json!({"choices": [choice], "usage": usage});
        holds(Delivery::Whole, answer.to_string().as_bytes());
    }

    #[test]
    fn any_bytes_end_the_turn(bytes in vec(any::<u8>(), 0..60), stream in any::<bool>()) {
        let delivery = if stream { Delivery::Events } else { Delivery::Whole };
        holds(delivery, &bytes);
    }

    #[test]
    fn streamed_and_whole_answers_become_the_same(
        texts in ("[ aé😀\n]{0,9}", "[ aé😀\n]{0,9}"),
        calls in vec((proptest::sample::select(vec!["f", "g", "text", "shell", "other"]), arguments_whole()), 0..4),
        style in 0..5,
        cut in 1..4usize,
    ) {
        let (thinking, text) = texts;
        let whole_calls: Vec<Value> = calls.iter().enumerate().map(|(at, (name, arguments))| {
            let id = if style == 4 { String::new() } else { format!("c{at}") };
            json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
        }).collect();
        let message = json!({"reasoning": thinking, "content": text, "tool_calls": whole_calls});
        let answer = json!({"choices": [{"message": message, "finish_reason": "stop"}]});
        let mut chunks = Vec::new();
        let mut push = |delta: Value| chunks.push(json!({"choices": [{"delta": delta}]}));
        for part in pieces(&thinking, cut) {
            push(json!({"reasoning_content": part, "content": ""}));
        }
        for part in pieces(&text, cut) {
            let parts = json!([{"type": "text", "text": part}]);
            push(json!({"content": if style == 0 { parts } else { json!(part) }}));
        }
        for (at, (name, arguments)) in calls.iter().enumerate() {
            for delta in call_in(style, at, name, arguments, cut) {
                push(json!({"tool_calls": [delta]}));
            }
        }
        chunks.push(json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}));
        let same = |mut told: Value| {
            for item in told["output"].as_array_mut().unwrap() {
                item["id"] = json!(null);
                if style == 4 {
                    item["call_id"] = json!(null);
                }
            }
            told["output"].clone()
        };
        let body = request();
        prop_assert_eq!(same(streamed(&body, &chunks)), same(whole(&body, &answer)));
    }
}

/// Whole objects, so that every style tells calls apart.
fn arguments_whole() -> impl Strategy<Value = &'static str> {
    let texts = [
        "{}",
        "{\"a\":\"}{\"}",
        "{\"commands\":[\"ls\"]}",
        "{\"input\":\"a\\nb\"}",
    ];
    proptest::sample::select(texts.to_vec())
}

fn pieces(text: &str, cut: usize) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    letters
        .chunks(cut)
        .map(|piece| piece.iter().collect())
        .collect()
}

/// The pieces of a call, as servers of different kinds write them.
fn call_in(style: i32, at: usize, name: &str, arguments: &str, cut: usize) -> Vec<Value> {
    let id = format!("c{at}");
    let parts = pieces(arguments, cut);
    let first = json!({"index": at, "id": id, "function": {"name": name, "arguments": ""}});
    let mut all = vec![first];
    match style {
        // vLLM.
        0 => all.extend(
            parts
                .iter()
                .map(|p| json!({"index": at, "function": {"arguments": p}})),
        ),
        // Id and name on every piece.
        1 => {
            all.extend(parts.iter().map(
                |p| json!({"index": at, "id": id, "function": {"name": name, "arguments": p}}),
            ));
        }
        // Empty ones.
        2 => all.extend(
            parts
                .iter()
                .map(|p| json!({"index": at, "id": "", "function": {"name": "", "arguments": p}})),
        ),
        // One index for all.
        3 => {
            all[0]["index"] = json!(0);
            all.extend(
                parts
                    .iter()
                    .map(|p| json!({"index": 0, "function": {"arguments": p}})),
            );
        }
        // Neither index nor id, whole.
        _ => {
            all = vec![json!({"id": "", "function": {"name": name, "arguments": arguments}})];
        }
    }
    all
}
