//! What the gateway's half of MCP can be asked.

use std::fmt;
use std::sync::Arc;

use actix::Message;
use tokio_util::sync::CancellationToken;
use vllm_responses_protocol::ids::Owner;
use vllm_responses_protocol::mcp::outcome::Outcome;
use vllm_responses_protocol::mcp::wire::ServerPhase;
use vllm_responses_protocol::responses::tool::{McpAccess, McpServer};
use vllm_responses_protocol::tools::mcp::{ListError, Listed};

use super::guard::Refused;
use super::session::Failure;
use crate::origin::Origin;

/// A server as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerRef {
    /// One of the operator's, by label.
    BuiltIn(Box<str>),
    /// One of the caller's.
    Remote(Arc<RemoteServer>),
}

/// A server of the caller's; lives as long as its request, and its session a little longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteServer {
    /// What the request calls it.
    pub label: Box<str>,
    /// How it is reached, not judged yet.
    pub access: McpAccess,
}

impl From<&McpServer> for ServerRef {
    fn from(server: &McpServer) -> Self {
        let label = server.label.clone();
        match &server.access {
            None => Self::BuiltIn(label),
            Some(access) => Self::Remote(Arc::new(RemoteServer {
                label,
                access: access.clone(),
            })),
        }
    }
}

/// Which tools does this server have? Sender: turns, and the discovery endpoint. A list that is known
/// is answered without touching the network.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Listed, ListFailure>")]
pub struct ListTools {
    /// Whose request it is: sessions are never shared between owners.
    pub owner: Owner,
    /// The server.
    pub server: ServerRef,
    /// On whose account.
    pub origin: Origin,
}

/// A label that no built-in server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownServer {
    /// The label.
    pub label: Box<str>,
    /// Labels there are.
    pub known: Vec<Box<str>>,
}

impl std::error::Error for UnknownServer {}

impl fmt::Display for UnknownServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Labels that are told.
        const MOST: usize = 20;
        write!(f, "no built-in MCP server has the label `{}`", self.label)?;
        if self.known.is_empty() {
            return f.write_str("; there are none, so a `server_url` is needed");
        }
        let shown: Vec<String> = self
            .known
            .iter()
            .take(MOST)
            .map(|it| format!("`{it}`"))
            .collect();
        let more = if self.known.len() > MOST { ", ..." } else { "" };
        write!(f, "; there are {}{more}", shown.join(", "))
    }
}

/// Why there is no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListFailure {
    /// No built-in server has this label.
    #[error(transparent)]
    Unknown(UnknownServer),
    /// There was no connection with a server of the caller's.
    #[error(
        "MCP server `{0}` cannot be reached: check its `server_url` (the gateway's log has the reason)"
    )]
    Unreached(Box<str>),
    /// The built-in server is not available now.
    #[error("the MCP server is not available: {0}")]
    Unavailable(Box<str>),
    /// The runtime of the built-in servers does not answer.
    #[error("the MCP runtime is not available; try again")]
    RuntimeDown,
    /// Requests may not name servers here.
    #[error(
        "MCP servers by `server_url` are switched off on this gateway (`VR_MCP_REQUEST_REMOTE_ENABLED`)"
    )]
    RemoteOff,
    /// The guard says no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A header of the request is not allowed.
    #[error("`headers` {0}")]
    BadHeaders(&'static str),
    /// It was tried.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl ListFailure {
    /// What it means for a response that names the server (decision 26).
    pub fn meaning(&self) -> ListError {
        let words = self.to_string().into();
        match self {
            Self::Unknown(_) | Self::RemoteOff | Self::Refused(_) | Self::BadHeaders(_) => {
                ListError::Request(words)
            }
            Self::Unavailable(_) | Self::RuntimeDown => ListError::Unavailable(words),
            Self::Failed(_) | Self::Unreached(_) => ListError::Connector(words),
        }
    }
}

/// Call a tool. Sender: turns. Arguments that break the tool's schema are not sent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Outcome")]
pub struct CallTool {
    /// Whose request it is.
    pub owner: Owner,
    /// The server.
    pub server: ServerRef,
    /// The tool, as the server names it.
    pub tool: Box<str>,
    /// JSON object, as text.
    pub arguments: Box<str>,
    /// On whose account; the server is told its place in the trace.
    pub origin: Origin,
    /// Nobody waits any more once this is cancelled; the server is told.
    pub cancel: CancellationToken,
}

/// Which built-in servers are there? Sender: the discovery endpoint.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<ServerSummary>, RuntimeDown>")]
pub struct ListServers;

/// Wait until the runtime has told of its servers. Sender: start-up, once the runtime is ready. The
/// reply comes within seconds in any case.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct AwaitRuntime;

/// The runtime is about to be stopped: that it does not answer is no news. Sender: the end of the
/// gateway.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Leaving;

/// The runtime of the built-in servers does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeDown;

/// A built-in server, without its tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSummary {
    /// Its label.
    pub label: Box<str>,
    /// The word for its transport.
    pub transport: Box<str>,
    /// Whether the gateway may not start without it.
    pub required: bool,
    /// Whether calls wait for approval when a request does not say.
    pub always_approve: bool,
    /// Where it is.
    pub phase: ServerPhase,
    /// How often it was seen to come up, since the runtime is known.
    pub came_up: u64,
    /// How often it was seen to fail, likewise.
    pub failed: u64,
}

impl ServerSummary {
    /// Counts what has changed since it looked like `before`.
    pub(super) fn count_since(&mut self, before: Option<&Self>) {
        let (came_up, failed) = before.map_or((0, 0), |before| (before.came_up, before.failed));
        let news = before.is_none_or(|before| before.phase != self.phase);
        self.came_up = came_up + u64::from(news && self.phase == ServerPhase::Available);
        let down = matches!(self.phase, ServerPhase::Unavailable { .. });
        self.failed = failed + u64::from(news && down);
    }
}
