//! Whether structured content only repeats what the text says.

use serde_json::value::RawValue;

use super::blocks::Content;
use crate::json::read::{self, Kind, kind};
use crate::json_text::compact;
use crate::mcp::schema::same;

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
    let said: Option<&RawValue> = serde_json::from_str(text).ok();
    let is_said = |raw| said.is_some_and(|said| same(said, raw));
    if is_said(structured) {
        return true;
    }
    let Some(lone) = lone_member(structured) else {
        return false;
    };
    is_said(lone)
        || match kind(lone) {
            Kind::String => read::text(lone).is_some_and(|word| word.trim() == text),
            Kind::Array => lines(lone, text),
            Kind::Null | Kind::Bool | Kind::Number | Kind::Object => {
                lone.get().eq_ignore_ascii_case(text)
            }
        }
}

fn lone_member(value: &RawValue) -> Option<&RawValue> {
    match read::members(value)?.as_slice() {
        [(_, lone)] => Some(lone),
        _ => None,
    }
}

/// Whether each element is a block of its own, one behind the other.
fn lines(list: &RawValue, text: &str) -> bool {
    let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(list.get()) else {
        return false;
    };
    let mut rest = text;
    for element in list {
        let behind = match read::text(element) {
            Some(word) => rest.strip_prefix(&*word),
            // An object may go over several lines.
            None => behind_value(rest, element),
        };
        let Some(behind) = behind else {
            return false;
        };
        rest = behind.trim_start();
    }
    rest.is_empty()
}

/// The text behind the JSON value that it begins with, when that is this one.
fn behind_value<'t>(text: &'t str, value: &RawValue) -> Option<&'t str> {
    let mut read = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let first = read.next()?.ok()?;
    let end = read.byte_offset();
    same(first, value).then(|| text.get(end..))?
}
