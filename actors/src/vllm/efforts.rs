//! Models that refused a word for the effort of thinking, remembered while the process lives: the
//! next request for one spares the refusal.

use std::collections::BTreeSet;

use tokio::sync::watch;
use vllm_responses_protocol::translate::Efforts;

/// Most models that are remembered; a model that is not is asked twice.
const MAX_MODELS: usize = 256;

/// The models; clones share them.
#[derive(Clone, Debug, Default)]
pub struct KnownEfforts(watch::Sender<BTreeSet<Box<str>>>);

impl KnownEfforts {
    /// The words that this model is told.
    pub fn of(&self, model: &str) -> Efforts {
        if self.0.borrow().contains(model) {
            Efforts::Common
        } else {
            Efforts::AsAsked
        }
    }

    /// This model refused a word.
    pub fn refused(&self, model: &str) {
        self.0
            .send_if_modified(|models| models.len() < MAX_MODELS && models.insert(model.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_refused_is_known_to_all_and_their_number_is_bounded() {
        let known = KnownEfforts::default();
        let other = known.clone();
        known.refused("a");
        assert_eq!(other.of("a"), Efforts::Common);
        assert_eq!(other.of("b"), Efforts::AsAsked);
        for model in 0..2 * MAX_MODELS {
            known.refused(&model.to_string());
        }
        assert_eq!(known.0.borrow().len(), MAX_MODELS);
    }
}
