//! Identifiers as types: a response id cannot be passed where an item id is meant.
//!
//! All ids the gateway makes are a prefix and 128 random bits in lower-case hexadecimal. The bits
//! come from an [`IdSource`], so that this crate draws no randomness and tests script their ids.
//! Ids of items have the bits of their response and a number: so a stored item is found by its id
//! without an index ([`response_of`]).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where fresh ids get their 128 bits from: the system's random source, or a test's script.
pub trait IdSource: Send {
    /// The bits of the next id. Must be unpredictable in production: ids are not secrets, but a
    /// guessable one would let clients probe for each other's responses.
    fn next_bits(&mut self) -> u128;

    /// The bits of the response whose item the next one is, and its number there; `None` where items
    /// have bits of their own.
    fn next_item(&mut self) -> Option<(u128, u32)> {
        None
    }
}

/// Ids of one response: its items' numbered, all others from another source.
pub struct ItemIds {
    response: u128,
    next: u32,
    others: Box<dyn IdSource>,
}

impl fmt::Debug for ItemIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemIds").finish_non_exhaustive()
    }
}

impl ItemIds {
    /// A fresh response's ids, and the response's own.
    pub fn fresh(mut source: Box<dyn IdSource>) -> (ResponseId, Self) {
        let response = source.next_bits();
        let ids = Self {
            response,
            next: 0,
            others: source,
        };
        (ResponseId(written(Prefix::Response, response)), ids)
    }
}

impl IdSource for ItemIds {
    fn next_bits(&mut self) -> u128 {
        self.others.next_bits()
    }

    fn next_item(&mut self) -> Option<(u128, u32)> {
        self.next = self.next.wrapping_add(1);
        Some((self.response, self.next))
    }
}

/// The response that made an item with this id, or took it in; `None` for ids of another make.
pub fn response_of(item_id: &str) -> Option<ResponseId> {
    /// Digits of the response, and at least so many of the number.
    const DIGITS: (usize, usize) = (32, 4);
    let (_, digits) = item_id.rsplit_once('_')?;
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() < DIGITS.0 + DIGITS.1 || !digits.bytes().all(lower_hex) {
        return None;
    }
    let response = digits.get(..DIGITS.0)?;
    Some(ResponseId(
        [Prefix::Response.as_str(), response].concat().into(),
    ))
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
    /// `ctc_`
    CustomToolCall,
    /// `ctco_`
    CustomToolCallOutput,
    /// `tsc_`
    ToolSearchCall,
    /// `tso_`
    ToolSearchOutput,
    /// `at_`
    AdditionalTools,
    /// `cfg_`
    ConfigurationUpdate,
    /// `cmp_`
    Compaction,
    /// `cmpt_`
    CompactionTrigger,
    /// `lsh_`
    LocalShellCall,
    /// `lsho_`
    LocalShellCallOutput,
    /// `sh_`
    ShellCall,
    /// `sho_`
    ShellCallOutput,
    /// `apc_`
    ApplyPatchCall,
    /// `apco_`
    ApplyPatchCallOutput,
    /// `cu_`
    ComputerCall,
    /// `cuo_`
    ComputerCallOutput,
    /// `ws_`
    WebSearchCall,
    /// `fs_`
    FileSearchCall,
    /// `ig_`
    ImageGenerationCall,
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
    /// Whether it is that of an item of a response.
    fn is_item(self) -> bool {
        !matches!(
            self,
            Self::Response | Self::Container | Self::Call | Self::Request
        )
    }

    /// The text before the random part, underscore included.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Response => "resp_",
            Self::Message => "msg_",
            Self::Reasoning => "rs_",
            Self::FunctionCall => "fc_",
            Self::FunctionCallOutput => "fco_",
            Self::CustomToolCall => "ctc_",
            Self::CustomToolCallOutput => "ctco_",
            Self::ToolSearchCall => "tsc_",
            Self::ToolSearchOutput => "tso_",
            Self::AdditionalTools => "at_",
            Self::ConfigurationUpdate => "cfg_",
            Self::Compaction => "cmp_",
            Self::CompactionTrigger => "cmpt_",
            Self::LocalShellCall => "lsh_",
            Self::LocalShellCallOutput => "lsho_",
            Self::ShellCall => "sh_",
            Self::ShellCallOutput => "sho_",
            Self::ApplyPatchCall => "apc_",
            Self::ApplyPatchCallOutput => "apco_",
            Self::ComputerCall => "cu_",
            Self::ComputerCallOutput => "cuo_",
            Self::WebSearchCall => "ws_",
            Self::FileSearchCall => "fs_",
            Self::ImageGenerationCall => "ig_",
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

/// A fresh id: the prefix and at least 32 hexadecimal digits.
pub fn fresh(prefix: Prefix, source: &mut dyn IdSource) -> Box<str> {
    let numbered = if prefix.is_item() {
        source.next_item()
    } else {
        None
    };
    match numbered {
        Some((response, number)) => {
            format!("{}{response:032x}{number:04x}", prefix.as_str()).into_boxed_str()
        }
        None => written(prefix, source.next_bits()),
    }
}

fn written(prefix: Prefix, bits: u128) -> Box<str> {
    format!("{}{bits:032x}", prefix.as_str()).into_boxed_str()
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
    fn items_lead_to_their_response() {
        let (response, mut ids) = ItemIds::fresh(Box::new(CountingIds(7)));
        let item = fresh(Prefix::Reasoning, &mut ids);
        assert_eq!(&*item, "rs_000000000000000000000000000000080001");
        assert_eq!(response_of(&item), Some(response));
        let call = fresh(Prefix::Call, &mut ids);
        assert_eq!(&*call, "call_00000000000000000000000000000009");
        for foreign in [
            &*call,
            "rs_1",
            "",
            "msg_253d0877-3f58-46bc-b8fb-ba5b253d08773f58",
            "rs_00000000000000000000000000000008000G",
        ] {
            assert_eq!(response_of(foreign), None, "{foreign}");
        }
    }

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
