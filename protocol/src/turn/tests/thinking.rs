//! Summaries of thinking, and thinking that clients keep for us.

use super::*;

const THOUGHT: &str = "First I look.\nThen I act.\n\nAnd so on.";

/// The events of one answer with thinking.
fn thought(extra: &Value) -> Vec<Value> {
    let mut body = json!({"model": "m", "input": "x", "stream": true});
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    let mut bench = Bench::new(&body).called();
    let characters: Vec<char> = THOUGHT.chars().collect();
    for piece in characters.chunks(4) {
        let piece: String = piece.iter().collect();
        bench.bytes(&delta(&json!({"reasoning": piece})));
    }
    bench.bytes(&[says("done"), finish("stop")].concat());
    bench.step(Input::UpstreamEnded);
    bench.step(Input::Stored(Kept::Yes));
    bench.events()
}

fn reasoning(events: &[Value]) -> Value {
    let output = &events.last().unwrap()["response"]["output"];
    assert_eq!(output[0]["type"], "reasoning");
    output[0].clone()
}

#[test]
fn a_summary_is_told_when_it_is_asked_for() {
    let first = "First I look.\nThen I act.";
    for (mode, expected) in [("auto", first), ("concise", first), ("detailed", THOUGHT)] {
        let events = thought(&json!({"reasoning": {"summary": mode}}));
        let item = reasoning(&events);
        let part = json!({"type": "summary_text", "text": expected});
        assert_eq!(item["summary"], json!([part]), "{mode}");
        let about: Vec<&Value> = events
            .iter()
            .filter(|e| e["type"].as_str().unwrap().contains("reasoning_summary"))
            .collect();
        let [added, deltas @ .., done, part_done] = &about[..] else {
            panic!("{about:?}")
        };
        assert_eq!(added["part"]["text"], "");
        let joined: String = deltas
            .iter()
            .map(|e| e["delta"].as_str().unwrap())
            .collect();
        assert_eq!(joined, expected);
        assert_eq!(done["text"], expected);
        assert_eq!(part_done["part"], part);
    }
    let events = thought(&json!({}));
    assert_eq!(reasoning(&events)["summary"], json!([]));
    assert!(
        !events
            .iter()
            .any(|e| e["type"].as_str().unwrap().contains("summary"))
    );
}

#[test]
fn thinking_is_sealed_where_nothing_is_kept() {
    let include = json!(["reasoning.encrypted_content"]);
    for (extra, sealed) in [
        (json!({}), false),
        (json!({"include": include}), true),
        (json!({"store": false}), true),
    ] {
        let item = reasoning(&thought(&extra));
        assert_eq!(item["encrypted_content"].is_string(), sealed, "{extra}");
        assert_eq!(item["content"][0]["text"], THOUGHT);
    }
}

/// A request that sends this reasoning item back.
fn sent_back(item: &Value, owner: &str, model: &str) -> (Bench, Vec<String>) {
    let body = json!({"model": model, "input": [{"role": "user", "content": "x"}, item,
        {"role": "assistant", "content": "done"}, {"role": "user", "content": "y"}]});
    let mut bench = Bench::new(&body);
    bench.turn.owner = Owner::new(owner);
    let mut asked = Vec::new();
    bench
        .turn
        .step(NOW, Input::History(Vec::new()), &mut bench.effects);
    for action in &bench.effects.actions {
        asked.push(match action {
            Action::CallModel(body) => String::from_utf8(body.clone()).unwrap(),
            Action::Refuse(refusal) => refusal.error.message.clone(),
            Action::FindItems(_)
            | Action::EffortRefused
            | Action::Used(_)
            | Action::ListTools { .. }
            | Action::ClaimApprovals(_)
            | Action::Suspect(_)
            | Action::CountTokens(_)
            | Action::LeftOut(_)
            | Action::Complained(_)
            | Action::LostCalls(_)
            | Action::RunTool(_)
            | Action::Begin
            | Action::Answer
            | Action::Persist(_)
            | Action::End => name(action),
        });
    }
    (bench, asked)
}

