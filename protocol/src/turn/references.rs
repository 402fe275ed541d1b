//! `item_reference`: items that the request names instead of sending them.
//!
//! An item that the history has already is not said twice: its reference goes. Others are looked for
//! in the response that their id names.

use std::collections::HashMap;

use super::effect::{Action, Effects, Refusal};
use super::{Phase, Turn};
use crate::error::{ApiError, ApiErrorCode};
use crate::ids::{self, ResponseId};
use crate::responses::item::Item;

/// Most responses that are read for the references of one request.
const MAX_RESPONSES: usize = 64;

impl Turn {
    /// Takes the history; goes on at once unless references have to be looked up.
    pub(super) fn take_history(&mut self, now_ms: i64, history: Vec<Item>, effects: &mut Effects) {
        if let Err(error) = self.open_sealed(now_ms) {
            return self.refuse_unread(error, effects);
        }
        self.request.input.retain(|item| {
            let Item::ItemReference(reference) = item else {
                return true;
            };
            !history.iter().any(|known| known.id() == &*reference.id)
        });
        let responses = self.referenced();
        if responses.is_empty() {
            return self.resolve(&[], history, effects);
        }
        if responses.len() > MAX_RESPONSES {
            let message = format!(
                "`input` has references to items of more than {MAX_RESPONSES} responses: send the \
                 items, or continue by `previous_response_id`"
            );
            let error = ApiError::new(ApiErrorCode::InvalidValue, message).with_param("input");
            return self.refuse_unread(error, effects);
        }
        self.phase = Phase::Resolving(history);
        effects.actions.push(Action::FindItems(responses));
    }

    /// The responses that the references name, each once.
    fn referenced(&self) -> Vec<ResponseId> {
        let mut responses: Vec<ResponseId> = Vec::new();
        for item in &self.request.input {
            if let Item::ItemReference(reference) = item
                && let Some(response) = ids::response_of(&reference.id)
                && !responses.contains(&response)
            {
                responses.push(response);
            }
        }
        responses
    }

    /// How often the request refers to one and the same item: so many copies of it are made.
    pub fn copies(&self) -> usize {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for item in &self.request.input {
            if let Item::ItemReference(reference) = item {
                *counts.entry(&reference.id).or_default() += 1;
            }
        }
        counts.into_values().max().unwrap_or(0)
    }

    /// The referenced items were looked for.
    pub(super) fn found(&mut self, found: &[Item], effects: &mut Effects) {
        if let Phase::Resolving(history) = std::mem::replace(&mut self.phase, Phase::Fresh) {
            self.resolve(found, history, effects);
        }
    }

    fn resolve(&mut self, found: &[Item], mut history: Vec<Item>, effects: &mut Effects) {
        for (index, item) in self.request.input.iter_mut().enumerate() {
            if let Item::ItemReference(reference) = item {
                match found.iter().find(|known| known.id() == &*reference.id) {
                    Some(known) => *item = known.clone(),
                    None => return self.refuse_unread(unknown(index), effects),
                }
            }
        }
        if let Err(error) = self.open_summaries(&mut history) {
            return self.refuse_unread(error, effects);
        }
        self.list_tools(history, effects);
    }

    fn refuse_unread(&mut self, error: ApiError, effects: &mut Effects) {
        let refusal = Refusal {
            error,
            retry_after: None,
        };
        self.refuse(refusal, effects);
    }
}

fn unknown(index: usize) -> ApiError {
    let place = format!("input[{index}].id");
    let message = format!(
        "`{place}` names no stored item: items are kept only by responses with `store`; send the \
         item itself instead"
    );
    ApiError::new(ApiErrorCode::InvalidValue, message).with_param(place)
}
