//! What clients send: histories that they cannot change any more, items of other servers, members in odd shapes.

use serde_json::{Value, json};

use super::{Case, Stage, Turn};
use crate::harness::Script;

#[track_caller]
fn all(name: &str) -> Vec<Turn> {
    let turns = Case::load(name).play(&Stage::open());
    for turn in &turns {
        turn.ok();
    }
    turns
}

/// A 400 whose `param` or message has this name.
#[track_caller]
fn refused(turn: &Turn, name: &str) {
    turn.reply.error(400);
    assert!(turn.reply.text().contains(name), "{}", turn.reply.text());
}

/// Taken, or refused in words that name this place.
#[track_caller]
fn taken_or_refused(turn: &Turn, place: &str) {
    if turn.reply.status != 200 {
        refused(turn, place);
    }
}

/// The messages of one role.
fn of<'a>(turn: &'a Turn, role: &str) -> Vec<&'a Value> {
    let messages = turn.messages().iter();
    messages.filter(|message| message["role"] == role).collect()
}

/// The tool messages' contents, in order.
fn outputs(turn: &Turn) -> Vec<String> {
    of(turn, "tool")
        .iter()
        .map(|message| match message["content"].as_str() {
            Some(text) => text.to_owned(),
            None => message["content"][0]["text"]
                .as_str()
                .unwrap_or("")
                .to_owned(),
        })
        .collect()
}

#[test]
fn same_call_id_in_two_turns() {
    let turns = all("same-call-id-in-two-turns");
    let mut told = Vec::new();
    for message in turns[0].messages() {
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            told.push(call["function"]["arguments"].as_str().unwrap_or(""));
        }
        if message["role"] == "tool" {
            told.push(message["content"].as_str().unwrap_or(""));
        }
    }
    assert_eq!(told, [r#"{"a":"1"}"#, "FIRST", r#"{"a":"2"}"#, "SECOND"]);
}

#[test]
fn call_sent_again_with_previous_response_id() {
    let turns = Case::load("call-sent-again-with-previous-response-id").play(&Stage::open());
    let again = turns[1].ok();
    let calls: usize = (of(again, "assistant").iter())
        .map(|message| message["tool_calls"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(calls, 1, "the call is said once");
    assert_eq!(outputs(again), ["4"]);
}

#[test]
fn previous_response_id_and_whole_history() {
    all("previous-response-id-and-whole-history");
}

#[test]
fn previous_response_id_and_references() {
    let turns = all("previous-response-id-and-references");
    let last = &turns[1];
    assert_eq!(of(last, "user").len(), 1);
    assert_eq!(of(last, "assistant").len(), 1);
    assert_eq!(outputs(last), ["21"]);
}

#[test]
fn assistant_with_input_text() {
    let turns = Case::load("assistant-with-input-text").play(&Stage::open());
    taken_or_refused(&turns[0], "input[1]");
    if turns[0].reply.status == 200 {
        assert!(
            of(&turns[0], "assistant")[0]
                .to_string()
                .contains("rain falls")
        );
    }
}

#[test]
fn foreign_reasoning() {
    let turns = all("foreign-reasoning-without-seal");
    let shown = of(&turns[0], "assistant");
    assert_eq!(shown.len(), 1);
    for member in ["reasoning", "reasoning_content"] {
        assert!(
            shown[0][member].as_str().is_none_or(str::is_empty),
            "{}",
            shown[0]
        );
    }
    all("reasoning-without-summary");
    let turns = Case::load("sealed-reasoning-of-another-provider").play(&Stage::open());
    turns[0].ok();
    assert!(
        Value::from(turns[0].messages().clone())
            .to_string()
            .contains("thought")
    );
}

#[test]
fn parts_of_tool_outputs() {
    let turns = Case::load("tool-output-part-types").play(&Stage::open());
    assert_eq!(outputs(turns[0].ok()), ["ALPHA"]);
    taken_or_refused(&turns[1], "input[2]");
    if turns[1].reply.status == 200 {
        assert_eq!(outputs(&turns[1]), ["BETA"]);
    }
}

#[test]
fn arguments_as_object() {
    let turns = Case::load("arguments-as-object").play(&Stage::open());
    taken_or_refused(&turns[0], "input[1].arguments");
}

#[test]
fn compressed_bodies() {
    let case = Case::load("compressed-bodies");
    let stage = Stage::open();
    let statuses: Vec<u16> = (case.entries("client").iter())
        .map(|entry| {
            let body = match entry["body"]["bytes"].as_str() {
                Some(text) => unescaped(text),
                None => entry["body"].to_string().into_bytes(),
            };
            let mut headers = vec![("content-type", "application/json")];
            if let Some(coding) = entry["headers"]["content-encoding"].as_str() {
                headers.push(("content-encoding", coding));
            }
            for model in ["m", "R16"] {
                stage.fake.set(model, [Script::completion("ok")]);
            }
            let reply = (stage.client()).send("POST", "/v1/responses", &headers, &body);
            if reply.status != 200 {
                reply.error(reply.status);
            }
            reply.status
        })
        .collect();
    // gzip, deflate, x-gzip, identity, zstd, zstd without its header, a gzip that is cut, an unknown coding.
    assert!([200, 415].contains(&statuses[1]), "{statuses:?}");
    let rest = [&statuses[..1], &statuses[2..]].concat();
    assert_eq!(rest, [200, 200, 200, 200, 400, 400, 415]);
}

/// The bytes of a text with `\xNN` escapes.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        let byte = match (next, (next == '\\').then(|| rest.next()).flatten()) {
            (_, Some('x')) => {
                let digits: String = rest.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).expect("hexadecimal")
            }
            (_, Some('n')) => b'\n',
            (_, Some('r')) => b'\r',
            (_, Some('t')) => b'\t',
            (_, Some(other)) | (other, None) => u8::try_from(other).expect("a byte"),
        };
        bytes.push(byte);
    }
    bytes
}

