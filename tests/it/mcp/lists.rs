//! Tool lists of several pages, of many tools and of odd schemas, and servers of earlier versions.

use serde_json::{Value, json};

use super::calls;
use super::foreign::{gateway, remote};
use super::odd::{Odd, Said};
use crate::harness::{Fake, Script};

fn tools(names: std::ops::Range<usize>) -> Value {
    names
        .map(|at| json!({"name": format!("tool_{at}"), "description": "d", "inputSchema": {"type": "object"}}))
        .collect()
}

/// What the client is told after the model has called this tool.
fn called(odd: &Odd, tools: &Value, name: &str) -> Value {
    let fake = Fake::start();
    let gateway = gateway(&fake, odd);
    fake.set("m", [calls(&[(name, "")]), Script::completion("end")]);
    let body = json!({"model": "m", "input": "x", "tools": tools});
    gateway.client().create(&body).json()
}

#[test]
fn a_list_of_three_pages_is_whole_and_one_without_end_ends() {
    for last in [
        json!({}),
        json!({"nextCursor": ""}),
        json!({"nextCursor": null}),
    ] {
        let odd = Odd::start(move |asked| {
            if asked.method() != "tools/list" {
                return asked.usual("2025-06-18", &json!([]));
            }
            let mut page = match asked.message["params"]["cursor"].as_str() {
                None => json!({"tools": tools(0..50), "nextCursor": "one"}),
                Some("one") => json!({"tools": tools(50..100), "nextCursor": "two"}),
                Some(_) => json!({"tools": tools(100..101)}),
            };
            if page.get("nextCursor").is_none() {
                page.as_object_mut()
                    .unwrap()
                    .extend(last.as_object().unwrap().clone());
            }
            asked.result(&page)
        });
        let told = called(&odd, &remote(&odd), "mcp__r__tool_100");
        assert_eq!(told["output"][0]["tools"].as_array().unwrap().len(), 101);
        assert_eq!(told["output"][1]["output"], "fine", "{told}");
    }
    let odd = Odd::start(|asked| match asked.method() {
        "tools/list" => asked.result(&json!({"tools": tools(0..2), "nextCursor": "same"})),
        _ => asked.usual("2025-06-18", &json!([])),
    });
    let told = called(&odd, &remote(&odd), "mcp__r__tool_1");
    assert_eq!(told["output"][0]["tools"].as_array().unwrap().len(), 2);
    assert_eq!(told["output"][1]["output"], "fine", "{told}");
}

#[test]
fn many_tools_are_shown_or_refused_and_one_can_be_had_by_name() {
    let odd = Odd::start(|asked| asked.usual("2025-06-18", &tools(0..200)));
    let mut servers = remote(&odd);
    servers[0]["allowed_tools"] = json!(["tool_199"]);
    let told = called(&odd, &servers, "mcp__r__tool_199");
    assert_eq!(told["output"][0]["tools"].as_array().unwrap().len(), 1);
    assert_eq!(told["output"][1]["output"], "fine", "{told}");
    let all = called(&odd, &remote(&odd), "mcp__r__tool_199");
    let listed = all["output"][0]["tools"].as_array().map(Vec::len);
    let place = all["error"]["param"].as_str().unwrap_or_default();
    assert!(
        listed == Some(200) || place == "tools[0].allowed_tools",
        "{all}"
    );
}

#[test]
fn no_arguments_are_an_empty_object_and_a_reference_that_leads_nowhere_is_none() {
    let schema = json!({"type": "object", "properties": {"filter": {"$ref": "#/$defs/Filter"},
        "deep": {"$defs": {"Filter": {"type": "object"}}}}});
    let list = json!([{"name": "get", "description": "d", "inputSchema": schema}]);
    let odd = Odd::start(move |asked| match asked.method() {
        "tools/call" => {
            let arguments = asked.message["params"]["arguments"].to_string();
            asked.result(&json!({"content": [{"type": "text", "text": arguments}]}))
        }
        _ => asked.usual("2025-06-18", &list),
    });
    let told = called(&odd, &remote(&odd), "mcp__r__get");
    assert_eq!(told["output"][1]["output"], "{}", "{told}");
}

#[test]
fn servers_of_earlier_versions_are_used_and_results_need_no_content() {
    for version in ["2024-11-05", "2025-03-26", "2025-06-18"] {
        let odd = Odd::start(move |asked| match asked.method() {
            "" => Said::status(405),
            "tools/list" => {
                let said = asked.usual(version, &tools(0..1));
                Said {
                    kind: "text/event-stream",
                    body: format!("event: message\ndata: {}\n\n", said.body),
                    ..said
                }
            }
            _ => asked.usual(version, &tools(0..1)),
        });
        let told = called(&odd, &remote(&odd), "mcp__r__tool_0");
        assert_eq!(told["output"][1]["output"], "fine", "{version}: {told}");
    }
    for result in [json!({}), json!({"content": null}), json!({"_meta": {}})] {
        let odd = Odd::start(move |asked| match asked.method() {
            "tools/call" => asked.result(&result),
            _ => asked.usual("2025-06-18", &tools(0..1)),
        });
        let told = called(&odd, &remote(&odd), "mcp__r__tool_0");
        assert_eq!(told["output"][1]["status"], "completed", "{told}");
        assert_eq!(told["output"][1]["output"], "", "{told}");
    }
}
