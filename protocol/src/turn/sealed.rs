//! Sealed reasoning in the input: opened before the model is asked.

use super::Turn;
use crate::error::{ApiError, ApiErrorCode};
use crate::responses::item::{Item, ReasoningPart};
use crate::seal::Bond;

impl Turn {
    /// Puts the text of envelopes where the raw text is not there. One message serves whatever is
    /// wrong with an envelope: changed, foreign, of another model, expired.
    pub(super) fn open_sealed(&mut self, now_ms: i64) -> Result<(), ApiError> {
        let bond = Bond {
            owner: &self.owner,
            model: &self.request.model,
        };
        for (index, item) in self.request.input.iter_mut().enumerate() {
            let Item::Reasoning(reasoning) = item else {
                continue;
            };
            if !reasoning.content.is_empty() {
                continue;
            }
            let Some(sealed) = &reasoning.encrypted_content else {
                continue;
            };
            let opened = self.seal_keys.open(sealed, bond, now_ms);
            let text = opened.ok_or_else(|| refused(index))?;
            reasoning.content = vec![ReasoningPart::ReasoningText { text: text.into() }];
        }
        Ok(())
    }
}

fn refused(index: usize) -> ApiError {
    let place = format!("input[{index}].encrypted_content");
    let message = "the encrypted content of a reasoning item cannot be used: leave the item out, or \
                   send the raw text in `content`";
    ApiError::new(ApiErrorCode::InvalidEncryptedContent, message).with_param(place)
}