#[test]
fn lone_surrogate_in_request() {
    let stage = Stage::open();
    let before = stage.fake.seen("m").len();
    stage.fake.set("m", [Script::completion("ok")]);
    let body = br#"{"model": "m", "input": "broken \ud83d emoji"}"#;
    let json = [("content-type", "application/json")];
    let reply = stage.client().send("POST", "/v1/responses", &json, body);
    let turn = stage.told(reply, before);
    if turn.reply.status == 200 {
        assert_eq!(of(&turn, "user")[0]["content"], "broken \u{fffd} emoji");
    } else {
        refused(&turn, "surrogate");
    }
}

#[test]
fn nul_in_tool_output() {
    let turns = all("nul-in-tool-output");
    let shown = outputs(&turns[0]);
    assert!(
        shown[0].starts_with("ELF") && shown[0].ends_with(" rest"),
        "{shown:?}"
    );
}

#[test]
fn many_tools() {
    let stage = Stage::open();
    let tools = |names: std::ops::Range<usize>| -> Vec<Value> {
        let properties: serde_json::Map<String, Value> = (0..12)
            .map(|n| {
                (
                    format!("p{n}"),
                    json!({"type": "string", "description": "x".repeat(60)}),
                )
            })
            .collect();
        names
            .map(|n| {
                json!({"type": "function", "name": format!("tool_{n:03}"), "description": "d".repeat(1000),
                    "strict": null, "parameters": {"type": "object", "properties": properties}})
            })
            .collect()
    };
    let spaces: Vec<Value> = (0..3)
        .map(|n| {
            let tools = tools(n * 100..(n + 1) * 100);
            json!({"type": "namespace", "name": format!("space{n}"), "description": "d", "tools": tools})
        })
        .collect();
    for (tools, most) in [(tools(0..128), 128), (tools(0..300), 300), (spaces, 300)] {
        let body = json!({"model": "m", "input": "x", "tools": tools});
        let turn = stage.turn("POST /v1/responses", &body, &[Script::completion("ok")]);
        if turn.reply.status == 200 {
            let shown = turn.prompts[0]["tools"].as_array().expect("tools").iter();
            let shown: Vec<&str> = shown
                .filter_map(|tool| tool["function"]["name"].as_str())
                .collect();
            assert_eq!(shown.len(), most);
            assert!(shown.is_sorted(), "the order is kept");
        } else {
            refused(&turn, "128");
        }
    }
}

