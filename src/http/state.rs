//! What every handler may use: addresses and settled facts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Addr, Recipient};
use tokio::sync::watch;
use vllm_responses_actors::blobs::Blobs;
use vllm_responses_actors::cache::messages as cache;
use vllm_responses_actors::interpreter::messages as interpreter;
use vllm_responses_actors::limits::Asker;
use vllm_responses_actors::mcp::messages::{ListServers, ListTools};
use vllm_responses_actors::memory::{Memory, Places, Shares};
use vllm_responses_actors::metrics::{Metrics, MetricsDoor};
use vllm_responses_actors::process::messages as process;
use vllm_responses_actors::store::messages::{
    self as store, Close, Fetch, LoadChain, LoadPart, Remove, Weigh,
};
use vllm_responses_actors::supervisor::SupervisorActor;
use vllm_responses_actors::supervisor::gate::Gate;
use vllm_responses_actors::supervisor::messages::Refused;
use vllm_responses_actors::tools::Toolbox;
use vllm_responses_actors::trace::Scope;
use vllm_responses_actors::vllm::messages as vllm;
use vllm_responses_actors::vllm::settings::UpstreamSettings;
use vllm_responses_protocol::responses::event::ReasoningEvents;
use vllm_responses_protocol::responses::request::Rules;
use vllm_responses_protocol::tools::LoopLimits;

use super::door::Door;
use crate::keys::KeyRing;

/// Reads of stored responses at once: fewer than there are connections to a database, so that turns
/// find one.
const READERS: usize = 4;
/// Those that one caller may have: others find one, however many he asks for.
const READERS_EACH: usize = 2;

/// Shared by all workers; immutable.
#[derive(Clone, Debug)]
pub struct AppState {
    /// Who may come in; `None` lets everyone. Changes when the keys file is read again.
    pub keys: watch::Receiver<Option<Arc<KeyRing>>>,
    /// Which browsers may come in.
    pub door: Door,
    /// Lets most responses in.
    pub gate: Gate,
    /// Asked for the others, and for health.
    pub supervisor: Addr<SupervisorActor>,
    /// MCP servers.
    pub mcp: McpDoors,
    /// Stored responses, once the store is open.
    pub store: watch::Receiver<Option<StoreDoors>>,
    /// Whom the status page asks.
    pub observers: watch::Receiver<Observers>,
    /// When the gateway began.
    pub started: Instant,
    /// Where models and chat completions are.
    pub upstream: UpstreamSettings,
    /// How requests are read.
    pub rules: Rules,
    /// Bounds of the tool loop.
    pub loop_limits: LoopLimits,
    /// Names of the reasoning events.
    pub reasoning_events: ReasoningEvents,
    /// How request bodies are taken.
    pub intake: Intake,
    /// Where the spans of requests begin.
    pub tracing: Scope,
    /// Age at which responses expire.
    pub retention: Option<Duration>,
    /// What is counted.
    pub metrics: Metrics,
    /// Where it is shown; `None` where it is not.
    pub metrics_door: Option<MetricsDoor>,
}

impl AppState {
    /// Whose request this is, by its `Authorization: Bearer` value; `None` denies it.
    pub(super) fn asker(&self, bearer: Option<&str>) -> Option<Asker> {
        match &*self.keys.borrow() {
            None => Some(Asker::default()),
            Some(keys) => keys.asker(bearer?),
        }
    }

    /// The store's doors, or why nobody can go through them yet.
    pub(super) fn doors(&self) -> Result<StoreDoors, Refused> {
        self.store.borrow().clone().ok_or(Refused::Starting)
    }
}

/// How request bodies are taken, and how much of the gateway they and reads may have.
#[derive(Clone, Debug)]
pub struct Intake {
    /// Longest body, in bytes.
    pub body_limit: usize,
    /// How long a body may come more slowly than a kibibyte a second.
    pub body_timeout: Duration,
    /// The budget that everything is held in.
    pub memory: Memory,
    /// The part of it that the bodies of one caller may have before they are let in.
    pub bodies: Shares,
    /// The part of it that one caller's reads of stored responses may have.
    pub reads: Shares,
    /// Reads at once.
    pub readers: Places,
}

impl Intake {
    /// As the configuration has it.
    pub fn new(body_limit: usize, body_timeout: Duration, memory: Memory) -> Self {
        let most = memory.limit();
        Self {
            body_limit,
            body_timeout,
            memory,
            bodies: Shares::new(most / 2),
            reads: Shares::new(most / 8),
            readers: Places::new(READERS, READERS_EACH),
        }
    }
}

/// Whom the status page asks; grows as components come up.
#[derive(Clone, Debug, Default)]
pub struct Observers {
    /// The store.
    pub store: Option<Recipient<store::Observe>>,
    /// The cache in front of it.
    pub cache: Option<Recipient<cache::Observe>>,
    /// The upstream's watcher.
    pub upstream: Option<Recipient<vllm::Observe>>,
    /// The code interpreter, ours or a service.
    pub interpreter: Option<InterpreterDoor>,
    /// Child processes, by name.
    pub children: Vec<(&'static str, Recipient<process::Observe>)>,
    /// The tools.
    pub tools: Toolbox,
}

/// The code interpreter for the status page.
#[derive(Clone, Debug)]
pub struct InterpreterDoor {
    /// How is it?
    pub observe: Recipient<interpreter::Observe>,
    /// URL of the service, when it is not ours.
    pub service: Option<Box<str>>,
}

/// What can be asked of the cache and the store behind it.
#[derive(Clone, Debug)]
pub struct StoreDoors {
    /// One response.
    pub fetch: Recipient<Fetch>,
    /// A chain.
    pub chains: Recipient<LoadChain>,
    /// A part of a chain.
    pub parts: Recipient<LoadPart>,
    /// How much there is to read.
    pub weights: Recipient<Weigh>,
    /// Large data of responses.
    pub blobs: Blobs,
    /// Deletion.
    pub remove: Recipient<Remove>,
    /// The end of the store.
    pub close: Recipient<Close>,
}

/// What handlers ask of MCP.
#[derive(Clone, Debug)]
pub struct McpDoors {
    /// The operator's servers.
    pub servers: Recipient<ListServers>,
    /// The tools of one.
    pub tools: Recipient<ListTools>,
    /// Whether requests may name servers of their own.
    pub remote: bool,
}
