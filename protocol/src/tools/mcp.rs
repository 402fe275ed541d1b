//! `{"type":"mcp"}`: what of a server the model is shown, and what a call of a tool asks for.

use std::sync::Arc;

use crate::error::{ApiError, ApiErrorCode};
use crate::mcp::catalogue::{Catalogue as ServerTools, ToolEntry};
use crate::mcp::outcome::{CallError, INVALID_PARAMS, Outcome};
use crate::responses::item::ToolStatus;
use crate::responses::mcp::{ListedTool, McpCall, McpImage, McpListTools};
use crate::responses::tool::{McpServer, McpTool};

/// `type` of the tool.
pub const TYPE: &str = "mcp";

/// Most MCP tools of one response: more only confuse a model.
pub(crate) const MAX_TOOLS: usize = 128;

/// Said to a model that calls what is not there.
pub(crate) const NO_SUCH_TOOL: &str =
    "not run: there is no MCP tool of this name here; use the tools that are offered";

/// A call to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpToolCall {
    /// The server.
    pub server: Arc<McpServer>,
    /// The tool, as the server knows it.
    pub tool: Box<str>,
    /// JSON object, as text.
    pub arguments: Box<str>,
}

/// What a server answered when asked for its tools.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its tools.
    pub tools: Arc<ServerTools>,
    /// Whether calls wait for approval when the request does not say.
    pub always_approve: bool,
}

/// Why there is no list (decision 26).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListError {
    /// The request asks for what cannot be: status 400.
    Request(Box<str>),
    /// A server of the client's cannot be used: status 424.
    Connector(Box<str>),
    /// A server of the operator's is not there now: a failed item, and the response goes on.
    Unavailable(Box<str>),
}

impl ListError {
    /// As an answer to the client, where it is one.
    pub(crate) fn refusal(&self, tool_index: usize) -> Option<ApiError> {
        let (code, message) = match self {
            Self::Request(message) => (ApiErrorCode::InvalidValue, message),
            Self::Connector(message) => (ApiErrorCode::ExternalConnector, message),
            Self::Unavailable(_) => return None,
        };
        let error = ApiError::new(code, &**message);
        Some(error.with_param(format!("tools[{tool_index}]")))
    }
}

/// One function that stands for an MCP tool.
#[derive(Clone, Debug)]
pub struct McpFunction {
    /// The server.
    pub server: Arc<McpServer>,
    /// The tool.
    pub tool: Arc<ToolEntry>,
    /// Whether a call waits for the client.
    pub needs_approval: bool,
}

/// The tools of a list that the request allows.
pub(crate) fn functions(tool: &McpTool, listed: &Listed) -> Vec<McpFunction> {
    let allowed = listed.tools.tools.iter();
    let allowed = allowed.filter(|entry| {
        let filter = tool.allowed.as_ref();
        filter.is_none_or(|filter| filter.takes(entry))
    });
    allowed
        .map(|entry| McpFunction {
            server: Arc::clone(&tool.server),
            tool: Arc::clone(entry),
            needs_approval: match &tool.approval {
                Some(approval) => approval.is_needed(entry),
                None => listed.always_approve,
            },
        })
        .collect()
}

/// What the model reads about a tool.
pub(crate) fn description(function: &McpFunction) -> Box<str> {
    if function.tool.description.is_empty() {
        return format!("MCP tool {}:{}", function.server.label, function.tool.name).into();
    }
    function.tool.description.clone()
}

/// The item that tells a client of a server's tools.
pub(crate) fn list_item(
    id: Box<str>,
    label: &str,
    functions: &[McpFunction],
    error: Option<Box<str>>,
) -> McpListTools {
    let tools = functions.iter().map(|function| {
        let tool = &function.tool;
        let description = (!tool.description.is_empty()).then(|| tool.description.clone());
        ListedTool {
            name: tool.name.clone(),
            description,
            input_schema: tool.input_schema.clone(),
            annotations: tool.annotations.clone(),
        }
    });
    McpListTools {
        id,
        server_label: label.into(),
        tools: tools.collect(),
        error,
    }
}

/// Whether two lists say the same.
pub(crate) fn same_list(a: &McpListTools, b: &McpListTools) -> bool {
    let same = |(a, b): (&ListedTool, &ListedTool)| {
        a.name == b.name
            && a.description == b.description
            && a.input_schema.get() == b.input_schema.get()
    };
    a.server_label == b.server_label
        && a.error.is_none()
        && b.error.is_none()
        && a.tools.len() == b.tools.len()
        && a.tools.iter().zip(&b.tools).all(same)
}

/// Whether arguments can be sent at all; the schema is judged where it is known.
pub(crate) fn check(arguments: &str) -> Result<(), &'static str> {
    let object = arguments.trim_start().starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(arguments).is_ok();
    if object {
        return Ok(());
    }
    Err("not run: the arguments must be a JSON object")
}

/// Writes an outcome into its item.
pub(crate) fn settle(item: &mut McpCall, outcome: Outcome) {
    match outcome {
        Outcome::Output { text, pictures } => {
            let images = pictures.into_iter().map(|url| McpImage { url });
            item.images = images.collect();
            item.status = ToolStatus::Completed;
            item.output = Some(text);
        }
        Outcome::Failed { error } => {
            item.status = ToolStatus::Failed;
            item.error = Some(error);
        }
    }
}

/// The outcome of a call that is not made.
pub(crate) fn refused(why: &str) -> Outcome {
    Outcome::Failed {
        error: CallError::protocol(INVALID_PARAMS, why),
    }
}

/// What the model is told of a call.
pub(crate) fn told(item: &McpCall) -> String {
    match (&item.output, &item.error) {
        (Some(output), _) if output.is_empty() && item.images.is_empty() => {
            "(no output)".to_owned()
        }
        (Some(output), _) => output.to_string(),
        (None, Some(error)) => error.for_model(),
        (None, None) => "(the output is not known)".to_owned(),
    }
}
