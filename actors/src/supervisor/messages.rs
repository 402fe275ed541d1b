//! What the supervisor can be asked, and what it hands out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::{Message, Recipient};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use vllm_responses_protocol::seal::SealKeys;

use crate::blobs::Blobs;
use crate::limits::{Asker, Limited, Quota};
use crate::mcp::messages::ListTools;
use crate::memory::Account;
use crate::metrics::Metrics;
use crate::process::ExitKind;
use crate::process::messages::Phase;
use crate::store::messages::{Claim, Commit, FindLinks, LoadChain, Weigh};
use crate::tools::Toolbox;
use crate::vllm::efforts::KnownEfforts;
use crate::vllm::messages::Suspect;
use crate::vllm::settings::UpstreamSettings;

/// May this response run? Sender: the handlers that call a model, once per request. The reply waits
/// for Redis where limits are shared, at most as long as one of its operations may take.
#[derive(Debug, Message)]
#[rtype(result = "Result<Permit, Refused>")]
pub struct Acquire(pub Asker);

/// May this caller read a stored response? Sender: the handlers that read, once per request, where
/// [`Gate::limits_reads`](super::gate::Gate::limits_reads) says that there is a limit.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Refused>")]
pub struct MayRead(pub Asker);

/// The right to run one response. Dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    /// Addresses and facts of this moment.
    pub peers: Arc<Peers>,
    /// Says when the gateway wants running responses to end.
    pub stop: watch::Receiver<StopStage>,
    /// The place among the running responses.
    pub place: OwnedSemaphorePermit,
    /// The place among those of its key, where they are limited.
    pub key_place: Option<OwnedSemaphorePermit>,
    /// What it holds in memory.
    pub account: Arc<Account>,
    /// How its key stands.
    pub quota: Quota,
    /// Charges its model calls, where tokens are limited.
    pub meter: Option<Meter>,
}

/// Charges the model calls of one caller.
#[derive(Clone, Debug)]
pub struct Meter {
    /// The supervisor.
    pub to: Recipient<Charge>,
    /// The caller.
    pub asker: Asker,
}

impl Meter {
    /// Charges one model call. Never waits: it is a notice.
    pub fn charge(&self, tokens: u64) {
        self.to.do_send(Charge {
            asker: self.asker.clone(),
            tokens,
        });
    }
}

/// A model call has used tokens. Sender: [`Meter`], once per model call. It may be lost when the
/// gateway stops.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Charge {
    /// Who caused it.
    pub asker: Asker,
    /// Of the prompt and of the answer.
    pub tokens: u64,
}

/// What have the limits done? Sender: whoever shows metrics.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "LimitFacts")]
pub struct ReadLimitFacts;

/// What the limits have done since the start. Counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitFacts {
    /// Requests refused because all places were taken.
    pub refused_full: u64,
    /// Because the budget for buffered bytes was nearly spent.
    pub refused_memory: u64,
    /// Because their key ran as many responses as it may.
    pub refused_concurrent: u64,
    /// By a limit of requests.
    pub refused_requests: u64,
    /// By a limit of tokens.
    pub refused_tokens: u64,
    /// Responses ended because memory was short.
    pub shed: u64,
    /// Requests that were judged without Redis although limits are shared.
    pub judged_alone: u64,
    /// Bytes that requests make the gateway buffer now.
    pub memory_used: usize,
    /// The budget for them.
    pub memory_limit: usize,
}

/// What a turn needs to reach.
#[derive(Clone, Debug)]
pub struct Peers {
    /// The cache in front of the store.
    pub chains: Recipient<LoadChain>,
    /// The same, for items that requests refer to.
    pub links: Recipient<FindLinks>,
    /// The same, for how much there is to read.
    pub weights: Recipient<Weigh>,
    /// The same, for large data.
    pub blobs: Blobs,
    /// The same, for commits.
    pub commits: Recipient<Commit>,
    /// The same, for approvals.
    pub claims: Recipient<Claim>,
    /// Who wants to know of an upstream that cannot be reached.
    pub suspects: Recipient<Suspect>,
    /// Who knows the tools of MCP servers.
    pub mcp: Recipient<ListTools>,
    /// Where the model is.
    pub upstream: UpstreamSettings,
    /// What runs gateway calls.
    pub tools: Toolbox,
    /// What seals reasoning for clients.
    pub seal_keys: Arc<SealKeys>,
    /// Which models take which words for the effort of thinking.
    pub efforts: KnownEfforts,
    /// What a turn says of itself in the log; changes when logging is read again.
    pub log: watch::Receiver<TurnLog>,
    /// What is counted.
    pub metrics: Metrics,
}

