//! On whose account work is done: the ids that its log lines carry, and its place in a trace.

use std::sync::Arc;

use crate::trace::{Scope, Span};

/// The request and the response that something is done for. Cheap to clone; travels with messages, so
/// that what goes wrong far away can be found by its ids.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client's `x-request-id`, or ours.
    pub request_id: Arc<str>,
    /// Empty for requests that make no response.
    pub response_id: Arc<str>,
    /// Where its spans hang, and what is told to servers that work for it.
    pub scope: Scope,
}

impl Origin {
    /// The same, for what is part of this work.
    #[must_use]
    pub fn below(&self, span: &Span) -> Self {
        Self {
            scope: span.scope().clone(),
            ..self.clone()
        }
    }
}
