//! Tool calls: what models ask for, and what runs here.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use vllm_responses_protocol::responses::item::Item;
use vllm_responses_protocol::tools::{GatewayCall, ToolOutcome};

use super::OTHER;

/// Label of all MCP servers that requests bring along: their names are the clients'.
pub const MCP_REMOTE: &str = "remote";

/// Seconds that a call takes.
const BUCKETS: [f64; 14] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
];

/// Types of tools that OpenAI hosts; those that are not served are counted by these names.
const HOSTED: &[&str] = &[
    "file_search",
    "image_generation",
    "computer",
    "computer_use_preview",
    "web_search",
    "web_search_preview",
    "shell",
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    tool_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct McpServer {
    server_label: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct McpCall {
    server_label: Box<str>,
    outcome: &'static str,
}

/// Calls by type of tool.
#[derive(Clone, Debug)]
pub struct ToolMetrics {
    requested: Family<Kind, Counter>,
    executed: Family<Kind, Counter>,
    durations: Family<Kind, Histogram, fn() -> Histogram>,
    errors: Family<Kind, Counter>,
    mcp: Family<McpCall, Counter>,
    mcp_durations: Family<McpServer, Histogram, fn() -> Histogram>,
    unserved: Family<Kind, Counter>,
}

/// What is known of a call before it runs.
#[derive(Debug)]
pub struct Running {
    kind: &'static str,
    /// Label of the MCP server.
    server: Option<Box<str>>,
}

impl Running {
    /// A call that is about to run.
    pub fn of(call: &GatewayCall) -> Self {
        match call {
            GatewayCall::CodeInterpreter(_) => Self {
                kind: "code_interpreter",
                server: None,
            },
            GatewayCall::Mcp(call) => {
                let built_in = call.server.access.is_none();
                let label = Some(&call.server.label).filter(|_| built_in);
                Self {
                    kind: "mcp",
                    server: Some(label.cloned().unwrap_or_else(|| MCP_REMOTE.into())),
                }
            }
        }
    }
}

impl ToolMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requested: Family::default(),
            executed: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            errors: Family::default(),
            mcp: Family::default(),
            mcp_durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            unserved: Family::default(),
        };
        registry.register(
            "tool_calls_requested",
            "Calls that models made, by type of tool",
            metrics.requested.clone(),
        );
        registry.register(
            "tool_calls_executed",
            "Calls that ran here",
            metrics.executed.clone(),
        );
        registry.register(
            "tool_execution_duration_seconds",
            "How long calls ran here",
            metrics.durations.clone(),
        );
        registry.register(
            "tool_errors",
            "Calls that ran here and failed",
            metrics.errors.clone(),
        );
        registry.register(
            "mcp_calls",
            "MCP calls by server; those of servers that requests bring along are `remote`",
            metrics.mcp.clone(),
        );
        registry.register(
            "mcp_call_duration_seconds",
            "How long MCP calls took, by server",
            metrics.mcp_durations.clone(),
        );
        registry.register(
            "unserved_tools",
            "Tools in requests that are echoed and not shown to the model",
            metrics.unserved.clone(),
        );
        metrics
    }

    /// A call of the model's is part of a response.
    pub(super) fn requested(&self, item: &Item) {
        let tool_type = match item {
            Item::FunctionCall(_) => "function",
            Item::CustomToolCall(_) => "custom",
            Item::CodeInterpreterCall(_) => "code_interpreter",
            Item::McpCall(_) | Item::McpApprovalRequest(_) => "mcp",
            Item::EmulatedCall(_) => "shell",
            Item::ToolSearchCall(_) => "tool_search",
            Item::Message(_)
            | Item::Reasoning(_)
            | Item::FunctionCallOutput(_)
            | Item::McpListTools(_)
            | Item::McpApprovalResponse(_)
            | Item::CustomToolCallOutput(_)
            | Item::ToolSearchOutput(_)
            | Item::AdditionalTools(_)
            | Item::ConfigurationUpdate(_)
            | Item::ItemReference(_)
            | Item::Compaction(_)
            | Item::CompactionTrigger(_)
            | Item::Kept(_) => return,
        };
        self.requested.get_or_create(&Kind { tool_type }).inc();
    }

    /// A call has run.
    pub fn ran(&self, call: Running, took: Duration, outcome: &ToolOutcome) {
        let kind = Kind {
            tool_type: call.kind,
        };
        self.executed.get_or_create(&kind).inc();
        self.durations
            .get_or_create(&kind)
            .observe(took.as_secs_f64());
        let failed = outcome.has_failed();
        if failed {
            self.errors.get_or_create(&kind).inc();
        }
        if let Some(server_label) = call.server {
            let outcome = if failed { "error" } else { "ok" };
            let server = McpServer {
                server_label: server_label.clone(),
            };
            let durations = self.mcp_durations.get_or_create(&server);
            durations.observe(took.as_secs_f64());
            let call = McpCall {
                server_label,
                outcome,
            };
            self.mcp.get_or_create(&call).inc();
        }
    }

    /// A request has a tool of this type, which is not served.
    pub fn unserved(&self, tool_type: &str) {
        let known = HOSTED.iter().find(|known| **known == tool_type);
        let tool_type = known.copied().unwrap_or(OTHER);
        self.unserved.get_or_create(&Kind { tool_type }).inc();
    }
}
