//! Earlier turns, as the store keeps them, back to items.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ids::CountingIds;
use crate::json::{Place, Problems};
use crate::record::{Chain, Link};
use crate::responses::decode::Reader;
use crate::responses::item::{Item, Role};

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
}

/// All items of a chain: each turn's input and then its output, oldest first.
pub fn from_chain(chain: &Chain) -> Result<Vec<Item>, CorruptHistory> {
    let mut items = Vec::new();
    for (position, link) in chain.links.iter().enumerate() {
        append(link, &mut items).ok_or(CorruptHistory { position })?;
    }
    Ok(items)
}

/// The effective input of the chain's last response: all earlier turns, then its own input.
pub fn effective_input(chain: &Chain) -> Result<Vec<Item>, CorruptHistory> {
    let mut items = Vec::new();
    let last = chain.links.len().saturating_sub(1);
    for (position, link) in chain.links.iter().enumerate() {
        let read = if position < last {
            append(link, &mut items).map(|_has_summary| ())
        } else {
            parse_items(&link.input_items).map(|input| items.extend(input))
        };
        read.ok_or(CorruptHistory { position })?;
    }
    Ok(items)
}

/// Reads an effective input from its end, one turn after the other: who wants its last items need not
/// read the whole chain.
#[derive(Debug, Default)]
pub struct Backwards {
    /// Turns read.
    read: usize,
    /// Whether a later turn has a summary of everything before it.
    summed_up: bool,
}

impl Backwards {
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
            return parse_items(&link.input_items).ok_or(corrupt);
        }
        let mut items = Vec::new();
        let has_summary = append(link, &mut items).ok_or(corrupt)?;
        if self.summed_up {
            items.retain(is_said);
        }
        self.summed_up |= has_summary;
        Ok(items)
    }
}

/// The items that each of these responses took in and made itself; they need not be a chain.
///
/// # Errors
/// One of them cannot be read.
pub fn from_links(links: &Chain) -> Result<Vec<Item>, CorruptHistory> {
    let mut items = Vec::new();
    for (position, link) in links.links.iter().enumerate() {
        let mut own = Vec::new();
        append(link, &mut own).ok_or(CorruptHistory { position })?;
        items.append(&mut own);
    }
    Ok(items)
}

/// A stored response as clients see it that did not ask for the outputs of the code interpreter. The
/// store keeps them, since the model needs them on later turns.
pub(crate) fn without_code_outputs(response: &str) -> Cow<'_, str> {
    const MARK: &str = "\"type\":\"code_interpreter_call\"";
    let hidden = || {
        let stored: Stored<'_> = serde_json::from_str(response).ok()?;
        let mut items = read_items(stored.output)?;
        items.iter_mut().for_each(Item::hide_code_outputs);
        // The output is written last: see `responses::response`.
        let head = response
            .strip_suffix('}')?
            .strip_suffix(stored.output.get())?;
        Some([head, &items_json(&items), "}"].concat())
    };
    if !response.contains(MARK) {
        return Cow::Borrowed(response);
    }
    // One that cannot be read is corrupt and has no outputs to hide.
    hidden().map_or(Cow::Borrowed(response), Cow::Owned)
}

/// Appends one turn's items; `None` when they cannot be read. Says whether it summed up what came before.
fn append(link: &Link, items: &mut Vec<Item>) -> Option<bool> {
    let input = serde_json::from_str(&link.input_items).ok()?;
    items.extend(read_items(input)?);
    let stored: Stored<'_> = serde_json::from_str(&link.response).ok()?;
    let output = read_items(stored.output)?;
    let has_summary = output.iter().any(is_summary);
    if has_summary {
        // It stands for everything before it but what the user, and the application, said.
        items.retain(is_said);
    }
    items.extend(output);
    Some(has_summary)
}

/// Whether the user or the application said it.
fn is_said(item: &Item) -> bool {
    matches!(item, Item::Message(message) if message.role != Role::Assistant)
}

fn is_summary(item: &Item) -> bool {
    matches!(item, Item::Compaction(_))
}

/// Reads a stored array of items. Stored items have ids; the source is for form only.
fn read_items(raw: &RawValue) -> Option<Vec<Item>> {
    let mut problems = Problems::default();
    let mut reader = Reader {
        ids: &mut CountingIds::default(),
        problems: &mut problems,
    };
    let items = reader.items(raw, &Place::Root);
    problems.is_empty().then_some(items)
}

/// Reads the items of one stored turn's input, as [`items_json`] wrote them.
pub fn parse_items(text: &str) -> Option<Vec<Item>> {
    read_items(serde_json::from_str(text).ok()?)
}

/// Items as a JSON array, as the store keeps them.
pub fn items_json(items: &[Item]) -> String {
    // Items are strings, words and raw values: nothing here can fail to be written.
    serde_json::to_string(items).unwrap_or_default()
}
