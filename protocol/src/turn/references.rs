//! `item_reference`: items that the request names instead of sending them.
//!
//! An item that the history has already is not said twice: its reference goes. Others are looked for
//! in the response that their id names.

use std::collections::{HashMap, HashSet};

use super::effect::{Action, Effects, Refusal};
use super::{Phase, Turn, known};
use crate::error::{ApiError, ApiErrorCode};
use crate::ids;
use crate::responses::item::Item;

/// Most items that one request may refer to without sending them: each model call of an agent is a
/// response, and clients refer to all that earlier ones made.
const MAX_REFERENCES: usize = 10_000;

impl Turn {
    /// Takes the history; goes on at once unless references have to be looked up.
    pub(super) fn take_history(&mut self, now_ms: i64, history: Vec<Item>, effects: &mut Effects) {
        let known: HashSet<&str> = history.iter().map(Item::id).collect();
        self.request.input.retain(|item| {
            let Item::ItemReference(reference) = item else {
                return true;
            };
            !known.contains(&*reference.id)
        });
        let wanted = self.referenced();
        if wanted.is_empty() {
            return self.resolve(now_ms, &[], history, effects);
        }
        if wanted.len() > MAX_REFERENCES {
            let message = format!(
                "`input` has references to more than {MAX_REFERENCES} items: send the items, or \
                 continue by `previous_response_id`"
            );
            let error = ApiError::new(ApiErrorCode::InvalidValue, message).with_param("input");
            return self.refuse_unread(error, effects);
        }
        self.phase = Phase::Resolving(history);
        effects.actions.push(Action::FindItems(wanted));
    }

    /// The items that the references name, each once, of those that may be stored here.
    fn referenced(&self) -> Vec<Box<str>> {
        let mut seen = HashSet::new();
        let references = self.request.input.iter().filter_map(|item| {
            let Item::ItemReference(reference) = item else {
                return None;
            };
            Some(&reference.id)
        });
        references
            .filter(|id| ids::response_of(id).is_some() && seen.insert(&**id))
            .cloned()
            .collect()
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
    pub(super) fn found(&mut self, now_ms: i64, found: &[Item], effects: &mut Effects) {
        if let Phase::Resolving(history) = std::mem::replace(&mut self.phase, Phase::Fresh) {
            self.resolve(now_ms, found, history, effects);
        }
    }

    fn resolve(
        &mut self,
        now_ms: i64,
        found: &[Item],
        mut history: Vec<Item>,
        effects: &mut Effects,
    ) {
        let found: HashMap<&str, &Item> = found.iter().map(|item| (item.id(), item)).collect();
        for (index, item) in self.request.input.iter_mut().enumerate() {
            if let Item::ItemReference(reference) = item {
                match found.get(&*reference.id) {
                    Some(known) => *item = (*known).clone(),
                    None => return self.refuse_unread(unknown(index), effects),
                }
            }
        }
        known::forget_repeated(&mut self.request.input);
        known::forget_known(&history, &mut self.request.input, self.marks);
        self.open_sealed(now_ms);
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
