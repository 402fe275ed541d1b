//! What the upstream's actor can be told.

use actix::{Message, MessageResponse};
use serde::Serialize;

/// A call could not reach the upstream: probe it now. A notice, lost without harm.
/// Sender: `TurnActor`.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Suspect;

/// Wait until the upstream lists its models. Sender: start-up, once.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), NotReady>")]
pub struct AwaitReady;

/// What is known of the upstream? Sender: the status page and the start-up banner.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "UpstreamObservation")]
pub struct Observe;

/// The upstream as its actor has seen it. Whether it is up at the moment is in the supervisor's view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, MessageResponse)]
pub struct UpstreamObservation {
    /// Its base URL, which holds no secret.
    pub url: String,
    /// The models it listed when it became ready.
    pub models: Vec<String>,
    /// What the last look that failed brought.
    pub last_error: Option<String>,
}

/// Why the upstream did not become ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It refuses the key.
    #[error(
        "the upstream at {url} answered {status} to `GET /v1/models`: set `VR_OPENAI_API_KEY` to a key it accepts"
    )]
    Unauthorized {
        /// Base URL.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// It never answered as it should.
    #[error(
        "the upstream at {url} did not become ready within {seconds} s (last: {last}): check that it runs, or raise `--upstream-ready-timeout`"
    )]
    TimedOut {
        /// Base URL.
        url: String,
        /// How long was waited.
        seconds: u64,
        /// What the last poll brought.
        last: String,
    },
}
