//! Tools and the choice among them.

mod choice;
mod code_interpreter;
mod mcp;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

pub(crate) use choice::decode_choice;
pub use choice::{Allowed, AllowedMode, ToolChoice};
pub use code_interpreter::{CodeInterpreterTool, ContainerChoice};
pub use mcp::{Approval, McpAccess, McpServer, McpTool, ToolFilter};

use crate::error::ApiErrorCode;
use crate::json::{Fields, Kind, Place, Problems, kind};

/// Most tools of a request; OpenAI's limit.
const MAX_TOOLS: usize = 128;

/// Longest function name, in characters; OpenAI's limit.
const MAX_NAME: usize = 128;

/// Members of tools that carry credentials: never echoed, never stored.
const CREDENTIALS: [&str; 2] = ["authorization", "headers"];

/// A tool of the request.
#[derive(Clone, Debug)]
pub enum Tool {
    /// A function that the client runs.
    Function(FunctionTool),
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
                let mut map = serializer.serialize_map(Some(5))?;
                map.serialize_entry("type", "function")?;
                map.serialize_entry("name", &function.name)?;
                map.serialize_entry("description", &function.description)?;
                map.serialize_entry("parameters", &function.parameters)?;
                map.serialize_entry("strict", &function.strict)?;
                map.end()
            }
            Self::CodeInterpreter(tool) => members(&tool.members, serializer),
            Self::Mcp(tool) => members(&tool.members, serializer),
            Self::Unserved(tool) => members(&tool.members, serializer),
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

fn decode_tool(mut fields: Fields<'_, '_>, problems: &mut Problems) -> Option<Tool> {
    let Some(kind) = fields.peek_text("type").filter(|kind| !kind.is_empty()) else {
        fields.required_word("type", problems);
        return None;
    };
    match &*kind {
        "function" => decode_function(&mut fields, problems).map(Tool::Function),
        "mcp" => mcp::decode(fields, problems).map(Tool::Mcp),
        "code_interpreter" => code_interpreter::decode(fields, problems).map(Tool::CodeInterpreter),
        _ => Some(Tool::Unserved(UnservedTool {
            kind: kind.into(),
            members: kept_members(fields),
        })),
    }
}

/// A tool's members for the echo, without credentials.
fn kept_members(fields: Fields<'_, '_>) -> Vec<(Box<str>, Box<RawValue>)> {
    fields
        .into_members()
        .filter(|(name, _)| !CREDENTIALS.contains(&&**name))
        .map(|(name, raw)| (name.into(), raw.to_owned()))
        .collect()
}

fn decode_function(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<FunctionTool> {
    let name = fields.required_word("name", problems);
    let place = fields.place();
    if let Some(name) = &name
        && (name.chars().nth(MAX_NAME).is_some() || !name.chars().all(is_name_character))
    {
        problems.invalid(
            &place.member("name"),
            format_args!("at most {MAX_NAME} letters, digits, `_`, `-` or `.`"),
        );
    }
    let description = fields.string("description", problems);
    let parameters = fields.take("parameters");
    if let Some(raw) = parameters
        && kind(raw) != Kind::Object
    {
        problems.wrong_type(&place.member("parameters"), "an object");
    }
    let strict = fields.boolean("strict", problems);
    Some(FunctionTool {
        name: name?.into(),
        description: description.map(Into::into),
        parameters: parameters.map(ToOwned::to_owned),
        strict,
    })
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
}

/// The name of a call would not say which of two functions is meant.
fn refuse_same_name(before: &[Tool], tool: &Tool, place: &Place<'_>, problems: &mut Problems) {
    let Tool::Function(function) = tool else {
        return mcp::refuse_same_label(before, tool, place, problems);
    };
    if has_function(before, &function.name) {
        let place = place.member("name");
        problems.add(
            &place,
            ApiErrorCode::InvalidValue,
            format_args!("`{place}` is the name of an earlier tool: names must differ"),
        );
    }
}

fn has_function(tools: &[Tool], wanted: &str) -> bool {
    tools
        .iter()
        .any(|tool| matches!(tool, Tool::Function(function) if &*function.name == wanted))
}
