//! A function call while its arguments grow.
//!
//! A call is announced when its arguments begin, since its id and name may not change after that
//! and a server may send the name in pieces.

use serde::de::IgnoredAny;

use super::{Ending, Out};
use crate::ids::{self, Prefix};
use crate::normalize::CallPiece;
use crate::responses::event::{ArgumentsDelta, ArgumentsDone, Event, ItemEvent};
use crate::responses::item::{FunctionCall, Item, ItemStatus};

/// A call whose end is not known yet.
#[derive(Debug)]
pub(super) struct CallDraft {
    upstream_index: u32,
    call_id: Box<str>,
    name: String,
    arguments: String,
    announced: Option<Announced>,
}

/// What is fixed from `output_item.added` on.
#[derive(Debug)]
struct Announced {
    index: usize,
    id: Box<str>,
}

impl CallDraft {
    /// A call of which nothing but its upstream index is known.
    pub(super) fn new(upstream_index: u32) -> Self {
        Self {
            upstream_index,
            call_id: Box::default(),
            name: String::new(),
            arguments: String::new(),
            announced: None,
        }
    }

    /// Whether the piece belongs to this call. Some servers give every call index 0 and tell them
    /// apart by id alone.
    pub(super) fn is(&self, piece: CallPiece<'_>) -> bool {
        let other_id =
            !piece.id.is_empty() && !self.call_id.is_empty() && piece.id != &*self.call_id;
        self.upstream_index == piece.index && !other_id
    }

    /// Takes id and name of a piece; after the announcement they are fixed.
    pub(super) fn name(&mut self, piece: CallPiece<'_>) {
        if self.announced.is_some() {
            return;
        }
        if self.call_id.is_empty() {
            self.call_id = piece.id.into();
        }
        // Some servers repeat the whole name with every piece.
        if piece.name != self.name {
            self.name.push_str(piece.name);
        }
    }

    /// Whether `output_item.added` was sent.
    pub(super) fn is_announced(&self) -> bool {
        self.announced.is_some()
    }

    /// Whether there is anything to announce.
    pub(super) fn has_name(&self) -> bool {
        !self.name.is_empty()
    }

    /// Fixes id, name and place.
    pub(super) fn announce(&mut self, index: usize, out: &mut Out<'_>) {
        if self.call_id.is_empty() {
            self.call_id = ids::fresh(Prefix::Call, out.ids);
        }
        let id = ids::fresh(Prefix::FunctionCall, out.ids);
        let item = Item::FunctionCall(FunctionCall {
            id: id.clone(),
            status: ItemStatus::InProgress,
            call_id: self.call_id.clone(),
            name: self.name.as_str().into(),
            arguments: Box::default(),
        });
        out.emit(&Event::ItemAdded(ItemEvent {
            output_index: index,
            item: &item,
        }));
        self.announced = Some(Announced { index, id });
    }

    /// More arguments; the call is announced.
    pub(super) fn arguments(&mut self, delta: &str, out: &mut Out<'_>) {
        if let Some(Announced { index, id }) = &self.announced {
            let event = ArgumentsDelta {
                item_id: id,
                output_index: *index,
                delta,
            };
            out.emit(&Event::ArgumentsDelta(event));
        }
        self.arguments.push_str(delta);
    }

    /// Whether the arguments are a whole JSON object, so that nothing but white space can follow.
    pub(super) fn is_settled(&self) -> bool {
        self.arguments.trim_end().ends_with('}') && is_json(&self.arguments)
    }

    /// The finished call and its place; `None` when nothing was ever known of it.
    ///
    /// Arguments that are no JSON make the item `incomplete`, whatever ended it. A call without any
    /// is given an empty object when the model ended it itself: that is how a call of a function
    /// without parameters is written.
    pub(super) fn close(mut self, ending: Ending, out: &mut Out<'_>) -> Option<(usize, Item)> {
        if self.arguments.is_empty() && ending == Ending::Whole {
            self.arguments("{}", out);
        }
        let Announced { index, id } = self.announced?;
        out.emit(&Event::ArgumentsDone(ArgumentsDone {
            item_id: &id,
            output_index: index,
            name: &self.name,
            arguments: &self.arguments,
        }));
        let whole = is_json(&self.arguments);
        let item = Item::FunctionCall(FunctionCall {
            id,
            status: if whole {
                ItemStatus::Completed
            } else {
                ItemStatus::Incomplete
            },
            call_id: self.call_id,
            name: self.name.into(),
            arguments: self.arguments.into(),
        });
        Some((index, item))
    }
}

/// Whether a text is one JSON value; nesting costs no stack.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}
