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

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::chat::lenient::{Text, object};
use crate::json::{Kind, kind, read};

pub use fault::{Fault, fault, forgets_session, known_versions};
pub use list::{PAGE, Page};
pub use result::MAX_RESULT;

/// Largest message that is neither a tool list nor the result of a call.
const MAX_OTHER: usize = 256 * 1024;

object! {
    /// A message, as far as it tells what it is.
    struct Envelope<'a> {
        "id" id: Raw<'a>,
        "method" method: Raw<'a>,
        "params" params: Raw<'a>,
        "result" result: Raw<'a>,
        "error" error: Raw<'a>,
    }
}

object! {
    /// A result, as far as it tells which one. Of a member that comes twice the later counts, as it does
    /// for most readers.
    struct Shape<'a> {
        "resultType" result_type: Text<'a>,
        "taskId" task_id: Raw<'a>,
        "status" status: Raw<'a>,
        "tools" tools: Raw<'a>,
        "content" content: Raw<'a>,
        "toolResult" tool_result: Raw<'a>,
        "structuredContent" structured_content: Raw<'a>,
        "isError" is_error: Raw<'a>,
        "nextCursor" next_cursor: Raw<'a>,
        "ttlMs" ttl_ms: Raw<'a>,
        "cacheScope" cache_scope: Raw<'a>,
        "protocolVersion" protocol_version: Raw<'a>,
        "supportedVersions" supported_versions: Raw<'a>,
        "capabilities" capabilities: Raw<'a>,
    }
}

/// A member as it is written, null too; nothing where it is missing.
#[derive(Clone, Copy, Debug, Default)]
struct Raw<'a>(Option<&'a RawValue>);

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self(Some(raw)))
    }
}

impl<'a> Raw<'a> {
    /// What is there and not null.
    fn value(self) -> Option<&'a RawValue> {
        self.0.filter(|raw| kind(raw) != Kind::Null)
    }

    fn text(self) -> Option<&'a str> {
        self.value().map(RawValue::get)
    }

    /// The JSON of a string.
    fn string(self) -> Option<&'a str> {
        self.text().filter(|_| self.is(Kind::String))
    }

    fn is(self, wanted: Kind) -> bool {
        self.0.is_some_and(|raw| kind(raw) == wanted)
    }
}

impl Shape<'_> {
    /// Whether it is what a tool gave back, or a part of that: one of these members is there, by what
    /// the caller calls there.
    fn is_outcome<'b>(&self, is_there: impl Fn(Raw<'b>) -> Option<&'b RawValue>) -> bool
    where
        Self: 'b,
    {
        let parts = [
            self.content,
            self.tool_result,
            self.structured_content,
            self.is_error,
        ];
        parts.into_iter().any(|part| is_there(part).is_some())
    }

    /// Whether it begins a session.
    fn is_handshake(&self) -> bool {
        let begins = self.protocol_version.is(Kind::String) && self.capabilities.is(Kind::Object);
        begins || self.supported_versions.is(Kind::Array)
    }
}

/// The message as it may be read further; `None` for what is no message. `asked` is the id, as JSON, of
/// the request that the connection says is answered: an error has it whatever the server wrote.
pub fn tame(message: &[u8], asked: Option<&str>) -> Option<String> {
    let message = text::mended(message);
    let envelope: Envelope<'_> = serde_json::from_str(&message).ok()?;
    let result = envelope.result.value();
    let error = envelope.error.value();
    // Some write every member that any message has, and some the method that they answer.
    if result.or(error).is_none() {
        let method = envelope.method.value()?;
        return notice(&envelope, method).filter(|told| told.len() <= MAX_OTHER);
    }
    if let Some(error) = error.filter(|error| result.is_none() || says_something(error)) {
        let id = asked.or(envelope.id.value().map(RawValue::get));
        return Some(fault::message(&fault::read(error), id));
    }
    let id = envelope.id.value().map(|id| whole_number(id.get()));
    if asked.is_some_and(|asked| id.is_some_and(|id| bare(id) != bare(asked))) {
        return None;
    }
    let id = id.or(asked)?;
    let told = judge(result?, message.len())?;
    Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{told}}}"#))
}

