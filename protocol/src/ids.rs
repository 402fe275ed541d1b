//! Identifiers as types: a response id cannot be passed where an item id is meant.
//!
//! All ids the gateway makes are a prefix and 128 random bits in lower-case hexadecimal. The bits
//! come from an [`IdSource`], so that this crate draws no randomness and tests script their ids.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where fresh ids get their 128 bits from: the system's random source, or a test's script.
pub trait IdSource {
    /// The bits of the next id. Must be unpredictable in production: ids are not secrets, but a
    /// guessable one would let clients probe for each other's responses.
    fn next_bits(&mut self) -> u128;
}

/// Longest id accepted from a client; longer ones cannot be ours and are answered like unknown ones.
pub const MAX_ID_LEN: usize = 128;

/// Id of a stored response, `resp_` and 32 hexadecimal digits when made here.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResponseId(Box<str>);

impl ResponseId {
    /// A fresh id.
    pub fn fresh(source: &mut dyn IdSource) -> Self {
        Self(fresh(Prefix::Response, source))
    }

    /// An id as a client or the database wrote it. Any text is taken: ids that other versions made
    /// must stay readable, and an unknown id is answered by the look-up, not by its shape.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResponseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResponseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// NAME of the API key a response belongs to; empty when authentication is off.
///
/// The name and not the key, so that rotating a key keeps its data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(Box<str>);

impl Owner {
    /// The owner with this key name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The key name; empty when authentication is off.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What an id names; each has the prefix that OpenAI gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// `resp_`
    Response,
    /// `msg_`
    Message,
    /// `rs_`
    Reasoning,
    /// `fc_`
    FunctionCall,
    /// `fco_`
    FunctionCallOutput,
    /// `ci_`
    CodeInterpreterCall,
    /// `mcpl_`
    McpListTools,
    /// `mcp_`
    McpCall,
    /// `mcpr_`
    McpApprovalRequest,
    /// `mcpa_`
    McpApprovalResponse,
    /// `cntr_`
    Container,
    /// `call_`
    Call,
    /// `req_`
    Request,
}

impl Prefix {
    /// The text before the random part, underscore included.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Response => "resp_",
            Self::Message => "msg_",
            Self::Reasoning => "rs_",
            Self::FunctionCall => "fc_",
            Self::FunctionCallOutput => "fco_",
            Self::CodeInterpreterCall => "ci_",
            Self::McpListTools => "mcpl_",
            Self::McpCall => "mcp_",
            Self::McpApprovalRequest => "mcpr_",
            Self::McpApprovalResponse => "mcpa_",
            Self::Container => "cntr_",
            Self::Call => "call_",
            Self::Request => "req_",
        }
    }
}

/// A fresh id: the prefix and 32 hexadecimal digits.
pub fn fresh(prefix: Prefix, source: &mut dyn IdSource) -> Box<str> {
    format!("{}{:032x}", prefix.as_str(), source.next_bits()).into_boxed_str()
}

/// An [`IdSource`] that counts: 1, 2, 3 ... For tests and examples only.
#[derive(Debug, Default)]
pub struct CountingIds(u128);

impl IdSource for CountingIds {
    fn next_bits(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_ids_have_prefix_and_128_bits() {
        let mut ids = CountingIds::default();
        assert_eq!(
            ResponseId::fresh(&mut ids).as_str(),
            "resp_00000000000000000000000000000001"
        );
        assert_eq!(
            &*fresh(Prefix::FunctionCall, &mut ids),
            "fc_00000000000000000000000000000002"
        );
    }
}
