//! Summaries of earlier turns, and the request for one.

use super::Reader;
use crate::ids::Prefix;
use crate::json::Fields;
use crate::responses::compaction::{Compaction, CompactionTrigger};
use crate::responses::item::Item;

/// Reads a summary; it is opened by the turn, which knows the keys.
pub(super) fn read(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::Compaction);
    let sealed = fields.required_string("encrypted_content", reader.problems)?;
    Some(Item::Compaction(Compaction {
        id,
        encrypted_content: sealed.into(),
        opened: None,
    }))
}

/// Reads the request for a summary; that it comes last is checked where the whole input is known.
#[expect(
    clippy::unnecessary_wraps,
    reason = "one signature for the readers of all item types"
)]
pub(super) fn read_trigger(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::CompactionTrigger);
    Some(Item::CompactionTrigger(CompactionTrigger { id }))
}
