//! Whether structured content only repeats what the text says.

use serde_json::Value;
use serde_json::value::RawValue;

use super::blocks::Content;
use crate::json_text::compact;

/// Larger ones are compared as text.
const MAX_COMPARED: usize = 128 * 1024;

/// Whether the text says all that `structured` says: it is its JSON, or the lone value in it, as
/// servers wrap what is no object.
pub(super) fn says(content: &Content, structured: &RawValue) -> bool {
    if content.texts == 0 {
        return false;
    }
    let (text, json) = (content.text.trim(), structured.get());
    if text.len() + json.len() > MAX_COMPARED {
        return compact(text) == compact(json);
    }
    let Ok(value) = serde_json::from_str::<Value>(json) else {
        return false;
    };
    let said = serde_json::from_str::<Value>(text).ok();
    if said.as_ref() == Some(&value) {
        return true;
    }
    let Some(lone) = lone_member(&value) else {
        return false;
    };
    match lone {
        Value::String(word) => word.trim() == text || said.as_ref() == Some(lone),
        Value::Array(list) => said.as_ref() == Some(lone) || lines(list, text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            said.as_ref() == Some(lone) || lone.to_string().eq_ignore_ascii_case(text)
        }
    }
}

fn lone_member(value: &Value) -> Option<&Value> {
    let members = value.as_object()?;
    let mut values = members.values();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Whether each element is a block of its own, one behind the other.
fn lines(list: &[Value], text: &str) -> bool {
    let mut rest = text;
    for element in list {
        let line = match element {
            Value::String(word) => word.clone(),
            other @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_)) => {
                // An object may go over several lines.
                let mut read = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
                if read.next().and_then(Result::ok).as_ref() != Some(other) {
                    return false;
                }
                rest = rest
                    .get(read.byte_offset()..)
                    .unwrap_or_default()
                    .trim_start();
                continue;
            }
        };
        let Some(behind) = rest.strip_prefix(line.as_str()) else {
            return false;
        };
        rest = behind.trim_start();
    }
    rest.is_empty()
}
