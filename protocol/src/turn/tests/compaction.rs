//! Conversations that are summed up, and summaries that come back.

use super::*;
use crate::chat::tokenize::TokenCount;
use crate::history;
use crate::record::{Chain, Link};

/// A turn that was given this history; what it asked the model, or how it refused.
fn asked(bench: &mut Bench, history: Vec<Item>) -> Value {
    bench
        .turn
        .step(NOW, Input::History(history), &mut bench.effects);
    match bench.effects.actions.drain(..).next() {
        Some(Action::CallModel(body)) => serde_json::from_slice(&body).unwrap(),
        Some(Action::Refuse(refusal)) => json!({"param": refusal.error.param}),
        other => panic!("{other:?}"),
    }
}

fn trigger() -> Value {
    json!({"model": "m", "stream": true, "max_output_tokens": 90, "text": {"format": {"type": "json_object"}},
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "input": [{"role": "user", "content": "paint it red"}, {"role": "assistant", "content": "painted"},
            {"type": "compaction_trigger"}]})
}

/// The summary item of a turn that ends in a trigger, and its events.
fn summed_up() -> (Value, Vec<Value>) {
    let mut bench = Bench::new(&trigger());
    asked(&mut bench, Vec::new());
    bench.bytes(
        &[
            delta(&json!({"reasoning": "hm"})),
            says("Red "),
            says("paint."),
        ]
        .concat(),
    );
    bench.bytes(&[finish("stop"), USAGE.to_vec()].concat());
    assert_eq!(bench.step(Input::UpstreamEnded), ["persist completed"]);
    assert_eq!(bench.step(Input::Stored(Kept::Yes)), ["end"]);
    let events = bench.events();
    let item = events.last().unwrap()["response"]["output"][0].clone();
    (item, events)
}

#[test]
fn a_trigger_is_answered_with_one_summary() {
    let body = asked(&mut Bench::new(&trigger()), Vec::new());
    assert_eq!(roles(&body), ["user", "assistant", "user"]);
    assert_eq!(tool_names(&body), Vec::<&str>::new());
    assert_eq!(body["max_completion_tokens"], 90);
    assert_eq!(body.get("response_format"), None);
    let (item, events) = summed_up();
    let types: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.compaction.compacting",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(types, expected);
    assert_eq!(events[2]["item"]["encrypted_content"], "");
    assert_eq!(
        (&events[3]["item_id"], &events[4]["item"]),
        (&item["id"], &item)
    );
    assert_eq!(item["type"], "compaction");
    assert!(!item.to_string().contains("Red"), "it is sealed");
    assert_eq!(events[5]["response"]["usage"]["total_tokens"], 3);
}

#[test]
fn a_summary_comes_back_to_the_model_that_goes_on() {
    let (item, _) = summed_up();
    let body = json!({"model": "another", "input": [{"role": "user", "content": "paint it red"}, item,
        {"role": "user", "content": "and blue"}]});
    let body = asked(&mut Bench::new(&body), Vec::new());
    assert_eq!(roles(&body), ["user"; 3]);
    let told = body["messages"][1]["content"].as_str().unwrap();
    assert!(told.ends_with("\n\nRed paint."), "{told}");
}

#[test]
fn a_summary_that_does_not_open_refuses_the_turn() {
    let (item, _) = summed_up();
    let body = json!({"model": "m", "input": [item, {"role": "user", "content": "x"}]});
    let mut foreign = Bench::new(&body);
    foreign.turn.owner = Owner::new("someone else");
    let place = "input[0].encrypted_content";
    assert_eq!(asked(&mut foreign, Vec::new())["param"], place);
    let mut changed = body.clone();
    changed["input"][0]["encrypted_content"] = json!("nothing");
    assert_eq!(asked(&mut Bench::new(&changed), Vec::new())["param"], place);
    let kept = history::parse_items(&changed["input"].to_string()).unwrap();
    let mut later = Bench::whole();
    assert_eq!(asked(&mut later, kept)["param"], "previous_response_id");
}

#[test]
fn a_chain_goes_on_from_its_last_summary() {
    let (item, _) = summed_up();
    let link = |input: &Value, output: &Value| {
        Arc::new(Link {
            id: ResponseId::new("resp_1"),
            status: Status::Completed,
            input_items: input.to_string().into(),
            response: json!({"output": output}).to_string().into(),
        })
    };
    let (input, none) = (trigger()["input"].clone(), json!([]));
    let said = json!([{"type": "message", "role": "assistant", "content": "painted twice"}]);
    let chain = |links| Chain {
        links,
        ..Chain::default()
    };
    let kinds = |chain: &Chain| -> Vec<Value> {
        let items = history::from_chain(chain, Marks::new(0)).unwrap();
        let items: Value = serde_json::from_str(&history::items_json(&items)).unwrap();
        let items = items.as_array().unwrap().iter();
        items.map(|item| item["type"].clone()).collect()
    };
    let all = chain(vec![
        link(&input, &said),
        link(&none, &json!([item])),
        link(&none, &said),
    ]);
    assert_eq!(kinds(&all), ["message", "compaction", "message"]);
    let mut later = Bench::whole();
    let body = asked(
        &mut later,
        history::from_chain(&all, Marks::new(0)).unwrap(),
    );
    assert_eq!(roles(&body), ["user", "user", "assistant", "user"]);
    // One that only came in says nothing about what came before it.
    let all = chain(vec![link(&none, &said), link(&json!([item]), &said)]);
    assert_eq!(kinds(&all), ["message", "compaction", "message"]);
}

