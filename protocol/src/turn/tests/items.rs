//! Items of every type in the input: what the model is told of them, and how references are resolved.

use super::*;
use crate::history;
use crate::ids::ItemIds;
use crate::responses::item::Item;

fn items(items: &Value) -> Vec<Item> {
    history::parse_items(&items.to_string()).unwrap()
}

/// The body that the model is sent for this input, or what the step led to.
fn asked(bench: &mut Bench, input: Input<'_>) -> Result<Value, Vec<String>> {
    bench.turn.step(NOW, input, &mut bench.effects);
    let mut actions: Vec<Action> = bench.effects.actions.drain(..).collect();
    match actions.pop() {
        Some(Action::CallModel(body)) => Ok(serde_json::from_slice(&body).unwrap()),
        Some(last) => {
            actions.push(last);
            Err(actions.iter().map(name).collect())
        }
        None => Err(Vec::new()),
    }
}

fn rendered(input: &Value) -> Value {
    let mut bench = Bench::new(&json!({"model": "m", "input": input}));
    asked(&mut bench, Input::History(Vec::new())).unwrap()
}

fn item_id(response: u128, number: u32) -> String {
    format!("rs_{response:032x}{number:04x}")
}

#[test]
fn a_reference_is_looked_up_in_its_response() {
    let (id, other) = (item_id(5, 1), item_id(6, 1));
    let body = json!({"model": "m", "input": [{"role": "user", "content": "x"},
        {"type": "item_reference", "id": id}, {"id": item_id(5, 2)}]});
    let mut bench = Bench::new(&body);
    let find = asked(&mut bench, Input::History(Vec::new())).unwrap_err();
    assert_eq!(find, [format!("find [{id:?}, {:?}]", item_id(5, 2))]);
    let found = items(&json!([
        {"type": "reasoning", "id": id, "summary": [], "content": [{"type": "reasoning_text", "text": "thought"}]},
        {"type": "message", "id": item_id(5, 2), "role": "assistant", "content": "said"},
        {"type": "message", "id": other, "role": "user", "content": "not asked for"}]));
    let asked_for = asked(&mut bench, Input::Found(found)).unwrap();
    assert_eq!(
        asked_for["messages"],
        json!([{"role": "user", "content": "x"},
            {"role": "assistant", "content": "said", "reasoning_content": "thought"}])
    );
}

#[test]
fn a_reference_into_the_history_is_not_said_twice() {
    let id = item_id(5, 1);
    let body = json!({"model": "m", "previous_response_id": "resp_5", "input": [
        {"type": "item_reference", "id": id}, {"role": "user", "content": "next"}]});
    let earlier =
        items(&json!([{"type": "message", "id": id, "role": "user", "content": "first"}]));
    let body = asked(&mut Bench::new(&body), Input::History(earlier)).unwrap();
    assert_eq!(body["messages"].as_array().unwrap().len(), 2);
}

#[test]
fn references_that_lead_nowhere_are_refused() {
    for id in [item_id(5, 1), "rs_foreign".to_owned()] {
        let body = json!({"model": "m", "input": [{"type": "item_reference", "id": id}]});
        let mut bench = Bench::new(&body);
        let mut actions = asked(&mut bench, Input::History(Vec::new())).unwrap_err();
        if actions[0].starts_with("find") {
            actions = asked(&mut bench, Input::Found(Vec::new())).unwrap_err();
        }
        assert_eq!(actions, ["refuse 400", "end"]);
    }
    let many: Vec<Value> = (0..10_001).map(|n| json!({"id": item_id(n, 1)})).collect();
    let mut bench = Bench::new(&json!({"model": "m", "input": many}));
    let actions = bench.step(Input::History(Vec::new()));
    assert_eq!(actions, ["refuse 400", "end"]);
}

#[test]
fn items_of_a_turn_lead_to_its_response() {
    let (id, mut ids) = ItemIds::fresh(Box::new(CountingIds::default()));
    let body = json!({"model": "m", "input": "x"}).to_string();
    let request = CreateRequest::decode(body.as_bytes(), &Rules::default(), &mut ids).unwrap();
    let item = request.input[0].id();
    assert_eq!(crate::ids::response_of(item), Some(id));
}

#[test]
fn settings_change_from_an_item_on() {
    let update = |effort: &str| {
        json!({"type": "configuration_update", "reasoning": {"effort": effort},
            "text": {"format": {"type": "json_object"}}})
    };
    let user = json!({"role": "user", "content": "x"});
    let body = rendered(&json!([user, update("low"), update("high")]));
    assert_eq!(body["reasoning_effort"], "high");
    assert_eq!(body["response_format"]["type"], "json_object");
    assert_eq!(body["messages"].as_array().unwrap().len(), 1);
    // What a request says holds against an earlier turn's update.
    let request = json!({"model": "m", "input": "x", "previous_response_id": "r",
        "reasoning": {"effort": "minimal"}});
    let earlier = items(&json!([update("low")]));
    let body = asked(&mut Bench::new(&request), Input::History(earlier)).unwrap();
    assert_eq!(body["reasoning_effort"], "minimal");
    assert_eq!(body["response_format"]["type"], "json_object");
}

