//! Compaction: earlier turns of a conversation, summed up by the model.
//!
//! The summary travels as sealed text, as the API has it: a client keeps it and sends it back, and
//! only the gateway that made it, or one with its keys, can read it.

use serde::Serialize;

use super::item::{Item, Message};
use super::response::Usage;
use crate::ids::ResponseId;

/// A summary in place of the turns that it sums up.
#[derive(Clone, Debug, Serialize)]
pub struct Compaction {
    /// `cmp_...`
    pub id: Box<str>,
    /// The sealed summary.
    pub encrypted_content: Box<str>,
    /// What the model is told of it; `None` until the seal is opened.
    #[serde(skip)]
    pub opened: Option<Box<Message>>,
}

/// Asks for a summary of everything before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CompactionTrigger {
    /// `cmpt_...`
    pub id: Box<str>,
}

/// The answer of `POST /v1/responses/compact`: what a client goes on from.
#[derive(Serialize)]
pub(crate) struct Compacted<'a> {
    pub(crate) id: &'a ResponseId,
    pub(crate) object: &'static str,
    /// Unix seconds.
    pub(crate) created_at: i64,
    /// The user's messages, then the summary.
    pub(crate) output: Vec<&'a Item>,
    pub(crate) usage: Usage,
}
