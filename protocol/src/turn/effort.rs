//! Words for the effort of thinking: those that only some models know are tried, and on a refusal the
//! nearest word that all know is sent. A model that has refused one is remembered by the actor.

use super::effect::{Action, Effects};
use super::fault::Explained;
use super::{CallState, Phase, Turn};
use crate::chat::fault::UpstreamFault;
use crate::translate::{self, Efforts};

/// Whether a refusal is about the effort: it names `reasoning_effort`, `reasoning.effort` or the like.
fn is_about_effort(body: &[u8]) -> bool {
    body.windows(b"reasoning_effort".len())
        .any(|words| words.starts_with(b"reasoning") && words.ends_with(b"effort"))
}

impl Turn {
    /// Whether the model server refused the word for the effort, and there is another to try.
    pub(super) fn refuses_effort(&self, fault: &UpstreamFault) -> bool {
        let UpstreamFault::Status { status, body, .. } = fault else {
            return false;
        };
        matches!(status, 400 | 422) && self.may_refuse_effort() && is_about_effort(body)
    }

    /// Whether the model is told a word that only some know.
    pub(super) fn may_refuse_effort(&self) -> bool {
        self.call.efforts == Efforts::AsAsked
            && self.with_ask(0, |ask| translate::has_rare_effort(&ask))
    }

    /// The same call with a word that all models know.
    pub(super) fn call_with_common_effort(&mut self, effects: &mut Effects) {
        self.call.efforts = Efforts::Common;
        match self.body() {
            Ok(body) => {
                self.phase = Phase::Calling(CallState::default());
                effects.actions.push(Action::EffortRefused);
                effects.actions.push(Action::CallModel(body));
            }
            Err(error) => self.fail(Explained::of(error), effects),
        }
    }
}