#[test]
fn what_other_servers_tools_did_is_told() {
    for (item, name, arguments, told) in [
        (
            json!({"type": "web_search_call", "id": "ws_1", "status": "completed",
                "action": {"type": "search", "query": "q"}}),
            "web_search",
            json!({"type": "search", "query": "q"}),
            json!("(the results are not known any more)"),
        ),
        (
            json!({"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["q"],
                "results": [{"text": "t"}]}),
            "file_search",
            json!({"queries": ["q"]}),
            json!("[{\"text\":\"t\"}]"),
        ),
        (
            json!({"type": "image_generation_call", "id": "ig_1", "status": "completed",
                "result": "aGk="}),
            "image_generation",
            json!({}),
            json!("[a picture was made and shown]"),
        ),
    ] {
        let body = rendered(&json!([{"role": "user", "content": "x"}, item]));
        let call = &body["messages"][1]["tool_calls"][0];
        assert_eq!(call["function"]["name"], name);
        assert_eq!(call["id"], item["id"]);
        let said: Value =
            serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(said, arguments);
        assert_eq!(body["messages"][2]["content"], told);
    }
}

#[test]
fn steps_at_a_computer_are_history() {
    let body = rendered(&json!([
        {"type": "computer_call", "id": "cu_1", "call_id": "c", "status": "completed",
            "action": {"type": "click", "x": 1, "y": 2, "button": "left"}, "pending_safety_checks": []},
        {"type": "computer_call_output", "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": "data:x"}}]));
    let call = &body["messages"][0]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "computer");
    assert!(call["arguments"].as_str().unwrap().contains("\"x\":1"));
    let image = &body["messages"][1]["content"][0]["image_url"]["url"];
    assert_eq!(image, "data:x");
    // Newer models take several steps at once.
    let body = rendered(&json!([
        {"type": "computer_call", "id": "cu_1", "call_id": "c", "status": "completed", "action": null,
            "actions": [{"type": "screenshot"}], "pending_safety_checks": []},
        {"type": "computer_call_output", "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": "data:x"}}]));
    let call = &body["messages"][0]["tool_calls"][0]["function"];
    assert_eq!(
        call["arguments"],
        "{\"actions\":[{\"type\":\"screenshot\"}]}"
    );
}

#[test]
fn instructions_at_the_beginning_are_one_message() {
    let developer = |text: &str| json!({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": text}]});
    let mut bench = Bench::new(
        &json!({"model": "m", "instructions": "a", "input": [developer("b"),
        {"role": "system", "content": "c"}, {"role": "user", "content": "u"}, developer("later")]}),
    );
    let body = asked(&mut bench, Input::History(Vec::new())).unwrap();
    assert_eq!(
        body["messages"],
        json!([{"role": "system", "content": "a\n\nb\n\nc"}, {"role": "user", "content": "u\n\nlater"}])
    );
}

#[test]
fn malformed_items_are_refused_by_name() {
    for (item, place) in [
        (
            json!({"type": "shell_call", "call_id": "c", "action": {"commands": "ls"}}),
            "input[0].action",
        ),
        (
            json!({"type": "shell_call_output", "call_id": "c", "output": "text"}),
            "input[0].output",
        ),
        (
            json!({"type": "apply_patch_call", "call_id": "c", "operation": {}}),
            "input[0].operation",
        ),
        (
            json!({"type": "apply_patch_call_output", "status": "failed"}),
            "input[0].call_id",
        ),
        (
            json!({"type": "additional_tools", "role": "developer", "tools": [{"type": "custom"}]}),
            "input[0].tools[0].name",
        ),
        (
            json!({"type": "configuration_update", "reasoning": {"effort": "huge"}}),
            "input[0].reasoning.effort",
        ),
        (json!({"type": "agent_message"}), "input[0].type"),
    ] {
        let body = json!({"model": "m", "input": [item]}).to_string();
        let error = CreateRequest::decode(
            body.as_bytes(),
            &Rules::default(),
            &mut CountingIds::default(),
        )
        .unwrap_err();
        assert_eq!(error.param.as_deref(), Some(place), "{item}");
    }
}

/// What is stored is read back as the same, whatever the type.
#[test]
fn every_item_survives_storage() {
    let all = json!([
        {"type": "custom_tool_call", "call_id": "c", "name": "n", "namespace": "s", "input": "i"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "o"},
        {"type": "tool_search_call", "call_id": "t", "execution": "client", "arguments": {"q": [1]}},
        {"type": "tool_search_output", "call_id": "t", "execution": "client", "tools": [{"type": "function", "name": "f"}, {"type": "shell"}]},
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "namespace", "name": "n", "description": "", "tools": []}]},
        {"type": "configuration_update", "reasoning": {"effort": "low"}},
        {"type": "local_shell_call", "call_id": "l", "action": {"type": "exec", "command": ["ls"], "env": {}}},
        {"type": "local_shell_call_output", "call_id": "l", "output": "o"},
        {"type": "shell_call", "call_id": "s", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "s", "output": []},
        {"type": "apply_patch_call", "call_id": "a", "status": "completed", "operation": {"type": "delete_file", "path": "p"}},
        {"type": "apply_patch_call_output", "call_id": "a", "status": "completed"},
        {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "message", "role": "assistant", "phase": "commentary", "content": [{"type": "input_text", "text": "t"}]},
    ]);
    let request = json!({"model": "m", "input": all}).to_string();
    let request = CreateRequest::decode(
        request.as_bytes(),
        &Rules::default(),
        &mut CountingIds::default(),
    )
    .unwrap();
    let text = history::items_json(&request.input);
    let back = history::parse_items(&text).unwrap();
    assert_eq!(history::items_json(&back), text);
    let written: Value = serde_json::from_str(&text).unwrap();
    for (sent, kept) in all
        .as_array()
        .unwrap()
        .iter()
        .zip(written.as_array().unwrap())
    {
        assert_eq!(sent["type"], kept["type"]);
        assert!(kept["id"].is_string(), "{kept}");
        for (name, value) in sent.as_object().unwrap() {
            let deep = matches!(&**name, "content" | "tools" | "action");
            assert!(deep || kept[name] == *value, "{name}: {kept}");
        }
    }
}
