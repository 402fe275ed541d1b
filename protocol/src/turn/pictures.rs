//! Pictures that MCP tools gave, and model servers that take none.
//!
//! No list of models says which of them see. A server that refuses a prompt with such a picture is
//! asked once more with words in its place: the tool has run, and the response must not end for what
//! neither the client nor the model can change.

use super::effect::{Action, Effects};
use super::fault::Explained;
use super::{CallState, Phase, Turn};
use crate::error::ApiErrorCode;
use crate::responses::item::Item;
use crate::translate::{self, Pictures};

/// Words of refusals of pictures, in small letters: vLLM, `SGLang`, llama.cpp, Ollama, `DeepSeek`, OpenAI.
const REFUSALS: [&str; 7] = [
    "multimodal",
    "multi-modal",
    "image",
    "vision",
    "mmproj",
    "content must be a string",
    "expected `text`",
];

impl Turn {
    /// Calls the model again, with words for the pictures, when it refused them; says whether it did.
    pub(super) fn called_without_pictures(
        &mut self,
        fault: &Explained,
        effects: &mut Effects,
    ) -> bool {
        if self.call.pictures == Pictures::Told || !refuses_pictures(fault) {
            return false;
        }
        let produced = self.composer.items();
        let mut items = produced.iter().chain(self.history.iter());
        if !items.any(has_pictures) && !self.request.input.iter().any(has_pictures) {
            return false;
        }
        self.call.pictures = Pictures::Told;
        match self.with_ask(self.call.left_out, translate::chat_body) {
            Ok(body) => {
                self.phase = Phase::Calling(CallState::default());
                effects.actions.push(Action::CallModel(body));
            }
            Err(error) => self.fail(Explained::of(error), effects),
        }
        true
    }
}

fn has_pictures(item: &Item) -> bool {
    matches!(item, Item::McpCall(call) if !call.images.is_empty())
}

fn refuses_pictures(fault: &Explained) -> bool {
    if fault.error.code == ApiErrorCode::ContextLengthExceeded {
        return false;
    }
    let words = fault.error.message.to_ascii_lowercase();
    REFUSALS.iter().any(|word| words.contains(word))
}