#[test]
fn sealed_thinking_comes_back_to_the_model() {
    let mut item = reasoning(&thought(&json!({"store": false})));
    item["content"] = Value::Null;
    let (_, asked) = sent_back(&item, "o", "m");
    let body: Value = serde_json::from_str(&asked[0]).unwrap();
    assert_eq!(body["messages"][1]["reasoning_content"], THOUGHT);
    // Without an id, as clients send what they keep themselves.
    item.as_object_mut().unwrap().remove("id");
    assert!(sent_back(&item, "o", "m").1[0].contains("Then I act."));
    // The raw text is as good.
    item["encrypted_content"] = json!("of another server");
    item["content"] = json!([{"type": "reasoning_text", "text": "raw"}]);
    assert!(sent_back(&item, "o", "m").1[0].contains("\"reasoning_content\":\"raw\""));
}

#[test]
fn without_retention_nothing_is_stored_or_continued() {
    let rules = Rules {
        retention: crate::responses::request::Retention::None,
        ..Rules::default()
    };
    let decode = |body: &Value| {
        let body = body.to_string();
        CreateRequest::decode(body.as_bytes(), &rules, &mut CountingIds::default())
    };
    assert!(!decode(&json!({"model": "m", "input": "x"})).unwrap().store);
    for (extra, param) in [
        (json!({"store": true}), "store"),
        (
            json!({"previous_response_id": "resp_1"}),
            "previous_response_id",
        ),
        (
            json!({"input": [{"type": "item_reference", "id": "rs_1"}]}),
            "input[0]",
        ),
    ] {
        let mut body = json!({"model": "m", "input": "x"});
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        let error = decode(&body).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param));
        assert_eq!(error.code.wire(), Some("unsupported_value"));
    }
}

#[test]
fn an_envelope_that_does_not_open_costs_itself_and_is_told() {
    let keys = SealKeys::new([7; 32], &[], None);
    let (owner, other) = (Owner::new("o"), Owner::new("p"));
    let sealed = |owner, model| {
        let bond = Bond { owner, model };
        keys.seal("thought", bond, NOW, &mut CountingIds::default())
            .unwrap()
    };
    let item = |id: &str, sealed: &str| {
        json!({"type": "reasoning", "id": id, "encrypted_content": sealed,
        "summary": [{"type": "summary_text", "text": format!("summary {id}")}]})
    };
    let body = json!({"model": "m", "store": false, "input": [{"role": "user", "content": "x"},
        item("rs_own", &sealed(&owner, "m")), item("rs_model", &sealed(&owner, "another")),
        item("rs_owner", &sealed(&other, "m")), item("rs_foreign", "gAAAAABo"),
        {"role": "assistant", "content": "said"}, {"role": "user", "content": "y"}]});
    let mut bench = Bench::new(&body);
    bench
        .turn
        .step(NOW, Input::History(Vec::new()), &mut bench.effects);
    let Some(Action::CallModel(asked)) = bench.effects.actions.pop() else {
        panic!("not asked");
    };
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    assert_eq!(
        asked["messages"][1]["reasoning_content"],
        "thought\n\nsummary rs_model\n\nsummary rs_owner\n\nsummary rs_foreign"
    );
    let answer = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]});
    let _actions = bench.step(Input::UpstreamAnswer(answer.to_string().as_bytes()));
    let told: Value = serde_json::from_slice(&bench.effects.bytes).unwrap();
    let removed = |id: &str, reason: &str| json!({"id": id, "action": "removed", "type": "reasoning", "reason": reason});
    assert_eq!(
        told["input_transformations"],
        json!([
            removed("rs_model", "model_mismatch"),
            removed("rs_owner", "organization_mismatch"),
            removed("rs_foreign", "organization_mismatch")
        ])
    );
    // Where nothing was left out nothing is said.
    let whole = foreign_calls::whole(&json!({"model": "m", "input": "x"}), &answer);
    assert_eq!(whole.get("input_transformations"), None);
}
