//! F6: what an MCP server says of its tools is kept within its limits, in one order whatever order it
//! came in, and any arguments are judged against any schema without a hang.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::value::RawValue;
use vllm_responses_protocol::mcp::catalogue::{
    Catalogue, MAX_DEPTH, MAX_TOOLS, RawTool, catalogue,
};
use vllm_responses_protocol::mcp::hidden::visible;
use vllm_responses_protocol::mcp::names::{hashed_name, model_name};
use vllm_responses_protocol::mcp::outcome::cap;
use vllm_responses_protocol::mcp::schema;
use vllm_responses_protocol::mcp::wire::Snapshot;

use crate::halves;

fn tools(list: &Value) -> Vec<RawTool> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let tools = list.as_array().into_iter().flatten();
    tools
        .map(|tool| RawTool {
            name: text(&tool["name"]).unwrap_or_default(),
            description: text(&tool["description"]),
            input_schema: tool["inputSchema"].to_string(),
            annotations: tool.get("annotations").map(ToString::to_string),
            read_only: tool["annotations"]["readOnlyHint"] == true,
            in_headers: false,
        })
        .collect()
}

fn names(of: &Catalogue) -> Vec<String> {
    of.tools.iter().map(|tool| tool.name.to_string()).collect()
}

/// The first part is a list of tools, the second arguments of all of them.
pub fn check(bytes: &[u8]) {
    let (list, arguments) = halves(bytes);
    let arguments = String::from_utf8_lossy(arguments);
    // Ours talk to each other in this shape; anything else is refused.
    if let Ok(snapshot) = serde_json::from_slice::<Snapshot>(list) {
        let written = serde_json::to_string(&snapshot).expect("it can be written");
        serde_json::from_str::<Snapshot>(&written).expect("and read again");
    }
    let Ok(list) = serde_json::from_slice::<Value>(list) else {
        let said = String::from_utf8_lossy(list);
        assert!(cap(&said, 100).len() < 300);
        assert!(!visible(&said).contains('\u{200b}'));
        return;
    };
    let one = catalogue("s", tools(&list));
    assert!(one.tools.len() <= MAX_TOOLS && one.notices.len() <= 20);
    let found = names(&one);
    assert!(found.is_sorted() && found.iter().collect::<BTreeSet<_>>().len() == found.len());
    if found.len() < MAX_TOOLS && one.notices.is_empty() {
        let turned = tools(&list).into_iter().rev().collect();
        assert_eq!(found, names(&catalogue("s", turned)), "the order decides");
    }
    for tool in &one.tools {
        assert!(one.find(&tool.name).is_some());
        for shown in [model_name("s", &tool.name), hashed_name("s", &tool.name)] {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            assert!(shown.len() <= 64 && shown.bytes().all(plain), "{shown}");
        }
        let read: Value = serde_json::from_str(tool.input_schema.get()).expect("a schema is JSON");
        assert!(depth(&read) <= MAX_DEPTH + 1);
        judge(&tool.input_schema, &arguments);
    }
}

/// Any answer will do, if it comes, and comes twice alike.
fn judge(schema: &RawValue, arguments: &str) {
    let verdict = schema::check(schema, arguments);
    assert_eq!(verdict, schema::check(schema, arguments));
    if let Err(problem) = verdict {
        assert!(problem.len() < 4096, "{} bytes", problem.len());
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