#[test]
fn no_summary_is_a_failure() {
    for (reason, text) in [("stop", " \n"), ("length", "half of")] {
        let mut bench = Bench::new(&trigger());
        asked(&mut bench, Vec::new());
        bench.bytes(&[says(text), finish(reason)].concat());
        bench.step(Input::UpstreamEnded);
        bench.step(Input::Stored(Kept::Yes));
        let last = bench.events().pop().unwrap();
        assert_eq!(last["type"], "response.failed");
        assert_eq!(last["response"]["output"], json!([]));
        assert_eq!(last["response"]["error"]["code"], "server_error");
    }
}

#[test]
fn a_trigger_comes_last() {
    let body = json!({"model": "m", "input": [{"type": "compaction_trigger"}, {"role": "user", "content": "x"}]});
    let body = body.to_string();
    let refused = CreateRequest::decode(
        body.as_bytes(),
        &Rules::default(),
        &mut CountingIds::default(),
    );
    assert_eq!(refused.unwrap_err().param.as_deref(), Some("input[0]"));
}

#[test]
fn the_endpoint_gives_what_a_client_goes_on_from() {
    let body = json!({"model": "m", "store": false, "input": [{"role": "developer", "content": "be kind"},
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]});
    let mut bench = Bench::of(Purpose::Compact, &body);
    let earlier = json!([{"type": "message", "role": "user", "content": "zero"}]);
    let body = asked(
        &mut bench,
        history::parse_items(&earlier.to_string()).unwrap(),
    );
    assert_eq!(roles(&body), ["user", "assistant", "user"]);
    let answer = json!({"choices": [{"index": 0, "message": {"content": "In short."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}});
    let actions = bench.step(Input::UpstreamAnswer(answer.to_string().as_bytes()));
    assert_eq!(actions, ["answer", "end"]);
    let told: Value = serde_json::from_str(bench.text()).unwrap();
    assert_eq!(told["object"], "response.compaction");
    assert_eq!(told["created_at"], NOW / 1000);
    let output = told["output"].as_array().unwrap();
    let types: Vec<&str> = output.iter().map(|i| i["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["message", "message", "compaction"]);
    assert_eq!(output[1]["content"][0]["text"], "one");
    assert_eq!(told["usage"]["output_tokens"], 2);
}

/// A summary that nobody bounded is bounded, by what is left of the window where that is less.
#[test]
fn a_summary_has_a_bound() {
    let body = json!({"model": "m", "store": false, "input": [{"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"}]});
    let refused = || UpstreamFault::Status {
        status: 400,
        retry_after: None,
        body: br#"{"error":{"message":"This model's maximum context length is 8192 tokens"}}"#[..]
            .into(),
    };
    let bound = |bench: &mut Bench, input: Input<'_>| {
        bench.turn.step(NOW, input, &mut bench.effects);
        match bench.effects.actions.drain(..).next() {
            Some(Action::CallModel(body)) => {
                let body: Value = serde_json::from_slice(&body).unwrap();
                Ok(body["max_completion_tokens"].clone())
            }
            Some(Action::CountTokens(_)) => Err("count"),
            Some(Action::Refuse(_)) => Err("refused"),
            other => panic!("{other:?}"),
        }
    };
    for (count, second) in [
        (Some((5000, 8192)), Ok(json!(3192))),
        (Some((8100, 8192)), Err("refused")),
        (None, Ok(Value::Null)),
    ] {
        let mut bench = Bench::of(Purpose::Compact, &body);
        assert_eq!(
            bound(&mut bench, Input::History(Vec::new())),
            Ok(json!(16_384))
        );
        assert_eq!(
            bound(&mut bench, Input::UpstreamFailed(refused())),
            Err("count")
        );
        let count = count.map(|(count, max_model_len)| TokenCount {
            count,
            max_model_len,
        });
        assert_eq!(bound(&mut bench, Input::Counted(count)), second);
        if second.is_ok() {
            assert_eq!(
                bound(&mut bench, Input::UpstreamFailed(refused())),
                Err("refused")
            );
        }
    }
    // What the client says holds, and is not tried otherwise.
    let mut own = body.clone();
    own["max_output_tokens"] = json!(90);
    let mut bench = Bench::new(&trigger());
    assert_eq!(bound(&mut bench, Input::History(Vec::new())), Ok(json!(90)));
    assert_eq!(
        bound(&mut bench, Input::UpstreamFailed(refused())),
        Err("refused")
    );
}

fn refusal_of(action: Action) -> Option<Refusal> {
    if let Action::Refuse(refusal) = action {
        Some(refusal)
    } else {
        None
    }
}

/// A retry of what the model has worked on would be the same work again.
#[test]
fn a_summary_that_is_cut_is_not_asked_for_again() {
    let body = json!({"model": "m", "store": false, "input": "one"});
    for (reason, status) in [("length", 502), ("abort", 502), ("content_filter", 502)] {
        let mut bench = Bench::of(Purpose::Compact, &body).called();
        let message = json!({"content": "In sh"});
        let answer = json!({"choices": [{"message": message, "finish_reason": reason}]});
        let answer = answer.to_string();
        let input = Input::UpstreamAnswer(answer.as_bytes());
        bench.turn.step(NOW, input, &mut bench.effects);
        let refusal = bench.effects.actions.drain(..).find_map(refusal_of);
        let error = refusal.unwrap_or_else(|| panic!("{reason} refuses")).error;
        assert_eq!(error.status, status, "{reason}");
        assert!(error.code.is_work_again(), "{reason}");
    }
}
