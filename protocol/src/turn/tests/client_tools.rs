//! Tools that the client runs: what the model is shown of each type, and what the client is told.

use super::*;

/// One answer of the model to one request.
struct Exchange {
    asked: Value,
    events: Vec<Value>,
}

impl Exchange {
    /// The upstream answers with these calls, in pieces of three characters.
    fn calls(body: &Value, calls: &[(&str, &str)]) -> Self {
        let mut chunks = Vec::new();
        for (index, (name, arguments)) in calls.iter().enumerate() {
            let call = |function: &Value| {
                let call = json!({"index": index, "id": format!("u{index}"), "function": function});
                delta(&json!({"tool_calls": [call]}))
            };
            chunks.push(call(&json!({"name": name, "arguments": ""})));
            let characters: Vec<char> = arguments.chars().collect();
            for piece in characters.chunks(3) {
                let piece: String = piece.iter().collect();
                chunks.push(call(&json!({"arguments": piece})));
            }
        }
        Self::answered(body, &chunks, "tool_calls")
    }

    fn answered(body: &Value, chunks: &[Vec<u8>], reason: &str) -> Self {
        let mut body = body.clone();
        body["model"] = json!("m");
        body["stream"] = json!(true);
        if body["input"].is_null() {
            body["input"] = json!("x");
        }
        let mut bench = Bench::new(&body);
        bench
            .turn
            .step(NOW, Input::History(Vec::new()), &mut bench.effects);
        let asked = match bench.effects.actions.pop() {
            Some(Action::CallModel(body)) => serde_json::from_slice(&body).unwrap(),
            other => panic!("{other:?}"),
        };
        for chunk in chunks {
            bench.step(Input::UpstreamBytes(chunk));
        }
        bench.step(Input::UpstreamBytes(&finish(reason)));
        bench.step(Input::UpstreamBytes(b"data: [DONE]\n\n"));
        bench.step(Input::Stored(Kept::Yes));
        Self {
            asked,
            events: bench.events(),
        }
    }

    fn output(&self) -> &Vec<Value> {
        self.events.last().unwrap()["response"]["output"]
            .as_array()
            .unwrap()
    }

    /// The only item, without its id.
    fn item(&self) -> Value {
        let [item] = &self.output()[..] else {
            panic!("{:?}", self.output())
        };
        let mut item = item.clone();
        item.as_object_mut().unwrap().remove("id").unwrap();
        item
    }

    fn joined(&self, kind: &str) -> String {
        let deltas = self.events.iter().filter(|event| event["type"] == kind);
        deltas
            .map(|event| event["delta"].as_str().unwrap())
            .collect()
    }

    fn shown(&self) -> Vec<&str> {
        let tools = self.asked["tools"].as_array().into_iter().flatten();
        tools
            .map(|tool| tool["function"]["name"].as_str().unwrap())
            .collect()
    }

    /// The messages of a request that sends everything back with this output.
    fn replayed(&self, body: &Value, output: &Value) -> Vec<Value> {
        let mut next = body.clone();
        let mut input = vec![json!({"role": "user", "content": "x"})];
        input.extend(body["input"].as_array().into_iter().flatten().cloned());
        input.extend(self.output().iter().cloned());
        input.push(output.clone());
        next["input"] = json!(input);
        next.as_object_mut().unwrap().remove("tool_choice");
        let next = Exchange::answered(&next, &[says("ok")], "stop");
        next.asked["messages"].as_array().unwrap().clone()
    }
}

fn last_call(messages: &[Value]) -> (&str, Value, &Value) {
    let [.., call, answer] = messages else {
        panic!("{messages:?}")
    };
    let function = &call["tool_calls"][0]["function"];
    let arguments = function["arguments"].as_str().unwrap();
    assert_eq!(call["tool_calls"][0]["id"], answer["tool_call_id"]);
    (
        function["name"].as_str().unwrap(),
        serde_json::from_str(arguments).unwrap(),
        &answer["content"],
    )
}

const PATCH: &str = "*** Begin \"Patch\"\n+é\n";

#[test]
fn a_custom_tool_gets_its_text() {
    let body = json!({"tools": [{"type": "custom", "name": "patch", "description": "d",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: \"a\""}}]});
    let arguments = json!({"input": PATCH}).to_string();
    let exchange = Exchange::calls(&body, &[("patch", &arguments)]);
    let function = &exchange.asked["tools"][0]["function"];
    assert_eq!(function["parameters"]["required"], json!(["input"]));
    let description = function["description"].as_str().unwrap();
    assert!(description.contains("start: \"a\""), "{description}");
    assert_eq!(
        exchange.item(),
        json!({"type": "custom_tool_call", "status": "completed", "call_id": "u0", "name": "patch",
            "input": PATCH})
    );
    assert_eq!(
        exchange.joined("response.custom_tool_call_input.delta"),
        PATCH
    );
    let output = json!({"type": "custom_tool_call_output", "call_id": "u0",
        "output": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]});
    let messages = exchange.replayed(&body, &output);
    let (name, arguments, told) = last_call(&messages);
    assert_eq!((name, arguments), ("patch", json!({"input": PATCH})));
    assert_eq!(told, "a\nb");
}

