//! Earlier turns, as the store keeps them, back to items.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::BuildHasher;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::blob::Marks;
use crate::ids::CountingIds;
use crate::json::{self, Problems, kind};
use crate::json_text;
use crate::record::{Chain, Link};
use crate::responses::decode::Reader;
use crate::responses::item::{Item, Role};
use crate::responses::said;

/// A stored turn that cannot be read: written by a newer version, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored turn {position} of the conversation cannot be read")]
pub struct CorruptHistory {
    /// Which turn, from 0, oldest first.
    pub position: usize,
}

/// The member of a stored response that history needs.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    output: &'a RawValue,
    /// See [`crate::responses::said`].
    #[serde(rename = "_said", borrow, default)]
    said: Option<&'a RawValue>,
}

/// An item's type.
#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

/// All items of a chain: each turn's input and then its output, oldest first. Large data has marks in
/// its place, here and below.
pub fn from_chain(chain: &Chain, marks: Marks) -> Result<Vec<Item>, CorruptHistory> {
    let mut items = Vec::new();
    for (position, link) in chain.links.iter().enumerate() {
        append(link, &mut items, marks).ok_or(CorruptHistory { position })?;
    }
    Ok(items)
}

/// The effective input of the chain's last response: all earlier turns, then its own input.
pub fn effective_input(chain: &Chain, marks: Marks) -> Result<Vec<Item>, CorruptHistory> {
    let mut items = Vec::new();
    let last = chain.links.len().saturating_sub(1);
    for (position, link) in chain.links.iter().enumerate() {
        let read = if position < last {
            append(link, &mut items, marks).map(|_has_summary| ())
        } else {
            parse_items(&marks.read(&link.input_items)).map(|input| items.extend(input))
        };
        read.ok_or(CorruptHistory { position })?;
    }
    Ok(items)
}

/// Reads an effective input from its end, one turn after the other: who wants its last items need not
/// read the whole chain.
#[derive(Debug)]
pub struct Backwards {
    marks: Marks,
    /// Turns read.
    read: usize,
    /// Whether a later turn has a summary of everything before it.
    summed_up: bool,
}

impl Backwards {
    /// Nothing is read yet.
    pub fn new(marks: Marks) -> Self {
        Self {
            marks,
            read: 0,
            summed_up: false,
        }
    }

    /// The items of the turn before the last one read, oldest first; the first time of the chain's last
    /// response, whose input only is part of its effective input.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn turn(&mut self, link: &Link) -> Result<Vec<Item>, CorruptHistory> {
        let corrupt = CorruptHistory {
            position: self.read,
        };
        let is_last = self.read == 0;
        self.read += 1;
        if is_last {
            return parse_items(&self.marks.read(&link.input_items)).ok_or(corrupt);
        }
        let mut items = Vec::new();
        let has_summary = append(link, &mut items, self.marks).ok_or(corrupt)?;
        if self.summed_up {
            items.retain(outlives_summary);
        }
        self.summed_up |= has_summary;
        Ok(items)
    }
}

/// Takes the items of a chain that are wanted, by their ids, out of all that its responses took in and
/// made; what is found is not wanted any more.
pub fn take_items(
    (chain, marks): (&Chain, Marks),
    wanted: &mut HashSet<Box<str>, impl BuildHasher>,
    found: &mut Vec<Item>,
) -> Result<(), CorruptHistory> {
    for (position, link) in chain.links.iter().enumerate().rev() {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut items = Vec::new();
        append(link, &mut items, marks).ok_or(CorruptHistory { position })?;
        items.retain(|item| wanted.remove(item.id()));
        found.append(&mut items);
    }
    Ok(())
}

