//! Tools and the choice among them.

mod address;
mod choice;
mod client;
mod code_interpreter;
mod credentials;
mod mcp;

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

pub(crate) use address::without_paths;
pub use choice::{Allowed, AllowedMcp, AllowedMode, ToolChoice};
pub(crate) use choice::{Known, MayGrow, decode_choice};
pub use client::{
    CustomFormat, CustomTool, EmulatedTool, Execution, Grammar, NamespaceTool, ToolSearchTool,
};
pub use code_interpreter::{CodeInterpreterTool, ContainerChoice};
pub(crate) use mcp::refuse_unkept;
pub use mcp::{Approval, McpAccess, McpServer, McpTool, ToolFilter};

use crate::error::ApiErrorCode;
use crate::json::{Fields, Kind, Place, Problems, kind};

/// Most tools of a request; OpenAI's limit.
const MAX_TOOLS: usize = 128;

/// Longest function name, in characters; OpenAI's limit.
const MAX_NAME: usize = 128;

/// A tool of the request.
#[derive(Clone, Debug)]
pub enum Tool {
    /// A function that the client runs.
    Function(Arc<FunctionTool>),
    /// A function of the client that takes one free text.
    Custom(Arc<CustomTool>),
    /// Functions of the client under one name.
    Namespace(NamespaceTool),
    /// The client's own search for tools that it has not shown yet.
    ToolSearch(Arc<ToolSearchTool>),
    /// A tool with calls of a type of their own, which the client runs.
    Emulated(EmulatedTool),
    /// Python in a sandbox, run by the gateway.
    CodeInterpreter(CodeInterpreterTool),
    /// The tools of an MCP server, called by the gateway.
    Mcp(McpTool),
    /// A tool that this gateway does not serve: echoed, not shown to the model (decision 5).
    Unserved(UnservedTool),
}

/// A function that the client runs.
#[derive(Clone, Debug)]
pub struct FunctionTool {
    /// Its name.
    pub name: Box<str>,
    /// What it does, for the model.
    pub description: Option<Box<str>>,
    /// JSON schema of its arguments, untouched.
    pub parameters: Option<Box<RawValue>>,
    /// Whether arguments must follow the schema; sent exactly as asked.
    pub strict: Option<bool>,
    /// Whether it is hidden until the client's tool search loads it.
    pub defer_loading: Option<bool>,
}

/// A tool that this gateway does not serve.
#[derive(Clone, Debug)]
pub struct UnservedTool {
    /// Its `type`.
    pub kind: Box<str>,
    /// Its members in their order, as they came, without credentials.
    pub members: Vec<(Box<str>, Box<RawValue>)>,
}

impl Serialize for Tool {
    /// The echo: OpenAI always writes a function's four members, null or not.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Function(function) => {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("type", "function")?;
                map.serialize_entry("name", &function.name)?;
                map.serialize_entry("description", &function.description)?;
                map.serialize_entry("parameters", &function.parameters)?;
                map.serialize_entry("strict", &function.strict)?;
                if let Some(defer) = function.defer_loading {
                    map.serialize_entry("defer_loading", &defer)?;
                }
                map.end()
            }
            Self::Custom(tool) => members(&tool.members, serializer),
            Self::Namespace(tool) => members(&tool.members, serializer),
            Self::ToolSearch(tool) => members(&tool.members, serializer),
            Self::Emulated(tool) => members(&tool.members, serializer),
            Self::CodeInterpreter(tool) => members(&tool.members, serializer),
            Self::Mcp(tool) => members(&tool.members, serializer),
            Self::Unserved(tool) => members(&tool.members, serializer),
        }
    }
}

impl Tool {
    /// Its type, where it can be chosen by that alone.
    fn kind(&self) -> Option<&str> {
        match self {
            Self::ToolSearch(_) => Some("tool_search"),
            Self::Emulated(tool) => Some(tool.kind.as_str()),
            Self::CodeInterpreter(_) => Some("code_interpreter"),
            Self::Unserved(tool) => Some(&tool.kind),
            Self::Function(_) | Self::Custom(_) | Self::Namespace(_) | Self::Mcp(_) => None,
        }
    }
}

