//! Tools and the choice among them.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::words::words;
use crate::error::ApiErrorCode;
use crate::json::{Fields, Kind, Place, Problems, kind, read};

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
            Self::Unserved(tool) => {
                serializer.collect_map(tool.members.iter().map(|(name, value)| (name, value)))
            }
        }
    }
}

words! {
    /// `mode` of a choice among some tools.
    AllowedMode {
        /// The model may call one of them.
        Auto = "auto",
        /// The model must call one of them.
        Required = "required",
    }
}

/// Which tools the model may or must call.
#[derive(Clone, Debug)]
pub enum ToolChoice {
    /// None.
    None,
    /// As it likes.
    Auto,
    /// At least one.
    Required,
    /// This function.
    Function {
        /// Its name.
        name: Box<str>,
    },
    /// Some of the tools, a hard limit.
    Allowed {
        /// May or must.
        mode: AllowedMode,
        /// Names of the functions among them.
        functions: Vec<Box<str>>,
        /// The choice as it came, for the echo.
        raw: Box<RawValue>,
    },
    /// A tool that this gateway does not serve: the model chooses freely.
    Unserved {
        /// The choice as it came, for the echo.
        raw: Box<RawValue>,
    },
}

impl Serialize for ToolChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Auto => serializer.serialize_str("auto"),
            Self::Required => serializer.serialize_str("required"),
            Self::Function { name } => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("type", "function")?;
                map.serialize_entry("name", name)?;
                map.end()
            }
            Self::Allowed { raw, .. } | Self::Unserved { raw } => raw.serialize(serializer),
        }
    }
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
    if kind == "function" {
        return decode_function(&mut fields, problems).map(Tool::Function);
    }
    Some(Tool::Unserved(UnservedTool {
        kind: kind.into(),
        members: fields
            .into_members()
            .filter(|(name, _)| !CREDENTIALS.contains(&&**name))
            .map(|(name, raw)| (name.into(), raw.to_owned()))
            .collect(),
    }))
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
        return;
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

const CHOICES: &[&str] = &["none", "auto", "required"];

/// Reads `tool_choice`, and checks that what it forces is there.
pub(crate) fn decode_choice(
    raw: &RawValue,
    tools: &[Tool],
    place: &Place<'_>,
    problems: &mut Problems,
) -> Option<ToolChoice> {
    match kind(raw) {
        Kind::String => match read::text(raw).as_deref() {
            Some("none") => Some(ToolChoice::None),
            Some("auto") => Some(ToolChoice::Auto),
            Some("required") if tools.is_empty() => {
                problems.add(
                    place,
                    ApiErrorCode::InvalidValue,
                    format_args!("`{place}` `required` needs at least one tool in `tools`"),
                );
                None
            }
            Some("required") => Some(ToolChoice::Required),
            _ => {
                problems.wrong_word(place, CHOICES);
                None
            }
        },
        Kind::Object => decode_choice_object(raw, tools, place, problems),
        Kind::Null | Kind::Bool | Kind::Number | Kind::Array => {
            problems.wrong_type(place, "a string or an object");
            None
        }
    }
}

fn decode_choice_object(
    raw: &RawValue,
    tools: &[Tool],
    place: &Place<'_>,
    problems: &mut Problems,
) -> Option<ToolChoice> {
    let mut fields = Fields::of(raw, *place, problems)?;
    let kind = fields.required_word("type", problems)?;
    match &*kind {
        "function" => {
            let name = fields.required_word("name", problems)?;
            if !has_function(tools, &name) {
                absent(&place.member("name"), problems);
            }
            Some(ToolChoice::Function { name: name.into() })
        }
        "allowed_tools" => {
            let mode = fields.word("mode", AllowedMode::WORDS, AllowedMode::parse, problems);
            let allowed = fields.array("tools", problems);
            if allowed.is_none() && problems.is_empty() {
                problems.missing(&place.member("tools"));
            }
            let list = place.member("tools");
            Some(ToolChoice::Allowed {
                mode: mode.unwrap_or(AllowedMode::Auto),
                functions: allowed_functions(&allowed?, tools, &list, problems),
                raw: raw.to_owned(),
            })
        }
        _ => Some(ToolChoice::Unserved {
            raw: raw.to_owned(),
        }),
    }
}

fn allowed_functions(
    allowed: &[&RawValue],
    tools: &[Tool],
    place: &Place<'_>,
    problems: &mut Problems,
) -> Vec<Box<str>> {
    let mut names = Vec::new();
    for (index, raw) in allowed.iter().enumerate() {
        let place = place.element(index);
        let Some(mut fields) = Fields::of(raw, place, problems) else {
            continue;
        };
        if fields.peek_text("type").as_deref() != Some("function") {
            continue;
        }
        if let Some(name) = fields.required_word("name", problems) {
            if !has_function(tools, &name) {
                absent(&place.member("name"), problems);
            }
            names.push(name.into());
        }
    }
    names
}

fn absent(place: &Place<'_>, problems: &mut Problems) {
    problems.invalid(place, "the name of a function in `tools`");
}
