//! What gateway and MCP runtime say to each other, both of them ours.

use serde::{Deserialize, Serialize};

use super::catalogue::ToolEntry;

/// State of every built-in server.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Snapshot {
    /// Grows with every change.
    pub revision: u64,
    /// By label.
    pub servers: Vec<ServerState>,
}

/// State of one built-in server.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ServerState {
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
    /// Its tools while it is available, by name.
    pub tools: Vec<ToolEntry>,
    /// What was left out of its list, or has changed in it.
    #[serde(default)]
    pub notices: Vec<String>,
    /// Its limit of one call; zero when the runtime is an older one.
    #[serde(default)]
    pub call_limit_ms: u64,
}

/// Where a built-in server is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum ServerPhase {
    /// It has not been reached yet, nor failed.
    Starting,
    /// It serves.
    Available,
    /// It does not, and is tried again.
    Unavailable {
        /// Why; no secret in it.
        reason: Box<str>,
    },
}

/// An order to call a tool of a built-in server.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CallOrder {
    /// Label of the server.
    pub server: Box<str>,
    /// Name of the tool, as the server knows it.
    pub tool: Box<str>,
    /// JSON object, as text.
    pub arguments: Box<str>,
}
