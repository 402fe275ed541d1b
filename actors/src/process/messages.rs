//! What can be asked of a [`super::actor::ChildActor`], and what it tells.

use std::time::Duration;

use actix::{Message, MessageResponse};
use serde::{Deserialize, Serialize};

use super::spec::ExitKind;

/// Start the child and keep it running. From the supervisor; also revives one that has failed, with
/// a policy that has forgotten. No effect while it runs.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Start;

/// Stop the child and leave it stopped. The reply comes when nothing of it is left.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// How is it?
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "ChildStatus")]
pub struct Observe;

/// The phase has changed. Sent to every observer; may be lost if its mailbox is full.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct PhaseChanged {
    /// The new state.
    pub status: ChildStatus,
    /// How the child ended, in the phases that follow an end.
    pub exit: Option<ExitKind>,
}

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not running, as asked.
    Stopped,
    /// Running, but not serving yet.
    Starting,
    /// Serving.
    Ready,
    /// Ended; to be started again.
    Backoff,
    /// Ended; given up until the next [`Start`].
    Failed,
    /// Being stopped.
    Stopping,
}

/// State of a child, for status pages and tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, MessageResponse)]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: Phase,
    /// Process id while it runs.
    pub pid: Option<u32>,
    /// Time since its start while it runs.
    pub uptime: Option<Duration>,
    /// How often it was started again.
    pub restarts: u32,
    /// Whether it has ever been ready since [`Start`].
    pub was_ready: bool,
    /// Why it last failed, with cause and remedy where known.
    pub last_error: Option<String>,
    /// Its newest lines; after an end, the last ones before it.
    pub last_lines: Vec<String>,
}