/// A stored response as clients see it that did not ask for the outputs of the code interpreter. The
/// store keeps them, since the model needs them on later turns.
pub(crate) fn without_code_outputs(response: &str) -> Cow<'_, str> {
    const MARK: &str = "\"type\":\"code_interpreter_call\"";
    let hidden = || {
        let stored: Stored<'_> = serde_json::from_str(response).ok()?;
        let items: Vec<&RawValue> = serde_json::from_str(stored.output.get()).ok()?;
        let items: Vec<_> = items.into_iter().map(without_outputs).collect();
        // The output is written last: see `responses::response`.
        let head = response
            .strip_suffix('}')?
            .strip_suffix(stored.output.get())?;
        Some([head, "[", &items.join(","), "]}"].concat())
    };
    if !response.contains(MARK) {
        return Cow::Borrowed(response);
    }
    // One that cannot be read is corrupt and has no outputs to hide.
    hidden().map_or(Cow::Borrowed(response), Cow::Owned)
}

/// A stored item without its code outputs; any other stays as it is, byte for byte.
fn without_outputs(raw: &RawValue) -> Cow<'_, str> {
    let hidden = || {
        let item: Typed<'_> = serde_json::from_str(raw.get()).ok()?;
        if item.kind != "code_interpreter_call" {
            return None;
        }
        let mut items = parse_items(&["[", raw.get(), "]"].concat())?;
        items.iter_mut().for_each(Item::hide_code_outputs);
        items
            .first()
            .and_then(|item| serde_json::to_string(item).ok())
    };
    hidden().map_or(Cow::Borrowed(raw.get()), Cow::Owned)
}

/// Appends one turn's items; `None` when its row is no row at all. Says whether it summed up what came
/// before.
fn append(link: &Link, items: &mut Vec<Item>, marks: Marks) -> Option<bool> {
    let response = marks.read(&link.response);
    let stored: Stored<'_> = serde_json::from_str(&response).ok()?;
    let mut input = parse_items(&marks.read(&link.input_items))?;
    let mut output = read_items(stored.output)?;
    if let Some(said) = stored.said {
        said::give_back(said, input.iter_mut().chain(&mut output));
    }
    items.extend(input);
    let has_summary = output
        .iter()
        .any(|item| matches!(item, Item::Compaction(_)));
    if has_summary {
        items.retain(outlives_summary);
    }
    items.extend(output);
    Some(has_summary)
}

/// A summary stands for everything before it but what the user, and the application, said, which
/// tools and settings there are, and where code ran.
fn outlives_summary(item: &Item) -> bool {
    match item {
        Item::Message(message) => message.role != Role::Assistant,
        Item::AdditionalTools(_)
        | Item::ToolSearchOutput(_)
        | Item::ConfigurationUpdate(_)
        | Item::CodeInterpreterCall(_) => true,
        Item::Reasoning(_)
        | Item::FunctionCall(_)
        | Item::FunctionCallOutput(_)
        | Item::McpListTools(_)
        | Item::McpCall(_)
        | Item::McpApprovalRequest(_)
        | Item::McpApprovalResponse(_)
        | Item::CustomToolCall(_)
        | Item::CustomToolCallOutput(_)
        | Item::ToolSearchCall(_)
        | Item::ItemReference(_)
        | Item::Compaction(_)
        | Item::CompactionTrigger(_)
        | Item::EmulatedCall(_)
        | Item::Kept(_) => false,
    }
}

/// Reads a stored array of items. Stored items have ids; the source is for form only.
///
/// What was stored was taken once, or given out: what this version would not take any more, or a
/// newer one wrote, costs the part that cannot be read, never the conversation.
fn read_items(raw: &RawValue) -> Option<Vec<Item>> {
    if kind(raw) != json::Kind::Array {
        return None;
    }
    let mut reader = Reader {
        ids: &mut CountingIds::default(),
        problems: &mut Problems::default(),
    };
    Some(reader.stored_items(raw))
}

/// Reads the items of one stored turn's input, as [`items_json`] wrote them.
pub fn parse_items(text: &str) -> Option<Vec<Item>> {
    read_items(serde_json::from_str(text).ok()?)
}

/// Items as a JSON array, as the store keeps them.
pub fn items_json(items: &[Item]) -> String {
    // Items are strings, words and raw values: nothing here can fail to be written, as UTF-8.
    let written = json_text::written(&items).unwrap_or_default();
    String::from_utf8(written).unwrap_or_default()
}
