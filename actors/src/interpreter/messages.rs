//! What can be asked of the code interpreter, and what it tells.

use actix::{Message, MessageResponse};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use vllm_responses_protocol::ids::Owner;

use super::limits::CallLimits;
use crate::latency::Latency;
use crate::process::sandbox::Walls;

/// Run code. Sender: a turn, for each `code_interpreter_call`.
///
/// All calls of a response name the same container, so that state lasts for the whole response. The
/// sender gives it back with [`Release`]. Calls in one container run one after the other.
///
/// The reply takes as long as the wait for an interpreter and the call do; `cancel` ends both within a
/// second, and is how a sender gives up: dropping the future of the reply does nothing.
#[derive(Debug, Message)]
#[rtype(result = "Result<Executed, ExecuteError>")]
pub struct Execute {
    /// On whose behalf. A container is known to its owner only.
    pub owner: Owner,
    /// Where.
    pub container: Container,
    /// Python, at most [`super::limits::CODE_BYTES`].
    pub code: String,
    /// How long it may run, and so on.
    pub limits: CallLimits,
    /// Gives the call up, and kills the interpreter if it runs it already.
    pub cancel: CancellationToken,
}

/// Which interpreter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    /// The one with this id, in the state its last call left.
    Named(String),
    /// The same, or where there is none any more, a fresh one under this id. The sender made the id
    /// (`cntr_` and 128 random bits) or has it from a response of this owner.
    Shared(String),
}

impl Container {
    /// The id, however it is meant.
    pub fn id(&self) -> &str {
        let (Self::Named(id) | Self::Shared(id)) = self;
        id
    }
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    /// Where it ran. Gone if `error` says that the state is lost.
    pub container_id: String,
    /// What it printed, and the value of its last expression, as a notebook shows it.
    pub logs: String,
    /// The pictures it showed, as PNG in base64.
    pub images: Vec<String>,
    /// What went wrong, if something did. Output up to then is there all the same.
    pub error: Option<CallError>,
    /// Whether text or pictures were dropped because they were too much.
    pub truncated: bool,
}

/// Why a call did not do what it should. [`std::fmt::Display`] is what the model is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CallError {
    /// An exception; the traceback. The session goes on.
    #[error("{0}")]
    Raised(String),
    /// It ran too long and was ended.
    #[error("timed out after {seconds} s; variables and files are lost")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// The interpreter ended during the call, for instance because the memory limit was reached.
    #[error("the interpreter ended during this call; variables and files are lost")]
    Died,
}

impl CallError {
    /// Whether the container is gone.
    pub fn is_state_lost(&self) -> bool {
        match self {
            Self::Raised(_) => false,
            Self::TimedOut { .. } | Self::Died => true,
        }
    }
}

/// Why nothing was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ExecuteError {
    /// No such container, or not this owner's, or expired: one and the same answer.
    #[error("container not found; it may have expired")]
    UnknownContainer,
    /// All interpreters are in use and as many calls wait as may.
    #[error("the code interpreter is busy; try again later")]
    Busy,
    /// Interpreters cannot be started at present.
    #[error("the code interpreter is unavailable ({0})")]
    Unavailable(String),
    /// The code is longer than [`super::limits::CODE_BYTES`].
    #[error("the code is too long")]
    CodeTooLong,
    /// The sender gave the call up.
    #[error("the call was cancelled")]
    Cancelled,
}

/// The response that used this container has ended. Sender: the turn that got it.
///
/// The container is kept for a later response, if any are kept; unknown ids are passed over.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Release {
    /// On whose behalf.
    pub owner: Owner,
    /// Which.
    pub container_id: String,
}

/// How is it? Sender: health handlers, tests.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "InterpreterStatus")]
pub struct Observe;

/// End every interpreter and start none. Sender: the shutdown sequence. Calls that run end as died.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// State of the code interpreter, for status pages and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, MessageResponse)]
pub struct InterpreterStatus {
    /// Whether calls are served: false until the first interpreter is there, and while none can be
    /// started.
    pub ready: bool,
    /// Waiting for a first call, with the standard library only.
    pub idle: usize,
    /// Waiting for a first call, with more packages imported.
    pub warm: usize,
    /// All processes.
    pub live: usize,
    /// Containers that running responses hold.
    pub held: usize,
    /// Containers kept after their response.
    pub kept: usize,
    /// Calls that wait for an interpreter.
    pub waiting: usize,
    /// Interpreters that have been ready.
    pub starts: u64,
    /// Starts that failed.
    pub failures: u64,
    /// How long calls waited for a fresh interpreter, those that got one.
    #[serde(default)]
    pub waits: Latency,
    /// Why the last start failed, until one succeeds.
    pub last_error: Option<String>,
    /// The walls that this machine's kernel offers.
    pub walls: Walls,
}
