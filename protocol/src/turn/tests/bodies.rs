//! What a model server was asked.

use serde_json::Value;

pub(super) fn roles(body: &Value) -> Vec<&str> {
    let messages = body["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect()
}

pub(super) fn tool_names(body: &Value) -> Vec<&str> {
    let tools = body["tools"].as_array().into_iter().flatten();
    tools
        .map(|t| t["function"]["name"].as_str().unwrap())
        .collect()
}
