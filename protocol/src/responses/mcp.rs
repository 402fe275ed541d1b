//! Items of MCP.

use serde::Serialize;
use serde_json::value::RawValue;

use super::item::ToolStatus;
use super::said::Said;
use crate::mcp::outcome::CallError;

/// The tools of a server, as the client is told once.
#[derive(Clone, Debug, Serialize)]
pub struct McpListTools {
    /// `mcpl_...`
    pub id: Box<str>,
    /// The server.
    pub server_label: Box<str>,
    /// Its tools that the model is shown.
    pub tools: Vec<ListedTool>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<str>>,
}

/// A tool in the list.
#[derive(Clone, Debug, Serialize)]
pub struct ListedTool {
    /// Its name, as the server knows it.
    pub name: Box<str>,
    /// What it does.
    pub description: Option<Box<str>>,
    /// JSON schema of its arguments.
    pub input_schema: Box<RawValue>,
    /// The server's hints.
    pub annotations: Option<Box<RawValue>>,
}

/// A call of a tool.
#[derive(Clone, Debug, Serialize)]
pub struct McpCall {
    /// `mcp_...`
    pub id: Box<str>,
    /// How far it came.
    pub status: ToolStatus,
    /// The server.
    pub server_label: Box<str>,
    /// The tool, as the server knows it.
    pub name: Box<str>,
    /// JSON text as the model wrote it.
    pub arguments: Box<str>,
    /// What the tool gave.
    pub output: Option<Box<str>>,
    /// Pictures that it gave beside the text. Not in the API, which has texts only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<McpImage>,
    /// What went wrong.
    pub error: Option<CallError>,
    /// The request that the client approved.
    pub approval_request_id: Option<Box<str>>,
    /// For the model server alone.
    #[serde(skip)]
    pub said: Option<Box<Said>>,
}

/// A picture of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "image")]
pub struct McpImage {
    /// `data:` URL.
    pub url: Box<str>,
}

/// A call that waits for the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct McpApprovalRequest {
    /// `mcpr_...`
    pub id: Box<str>,
    /// The server.
    pub server_label: Box<str>,
    /// The tool, as the server knows it.
    pub name: Box<str>,
    /// JSON text as the model wrote it: what is approved.
    pub arguments: Box<str>,
    /// For the model server alone.
    #[serde(skip)]
    pub said: Option<Box<Said>>,
}

/// The client's word about a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct McpApprovalResponse {
    /// `mcpa_...`
    pub id: Box<str>,
    /// Which call.
    pub approval_request_id: Box<str>,
    /// May it run?
    pub approve: bool,
    /// Why, for the model.
    pub reason: Option<Box<str>>,
}
