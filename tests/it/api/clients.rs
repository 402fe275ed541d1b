//! Replays of what real clients send: recorded bodies as they are, and conversations of twenty turns
//! in which each client's way of sending a history back is kept.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::upstream::script::{reasoning, text, tool_call};
use crate::harness::{Client, Fake, Script, TestGateway, check_resource, check_stream};

const FILES: [&str; 9] = [
    "agents-js-0.20",
    "agents-py-0.24",
    "ai-sdk-7-openai-4-open-responses-2",
    "codex-0.169-additional-tools",
    "codex-0.169-gpt55-grammar-schema",
    "codex-0.169-http",
    "codex-0.169-mcp-namespace",
    "langchain-openai-1.7",
    "pydantic-ai-2.68",
];

/// The recorded bodies of a client.
fn recorded(file: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/recorded");
    let text = std::fs::read_to_string(folder.join(format!("{file}.json"))).unwrap();
    let recording: Value = serde_json::from_str(&text).unwrap();
    recording["bodies"].as_array().unwrap().clone()
}

/// Sends a body; gives the terminal resource, checked.
fn ask(client: Client, body: &Value) -> Value {
    let reply = client.create(body);
    assert_eq!(reply.status, 200, "{}\n{body}", reply.text());
    if body["stream"] == true {
        let last = check_stream(&reply.text()).pop().unwrap();
        return last["response"].clone();
    }
    let resource = reply.json();
    check_resource(&resource);
    resource
}

#[test]
fn every_recorded_body_is_answered_streamed_and_not() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    for file in FILES {
        for (index, mut body) in recorded(file).into_iter().enumerate() {
            // These lead to what the recording's own server had stored, or to an MCP server of its own
            // machine, which no client may name.
            let items = body["input"].as_array().into_iter().flatten();
            let refers = items.clone().any(|item| item["type"] == "item_reference");
            let mut tools = body["tools"].as_array().into_iter().flatten();
            let reaches = tools.any(|tool| tool["server_url"].is_string());
            if refers || reaches || body.get("previous_response_id").is_some() {
                assert!((400..404).contains(&client.create(&body).status));
                continue;
            }
            for stream in [false, true] {
                let model = format!("{file} {index} {stream}");
                fake.on(
                    &model,
                    [if stream {
                        Script::says("ok")
                    } else {
                        Script::completion("ok")
                    }],
                );
                body["model"] = json!(model);
                body["stream"] = json!(stream);
                let resource = ask(client, &body);
                assert_eq!(resource["status"], "completed", "{file} {index}");
                assert_eq!(fake.seen(&model).len(), 1);
            }
        }
    }
}

