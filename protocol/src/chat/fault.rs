//! What can go wrong upstream.

use std::time::Duration;

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
    /// Part of the request is kept in the store, and is not there any more.
    PartGone,
    /// The same, and the store does not answer.
    PartUnread,
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
