//! Sealed reasoning in the input: opened before the model is asked.

use super::Turn;
use crate::responses::item::{Item, ReasoningPart};
use crate::responses::response::{InputTransformation, TransformationReason};
use crate::seal::{Bond, Unopened};

impl Turn {
    /// Puts the text of envelopes where the raw text is not there.
    ///
    /// Whose envelope does not open, since it is of another provider or of another model, is not shown
    /// to the model, and the response says so: clients replay what they have, and change models.
    pub(super) fn open_sealed(&mut self, now_ms: i64) {
        let bond = Bond {
            owner: &self.owner,
            model: &self.request.model,
        };
        let mut removed = Vec::new();
        for item in &mut self.request.input {
            let Item::Reasoning(reasoning) = item else {
                continue;
            };
            if !reasoning.content.is_empty() {
                continue;
            }
            let Some(sealed) = &reasoning.encrypted_content else {
                continue;
            };
            match self.seal_keys.open(sealed, bond, now_ms) {
                Ok(text) => {
                    let text = text.into();
                    reasoning.content = vec![ReasoningPart::ReasoningText { text }];
                }
                Err(why) => {
                    removed.push(InputTransformation::of(reasoning.id.clone(), reason(why)));
                }
            }
        }
        self.identity.input_transformations = removed;
    }
}

fn reason(why: Unopened) -> TransformationReason {
    match why {
        Unopened::OtherModel => TransformationReason::ModelMismatch,
        Unopened::Foreign => TransformationReason::OrganizationMismatch,
    }
}