/// What a turn says of itself in the log, beside its faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnLog {
    /// One line per response: where its time went (`VR_LOG_TIMINGS`).
    pub timings: bool,
    /// Messages to and from the model, capped (`VR_LOG_MODEL_MESSAGES`).
    pub model_messages: bool,
}

/// Why a response may not run now. Each has a `Retry-After`; the last is a 429, the others are 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Store or upstream have not been ready yet.
    Starting,
    /// The gateway is stopping.
    Draining,
    /// All places are taken.
    Full,
    /// The budget for buffered bytes is nearly spent.
    Memory,
    /// A limit is reached.
    Limited(Limited),
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopStage {
    /// Not stopping.
    Running,
    /// About to stop: readiness is false so that balancers look elsewhere, requests are still taken.
    Leaving,
    /// No new responses; running ones go on.
    Draining,
    /// Running responses are to end now, truthfully.
    Ending,
}

/// The gateway can serve from now on. Sender: start-up, with what it has brought up.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Opened(pub Arc<Peers>);

/// A component's state changed. Sender: that component.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Report {
    /// Which.
    pub component: Component,
    /// Its state.
    pub health: Health,
}

/// What readiness depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The response store.
    Store,
    /// The model server.
    Upstream,
}

/// As people call it, in the log.
impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "store:",
            Self::Upstream => "upstream:",
        })
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Ready => f.write_str("ready"),
            Self::Down { reason } => write!(f, "down ({reason})"),
        }
    }
}

/// State of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Health {
    /// Not up yet.
    Starting,
    /// Serves.
    Ready,
    /// Served before and does not now.
    Down {
        /// Why, without secrets.
        reason: String,
    },
}

/// A stop will come: be not ready, but take requests still. Sender: the shutdown sequence.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Leave;

/// Begin to stop: take no new responses, let running ones go on for `grace`, then end them.
/// The reply comes when none is left. Sender: the shutdown sequence.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Drain {
    /// How long running responses may go on.
    pub grace: Duration,
}

/// End running responses now. Sender: the shutdown sequence, at a second signal.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct EndNow;

/// What is the state of everything? Sender: health handlers, tests.
#[derive(Debug, Message)]
#[rtype(result = "Observation")]
pub struct Observe;

/// The supervisor's view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observation {
    /// Whether `/v1/responses` takes requests and everything behind it works.
    pub ready: bool,
    /// How far a stop has come.
    pub stop: StopStage,
    /// Running responses.
    pub in_flight: usize,
    /// Places for running responses.
    pub capacity: usize,
    /// The response store.
    pub store: Health,
    /// The model server.
    pub upstream: Health,
    /// The vLLM process, when it is ours.
    pub vllm: Option<ChildSummary>,
    /// The MCP runtime's process, when it is ours.
    pub mcp_runtime: Option<ChildSummary>,
}

/// What may be said of a child without a key: nothing it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ChildSummary {
    /// Where it is in its life.
    pub phase: Phase,
    /// How often it was started again.
    pub restarts: u32,
}

/// A process of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnProcess {
    /// `vllm serve`.
    Vllm,
    /// `vllm-responses mcp-runtime`.
    McpRuntime,
}

/// Tell when a process of ours reaches this phase.
/// Sender: `gateway`, which waits for it to be ready, and for it to be given up.
#[derive(Debug, Message)]
#[rtype(result = "Reached")]
pub struct AwaitPhase(pub OwnProcess, pub Phase);

/// What brought a child to a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Its last error, its last lines behind it where it never was ready.
    pub last_error: String,
    /// What it wrote last, oldest first; not for whoever has no key.
    pub last_lines: Vec<String>,
    /// How it ended, in the phases that follow an end.
    pub exit: Option<ExitKind>,
}