/// How a client sends a history back.
struct Habit {
    /// Whose first recorded body has this index.
    file: &'static str,
    body: usize,
    /// The function that the model calls, its arguments, and the type of the output.
    call: (&'static str, &'static str, &'static str),
    /// An output item as it is sent back.
    back: fn(Value) -> Value,
}

fn without(mut item: Value, names: &[&str]) -> Value {
    for name in names {
        item.as_object_mut().unwrap().remove(*name);
    }
    item
}

fn codex(item: Value) -> Value {
    if item_is_reasoning(&item) {
        // Raw text is not kept: the model sees what was sealed.
        return without(item, &["content", "status"]);
    }
    item
}

fn item_is_reasoning(item: &Value) -> bool {
    item["type"] == "reasoning"
}

const WEATHER: (&str, &str, &str) = (
    "get_weather",
    "{\"city\": \"Paris\"}",
    "function_call_output",
);

const HABITS: [Habit; 10] = [
    Habit {
        file: "agents-py-0.24",
        body: 0,
        call: WEATHER,
        back: |item| item,
    },
    Habit {
        file: "agents-js-0.20",
        body: 0,
        call: WEATHER,
        back: |item| item,
    },
    Habit {
        file: "langchain-openai-1.7",
        body: 2,
        call: WEATHER,
        back: |item| item,
    },
    Habit {
        file: "pydantic-ai-2.68",
        body: 0,
        call: WEATHER,
        back: |mut item| {
            if item_is_reasoning(&item) {
                item["encrypted_content"] = Value::Null;
                return without(item, &["status"]);
            }
            without(item, &["id", "status"])
        },
    },
    Habit {
        file: "ai-sdk-7-openai-4-open-responses-2",
        body: 1,
        call: WEATHER,
        back: |item| {
            if item_is_reasoning(&item) {
                return json!({"type": "item_reference", "id": item["id"]});
            }
            without(item, &["id", "status"])
        },
    },
    Habit {
        file: "ai-sdk-7-openai-4-open-responses-2",
        body: 8,
        call: WEATHER,
        back: |item| without(item, &["status"]),
    },
    Habit {
        file: "codex-0.169-http",
        body: 0,
        call: ("exec_command", "{\"cmd\": \"ls\"}", "function_call_output"),
        back: codex,
    },
    Habit {
        file: "codex-0.169-http",
        body: 0,
        call: (
            "multi_agent_v1__wait_agent",
            "{\"targets\": []}",
            "function_call_output",
        ),
        back: codex,
    },
    Habit {
        file: "codex-0.169-gpt55-grammar-schema",
        body: 0,
        call: (
            "apply_patch",
            "{\"input\": \"*** Begin Patch\"}",
            "custom_tool_call_output",
        ),
        back: codex,
    },
    Habit {
        file: "codex-0.169-additional-tools",
        body: 0,
        call: (
            "functions__exec",
            "{\"input\": \"text(1)\"}",
            "custom_tool_call_output",
        ),
        back: codex,
    },
];

/// What the model does in one round: it thinks, then calls or says something.
fn answer(turn: usize, call: Option<(&str, &str)>, stream: bool) -> Script {
    let thought = format!("thought {turn};");
    let id = format!("call_{turn}");
    match (call, stream) {
        (Some((name, arguments)), true) => Script::stream()
            .data(&reasoning(&thought))
            .all(&tool_call(0, &id, name, &[arguments]))
            .end("tool_calls"),
        (None, true) => Script::stream()
            .data(&reasoning(&thought))
            .data(&text(&format!("said {turn};")))
            .end("stop"),
        (Some((name, arguments)), false) => Script::message(
            &json!({"role": "assistant", "reasoning": thought, "tool_calls": [
                {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]}),
            "tool_calls",
        ),
        (None, false) => Script::message(
            &json!({"role": "assistant", "reasoning": thought, "content": format!("said {turn};")}),
            "stop",
        ),
    }
}

const TURNS: usize = 20;

/// Twenty turns, in each of which the model calls a tool and then answers.
fn converse(fake: &Fake, client: Client, habit: &Habit, stream: bool) {
    let model = format!("{} {} {} {stream}", habit.file, habit.body, habit.call.0);
    let (name, arguments, output) = habit.call;
    let rounds = (0..2 * TURNS).map(|round| {
        let call = (round % 2 == 0).then_some((name, arguments));
        answer(round, call, stream)
    });
    fake.on(&model, rounds);
    let mut body = recorded(habit.file)[habit.body].clone();
    body["model"] = json!(model);
    body["stream"] = json!(stream);
    let first = body["input"].as_array().unwrap().len();
    for round in 0..2 * TURNS {
        let resource = ask(client, &body);
        let mut added: Vec<Value> = resource["output"].as_array().unwrap().clone();
        let call_id = added.last().unwrap()["call_id"].clone();
        added = added.into_iter().map(habit.back).collect();
        added.push(if round % 2 == 0 {
            json!({"type": output, "call_id": call_id, "output": format!("gave {round};")})
        } else {
            json!({"role": "user", "content": format!("next {round};")})
        });
        body["input"].as_array_mut().unwrap().extend(added);
    }
    let sent = body["input"].as_array().unwrap().len();
    assert_eq!(sent, first + 2 * TURNS * 3, "{model}");
    let last = &fake.seen(&model)[2 * TURNS - 1].body["messages"];
    let told = last.to_string();
    for round in 0..2 * TURNS - 1 {
        let words = if round % 2 == 0 {
            ["gave"; 2]
        } else {
            ["said", "next"]
        };
        for word in [&["thought"][..], &words].concat() {
            let piece = format!("{word} {round};");
            assert_eq!(told.matches(&piece).count(), 1, "{model}: {piece}");
        }
    }
    assert_eq!(
        told.matches(&format!("\"name\":\"{name}\"")).count(),
        TURNS,
        "{model}"
    );
    assert_eq!(told.matches("\"role\":\"tool\"").count(), TURNS, "{model}");
}

fn everyone_converses(stream: bool) {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    for habit in &HABITS {
        converse(&fake, gateway.client(), habit, stream);
    }
}

#[test]
fn twenty_turns_as_each_client_sends_them_whole() {
    everyone_converses(false);
}

#[test]
fn twenty_turns_as_each_client_sends_them_streamed() {
    everyone_converses(true);
}

#[test]
fn a_stored_item_may_be_sent_back_with_its_id() {
    let fake = Fake::start();
    fake.on("m", [answer(1, None, false), Script::completion("b")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let first = ask(client, &json!({"model": "m", "input": "x"}));
    let mut input = vec![json!({"role": "user", "content": "x"})];
    input.extend(first["output"].as_array().unwrap().iter().cloned());
    input.push(json!({"role": "user", "content": "y"}));
    // In full, after the same response, and both at once: an id says no more than it says.
    for extra in [json!({}), json!({"previous_response_id": first["id"]})] {
        let mut body = json!({"model": "m", "input": input});
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        let next = ask(client, &body);
        let path = format!("/v1/responses/{}/input_items", next["id"].as_str().unwrap());
        assert_eq!(client.get(&path).status, 200);
    }
}

#[test]
fn a_reasoning_item_without_id_is_taken() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("b")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let thought = json!({"type": "reasoning", "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}]});
    let input = json!([{"role": "user", "content": "x"}, thought, {"role": "assistant", "content": "a"},
        {"role": "user", "content": "y"}]);
    ask(gateway.client(), &json!({"model": "m", "input": input}));
    assert_eq!(
        fake.seen("m")[0].body["messages"][1]["reasoning_content"],
        "hm"
    );
}

#[test]
fn a_cut_message_is_the_same_streamed_and_not() {
    let fake = Fake::start();
    fake.on(
        "whole",
        [Script::message(
            &json!({"role": "assistant", "content": "par"}),
            "length",
        )],
    );
    fake.on(
        "stream",
        [Script::stream().data(&text("par")).end("length")],
    );
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let mut seen = Vec::new();
    for (model, stream) in [("whole", false), ("stream", true)] {
        let resource = ask(
            client,
            &json!({"model": model, "input": "x", "stream": stream}),
        );
        assert_eq!(resource["status"], "incomplete");
        let path = format!("/v1/responses/{}", resource["id"].as_str().unwrap());
        assert_eq!(client.get(&path).json(), resource);
        seen.push(without(resource["output"][0].clone(), &["id"]));
    }
    assert_eq!(seen[0]["status"], "incomplete");
    assert_eq!(seen[0], seen[1]);
}

/// A function, a custom tool and a typed one, with whole arguments for each.
const CUT: [(&str, &str); 3] = [
    ("get_weather", r#"{"city": "Ō\n", "n": [1]}"#),
    ("patch", r#"{"input": "+é\"\n"}"#),
    ("shell", r#"{"commands": ["ls"]}"#),
];

/// The model is cut in its arguments; then the client answers the call, or says something else.
fn cut(fake: &Fake, client: Client, call: (&str, &str), stream: bool) {
    let (name, arguments) = call;
    let model = format!("{name} {} {stream}", arguments.len());
    let tools = json!([{"type": "function", "name": "get_weather"}, {"type": "custom", "name": "patch"},
        {"type": "shell"}]);
    let first = if stream {
        let chunks = tool_call(0, "call_0", name, &[arguments]);
        Script::stream().all(&chunks).end("length")
    } else {
        let function = json!({"name": name, "arguments": arguments});
        let call = json!({"id": "call_0", "type": "function", "function": function});
        Script::message(
            &json!({"role": "assistant", "tool_calls": [call]}),
            "length",
        )
    };
    fake.on(
        &model,
        [first, answer(1, None, stream), answer(2, None, stream)],
    );
    let user = |text: &str| json!({"role": "user", "content": text});
    let body =
        |input: Value| json!({"model": model, "input": input, "tools": tools, "stream": stream});
    let cut = ask(client, &body(json!([user("x")])));
    assert_eq!(cut["status"], "incomplete", "{arguments}");
    let mut next = body(json!([user("go on")]));
    next["previous_response_id"] = cut["id"].clone();
    ask(client, &next);
    let mut whole = vec![user("x")];
    for item in cut["output"].as_array().unwrap() {
        whole.push(item.clone());
        if let Some(id) = item["call_id"].as_str() {
            let kind = format!("{}_output", item["type"].as_str().unwrap());
            let output = if kind == "shell_call_output" {
                json!([])
            } else {
                json!("no")
            };
            whole.push(json!({"type": kind, "call_id": id, "output": output}));
        }
    }
    whole.push(user("go on"));
    ask(client, &body(json!(whole)));
    assert_eq!(fake.seen(&model).len(), 3);
}

#[test]
fn the_turn_after_arguments_cut_at_any_byte_is_answered() {
    let fake = Fake::start();
    let gateway = TestGateway::on(&fake.url()).start();
    for (name, arguments) in CUT {
        for (at, _) in arguments.char_indices().skip(1) {
            for stream in [false, true] {
                cut(
                    &fake,
                    gateway.client(),
                    (name, arguments.get(..at).unwrap()),
                    stream,
                );
            }
        }
    }
}

#[test]
fn what_is_unknown_is_left_out_or_refused_as_the_operator_says() {
    let fake = Fake::start();
    let tool =
        json!({"model": "m", "input": "x", "tools": [{"type": "carrier_pigeon", "speed": 3}]});
    let field = json!({"model": "m", "input": "x", "frobnicate": 1});
    for (switch, refused) in [
        (None, [false, false]),
        (Some("VR_STRICT_TOOLS"), [true, false]),
        (Some("VR_STRICT_REQUESTS"), [false, true]),
    ] {
        fake.on("m", [Script::completion("a"), Script::completion("b")]);
        let mut builder = TestGateway::on(&fake.url());
        if let Some(switch) = switch {
            builder = builder.env(switch, "1");
        }
        let gateway = builder.start();
        for (body, refused) in [&tool, &field].into_iter().zip(refused) {
            let reply = gateway.client().create(body);
            assert_eq!(reply.status == 400, refused, "{switch:?}: {}", reply.text());
            if refused {
                let code = reply.json()["error"]["code"].clone();
                assert!(code == "unsupported_value" || code == "unknown_parameter");
            } else {
                assert_eq!(
                    reply.json()["tools"],
                    body.get("tools").cloned().unwrap_or(json!([]))
                );
            }
        }
        let warns = |words: &str, expected: bool| {
            assert_eq!(gateway.log().contains(words), expected, "{words}");
        };
        warns("`carrier_pigeon` of `tools`", !refused[0]);
        warns("`frobnicate`", !refused[1]);
    }
    assert!(
        fake.seen("m")
            .iter()
            .all(|seen| seen.body.get("tools").is_none())
    );
}
