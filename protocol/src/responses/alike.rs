//! Whether two items say the same, however each of them was sent.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use super::content::Part;
use super::item::{Item, Message};
use crate::blob::Marks;
use crate::json_text::compact;

/// A short stand-in for what a value says: two that are equal have equal ones. It is made once for
/// each value, since a request may have thousands of large ones to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark(u64);

impl Mark {
    /// Of all that is written of a value. With `marks`, large data that is there and a mark that stands
    /// for it are the same.
    pub(crate) fn of(value: &impl Serialize, marks: Option<Marks>) -> Self {
        // Strings, words and raw values: nothing here can fail to be written.
        let text = serde_json::to_string(value).unwrap_or_default();
        Self::of_hashed(canonical(&text, marks))
    }

    /// Of JSON text, whatever white space is in it.
    pub(crate) fn of_json(text: &str) -> Self {
        Self::of_hashed(compact(text))
    }

    fn of_hashed(value: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Of who says what, whatever else there is to a message.
    pub(crate) fn of_words(message: &Message, marks: Marks) -> Self {
        let mut hasher = DefaultHasher::new();
        message.role.hash(&mut hasher);
        for part in &message.content {
            let text = match part {
                Part::InputText { text } => text,
                Part::OutputText(output) => &output.text,
                Part::InputImage(image) => &image.image_url,
                Part::Refusal { refusal } => refusal,
            };
            Self::of(text, Some(marks)).hash(&mut hasher);
        }
        Self(hasher.finish())
    }

    /// Of what a call asks for, whatever its ids are; `None` for what is no call.
    pub(crate) fn of_call(item: &Item, marks: Option<Marks>) -> Option<Self> {
        if let Item::FunctionCall(call) = item {
            let arguments = compact(&call.arguments);
            return Some(Self::of_hashed((
                "f",
                &call.name,
                &call.namespace,
                arguments,
            )));
        }
        if let Item::CustomToolCall(call) = item {
            return Some(Self::of_hashed((
                "c",
                &call.name,
                &call.namespace,
                &call.input,
            )));
        }
        if let Item::EmulatedCall(call) = item {
            return Some(Self::of_hashed(&call.action));
        }
        if let Item::ToolSearchCall(call) = item {
            return Some(Self::of_hashed((
                "s",
                canonical(&compact(call.arguments.get()), marks),
            )));
        }
        None
    }

    /// Of what a call returned, whatever its ids are; `None` for what is no output.
    pub(crate) fn of_output(item: &Item, marks: Option<Marks>) -> Option<Self> {
        if let Item::FunctionCallOutput(item) | Item::CustomToolCallOutput(item) = item {
            return Some(Self::of(&item.output, marks));
        }
        if let Item::ToolSearchOutput(item) = item {
            return Some(Self::of(&item.tools, marks));
        }
        if let Item::Kept(item) = item {
            let told = item.member("output").map(|raw| compact(raw.get()));
            return Some(Self::of(
                &(
                    item.kind,
                    told.map(|told| canonical(&told, marks).into_owned()),
                ),
                None,
            ));
        }
        None
    }
}

impl Item {
    /// What joins a call that a client runs with its output; `None` for items of other kinds.
    pub(crate) fn call_id(&self) -> Option<&str> {
        match self {
            Self::FunctionCall(call) => Some(&call.call_id),
            Self::CustomToolCall(call) => Some(&call.call_id),
            Self::EmulatedCall(call) => Some(&call.call_id),
            Self::ToolSearchCall(call) => call.call_id.as_deref(),
            Self::Kept(item) => Some(&*item.call_id).filter(|id| !id.is_empty()),
            Self::Message(_)
            | Self::Reasoning(_)
            | Self::FunctionCallOutput(_)
            | Self::CodeInterpreterCall(_)
            | Self::McpListTools(_)
            | Self::McpCall(_)
            | Self::McpApprovalRequest(_)
            | Self::McpApprovalResponse(_)
            | Self::CustomToolCallOutput(_)
            | Self::ToolSearchOutput(_)
            | Self::AdditionalTools(_)
            | Self::ConfigurationUpdate(_)
            | Self::ItemReference(_)
            | Self::Compaction(_)
            | Self::CompactionTrigger(_) => None,
        }
    }
}

fn canonical(text: &str, marks: Option<Marks>) -> Cow<'_, str> {
    marks.map_or(Cow::Borrowed(text), |marks| marks.canonical(text))
}

/// Whether two calls ask for the same.
pub(crate) fn same_call(a: &Item, b: &Item) -> bool {
    match Mark::of_call(a, None) {
        Some(mark) => Mark::of_call(b, None) == Some(mark),
        None => a.id() == b.id() && Mark::of(a, None) == Mark::of(b, None),
    }
}

/// Whether two outputs say the same.
pub(crate) fn same_output(a: &Item, b: &Item) -> bool {
    Mark::of_output(a, None).is_some_and(|mark| Mark::of_output(b, None) == Some(mark))
}
