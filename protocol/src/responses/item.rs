//! Items: the units of input and output, in the one shape in which they are sent, stored and replayed.

use std::borrow::Cow;

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::compaction::{Compaction, CompactionTrigger};
use super::content::Part;
use super::emulated::EmulatedCall;
use super::kept::KeptItem;
use super::mcp::{McpApprovalRequest, McpApprovalResponse, McpCall, McpListTools};
use super::said::Said;
use super::settings::{Effort, TextFormat};
use super::tool::{Execution, Tool};

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
    /// A call of a custom tool.
    CustomToolCall(CustomToolCall),
    /// What the client's custom tool returned.
    CustomToolCallOutput(FunctionCallOutput),
    /// A search for tools, which the client runs.
    ToolSearchCall(ToolSearchCall),
    /// The tools that the client found: they can be called from here.
    ToolSearchOutput(ToolSearchOutput),
    /// Further tools of the application: they can be called from here.
    AdditionalTools(AdditionalTools),
    /// Other settings from here on.
    ConfigurationUpdate(ConfigurationUpdate),
    /// Stands for an item that is stored; only in a request.
    ItemReference(ItemReference),
    /// Earlier turns, summed up.
    Compaction(Compaction),
    /// Asks for that in place of an answer; only in a request, at its end.
    CompactionTrigger(CompactionTrigger),
    /// A call of a shell or patch tool.
    #[serde(untagged)]
    EmulatedCall(EmulatedCall),
    /// An item of another type that is kept as it came.
    #[serde(untagged)]
    Kept(KeptItem),
}

impl Item {
    /// The item's id.
    pub fn id(&self) -> &str {
        match self {
            Self::Message(item) => &item.id,
            Self::Reasoning(item) => &item.id,
            Self::FunctionCall(item) => &item.id,
            Self::FunctionCallOutput(item) | Self::CustomToolCallOutput(item) => &item.id,
            Self::CodeInterpreterCall(item) => &item.id,
            Self::McpListTools(item) => &item.id,
            Self::McpCall(item) => &item.id,
            Self::McpApprovalRequest(item) => &item.id,
            Self::McpApprovalResponse(item) => &item.id,
            Self::CustomToolCall(item) => &item.id,
            Self::ToolSearchCall(item) => &item.id,
            Self::ToolSearchOutput(item) => &item.id,
            Self::AdditionalTools(item) => &item.id,
            Self::ConfigurationUpdate(item) => &item.id,
            Self::ItemReference(item) => &item.id,
            Self::Compaction(item) => &item.id,
            Self::CompactionTrigger(item) => &item.id,
            Self::EmulatedCall(item) => &item.id,
            Self::Kept(item) => &item.id,
        }
    }

    /// The tools that can be called once the model has seen this item.
    pub fn loaded_tools(&self) -> &[Tool] {
        match self {
            Self::AdditionalTools(item) => &item.tools,
            Self::ToolSearchOutput(item) => &item.tools,
            Self::Message(_)
            | Self::Reasoning(_)
            | Self::FunctionCall(_)
            | Self::FunctionCallOutput(_)
            | Self::CodeInterpreterCall(_)
            | Self::McpListTools(_)
            | Self::McpCall(_)
            | Self::McpApprovalRequest(_)
            | Self::McpApprovalResponse(_)
            | Self::CustomToolCall(_)
            | Self::CustomToolCallOutput(_)
            | Self::ToolSearchCall(_)
            | Self::ConfigurationUpdate(_)
            | Self::ItemReference(_)
            | Self::Compaction(_)
            | Self::CompactionTrigger(_)
            | Self::EmulatedCall(_)
            | Self::Kept(_) => &[],
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
            | Self::McpApprovalResponse(_)
            | Self::CustomToolCall(_)
            | Self::CustomToolCallOutput(_)
            | Self::ToolSearchCall(_)
            | Self::ToolSearchOutput(_)
            | Self::AdditionalTools(_)
            | Self::ConfigurationUpdate(_)
            | Self::ItemReference(_)
            | Self::Compaction(_)
            | Self::CompactionTrigger(_)
            | Self::EmulatedCall(_)
            | Self::Kept(_) => Cow::Borrowed(self),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// The namespace that the function is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Box<str>>,
    /// JSON text exactly as the model wrote it; not necessarily valid when `incomplete`.
    pub arguments: Box<str>,
    /// For the model server alone.
    #[serde(skip)]
    pub said: Option<Box<Said>>,
}

/// What the client's function or custom tool returned.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionCallOutput {
    /// `fco_...`, `ctco_...`
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

/// A call of a custom tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CustomToolCall {
    /// `ctc_...`
    pub id: Box<str>,
    /// `incomplete` when the input was cut.
    pub status: ItemStatus,
    /// Joins the call with its output.
    pub call_id: Box<str>,
    /// The tool.
    pub name: Box<str>,
    /// The namespace that the tool is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Box<str>>,
    /// The text for the tool; when `incomplete` whatever the model wrote.
    pub input: Box<str>,
    /// For the model server alone.
    #[serde(skip)]
    pub said: Option<Box<Said>>,
}

/// A search for tools.
#[derive(Clone, Debug, Serialize)]
pub struct ToolSearchCall {
    /// `tsc_...`
    pub id: Box<str>,
    /// Whole or cut.
    pub status: ItemStatus,
    /// Joins the call with its output; null when a server ran it.
    pub call_id: Option<Box<str>>,
    /// Who runs it.
    pub execution: Execution,
    /// What is looked for: an object.
    pub arguments: Box<RawValue>,
    /// For the model server alone.
    #[serde(skip)]
    pub said: Option<Box<Said>>,
}

/// Tools that a search found.
#[derive(Clone, Debug, Serialize)]
pub struct ToolSearchOutput {
    /// `tso_...`
    pub id: Box<str>,
    /// Whole or cut, as the client said.
    pub status: ItemStatus,
    /// The call it answers; null when a server ran it.
    pub call_id: Option<Box<str>>,
    /// Who ran it.
    pub execution: Execution,
    /// What was found.
    pub tools: Vec<Tool>,
}

/// Further tools of the application.
#[derive(Clone, Debug, Serialize)]
pub struct AdditionalTools {
    /// `at_...`
    pub id: Box<str>,
    /// Who gives them: `developer`.
    pub role: Role,
    /// The tools.
    pub tools: Vec<Tool>,
}

/// Other settings from one point of a conversation on.
#[derive(Clone, Debug)]
pub struct ConfigurationUpdate {
    /// `cfg_...`
    pub id: Box<str>,
    /// How much the model thinks from here on.
    pub effort: Option<Effort>,
    /// Shape of the answer's text from here on.
    pub format: Option<TextFormat>,
    /// All its members but `type` and `id`, as they came.
    pub members: Vec<(Box<str>, Box<RawValue>)>,
}

impl Serialize for ConfigurationUpdate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.members.len() + 1))?;
        map.serialize_entry("id", &self.id)?;
        for (name, raw) in &self.members {
            map.serialize_entry(name, raw)?;
        }
        map.end()
    }
}

/// Stands for a stored item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ItemReference {
    /// Id of the item that is meant.
    pub id: Box<str>,
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
    /// For the model server alone.
    #[serde(skip)]
    pub said: Option<Box<Said>>,
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
