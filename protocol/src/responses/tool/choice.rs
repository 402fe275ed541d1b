//! The choice among the tools.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::super::words::words;
use super::{Tool, has_function, mcp};
use crate::error::ApiErrorCode;
use crate::json::{Fields, Kind, Place, Problems, kind, read};

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
        /// Which.
        allowed: Allowed,
        /// The choice as it came, for the echo.
        raw: Box<RawValue>,
    },
    /// A tool of this MCP server, or any of them.
    Mcp {
        /// The server.
        label: Box<str>,
        /// The tool, as the server names it.
        name: Option<Box<str>>,
        /// The choice as it came, for the echo.
        raw: Box<RawValue>,
    },
    /// The tool of this type: one that the gateway runs, or, where it serves none of that type, as
    /// the model likes.
    OfType {
        /// The type.
        kind: Box<str>,
        /// The choice as it came, for the echo.
        raw: Box<RawValue>,
    },
}

/// The tools among which the model may choose.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Functions, by name.
    pub functions: Vec<Box<str>>,
    /// Other tools, by type.
    pub types: Vec<Box<str>>,
}

impl Allowed {
    /// Whether the tools of this type are among them.
    pub fn has_type(&self, wanted: &str) -> bool {
        self.types.iter().any(|kind| &**kind == wanted)
    }
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
            Self::Allowed { raw, .. } | Self::Mcp { raw, .. } | Self::OfType { raw, .. } => {
                raw.serialize(serializer)
            }
        }
    }
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
                allowed: decode_allowed(&allowed?, tools, &list, problems),
                raw: raw.to_owned(),
            })
        }
        "mcp" => mcp::decode_choice(fields, raw, tools, problems),
        _ => Some(ToolChoice::OfType {
            kind: kind.into(),
            raw: raw.to_owned(),
        }),
    }
}

fn decode_allowed(
    tools_allowed: &[&RawValue],
    tools: &[Tool],
    place: &Place<'_>,
    problems: &mut Problems,
) -> Allowed {
    let mut allowed = Allowed::default();
    for (index, raw) in tools_allowed.iter().enumerate() {
        let place = place.element(index);
        let Some(mut fields) = Fields::of(raw, place, problems) else {
            continue;
        };
        let kind = fields.peek_text("type").unwrap_or_default();
        if kind != "function" {
            allowed.types.push(kind.into());
        } else if let Some(name) = fields.required_word("name", problems) {
            if !has_function(tools, &name) {
                absent(&place.member("name"), problems);
            }
            allowed.functions.push(name.into());
        }
    }
    allowed
}

fn absent(place: &Place<'_>, problems: &mut Problems) {
    problems.invalid(place, "the name of a function in `tools`");
}