/// A request or a notice of the server's, with the members that these have: nothing else in it is
/// taken for an answer.
fn notice(envelope: &Envelope<'_>, method: &RawValue) -> Option<String> {
    if kind(method) != Kind::String {
        return None;
    }
    let mut told = [r#"{"jsonrpc":"2.0","method":"#, method.get()].concat();
    for (name, member) in [("id", envelope.id), ("params", envelope.params)] {
        if let Some(value) = member.value() {
            told.extend([",\"", name, "\":", value.get()]);
        }
    }
    told.push('}');
    Some(told)
}

/// Whether an error beside a result is one.
fn says_something(error: &RawValue) -> bool {
    let text = error.get();
    let inside = text.trim_matches(['{', '}', '[', ']', '"', ' ', '\n', '\r', '\t']);
    !matches!(inside, "" | "false" | "0")
}

/// Some servers keep the number of a request as a fraction.
fn whole_number(id: &str) -> &str {
    id.strip_suffix(".0").unwrap_or(id)
}

/// Some servers write the number of a request as a string.
fn bare(id: &str) -> &str {
    id.trim_matches('"')
}

/// The result as the SDK reads it. What a tool gave back is written anew in any case: our own words
/// about an outcome stand where a server's content would, and no server may write them itself.
///
/// Nothing is asked of servers but the handshake, lists, calls and how far those are: whatever is the
/// form of none of these is what a tool gave back without the form that the protocol has for it.
fn judge(result: &RawValue, size: usize) -> Option<Cow<'_, str>> {
    let as_it_is = || (size <= MAX_OTHER).then(|| Cow::Borrowed(result.get()));
    if kind(result) != Kind::Object {
        return None;
    }
    let shape: Shape<'_> = serde_json::from_str(result.get()).ok()?;
    let wants_input = shape.result_type.as_str() == "input_required";
    if shape.is_outcome(Raw::value) {
        // One that asks for something has no content yet.
        return (!wants_input).then(|| told(&result::outcome(&shape)).into());
    }
    if shape.task_id.is(Kind::String) && shape.status.is(Kind::String) {
        return match task(result) {
            Task::Read(task) => Some(task.into()),
            Task::Foreign => Some(told(&result::of_foreign(result)).into()),
            Task::Unreadable => None,
        };
    }
    if shape.is_handshake() || wants_input {
        return as_it_is();
    }
    if let Some(tools) = shape.tools.0 {
        return Some(list::told(tools, size, &shape).into());
    }
    Some(told(&any_outcome(result, &shape)).into())
}

/// The outcome of a result, in whatever form.
fn any_outcome(result: &RawValue, shape: &Shape<'_>) -> super::outcome::Outcome {
    if !shape.is_outcome(|part| part.0) && has_own_members(result) {
        return result::of_foreign(result);
    }
    result::outcome(shape)
}

/// Whether a result says anything beside what every result of the protocol may.
fn has_own_members(result: &RawValue) -> bool {
    let members = read::members(result).unwrap_or_default();
    let is_own = |(name, value): &(Cow<'_, str>, &RawValue)| match &**name {
        "_meta" => false,
        "resultType" => value.get() != "\"complete\"",
        _ => true,
    };
    members.iter().any(is_own)
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

object! {
    /// The members of a task that are known.
    struct Polled<'a> {
        "taskId" task_id: Raw<'a>,
        "status" status: Raw<'a>,
        "statusMessage" status_message: Raw<'a>,
        "createdAt" created_at: Raw<'a>,
        "lastUpdatedAt" last_updated_at: Raw<'a>,
        "ttlMs" ttl_ms: Raw<'a>,
        "pollIntervalMs" poll_interval_ms: Raw<'a>,
        "inputRequests" input_requests: Raw<'a>,
        "error" error: Raw<'a>,
        "resultType" result_type: Raw<'a>,
        "result" result: Raw<'a>,
    }
}

/// What has the id and the status of a task.
enum Task {
    /// A task; the result of one that has ended is the result of a call.
    Read(String),
    /// A job or a ticket of the server's own.
    Foreign,
    /// Too large, or its result is none.
    Unreadable,
}

fn task(result: &RawValue) -> Task {
    const EPOCH: &str = "\"1970-01-01T00:00:00Z\"";
    let Ok(task) = serde_json::from_str::<Polled<'_>>(result.get()) else {
        return Task::Unreadable;
    };
    let is_task = match task.status.text().unwrap_or_default() {
        "\"working\"" | "\"cancelled\"" => true,
        "\"input_required\"" => task.input_requests.value().is_some(),
        "\"completed\"" => task.result.is(Kind::Object),
        "\"failed\"" => task.error.is(Kind::Object),
        _ => false,
    };
    if !is_task {
        return Task::Foreign;
    }
    let mut text = String::from("{");
    for (name, value) in [
        ("taskId", task.task_id.text()),
        ("status", task.status.text()),
        ("statusMessage", task.status_message.text()),
        ("createdAt", task.created_at.string().or(Some(EPOCH))),
        (
            "lastUpdatedAt",
            task.last_updated_at.string().or(Some(EPOCH)),
        ),
        ("ttlMs", task.ttl_ms.text().or(Some("null"))),
        ("pollIntervalMs", task.poll_interval_ms.text()),
        ("inputRequests", task.input_requests.text()),
        ("error", task.error.text()),
        ("resultType", task.result_type.text()),
    ] {
        if let Some(value) = value {
            let comma = if text.len() > 1 { ",\"" } else { "\"" };
            text.extend([comma, name, "\":", value]);
        }
    }
    if text.len() > MAX_OTHER {
        return Task::Unreadable;
    }
    if let Some(ended) = task.result.value() {
        let Ok(shape) = serde_json::from_str::<Shape<'_>>(ended.get()) else {
            return Task::Unreadable;
        };
        let outcome = told(&any_outcome(ended, &shape));
        text.extend([",\"result\":", &outcome]);
    }
    text.push('}');
    Task::Read(text)
}

#[cfg(test)]
mod tests;
