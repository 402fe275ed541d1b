//! What the two halves of MCP need to know.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use vllm_responses_protocol::mcp::file::{DefaultApproval, ServerEntry, Transport};
use vllm_responses_protocol::mcp::pins::OnChange;

use super::guard::{AllowedHost, Guard};
use crate::secret::Secret;

/// Rules for built-in servers, inside the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostedSettings {
    /// Limit of connecting, of the handshake and of the list, each (`VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC`).
    pub startup: Duration,
    /// The same for servers that are programs, which may have to be fetched first
    /// (`VR_MCP_STDIO_STARTUP_TIMEOUT_SEC`).
    pub program_startup: Duration,
    /// Limit of one call (`VR_MCP_HOSTED_TOOL_TIMEOUT_SEC`).
    pub call: Duration,
    /// Whether a tool whose definition has changed is left out (`VR_MCP_STRICT_DEFINITIONS`).
    pub strict_definitions: bool,
}

impl HostedSettings {
    /// Start, handshake and list of this server, each.
    pub fn startup_of(self, entry: &ServerEntry) -> Duration {
        let usual = match entry.transport {
            Transport::Stdio(_) => self.program_startup,
            Transport::Http(_) => self.startup,
        };
        entry.limits.startup.unwrap_or(usual)
    }

    /// One call of this server.
    pub fn call_of(self, entry: &ServerEntry) -> Duration {
        entry.limits.call.unwrap_or(self.call)
    }

    /// What becomes of a tool whose definition has changed.
    pub fn on_change(self) -> OnChange {
        if self.strict_definitions {
            OnChange::LeaveOut
        } else {
            OnChange::Report
        }
    }
}

/// Rules for servers that requests name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSettings {
    /// Whether there are any (`VR_MCP_REQUEST_REMOTE_ENABLED`).
    pub enabled: bool,
    /// Whether their addresses are judged (`VR_MCP_REQUEST_REMOTE_URL_CHECKS`).
    pub url_checks: bool,
    /// What may be private (`VR_MCP_REMOTE_ALLOWED_HOSTS`).
    pub allowed_hosts: Vec<AllowedHost>,
    /// Ports of this gateway.
    pub own_ports: Vec<u16>,
    /// When a request does not say (`VR_MCP_REMOTE_DEFAULT_APPROVAL`).
    pub default_approval: DefaultApproval,
}

impl RemoteSettings {
    /// The guard that these rules make.
    pub fn guard(&self) -> Guard {
        if self.url_checks {
            Guard::Callers {
                allowed: self.allowed_hosts.clone(),
                own_ports: self.own_ports.clone(),
            }
        } else {
            Guard::Operator
        }
    }
}

/// Where the built-in servers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// There are none.
    Off,
    /// In a runtime process that the gateway starts, with the servers of this file.
    Spawned {
        /// The file (`VR_MCP_CONFIG_PATH`).
        file: PathBuf,
        /// Variables that the file names, which the runtime would not have otherwise.
        named: Vec<(OsString, Secret)>,
    },
    /// In a runtime process that others started.
    Attached(RuntimeLink),
}

/// How a runtime that others started is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeLink {
    /// Its base URL.
    pub url: Url,
    /// What it asks for (`VR_MCP_RUNTIME_TOKEN`).
    pub token: Option<Secret>,
}

/// All of MCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpSettings {
    /// Built-in servers.
    pub built_in: BuiltIn,
    /// Rules for them.
    pub hosted: HostedSettings,
    /// Servers that requests name.
    pub remote: RemoteSettings,
}
