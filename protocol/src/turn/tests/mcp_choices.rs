//! Which MCP tools the model may call: allowed ones, chosen ones, and names of none.

use super::mcp::{ADD, Mcp, listed};
use super::*;

#[test]
fn m7_only_allowed_tools_are_shown_and_called() {
    let only = json!({"allowed_tools": {"read_only": true}});
    let mut turn = Mcp::new(&only, &json!({}), Vec::new());
    turn.answer(Ok(listed(&["add", "read_it"])));
    assert_eq!(turn.tool_names(0), ["mcp__s__read_it"]);
    turn.calls(&[ADD]);
    assert!(turn.runs.is_empty());
    let mut none = Mcp::new(&json!({"allowed_tools": ["gone"]}), &json!({}), Vec::new());
    none.answer(Ok(listed(&["add"])));
    assert_eq!(none.refusal(), 400);
}

#[test]
fn m7_a_name_that_is_not_there_is_told_to_the_model() {
    // One that is not allowed, one of no server, one of nothing at all; between them one that is.
    let only = json!({"allowed_tools": {"read_only": true}});
    let mut turn = Mcp::new(&only, &json!({}), Vec::new());
    turn.answer(Ok(listed(&["add", "read_it"])));
    let names = [
        "mcp__s__add",
        "mcp__s__read_it",
        "mcp__other__x",
        "mcp__",
        "mcp____",
    ];
    turn.calls(&names.map(|name| (name, "{}")));
    assert_eq!(turn.runs.len(), 1);
    turn.gives("read");
    let told = turn.bodies[1]["messages"].to_string();
    assert_eq!(
        told.matches("there is no MCP tool of this name").count(),
        4,
        "{told}"
    );
    turn.says("done");
    let (resource, items) = turn.stored();
    let output = resource["output"].as_array().unwrap();
    let calls: Vec<_> = output[1..=5]
        .iter()
        .map(|item| item["type"].clone())
        .collect();
    assert_eq!(calls, ["mcp_call"; 5]);
    let labels: Vec<_> = output[1..=5]
        .iter()
        .map(|item| &item["server_label"])
        .collect();
    assert_eq!(labels, ["s", "s", "other", "unknown", "unknown"]);
    assert_eq!(output[1]["error"]["code"], -32602);
    assert_eq!(output[1]["name"], "add");

    // A model remembers: in a later turn without any server it is told as well.
    let mut bench = Bench::new(&json!({"model": "m", "input": "y", "stream": true}));
    bench
        .turn
        .step(NOW, Input::History(items), &mut bench.effects);
    bench.effects.actions.clear();
    let call = json!({"index": 0, "id": "u", "function": {"name": ADD.0, "arguments": "{}"}});
    for bytes in [
        delta(&json!({"tool_calls": [call]})),
        finish("tool_calls"),
        b"data: [DONE]\n\n".to_vec(),
    ] {
        bench
            .turn
            .step(NOW, Input::UpstreamBytes(&bytes), &mut bench.effects);
    }
    let called = bench
        .effects
        .actions
        .iter()
        .any(|action| matches!(action, Action::CallModel(_)));
    assert!(called, "the model goes on");
}

#[test]
fn m7_names_of_the_clients_own_tools_stay_theirs() {
    let tools =
        json!([{"type": "mcp", "server_label": "s"}, {"type": "function", "name": "mcp__mine__x"}]);
    let mut turn = Mcp::new(&json!({}), &json!({"tools": tools}), Vec::new());
    turn.answer(Ok(listed(&["add"])));
    turn.calls(&[("mcp__mine__x", "{}"), ("mcp__mine__y", "{}")]);
    let (resource, _) = turn.stored();
    assert_eq!(resource["output"][1]["type"], "function_call");
    assert_eq!(resource["output"][2]["type"], "function_call");
}

