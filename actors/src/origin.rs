//! On whose account work is done: the ids that its log lines carry, and its place in a trace.

use std::sync::Arc;

use crate::trace::{Scope, Span};

/// How many gateways of this kind a request has passed, told to every model server: one that is such a
/// gateway again may have this one as its own model server, and would call it without end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hops(u8);

impl Hops {
    /// The header that tells them, as a number.
    pub const HEADER: &'static str = "x-vllm-responses-hops";
    /// A gateway before each of several gateways is of use; more of them in a row are a circle.
    const MOST: u8 = 3;

    /// Of the header's value. A request that says nothing readable comes from a client.
    pub fn read(value: Option<&str>) -> Self {
        Self(value.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// With this gateway.
    #[must_use]
    pub fn and_this(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Whether it goes round in a circle.
    pub fn are_too_many(self) -> bool {
        self.0 > Self::MOST
    }

    /// The header's value.
    pub fn number(self) -> u8 {
        self.0
    }
}

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
    /// The gateways that it has passed before this one.
    pub hops: Hops,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_goes_round_is_noticed_and_a_row_of_gateways_is_not() {
        for said in [None, Some(""), Some("x"), Some("-1"), Some("0")] {
            assert_eq!(Hops::read(said), Hops::default(), "{said:?}");
        }
        let mut hops = Hops::read(None);
        let mut passed = 0;
        while !hops.are_too_many() {
            hops = Hops::read(Some(&hops.and_this().number().to_string()));
            passed += 1;
        }
        assert_eq!(passed, 4);
        assert!(Hops::read(Some("255")).and_this().are_too_many());
    }
}
