//! A summary in the making: the model's words become one sealed item.

use super::Out;
use crate::ids::{self, Prefix};
use crate::normalize::ModelEvent;
use crate::responses::compaction::Compaction;
use crate::responses::event::{Event, ItemEvent, ItemPlace};
use crate::responses::item::Item;

/// What the model has written of a summary. Its thinking, and calls that it makes although it was
/// shown no tools, are no part of it.
#[derive(Debug, Default)]
pub(super) struct SummaryDraft {
    text: String,
}

impl SummaryDraft {
    /// Takes one thing the model did.
    pub(super) fn take(&mut self, event: &ModelEvent<'_>) {
        if let ModelEvent::Text(text) = event {
            self.text.push_str(text);
        }
    }

    /// The finished item; `None` where the model wrote nothing.
    pub(super) fn close(self, output_index: usize, out: &mut Out<'_>) -> Option<Item> {
        let text = self.text.trim();
        let seal = out.seal.filter(|_| !text.is_empty())?;
        let item = Compaction {
            id: ids::fresh(Prefix::Compaction, out.ids),
            encrypted_content: seal.seal(text, out.ids)?.into(),
            opened: None,
        };
        let empty = Compaction {
            encrypted_content: Box::default(),
            ..item.clone()
        };
        out.emit(&Event::ItemAdded(ItemEvent {
            output_index,
            item: &Item::Compaction(empty),
        }));
        out.emit(&Event::Compacting(ItemPlace {
            item_id: &item.id,
            output_index,
        }));
        Some(Item::Compaction(item))
    }
}
