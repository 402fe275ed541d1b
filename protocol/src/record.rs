//! What is kept of a response: the shape in which a turn leaves for the store and comes back.
//!
//! The JSON columns are text that this crate wrote; the store moves them without looking inside.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blob::{Blob, Marks};
use crate::history;
use crate::ids::{Owner, ResponseId};
use crate::responses::item::CodeOutputs;
use crate::responses::{said, tool};

/// Version of the JSON columns, stored with each row. Raise it when their shape changes.
pub const SCHEMA_VERSION: i32 = 1;

/// Status of a response, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, not begun (background only).
    Queued,
    /// Being generated.
    InProgress,
    /// Ended by the model itself.
    Completed,
    /// Ended by `max_output_tokens` or the content filter.
    Incomplete,
    /// Ended by a fault.
    Failed,
    /// Ended because its client left or cancelled it.
    Cancelled,
}

impl Status {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status this word names; `None` for a word that no version of ours wrote.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "queued" => Self::Queued,
            "in_progress" => Self::InProgress,
            "completed" => Self::Completed,
            "incomplete" => Self::Incomplete,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            _ => return None,
        })
    }

    /// Whether `previous_response_id` may name such a response (decision 7).
    pub fn is_anchor(self) -> bool {
        matches!(self, Self::Completed | Self::Incomplete)
    }
}

/// One finished response on its way to the store. It holds only what its own turn added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The response's id, primary key.
    pub id: ResponseId,
    /// The response it continues.
    pub previous: Option<ResponseId>,
    /// Whose it is; part of every query.
    pub owner: Owner,
    /// Model name as the client asked for it.
    pub model: Box<str>,
    /// Terminal status, the one the client saw.
    pub status: Status,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds; `None` unless completed.
    pub completed_at_ms: Option<i64>,
    /// Unix milliseconds after which the response reads as unknown; `None` keeps it for ever.
    pub expires_at_ms: Option<i64>,
    /// This turn's new input: a JSON array of items, each with an id.
    pub input_items: Box<str>,
    /// The public resource with its `output`, without the members that `settings` holds: a JSON object.
    /// A private first member, `_said`, has what the model server alone is told again.
    pub response: Box<str>,
    /// Tools, instructions and the other echoed settings: a JSON object, stored once per distinct
    /// content and owner. Credentials never enter it.
    pub settings: Arc<str>,
    /// What the two texts refer to, each once. Empty while they are whole: see [`Marks::store`].
    pub blobs: Vec<Blob>,
}

/// One response of a chain as it comes back for rehydration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The response's id.
    pub id: ResponseId,
    /// Terminal status.
    pub status: Status,
    /// As in [`Record::input_items`], as it is stored: [`crate::blob`].
    pub input_items: Box<str>,
    /// As in [`Record::response`], as it is stored.
    pub response: Box<str>,
}

/// A whole chain, oldest first; the last link is the response that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Oldest first.
    pub links: Vec<Arc<Link>>,
    /// Of the last link, as in [`Record::expires_at_ms`].
    pub expires_at_ms: Option<i64>,
    /// Of the last link, as in [`Record::settings`]; `None` unless they were asked for.
    pub settings: Option<Arc<str>>,
}

impl Chain {
    /// How many bytes its texts have.
    pub fn size(&self) -> usize {
        let links = self.links.iter();
        links
            .map(|link| link.input_items.len() + link.response.len())
            .sum()
    }
}

/// One response as `GET /v1/responses/{id}` returns it, still in two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// As in [`Record::response`].
    pub response: Box<str>,
    /// As in [`Record::settings`].
    pub settings: Arc<str>,
}

impl Stored {
    /// The public resource: one JSON object with the members of both parts, byte for byte what the
    /// client was sent (the response writes its settings last for this reason), with the outputs of
    /// the code interpreter for those who ask for them. Large data has marks in its place.
    pub fn resource(&self, code_outputs: CodeOutputs, marks: Marks) -> String {
        let marked = marks.read(&self.response);
        let public = said::public(&marked);
        let response = match code_outputs {
            CodeOutputs::Shown => public,
            CodeOutputs::Hidden => match history::without_code_outputs(&public) {
                Cow::Borrowed(_) => public,
                Cow::Owned(without) => Cow::Owned(without),
            },
        };
        let head = response.strip_suffix('}').unwrap_or(&response);
        let settings = tool::without_paths(&self.settings);
        let tail = settings.strip_prefix('{').unwrap_or(&settings);
        let comma = if head.len() > 1 && tail.len() > 1 {
            ","
        } else {
            ""
        };
        [head, comma, tail].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_joins_both_parts() {
        let join = |response: &str, settings: &str| {
            Stored {
                response: response.into(),
                settings: settings.into(),
            }
            .resource(CodeOutputs::Shown, Marks::new(0))
        };
        assert_eq!(
            join(r#"{"id":"a"}"#, r#"{"tools":[]}"#),
            r#"{"id":"a","tools":[]}"#
        );
        assert_eq!(join("{}", r#"{"tools":[]}"#), r#"{"tools":[]}"#);
        assert_eq!(join(r#"{"id":"a"}"#, "{}"), r#"{"id":"a"}"#);
    }

    #[test]
    fn status_words_round_trip() {
        for status in [
            Status::Queued,
            Status::InProgress,
            Status::Completed,
            Status::Incomplete,
            Status::Failed,
            Status::Cancelled,
        ] {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("done"), None);
    }
}
