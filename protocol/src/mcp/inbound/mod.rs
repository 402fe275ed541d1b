//! Messages of MCP servers, made small and regular before anything else reads them.
//!
//! Servers are strangers: an answer of theirs may be a million numbers, an entry of a list may be null,
//! an error may be a text. Each message is read here without building a tree of it: a tool list becomes
//! a [`Page`] as text, a result becomes an [`Outcome`](super::outcome::Outcome) as text, an error gets
//! its code and words, and anything else must be small. What comes out is what the SDK reads.

mod blocks;
mod fault;
mod list;
mod result;
mod same;
mod text;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::json::{Kind, kind};

pub use fault::{Fault, fault, forgets_session, known_versions};
pub use list::{PAGE, Page};
pub use result::MAX_RESULT;

/// Largest message that is neither a tool list nor the result of a call.
const MAX_OTHER: usize = 256 * 1024;

/// A message, as far as it tells what it is.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// A result, as far as it tells which one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape<'a> {
    #[serde(borrow, default)]
    result_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    structured_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    is_error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    next_cursor: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ttl_ms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cache_scope: Option<&'a RawValue>,
}

/// The message as it may be read further; `None` for what is no message. `asked` is the id, as JSON, of
/// the request that the connection says is answered: an error has it whatever the server wrote.
pub fn tame(message: &[u8], asked: Option<&str>) -> Option<String> {
    let message = text::mended(message);
    let envelope: Envelope<'_> = serde_json::from_str(&message).ok()?;
    let small = message.len() <= MAX_OTHER;
    if envelope.method.is_some() {
        return small.then(|| message.into_owned());
    }
    if let Some(error) = envelope.error {
        let id = asked.or(envelope.id.map(RawValue::get));
        return Some(fault::message(&fault::read(error), id));
    }
    let id = envelope.id.map(RawValue::get);
    if asked.is_some_and(|asked| id.is_some_and(|id| bare(id) != bare(asked))) {
        return None;
    }
    let id = id.or(asked)?;
    let result = envelope.result?;
    let told = judge(result, message.len())?;
    Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{told}}}"#))
}

/// Some servers write the number of a request as a string.
fn bare(id: &str) -> &str {
    id.trim_matches('"')
}

fn judge(result: &RawValue, size: usize) -> Option<Cow<'_, str>> {
    let as_it_is = || (size <= MAX_OTHER).then(|| Cow::Borrowed(result.get()));
    if kind(result) != Kind::Object {
        return None;
    }
    let Ok(shape) = serde_json::from_str::<Shape<'_>>(result.get()) else {
        return as_it_is();
    };
    let complete = shape.result_type.as_deref();
    if complete.is_some_and(|word| word != "complete") {
        return as_it_is();
    }
    if shape.task_id.is_some() {
        return task(result, size);
    }
    if let Some(tools) = shape.tools {
        return Some(list::told(tools, size, &shape).into());
    }
    if shape.content.is_some() || shape.structured_content.is_some() || shape.is_error.is_some() {
        return Some(told(&result::outcome(&shape)).into());
    }
    as_it_is()
}

/// A text block whose text is the outcome.
fn told(outcome: &super::outcome::Outcome) -> String {
    #[derive(Serialize)]
    struct Told<'a> {
        content: [Text<'a>; 1],
    }
    #[derive(Serialize)]
    struct Text<'a> {
        r#type: &'static str,
        text: &'a str,
    }
    let text = serde_json::to_string(outcome).unwrap_or_default();
    let content = [Text {
        r#type: "text",
        text: &text,
    }];
    serde_json::to_string(&Told { content }).unwrap_or_default()
}

/// A task; the result of one that has ended is the result of a call.
fn task(result: &RawValue, size: usize) -> Option<Cow<'_, str>> {
    /// The members that are known.
    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Polled<'a> {
        #[serde(borrow)]
        task_id: &'a RawValue,
        #[serde(borrow)]
        status: &'a RawValue,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        status_message: Option<&'a RawValue>,
        #[serde(borrow, default = "epoch")]
        created_at: Cow<'a, str>,
        #[serde(borrow, default = "epoch")]
        last_updated_at: Cow<'a, str>,
        #[serde(borrow, default)]
        ttl_ms: Option<&'a RawValue>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        poll_interval_ms: Option<&'a RawValue>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        input_requests: Option<&'a RawValue>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        error: Option<&'a RawValue>,
        #[serde(borrow, default, skip_serializing)]
        result: Option<&'a RawValue>,
    }
    fn epoch() -> Cow<'static, str> {
        Cow::Borrowed("1970-01-01T00:00:00Z")
    }
    let Ok(task) = serde_json::from_str::<Polled<'_>>(result.get()) else {
        return (size <= MAX_OTHER).then(|| Cow::Borrowed(result.get()));
    };
    let mut text = serde_json::to_string(&task).ok()?;
    if text.len() > MAX_OTHER {
        return None;
    }
    if let Some(ended) = task.result {
        let shape: Shape<'_> = serde_json::from_str(ended.get()).ok()?;
        text.pop();
        text.push_str(r#","result":"#);
        text.push_str(&told(&result::outcome(&shape)));
        text.push('}');
    }
    Some(text.into())
}

#[cfg(test)]
mod tests;
