//! What must hold for every chat request the gateway sends, whatever the test is about.

use std::collections::HashSet;

use serde_json::Value;

/// The broken rules of one request body, empty when it is sound.
pub(crate) fn broken_rules(body: &Value) -> Vec<String> {
    let mut out = Vec::new();
    if body["stream"] == true && body["stream_options"]["include_usage"] != true {
        out.push("stream without stream_options.include_usage".to_owned());
    }
    let Some(messages) = body["messages"].as_array() else {
        out.push("no messages".to_owned());
        return out;
    };
    let mut calls = HashSet::new();
    let mut previous = "";
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or("");
        match role {
            "system" if at != 0 => out.push(format!("system message at {at}")),
            "assistant" => {
                if previous == "assistant" {
                    out.push(format!("two assistant messages in a row at {at}"));
                }
                note_calls(message, at, &mut calls, &mut out);
            }
            "tool" => {
                let id = message["tool_call_id"].as_str().unwrap_or("");
                if !calls.remove(id) {
                    out.push(format!("tool message at {at} answers no open call"));
                }
            }
            "system" | "user" | "developer" => {}
            other => out.push(format!("role {other:?} at {at}")),
        }
        if role != "tool" && role != "assistant" && !calls.is_empty() {
            out.push(format!("call without an answer before message {at}"));
        }
        previous = role;
    }
    out
}

fn note_calls(message: &Value, at: usize, calls: &mut HashSet<String>, out: &mut Vec<String>) {
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let id = call["id"].as_str().unwrap_or("");
        if id.is_empty() || !calls.insert(id.to_owned()) {
            out.push(format!("empty or repeated call id at {at}"));
        }
        let arguments = call["function"]["arguments"].as_str().unwrap_or("");
        if serde_json::from_str::<Value>(arguments).is_err() {
            out.push(format!("arguments that are not JSON at {at}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sound_and_broken_bodies() {
        let call = json!({"id": "c", "type": "function",
            "function": {"name": "f", "arguments": "{}"}});
        let good = json!({"stream": true, "stream_options": {"include_usage": true}, "messages": [
            {"role": "system", "content": "s"}, {"role": "user", "content": "u"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "r"}]});
        assert_eq!(broken_rules(&good), Vec::<String>::new());
        let mut bad = good.clone();
        bad["stream_options"] = Value::Null;
        bad["messages"][3]["tool_call_id"] = json!("d");
        bad["messages"][2]["tool_calls"][0]["function"]["arguments"] = json!("{");
        assert_eq!(broken_rules(&bad).len(), 3);
        let bad = json!({"messages": [{"role": "user"}, {"role": "system"},
            {"role": "assistant"}, {"role": "assistant"}]});
        assert_eq!(broken_rules(&bad).len(), 2);
    }
}
