//! What the model server said of a call beside what clients are shown: it goes back as it came.
//!
//! Some models must find the id that they gave a call (Kimi K2, Mistral's API), or a member of the
//! server's own (Gemini's thought signature). Clients have an id of ours, so these are kept with the
//! stored response under a private member, which nobody but the model server ever sees.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::item::Item;

/// What a model server said of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its id of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Box<str>>,
    /// Its `extra_content`: JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Box<str>>,
}

impl Said {
    /// What there is to keep of an id that clients do not see, and of `extra_content`; `None` where
    /// the server gave neither.
    pub(crate) fn of(id: &str, extra: &str) -> Option<Box<Self>> {
        let kept = |text: &str| (!text.is_empty()).then(|| text.into());
        let said = Self {
            id: kept(id),
            extra: kept(extra),
        };
        (said != Self::default()).then(|| Box::new(said))
    }
}

/// The first member of a stored response that has such words.
const MEMBER: &str = "{\"_said\":";

/// A response as it is stored: with what was said of these items, those that it took in or made.
pub(crate) fn keep<'a>(core: String, items: impl Iterator<Item = &'a Item>) -> String {
    let said: BTreeMap<&str, &Said> = items
        .filter_map(|item| Some((item.id(), item.said()?)))
        .collect();
    let members = core.strip_prefix('{').filter(|_| !said.is_empty());
    let (Some(members), Ok(said)) = (members, serde_json::to_string(&said)) else {
        return core;
    };
    [MEMBER, &said, ",", members].concat()
}

/// The member, read alone.
#[derive(Deserialize)]
struct Private<'a> {
    #[serde(rename = "_said", borrow)]
    said: &'a RawValue,
}

/// A stored response as clients see it.
pub(crate) fn public(stored: &str) -> Cow<'_, str> {
    let without = || {
        let private: Private<'_> = serde_json::from_str(stored).ok()?;
        let rest = stored.get(MEMBER.len() + private.said.get().len()..)?;
        Some(["{", rest.strip_prefix(',')?].concat())
    };
    if !stored.starts_with(MEMBER) {
        return Cow::Borrowed(stored);
    }
    without().map_or(Cow::Borrowed(stored), Cow::Owned)
}

/// Gives the items of a stored response what was said of them.
pub(crate) fn give_back<'a>(said: &RawValue, items: impl Iterator<Item = &'a mut Item>) {
    let said: Option<BTreeMap<Cow<'_, str>, Said>> = serde_json::from_str(said.get()).ok();
    let mut said = said.unwrap_or_default();
    for item in items {
        if let Some(words) = said.remove(item.id())
            && let Some(place) = item.said_mut()
        {
            *place = Some(Box::new(words));
        }
    }
}

impl Item {
    /// Where a call keeps what the model server said of it; `None` for items of other kinds.
    pub(crate) fn said_mut(&mut self) -> Option<&mut Option<Box<Said>>> {
        match self {
            Self::FunctionCall(item) => Some(&mut item.said),
            Self::CustomToolCall(item) => Some(&mut item.said),
            Self::ToolSearchCall(item) => Some(&mut item.said),
            Self::EmulatedCall(item) => Some(&mut item.said),
            Self::CodeInterpreterCall(item) => Some(&mut item.said),
            Self::McpCall(item) => Some(&mut item.said),
            Self::McpApprovalRequest(item) => Some(&mut item.said),
            Self::Message(_)
            | Self::Reasoning(_)
            | Self::FunctionCallOutput(_)
            | Self::McpListTools(_)
            | Self::McpApprovalResponse(_)
            | Self::CustomToolCallOutput(_)
            | Self::ToolSearchOutput(_)
            | Self::AdditionalTools(_)
            | Self::ConfigurationUpdate(_)
            | Self::ItemReference(_)
            | Self::Compaction(_)
            | Self::CompactionTrigger(_)
            | Self::Kept(_) => None,
        }
    }

    /// What the model server said of a call.
    pub(crate) fn said(&self) -> Option<&Said> {
        match self {
            Self::FunctionCall(item) => item.said.as_deref(),
            Self::CustomToolCall(item) => item.said.as_deref(),
            Self::ToolSearchCall(item) => item.said.as_deref(),
            Self::EmulatedCall(item) => item.said.as_deref(),
            Self::CodeInterpreterCall(item) => item.said.as_deref(),
            Self::McpCall(item) => item.said.as_deref(),
            Self::McpApprovalRequest(item) => item.said.as_deref(),
            Self::Message(_)
            | Self::Reasoning(_)
            | Self::FunctionCallOutput(_)
            | Self::McpListTools(_)
            | Self::McpApprovalResponse(_)
            | Self::CustomToolCallOutput(_)
            | Self::ToolSearchOutput(_)
            | Self::AdditionalTools(_)
            | Self::ConfigurationUpdate(_)
            | Self::ItemReference(_)
            | Self::Compaction(_)
            | Self::CompactionTrigger(_)
            | Self::Kept(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_taken_off_byte_for_byte() {
        let core = r#"{"id":"r","output":[]}"#;
        let stored = format!(
            r#"{{"_said":{{"mcp_1":{{"id":"functions.f:0"}}}},{}"#,
            core.strip_prefix('{').unwrap()
        );
        assert_eq!(public(&stored), core);
        assert_eq!(public(core), core);
        assert_eq!(keep(core.to_owned(), [].iter()), core);
    }
}
