//! The result of a call as the model and the client are told of it.
//!
//! What a tool says stands in its content. Many servers write the same once more as structured
//! content; it is added only where it says something else, so that nothing is lost and nothing is read
//! twice.

use serde_json::value::RawValue;

use super::blocks::Content;
use super::{Shape, same};
use crate::json_text::compact;
use crate::mcp::hidden::readable;
use crate::mcp::outcome::{CallError, Outcome, cap_of};

/// The text of a result is cut to this many bytes.
pub const MAX_RESULT: usize = 1024 * 1024;
/// Longest error text.
const MAX_ERROR: usize = 4096;

/// The outcome of a finished call.
pub(super) fn outcome(shape: &Shape<'_>) -> Outcome {
    // `toolResult` is how the protocol's first version named it.
    let said = shape.content.0.or(shape.tool_result.0);
    let mut content = Content::read(said, MAX_RESULT);
    let structured = shape.structured_content.0;
    let structured = structured.filter(|raw| says_something(raw));
    if let Some(raw) = structured
        && !same::says(&content, raw)
    {
        let between = if content.whole > 0 { "\n" } else { "" };
        let text = compact(raw.get());
        content.whole += between.len() + text.len();
        content.text.push_str(between);
        content.text.push_str(&text);
    }
    // Some servers write it as a text or a number.
    let yes = |raw: &RawValue| ["true", "\"true\"", "\"True\"", "1"].contains(&raw.get());
    let failed = shape.is_error.0.is_some_and(yes);
    let text = readable(&content.text);
    let whole = content.whole - (content.text.len().saturating_sub(text.len()));
    if failed {
        let text = if text.is_empty() {
            "the tool failed without saying why"
        } else {
            &text
        };
        return Outcome::Failed {
            error: CallError::tool(cap_of(text, MAX_ERROR, whole)),
        };
    }
    Outcome::Output {
        text: cap_of(&text, MAX_RESULT, whole),
        pictures: content.pictures,
    }
}

/// The outcome of a call whose result has another form than the protocol's: its JSON.
pub(super) fn of_foreign(result: &RawValue) -> Outcome {
    let text = compact(result.get());
    Outcome::text(cap_of(&readable(&text), MAX_RESULT, text.len()))
}

/// An empty object says nothing.
fn says_something(raw: &RawValue) -> bool {
    let text = raw.get();
    text != "null"
        && !text
            .trim_matches(['{', '}', ' ', '\n', '\r', '\t'])
            .is_empty()
}
