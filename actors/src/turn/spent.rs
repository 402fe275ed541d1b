//! What a turn has used so far, for whoever started it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Tokens read and written by the model's answers that a response is made of.
#[derive(Debug, Default)]
pub struct Spent {
    input: AtomicU64,
    output: AtomicU64,
}

impl Spent {
    /// One more answer of the model.
    pub(super) fn add(&self, input: u64, output: u64) {
        self.input.fetch_add(input, Relaxed);
        self.output.fetch_add(output, Relaxed);
    }

    /// Tokens read and written.
    pub fn tokens(&self) -> (u64, u64) {
        (self.input.load(Relaxed), self.output.load(Relaxed))
    }
}
