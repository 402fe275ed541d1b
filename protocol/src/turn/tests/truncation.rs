//! `truncation`: what is left out of a prompt that is too long, and what never is.

use super::*;
use crate::chat::tokenize::TokenCount;

fn too_long() -> Input<'static> {
    let body = json!({"error": {"message": "This model's maximum context length is 100 tokens.",
        "type": "BadRequestError", "code": 400}});
    Input::UpstreamFailed(UpstreamFault::Status {
        status: 400,
        retry_after: None,
        body: body.to_string().into_bytes().into(),
    })
}

/// A conversation of `turns` turns of equal length, each with a call and its output, and a question.
fn conversation(turns: usize, extra: &Value) -> Bench {
    let mut input = vec![json!({"role": "developer", "content": "rules"})];
    for turn in 0..turns {
        let call_id = format!("c{turn:03}");
        input.extend([
            json!({"role": "user", "content": format!("q{turn:03}")}),
            json!({"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}),
            json!({"type": "function_call_output", "call_id": call_id, "output": "long ".repeat(20)}),
            json!({"role": "assistant", "content": "a"}),
        ]);
    }
    input.push(json!({"role": "user", "content": "last"}));
    let mut body = json!({"model": "m", "input": input, "truncation": "auto", "stream": true});
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    let mut bench = Bench::new(&body);
    assert_eq!(bench.step(Input::History(Vec::new())), ["call"]);
    bench
}

/// Takes an input; gives the names of the actions, and the messages that the model is sent.
fn step(bench: &mut Bench, input: Input<'_>) -> (Vec<String>, Vec<Value>) {
    bench.turn.step(NOW, input, &mut bench.effects);
    let mut messages = Vec::new();
    let mut names = Vec::new();
    for action in bench.effects.actions.drain(..) {
        names.push(name(&action));
        if let Action::CallModel(body) | Action::CountTokens(body) = action {
            let body: Value = serde_json::from_slice(&body).unwrap();
            messages = body["messages"].as_array().unwrap().clone();
        }
    }
    (names, messages)
}

/// The rules, whole turns, the question.
fn is_whole(messages: &[Value]) {
    assert_eq!(messages[0]["role"], "system");
    assert_eq!(messages.last().unwrap()["content"], "last");
    let roles: Vec<&str> = messages[1..messages.len() - 1]
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    for turn in roles.chunks(4) {
        assert_eq!(turn, ["user", "assistant", "tool", "assistant"]);
    }
}

#[test]
fn the_upstreams_count_says_how_much_goes() {
    let mut bench = conversation(20, &json!({}));
    let (actions, whole) = step(&mut bench, too_long());
    assert_eq!(actions, ["count"]);
    is_whole(&whole);
    let count = TokenCount {
        count: 200,
        max_model_len: 100,
    };
    let (actions, messages) = step(&mut bench, Input::Counted(Some(count)));
    is_whole(&messages);
    // About half goes, and room for the answer is kept.
    let left = messages.len() / 4;
    assert!((8..=10).contains(&left), "{left}");
    assert_eq!(
        actions,
        [format!("left out {}", 20 - left), "call".to_owned()]
    );
    assert_eq!(bench.step(Input::UpstreamOpened), ["begin"]);
    let _actions = bench.bytes(&[says("hi"), finish("stop")].concat());
    assert_eq!(bench.step(Input::UpstreamEnded), ["persist completed"]);
}

#[test]
fn without_a_count_half_goes_each_time() {
    let mut bench = conversation(20, &json!({}));
    let mut left = Vec::new();
    let (_, _) = step(&mut bench, too_long());
    let (_, mut messages) = step(&mut bench, Input::Counted(None));
    loop {
        is_whole(&messages);
        left.push(messages.len() / 4);
        let (actions, next) = step(&mut bench, too_long());
        if actions.last().unwrap() != "call" {
            assert_eq!(actions, ["refuse 400", "end"]);
            break;
        }
        messages = next;
    }
    assert_eq!(left, [10, 5, 2, 1, 0]);
}

#[test]
fn the_answers_own_bound_is_kept_free() {
    let left = |bound: u64| {
        let mut bench = conversation(20, &json!({"max_output_tokens": bound}));
        let _counting = step(&mut bench, too_long());
        let count = TokenCount {
            count: 200,
            max_model_len: 100,
        };
        step(&mut bench, Input::Counted(Some(count))).1.len()
    };
    assert!(left(60) < left(6), "{} {}", left(60), left(6));
}

#[test]
fn nothing_is_left_out_unasked_and_never_the_last_turn() {
    for extra in [
        json!({"truncation": "disabled"}),
        json!({"truncation": null}),
    ] {
        let mut bench = conversation(5, &extra);
        assert_eq!(bench.step(too_long()), ["refuse 400", "end"], "{extra}");
    }
    let mut bench = conversation(0, &json!({}));
    assert_eq!(bench.step(too_long()), ["refuse 400", "end"]);
    let mut bench = conversation(5, &json!({}));
    let other = UpstreamFault::Status {
        status: 400,
        retry_after: None,
        body: Box::default(),
    };
    assert_eq!(
        bench.step(Input::UpstreamFailed(other)),
        ["refuse 400", "end"]
    );
}

#[test]
fn a_count_is_told() {
    for (count, expected) in [
        (Some(7), vec!["answer", "end"]),
        (None, vec!["refuse 502", "end"]),
    ] {
        let mut bench =
            Bench::new(&json!({"model": "m", "input": "x", "tools": [{"type": "shell"}]}));
        bench.turn.purpose = Purpose::Count;
        let (actions, messages) = step(&mut bench, Input::History(Vec::new()));
        assert_eq!(actions, ["count"]);
        assert_eq!(messages.len(), 1);
        let count = count.map(|count| TokenCount {
            count,
            max_model_len: 9,
        });
        assert_eq!(bench.step(Input::Counted(count)), expected);
        if count.is_some() {
            assert_eq!(
                bench.text(),
                r#"{"object":"response.input_tokens","input_tokens":7}"#
            );
        }
    }
}

#[test]
fn a_client_that_leaves_while_tokens_are_counted_ends_it() {
    let mut bench = conversation(5, &json!({"store": false}));
    let _counting = step(&mut bench, too_long());
    assert_eq!(bench.step(Input::Cancelled(Cancel::ClientLeft)), ["end"]);
    assert!(bench.step(Input::Counted(None)).is_empty());
}
