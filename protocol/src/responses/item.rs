//! Items: the units of input and output, in the one shape in which they are sent, stored and replayed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::content::Part;
use super::mcp::{McpApprovalRequest, McpApprovalResponse, McpCall, McpListTools};

/// One item. Every item has an id by the time it is stored.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// Words of the user, the developer, the system or the assistant.
    Message(Message),
    /// The model's thinking.
    Reasoning(Reasoning),
    /// A call of a client function.
    FunctionCall(FunctionCall),
    /// What the client's function returned.
    FunctionCallOutput(FunctionCallOutput),
    /// Code that the gateway ran.
    CodeInterpreterCall(CodeInterpreterCall),
    /// Tools of an MCP server.
    McpListTools(McpListTools),
    /// A call of an MCP tool.
    McpCall(McpCall),
    /// A call that waits for the client's approval.
    McpApprovalRequest(McpApprovalRequest),
    /// The client's word about one.
    McpApprovalResponse(McpApprovalResponse),
}

impl Item {
    /// The item's id.
    pub fn id(&self) -> &str {
        match self {
            Self::Message(item) => &item.id,
            Self::Reasoning(item) => &item.id,
            Self::FunctionCall(item) => &item.id,
            Self::FunctionCallOutput(item) => &item.id,
            Self::CodeInterpreterCall(item) => &item.id,
            Self::McpListTools(item) => &item.id,
            Self::McpCall(item) => &item.id,
            Self::McpApprovalRequest(item) => &item.id,
            Self::McpApprovalResponse(item) => &item.id,
        }
    }

    /// Takes away what [`Item::shown`] hides.
    pub fn hide_code_outputs(&mut self) {
        if let Self::CodeInterpreterCall(call) = self {
            call.outputs = None;
        }
    }

    /// The item as a client sees it: results of the code interpreter are told to those who asked
    /// for them (`include`), and kept for the model in any case.
    pub fn shown(&self, outputs: CodeOutputs) -> Cow<'_, Self> {
        match self {
            Self::CodeInterpreterCall(call) if outputs == CodeOutputs::Hidden => {
                Cow::Owned(Self::CodeInterpreterCall(CodeInterpreterCall {
                    outputs: None,
                    ..call.clone()
                }))
            }
            Self::Message(_)
            | Self::Reasoning(_)
            | Self::FunctionCall(_)
            | Self::FunctionCallOutput(_)
            | Self::CodeInterpreterCall(_)
            | Self::McpListTools(_)
            | Self::McpCall(_)
            | Self::McpApprovalRequest(_)
            | Self::McpApprovalResponse(_) => Cow::Borrowed(self),
        }
    }
}

/// `status` of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// Being made.
    InProgress,
    /// Whole.
    Completed,
    /// Cut by a limit or a fault.
    Incomplete,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person or program in front of the model.
    User,
    /// The model.
    Assistant,
    /// Instructions.
    System,
    /// Instructions of the application; chat templates know only `system`.
    Developer,
}

/// Which part of an answer an assistant message is; kept and echoed, never interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Said on the way.
    Commentary,
    /// The answer.
    FinalAnswer,
}

/// A message.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// `msg_...`
    pub id: Box<str>,
    /// Whole or cut.
    pub status: ItemStatus,
    /// Who speaks.
    pub role: Role,
    /// What is said. A string in the request becomes one text part.
    pub content: Vec<Part>,
    /// See [`Phase`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
}

/// The model's thinking.
#[derive(Clone, Debug, Serialize)]
pub struct Reasoning {
    /// `rs_...`
    pub id: Box<str>,
    /// Whole or cut.
    pub status: ItemStatus,
    /// Summary parts.
    pub summary: Vec<SummaryPart>,
    /// The raw text, one part per item when made here.
    pub content: Vec<ReasoningPart>,
    /// Sealed copy for clients that keep their own history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_content: Option<Box<str>>,
}

/// One part of a reasoning summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SummaryPart {
    /// Summary text.
    SummaryText {
        /// The text.
        text: Box<str>,
    },
}

/// One part of raw reasoning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ReasoningPart {
    /// Raw text.
    ReasoningText {
        /// The text.
        text: Box<str>,
    },
}

/// A call of a client function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionCall {
    /// `fc_...`
    pub id: Box<str>,
    /// `incomplete` when the arguments were cut or are no JSON object text.
    pub status: ItemStatus,
    /// Joins the call with its output.
    pub call_id: Box<str>,
    /// The function.
    pub name: Box<str>,
    /// JSON text exactly as the model wrote it; not necessarily valid when `incomplete`.
    pub arguments: Box<str>,
}

/// What the client's function returned.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionCallOutput {
    /// `fco_...`
    pub id: Box<str>,
    /// Whole or cut, as the client said.
    pub status: ItemStatus,
    /// The call it answers.
    pub call_id: Box<str>,
    /// The result.
    pub output: Output,
}

/// A function's result: text, or parts.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Output {
    /// Plain text.
    Text(Box<str>),
    /// Text and pictures.
    Parts(Vec<Part>),
}

/// Whether the outputs of the code interpreter are shown to a client (`include`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeOutputs {
    /// It sees them, pictures too.
    Shown,
    /// They are kept for the model alone.
    Hidden,
}

/// `status` of an item that the gateway runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolStatus {
    /// The model still writes it, or it waits.
    InProgress,
    /// Its code runs.
    Interpreting,
    /// Its server was asked.
    Calling,
    /// Run to its end.
    Completed,
    /// Cut before it was run to its end.
    Incomplete,
    /// The tool failed; the response went on.
    Failed,
}

/// Code that the gateway ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodeInterpreterCall {
    /// `ci_...`
    pub id: Box<str>,
    /// How far it came.
    pub status: ToolStatus,
    /// Python.
    pub code: Box<str>,
    /// The interpreter session, `cntr_...`.
    pub container_id: Box<str>,
    /// What it gave, logs first. `None` before it has run, and for clients that did not ask.
    pub outputs: Option<Vec<CodeOutput>>,
}

/// One result of the code interpreter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CodeOutput {
    /// Text.
    Logs {
        /// The text.
        logs: Box<str>,
    },
    /// A picture.
    Image {
        /// `data:` URL.
        url: Box<str>,
    },
}