#[test]
fn megabyte_prompt() {
    let stage = Stage::open();
    let phrase = "Ünï çødé 漢字 🧪 \\ \" \n\t</s> <|im_end|> ";
    let text = phrase.repeat(900_000 / phrase.chars().count());
    let answer = [Script::completion("ok")];
    let body = json!({"model": "m", "input": text});
    let first = stage.turn("POST /v1/responses", &body, &answer);
    let body =
        json!({"model": "m", "input": "on", "previous_response_id": first.ok().response["id"]});
    let second = stage.turn("POST /v1/responses", &body, &answer);
    for turn in [&first, second.ok()] {
        assert!(turn.messages()[0]["content"] == text, "the text changed");
    }
}

#[test]
fn tools_as_sdks_write_them() {
    all("tools-as-sdks-write-them");
    let turns = Case::load("tools-in-chat-shape").play(&Stage::open());
    taken_or_refused(&turns[0], "tools[0]");
    taken_or_refused(&turns[1], "tool_choice");
}

#[test]
fn odd_paths() {
    for turn in Case::load("odd-paths").play(&Stage::open()) {
        if turn.reply.status != 200 {
            turn.reply.error(404);
        }
    }
}

#[test]
fn outputs_out_of_order() {
    let turns = Case::load("outputs-out-of-order").play(&Stage::open());
    let messages = turns[0].ok().messages();
    let roles: Vec<&Value> = messages.iter().map(|message| &message["role"]).collect();
    let tools = roles.iter().filter(|role| **role == "tool").count();
    assert_eq!(tools, 2);
    let at = roles
        .iter()
        .position(|role| *role == "tool")
        .expect("an output");
    assert_eq!(
        roles[at - 1],
        "assistant",
        "an output stands behind its call: {roles:?}"
    );
    let mut told = outputs(&turns[0]);
    told.sort();
    assert_eq!(told, ["", "TWO"]);
    taken_or_refused(&turns[1], "input[2].output");
}

#[test]
fn odd_call_ids() {
    let turns = Case::load("odd-call-ids").play(&Stage::open());
    let case = Case::load("odd-call-ids");
    let id = &case.entries("client")[0]["body"]["input"][1]["call_id"];
    let call = of(turns[0].ok(), "assistant")[0];
    assert_eq!(&call["tool_calls"][0]["id"], id);
    assert_eq!(&of(&turns[0], "tool")[0]["tool_call_id"], id);
    let listed = turns[1].reply.json();
    let ids = listed["data"].as_array().expect("items").iter();
    assert_eq!(ids.filter(|item| &item["call_id"] == id).count(), 2);
}

#[test]
fn odd_parameters() {
    let case = Case::load("odd-parameters");
    let bodies: Vec<&Value> = case
        .entries("client")
        .iter()
        .map(|entry| &entry["body"])
        .collect();
    for (turn, body) in case.play(&Stage::open()).iter().zip(bodies) {
        if turn.reply.status != 200 {
            turn.reply.error(400);
            let told = turn.reply.json();
            let param = told["error"]["param"].as_str().unwrap_or("none");
            let field = param.split(['.', '[']).next().unwrap_or("");
            assert!(body.get(field).is_some(), "{param} of {body}");
        }
    }
}

#[test]
fn refusals_in_other_shapes() {
    let stage = Stage::open();
    let case = Case::load("upstream-refusal-in-other-shapes");
    for answer in case.entries("model server") {
        for stream in [false, true] {
            let body = json!({"model": "m", "input": "x", "stream": stream});
            let turn = stage.turn(
                "POST /v1/responses",
                &body,
                &[Script::json(400, &answer["body"])],
            );
            refused(&turn, "this model does not take pictures");
        }
    }
}
