//! What can go wrong upstream, and the error objects that vLLM sends.

use std::time::Duration;

use serde::Deserialize;

use super::chunk::Text;

/// `error` of an upstream answer or chunk.
#[derive(Debug, Default, Deserialize)]
pub struct ErrorObject<'a> {
    /// The upstream's words.
    #[serde(borrow, default)]
    pub message: Option<Text<'a>>,
    /// vLLM writes the status as a number here, OpenAI a word.
    #[serde(borrow, default)]
    pub code: Option<ErrorCode<'a>>,
}

/// `code` of an error object.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum ErrorCode<'a> {
    /// An HTTP status.
    Number(u16),
    /// A word.
    Word(#[serde(borrow)] Text<'a>),
}

/// The body of an upstream error answer.
#[derive(Debug, Default, Deserialize)]
pub struct ErrorBody<'a> {
    /// The error.
    #[serde(borrow, default)]
    pub error: Option<ErrorObject<'a>>,
}

/// Why an upstream call failed, as the actor that made it saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamFault {
    /// No connection, or it died before the status line.
    Unreachable,
    /// The upstream answered with another status than 200.
    Status {
        /// The status.
        status: u16,
        /// `Retry-After` as it came, when it is seconds or a date.
        retry_after: Option<Box<str>>,
        /// The beginning of the body.
        body: Box<[u8]>,
    },
    /// 200, but neither JSON nor an event stream (fault U13).
    WrongContentType,
    /// A deadline passed.
    TimedOut(Waited),
    /// The connection broke within the body.
    Reset,
    /// A frame or body longer than the cap (fault U9).
    TooLong,
}

/// What was waited for when a deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The status line.
    Head(Duration),
    /// The next byte of a stream.
    Idle(Duration),
    /// The whole answer.
    Whole(Duration),
}