/// Members as they came.
fn members<S: Serializer>(
    members: &[(Box<str>, Box<RawValue>)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(members.iter().map(|(name, value)| (name, value)))
}

/// Reads `tools`.
pub(crate) fn decode_tools(
    tools: &[&RawValue],
    place: &Place<'_>,
    problems: &mut Problems,
) -> Vec<Tool> {
    if tools.len() > MAX_TOOLS {
        problems.invalid(place, format_args!("at most {MAX_TOOLS} tools"));
        return Vec::new();
    }
    let mut decoded = Vec::with_capacity(tools.len());
    for (index, raw) in tools.iter().enumerate() {
        let place = place.element(index);
        let Some(fields) = Fields::of(raw, place, problems) else {
            continue;
        };
        if let Some(tool) = decode_tool(fields, problems) {
            refuse_same_name(&decoded, &tool, &place, problems);
            decoded.push(tool);
        }
    }
    decoded
}

/// The API wants to be told where code runs. What was stored by earlier versions may not say it.
pub(crate) fn require_container(tools: &[Tool], place: &Place<'_>, problems: &mut Problems) {
    for (index, tool) in tools.iter().enumerate() {
        if let Tool::CodeInterpreter(tool) = tool
            && !tool.says_where()
        {
            problems.missing(&place.element(index).member("container"));
        }
    }
}

fn decode_tool(mut fields: Fields<'_, '_>, problems: &mut Problems) -> Option<Tool> {
    let Some(kind) = fields.peek_text("type").filter(|kind| !kind.is_empty()) else {
        fields.required_word("type", problems);
        return None;
    };
    match &*kind {
        "mcp" => mcp::decode(fields, problems).map(Tool::Mcp),
        "function" => {
            decode_function(&mut fields, problems).map(|tool| Tool::Function(tool.into()))
        }
        "custom" => client::decode_custom(fields, problems).map(|tool| Tool::Custom(tool.into())),
        "namespace" => client::decode_namespace(fields, problems).map(Tool::Namespace),
        "tool_search" => client::decode_search(fields, problems),
        "local_shell" | "shell" | "apply_patch" => Some(client::decode_emulated(&kind, fields)),
        "code_interpreter" => code_interpreter::decode(fields, problems).map(Tool::CodeInterpreter),
        _ => Some(unserved(&kind, fields)),
    }
}

fn unserved(kind: &str, fields: Fields<'_, '_>) -> Tool {
    Tool::Unserved(UnservedTool {
        kind: kind.into(),
        members: credentials::members_without(fields),
    })
}

fn decode_function(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<FunctionTool> {
    let name = decode_name(fields, problems);
    let place = fields.place();
    let description = fields.string("description", problems);
    let parameters = fields.take("parameters");
    if let Some(raw) = parameters
        && kind(raw) != Kind::Object
    {
        problems.wrong_type(&place.member("parameters"), "an object");
    }
    let strict = fields.boolean("strict", problems);
    let defer_loading = fields.boolean("defer_loading", problems);
    Some(FunctionTool {
        name: name?,
        description: description.map(Into::into),
        parameters: parameters.map(ToOwned::to_owned),
        strict,
        defer_loading,
    })
}

/// The name of a function, custom tool or namespace.
fn decode_name(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Box<str>> {
    let name = fields.required_word("name", problems)?;
    if name.chars().nth(MAX_NAME).is_some() || !name.chars().all(is_name_character) {
        problems.invalid(
            &fields.place().member("name"),
            format_args!("at most {MAX_NAME} letters, digits, `_`, `-` or `.`"),
        );
    }
    Some(name.into())
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
}

/// The name of a call would not say which of two tools is meant.
fn refuse_same_name(before: &[Tool], tool: &Tool, place: &Place<'_>, problems: &mut Problems) {
    let Some(name) = own_name(tool) else {
        return mcp::refuse_same_label(before, tool, place, problems);
    };
    if before.iter().any(|tool| own_name(tool) == Some(name)) {
        let place = place.member("name");
        problems.add(
            &place,
            ApiErrorCode::InvalidValue,
            format_args!("`{place}` is the name of an earlier tool: names must differ"),
        );
    }
}

/// The name by which a call of the tool names it.
fn own_name(tool: &Tool) -> Option<&str> {
    match tool {
        Tool::Function(tool) => Some(&tool.name),
        Tool::Custom(tool) => Some(&tool.name),
        Tool::Namespace(_)
        | Tool::ToolSearch(_)
        | Tool::Emulated(_)
        | Tool::CodeInterpreter(_)
        | Tool::Mcp(_)
        | Tool::Unserved(_) => None,
    }
}

/// Whether a function or custom tool has this name, in a namespace or not.
fn has_named(tools: &[Tool], wanted: &str) -> bool {
    tools.iter().any(|tool| match tool {
        Tool::Namespace(space) => has_named(&space.tools, wanted),
        Tool::Function(_)
        | Tool::Custom(_)
        | Tool::ToolSearch(_)
        | Tool::Emulated(_)
        | Tool::CodeInterpreter(_)
        | Tool::Mcp(_)
        | Tool::Unserved(_) => own_name(tool) == Some(wanted),
    })
}
