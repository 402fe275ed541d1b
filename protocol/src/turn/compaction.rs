//! Turns that sum the conversation up: the endpoint for it, and requests that end in a trigger.
//!
//! The model is shown the conversation, no tools, and asked for a summary. Summaries in the input and
//! in the history are opened before the model is asked; whose seal does not open, the turn is refused,
//! since an answer without what was summed up would be a wrong one.

use super::effect::{Action, Effects};
use super::{Purpose, Turn};
use crate::error::{ApiError, ApiErrorCode};
use crate::responses::compaction::Compacted;
use crate::responses::content::Part;
use crate::responses::item::{Item, ItemStatus, Message, Role};
use crate::seal::Bond;
use crate::translate::ChoiceMode;

/// What the model is told before a summary.
const INTRODUCTION: &str = "Summary of the conversation so far:\n\n";

impl Turn {
    /// Whether the turn makes a summary instead of an answer.
    pub(super) fn compacts(&self) -> bool {
        self.call.choice == ChoiceMode::Summary
    }

    /// Opens the summaries of the conversation.
    pub(super) fn open_summaries(&mut self, history: &mut [Item]) -> Result<(), ApiError> {
        let bond = Bond::of_summary(&self.owner);
        let at_ms = self.identity.created_at_ms;
        let earlier = history
            .iter_mut()
            .map(|item| ("previous_response_id".to_owned(), item));
        let input = self.request.input.iter_mut().enumerate();
        let input = input.map(|(index, item)| (format!("input[{index}].encrypted_content"), item));
        for (place, item) in earlier.chain(input) {
            let Item::Compaction(item) = item else {
                continue;
            };
            let summary = self.seal_keys.open(&item.encrypted_content, bond, at_ms);
            let Ok(summary) = summary else {
                return Err(refused(place));
            };
            item.opened = Some(Box::new(Message {
                id: item.id.clone(),
                status: ItemStatus::Completed,
                role: Role::User,
                content: vec![Part::InputText {
                    text: [INTRODUCTION, &summary].concat().into(),
                }],
                phase: None,
            }));
        }
        Ok(())
    }

    /// Answers with what a client goes on from.
    pub(super) fn tell_compacted(&mut self, output: &[Item], effects: &mut Effects) {
        let items = self.history.iter().chain(&self.request.input);
        let compacted = Compacted {
            id: &self.identity.id,
            object: "response.compaction",
            created_at: self.identity.created_at_ms.div_euclid(1000),
            output: items.filter(|item| is_users(item)).chain(output).collect(),
            usage: self.usage.unwrap_or_default(),
        };
        crate::json_text::append(&mut effects.bytes, &compacted);
        effects.actions.push(Action::Answer);
    }

    /// Whether the answer is that of the endpoint.
    pub(super) fn is_compact_request(&self) -> bool {
        self.purpose == Purpose::Compact
    }
}

fn is_users(item: &Item) -> bool {
    matches!(item, Item::Message(message) if message.role == Role::User)
}

fn refused(place: String) -> ApiError {
    let message = "the encrypted content of a compaction item cannot be used: its key is gone, or it \
                   is another user's, too old or was changed; go on from the conversation itself";
    ApiError::new(ApiErrorCode::InvalidEncryptedContent, message).with_param(place)
}