#[test]
fn a_namespace_is_flattened_and_restored() {
    let body = json!({"tools": [{"type": "namespace", "name": "files", "description": "d", "tools": [
        {"type": "function", "name": "read", "parameters": {"type": "object"}, "strict": true},
        {"type": "custom", "name": "write"}]}, {"type": "function", "name": "read"}]});
    let exchange = Exchange::calls(&body, &[("files__read", "{}")]);
    assert_eq!(exchange.shown(), ["files__read", "files__write", "read"]);
    assert_eq!(exchange.asked["tools"][0]["function"]["strict"], true);
    assert_eq!(
        exchange.item(),
        json!({"type": "function_call", "status": "completed", "call_id": "u0", "name": "read",
            "namespace": "files", "arguments": "{}"})
    );
    let output = json!({"type": "function_call_output", "call_id": "u0", "output": "o"});
    assert_eq!(
        last_call(&exchange.replayed(&body, &output)).0,
        "files__read"
    );
    // Without the tools, as a client that sends history alone.
    let bare = exchange.replayed(&json!({}), &output);
    assert_eq!(last_call(&bare).0, "files__read");
    let exchange = Exchange::calls(&body, &[("write", r#"{"input":"i"}"#)]);
    assert_eq!(exchange.item()["namespace"], "files");
    let exchange = Exchange::calls(&body, &[("read", "{}")]);
    assert_eq!(exchange.item().get("namespace"), None);
}

#[test]
fn the_first_tool_of_a_namespace_says_what_it_is_for() {
    let space = |name: &str, about: &str| {
        json!({"type": "namespace", "name": name, "description": about, "tools": [
            {"type": "function", "name": "read", "description": "Reads."},
            {"type": "custom", "name": "write", "description": "Writes."}]})
    };
    let mut body = json!({"tools": [space("files", "On this machine."), space("mail", " ")],
        "input": [{"type": "additional_tools", "role": "developer", "tools": [
            space("late", "Came later.")]}, {"role": "user", "content": "x"}]});
    let told = |body: &Value| {
        let exchange = Exchange::calls(body, &[("files__read", "{}")]);
        let tools = exchange.asked["tools"].as_array().unwrap().clone();
        let told = tools.iter().map(|tool| &tool["function"]["description"]);
        told.map(|told| told.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(&body),
        [
            "Reads.\n\nAbout all functions whose names begin with `files__`: On this machine.",
            "Writes.",
            "Reads.",
            "Writes.",
            "Reads.\n\nAbout all functions whose names begin with `late__`: Came later.",
            "Writes."
        ]
    );
    // The first one is the first that is shown.
    body["tools"][0]["tools"][0]["defer_loading"] = json!(true);
    let search = json!({"type": "tool_search", "execution": "client"});
    body["tools"].as_array_mut().unwrap().push(search);
    let about = "About all functions whose names begin with `files__`: On this machine.";
    assert_eq!(told(&body)[0], format!("Writes.\n\n{about}"));
}

#[test]
fn additional_tools_can_be_called() {
    let body = json!({"input": [{"type": "additional_tools", "role": "developer", "tools": [
        {"type": "namespace", "name": "functions", "description": "", "tools": [
            {"type": "custom", "name": "exec"}]}]}, {"role": "user", "content": "x"}],
        "tool_choice": "required"});
    let exchange = Exchange::calls(&body, &[("functions__exec", r#"{"input":"1"}"#)]);
    assert_eq!(exchange.shown(), ["functions__exec"]);
    assert_eq!(exchange.asked["messages"].as_array().unwrap().len(), 1);
    assert_eq!(exchange.item()["namespace"], "functions");
}

#[test]
fn a_search_loads_tools() {
    let late = json!({"type": "function", "name": "late", "defer_loading": true});
    let body = json!({"tools": [{"type": "tool_search", "execution": "client"}, late]});
    let exchange = Exchange::calls(&body, &[("tool_search", r#"{"query":"q"}"#)]);
    assert_eq!(exchange.shown(), ["tool_search"]);
    assert_eq!(
        exchange.item(),
        json!({"type": "tool_search_call", "status": "completed", "call_id": "u0",
            "execution": "client", "arguments": {"query": "q"}})
    );
    let found = json!({"type": "tool_search_output", "call_id": "u0", "execution": "client",
        "status": "completed", "tools": [late, {"type": "namespace", "name": "n",
            "description": "", "tools": [{"type": "function", "name": "f"}]}]});
    let messages = exchange.replayed(&body, &found);
    let (name, arguments, told) = last_call(&messages);
    assert_eq!((name, arguments), ("tool_search", json!({"query": "q"})));
    assert_eq!(told, "these tools can be called now: late, n__f");
    let mut next = body.clone();
    next["input"] = json!([{"role": "user", "content": "x"}, exchange.output()[0], found]);
    let next = Exchange::calls(&next, &[("n__f", "{}")]);
    assert_eq!(next.shown(), ["tool_search", "late", "n__f"]);
    assert_eq!(next.item()["namespace"], "n");
    // A search that the server would run: everything is shown at once.
    let body = json!({"tools": [{"type": "tool_search"}, late]});
    assert_eq!(Exchange::calls(&body, &[("late", "{}")]).shown(), ["late"]);
}

#[test]
fn emulated_tools_have_typed_calls() {
    let shell_output = json!({"type": "shell_call_output", "call_id": "u0", "output": [
        {"stdout": "one", "stderr": "two\n", "outcome": {"type": "exit", "exit_code": 1}},
        {"stdout": "", "stderr": "", "outcome": {"type": "timeout"}}]});
    for (kind, arguments, expected, output, told) in [
        (
            "local_shell",
            json!({"command": ["ls"], "env": {}, "timeout_ms": 5}),
            json!({"type": "local_shell_call", "action":
                {"type": "exec", "command": ["ls"], "env": {}, "timeout_ms": 5}}),
            json!({"type": "local_shell_call_output", "id": "u0", "output": "o"}),
            "o",
        ),
        (
            "shell",
            json!({"commands": ["ls", "pwd"], "timeout_ms": null, "max_output_length": null}),
            json!({"type": "shell_call", "environment": {"type": "local"}, "action":
                {"commands": ["ls", "pwd"], "timeout_ms": null, "max_output_length": null}}),
            shell_output,
            "one\ntwo\n[exit 1]\n[timed out]",
        ),
        (
            "apply_patch",
            json!({"type": "update_file", "path": "p", "diff": "@@\n"}),
            json!({"type": "apply_patch_call", "operation":
                {"type": "update_file", "path": "p", "diff": "@@\n"}}),
            json!({"type": "apply_patch_call_output", "call_id": "u0", "status": "failed",
                "output": "no such file"}),
            "failed\nno such file",
        ),
    ] {
        let body = json!({"tools": [{"type": kind}]});
        let exchange = Exchange::calls(&body, &[(kind, &arguments.to_string())]);
        let mut wanted = expected.clone();
        wanted["status"] = json!("completed");
        wanted["call_id"] = json!("u0");
        assert_eq!(exchange.item(), wanted, "{kind}");
        let messages = exchange.replayed(&body, &output);
        let (name, replayed, answer) = last_call(&messages);
        assert_eq!((name, replayed), (kind, arguments));
        assert_eq!(answer, told, "{kind}");
        // Forced.
        let mut forced = body.clone();
        forced["tool_choice"] = json!({"type": kind});
        let exchange = Exchange::answered(&forced, &[says("x")], "stop");
        assert_eq!(exchange.asked["tool_choice"]["function"]["name"], kind);
    }
}

#[test]
fn arguments_that_a_typed_call_cannot_hold_are_kept() {
    let body = json!({"tools": [{"type": "shell"}, {"type": "custom", "name": "c"}]});
    for arguments in ["{\"commands\":[\"ls", "{}", "ls -l"] {
        let exchange = Exchange::calls(&body, &[("shell", arguments)]);
        let item = exchange.item();
        assert_eq!(item["type"], "function_call");
        assert_eq!(item["status"], "incomplete");
        assert_eq!(item["arguments"], arguments);
        let joined = exchange.joined("response.function_call_arguments.delta");
        assert_eq!(joined, arguments);
    }
    let exchange = Exchange::calls(&body, &[("c", "ls -l")]);
    assert_eq!(exchange.item()["input"], "ls -l");
    assert_eq!(exchange.item()["status"], "incomplete");
}

#[test]
fn a_forced_grammar_is_held_by_the_model_server() {
    let mut body = json!({"tools": [{"type": "custom", "name": "c", "format":
        {"type": "grammar", "syntax": "regex", "definition": "a+"}}, {"type": "function", "name": "f"}],
        "tool_choice": {"type": "custom", "name": "c"}});
    let pieces = [delta(&json!({"reasoning": "hm"})), says("a"), says("aa")];
    let exchange = Exchange::answered(&body, &pieces, "stop");
    assert_eq!(exchange.asked["structured_outputs"], json!({"regex": "a+"}));
    assert_eq!(exchange.asked["tool_choice"], "none");
    let [thought, call] = &exchange.output()[..] else {
        panic!("{:?}", exchange.output())
    };
    assert_eq!(thought["type"], "reasoning");
    assert_eq!(
        (&call["input"], &call["status"]),
        (&json!("aaa"), &json!("completed"))
    );
    assert_eq!(
        exchange.joined("response.custom_tool_call_input.delta"),
        "aaa"
    );
    assert!(!call["call_id"].as_str().unwrap().is_empty());
    body["tool_choice"] = json!("auto");
    let exchange = Exchange::answered(&body, &[says("a")], "stop");
    assert_eq!(exchange.asked.get("structured_outputs"), None);
    assert_eq!(exchange.item()["type"], "message");
    // A text tool is forced as any function.
    let body = json!({"tools": [{"type": "custom", "name": "c"}],
        "tool_choice": {"type": "custom", "name": "c"}});
    let exchange = Exchange::calls(&body, &[("c", r#"{"input":"i"}"#)]);
    assert_eq!(exchange.asked["tool_choice"]["function"]["name"], "c");
    assert_eq!(exchange.item()["input"], "i");
}

#[test]
fn calls_outside_allowed_tools_are_dropped() {
    let body = json!({"tools": [{"type": "function", "name": "f"}, {"type": "shell"},
        {"type": "custom", "name": "c"}], "tool_choice": {"type": "allowed_tools", "mode": "auto",
        "tools": [{"type": "custom", "name": "c"}]}});
    let calls = [
        ("f", "{}"),
        ("c", r#"{"input":"i"}"#),
        ("shell", r#"{"commands":[]}"#),
    ];
    let exchange = Exchange::calls(&body, &calls);
    assert_eq!(exchange.shown(), ["c"]);
    assert_eq!(exchange.item()["input"], "i");
    let status = &exchange.events.last().unwrap()["response"]["status"];
    assert_eq!(status, "completed");
}

#[test]
fn a_choice_that_nothing_offers_is_refused() {
    let choice = json!({"type": "function", "name": "nobody"});
    let body = json!({"model": "m", "previous_response_id": "resp_0", "tool_choice": choice,
        "input": [{"role": "user", "content": "x"}]});
    let mut bench = Bench::new(&body);
    let actions = bench.step(Input::History(Vec::new()));
    assert_eq!(actions, ["refuse 400", "end"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Valid arguments cut at any byte: the item says so, and the next turn can be rendered.
    #[test]
    fn cut_arguments_never_poison_the_next_turn(
        text in any::<String>().prop_map(|text| text.replace('\0', "")),
        tool in 0_usize..5,
        answered in any::<bool>(),
    ) {
        let (name, arguments, output) = [
            ("f", json!({"a": [text], "b": {"c": 1}}), "function_call_output"),
            ("c", json!({"input": text}), "custom_tool_call_output"),
            ("shell", json!({"commands": [text]}), "function_call_output"),
            ("apply_patch", json!({"type": "delete_file", "path": text}), "function_call_output"),
            ("tool_search", json!({"query": text}), "function_call_output"),
        ][tool].clone();
        let arguments = arguments.to_string();
        let body = json!({"tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"},
            {"type": "shell"}, {"type": "apply_patch"}, {"type": "tool_search", "execution": "client"}]});
        for cut in 0..arguments.len() {
            let Some(beginning) = arguments.get(..cut) else {
                continue;
            };
            let exchange = Exchange::calls(&body, &[(name, beginning)]);
            // Nothing at all is how a call without arguments is written.
            let empty = cut == 0 && name != "c";
            let item = exchange.item();
            if !(empty && matches!(name, "f" | "tool_search")) {
                prop_assert_eq!(&item["status"], "incomplete", "{}", beginning);
            }
            if item["type"] == "function_call" && !empty {
                prop_assert_eq!(&item["arguments"], beginning);
            }
            let next = if answered || item["status"] == "completed" {
                let kind = if item["type"] == "tool_search_call" { "tool_search_output" } else { output };
                json!({"type": kind, "call_id": "u0", "output": "o", "tools": []})
            } else {
                json!({"role": "user", "content": "again"})
            };
            let messages = exchange.replayed(&body, &next);
            for call in messages.iter().filter_map(|m| m["tool_calls"].as_array()).flatten() {
                let arguments = call["function"]["arguments"].as_str().unwrap();
                prop_assert!(serde_json::from_str::<Value>(arguments).unwrap().is_object());
            }
        }
    }
}