/// A turn with the servers `s` and `t`, both with these tools, and this choice.
fn two_servers(choice: &Value) -> Mcp {
    let tools = json!([
        {"type": "mcp", "server_label": "s"}, {"type": "mcp", "server_label": "t"},
        {"type": "function", "name": "f"},
    ]);
    let body =
        json!({"model": "m", "input": "x", "stream": true, "tools": tools, "tool_choice": choice});
    let mut made = Mcp {
        bench: Bench::new(&body),
        bodies: Vec::new(),
        runs: Vec::new(),
        actions: Vec::new(),
    };
    made.step(Input::History(Vec::new()));
    for tool_index in [1, 0] {
        let answer = Ok(listed(&["add", "read_it"]));
        made.step(Input::ToolsListed { tool_index, answer });
    }
    made
}

#[test]
fn allowed_tools_name_servers_and_their_tools() {
    let choice =
        |tools: Value| json!({"type": "allowed_tools", "mode": "required", "tools": tools});
    let one = json!({"type": "mcp", "server_label": "s", "name": "add"});
    let all = json!({"type": "mcp", "server_label": "t"});
    for (tools, shown) in [
        (json!([one]), &["mcp__s__add"][..]),
        (json!([all]), &["mcp__t__add", "mcp__t__read_it"]),
        (
            json!([all, one, {"type": "function", "name": "f"}]),
            &["mcp__s__add", "mcp__t__add", "mcp__t__read_it", "f"],
        ),
    ] {
        let mut turn = two_servers(&choice(tools));
        assert_eq!(turn.tool_names(0), shown);
        assert_eq!(turn.bodies[0]["tool_choice"], "required");
        // It holds in every round, and where the model does not keep to it.
        turn.calls(&[(shown[0], "{}"), ("mcp__s__read_it", "{}")]);
        assert_eq!(turn.runs.len(), 1);
        turn.gives("1");
        assert_eq!(turn.tool_names(1), shown);
    }
    let mut unknown = two_servers(&choice(
        json!([{"type": "mcp", "server_label": "t", "name": "gone"}]),
    ));
    assert_eq!(unknown.refusal(), 400);
    for bad in [
        json!({"type": "mcp"}),
        json!({"type": "mcp", "server_label": "u"}),
    ] {
        let tools = json!([{"type": "mcp", "server_label": "s"}]);
        let body = json!({"model": "m", "input": "x", "tools": tools, "tool_choice": choice(json!([bad]))});
        let read = CreateRequest::decode(
            body.to_string().as_bytes(),
            &Rules::default(),
            &mut CountingIds::default(),
        );
        assert_eq!(read.err().unwrap().status, 400, "{bad}");
    }
}

#[test]
fn a_choice_of_a_server_shows_its_tools_alone_until_one_is_called() {
    let mut turn = two_servers(&json!({"type": "mcp", "server_label": "t"}));
    assert_eq!(turn.tool_names(0), ["mcp__t__add", "mcp__t__read_it"]);
    assert_eq!(turn.bodies[0]["tool_choice"], "required");
    turn.calls(&[("mcp__t__add", "{}")]);
    turn.gives("1");
    assert_eq!(turn.tool_names(1).len(), 5);
    assert_eq!(turn.bodies[1]["tool_choice"], "auto");
    let mut unknown = two_servers(&json!({"type": "mcp", "server_label": "t", "name": "gone"}));
    assert_eq!(unknown.refusal(), 400);
}

#[test]
fn a_choice_names_the_tool() {
    let choice = json!({"tool_choice": {"type": "mcp", "server_label": "s", "name": "add"}});
    let mut turn = Mcp::new(&json!({}), &choice, Vec::new());
    turn.answer(Ok(listed(&["add"])));
    assert_eq!(
        turn.bodies[0]["tool_choice"]["function"]["name"],
        "mcp__s__add"
    );
    turn.calls(&[ADD]);
    turn.gives("1");
    assert_eq!(turn.bodies[1]["tool_choice"], "auto");
}
