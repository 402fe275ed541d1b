//! The choice among the tools.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::super::words::words;
use super::{Tool, credentials, has_named, mcp};
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
    /// This custom tool.
    Custom {
        /// Its name.
        name: Box<str>,
    },
    /// Some of the tools, a hard limit.
    Allowed {
        /// May or must.
        mode: AllowedMode,
        /// Which.
        allowed: Allowed,
        /// The choice as it came, without credentials, for the echo.
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
        /// The choice as it came, without credentials, for the echo.
        raw: Box<RawValue>,
    },
}

/// The tools among which the model may choose.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Functions, by name.
    pub functions: Vec<Box<str>>,
    /// Custom tools, by name.
    pub customs: Vec<Box<str>>,
    /// Whole namespaces, by name.
    pub namespaces: Vec<Box<str>>,
    /// MCP servers, or single tools of them.
    pub mcp: Vec<AllowedMcp>,
    /// Other tools, by type.
    pub types: Vec<Box<str>>,
}

/// An MCP server among the allowed tools, or one tool of it.
#[derive(Clone, Debug)]
pub struct AllowedMcp {
    /// The server.
    pub label: Box<str>,
    /// The tool, as the server names it; `None` for all.
    pub name: Option<Box<str>>,
    /// Where it stands among the allowed tools.
    pub index: usize,
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
            Self::Function { name } => named("function", name, serializer),
            Self::Custom { name } => named("custom", name, serializer),
            Self::Allowed { raw, .. } | Self::Mcp { raw, .. } | Self::OfType { raw, .. } => {
                raw.serialize(serializer)
            }
        }
    }
}

fn named<S: Serializer>(kind: &str, name: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(2))?;
    map.serialize_entry("type", kind)?;
    map.serialize_entry("name", name)?;
    map.end()
}

/// What the choice may name.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// The tools of the request.
    pub(crate) tools: &'a [Tool],
    /// Whether items may load further ones: what is named is then looked for later.
    pub(crate) may_grow: MayGrow,
}

/// Whether items may load further tools.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MayGrow {
    Yes,
    No,
}

impl Known<'_> {
    fn lacks(self, name: &str) -> bool {
        self.may_grow == MayGrow::No && !has_named(self.tools, name)
    }

    /// Whether there can be a tool of this type.
    fn has_type(self, kind: &str) -> bool {
        let is_of = |tool: &Tool| {
            tool.kind()
                .is_some_and(|known| family(known) == family(kind))
        };
        self.may_grow == MayGrow::Yes || self.tools.iter().any(is_of)
    }
}

const CHOICES: &[&str] = &["none", "auto", "required"];

/// Longest choice, in bytes: it is echoed and stored.
const MAX_CHOICE: usize = 65_536;

/// Types of tools that may be chosen by their type alone. Versions of one tool are one.
const TYPES: &[&str] = &[
    "code_interpreter",
    "tool_search",
    "local_shell",
    "shell",
    "apply_patch",
    "web_search",
    "file_search",
    "image_generation",
    "computer",
    "programmatic_tool_calling",
];

/// The type without what only says which version of a tool is meant.
fn family(kind: &str) -> &str {
    let versions = ["web_search", "computer"];
    let of = versions.into_iter().find(|family| kind.starts_with(family));
    of.unwrap_or(kind)
}

/// Reads `tool_choice`, and checks that what it forces is there.
pub(crate) fn decode_choice(
    raw: &RawValue,
    known: Known<'_>,
    place: &Place<'_>,
    problems: &mut Problems,
) -> Option<ToolChoice> {
    if raw.get().len() > MAX_CHOICE {
        problems.invalid(place, format_args!("at most {MAX_CHOICE} bytes long"));
        return None;
    }
    match kind(raw) {
        Kind::String => match read::text(raw).as_deref() {
            Some("none") => Some(ToolChoice::None),
            Some("auto") => Some(ToolChoice::Auto),
            Some("required") if known.tools.is_empty() && known.may_grow == MayGrow::No => {
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
        Kind::Object => decode_choice_object(raw, known, place, problems),
        Kind::Null | Kind::Bool | Kind::Number | Kind::Array => {
            problems.wrong_type(place, "a string or an object");
            None
        }
    }
}

fn decode_choice_object(
    raw: &RawValue,
    known: Known<'_>,
    place: &Place<'_>,
    problems: &mut Problems,
) -> Option<ToolChoice> {
    let mut fields = Fields::of(raw, *place, problems)?;
    let kind = fields.required_word("type", problems)?;
    match &*kind {
        "function" => {
            let name = decode_named(&mut fields, known, problems)?;
            Some(ToolChoice::Function { name })
        }
        "custom" => {
            let name = decode_named(&mut fields, known, problems)?;
            Some(ToolChoice::Custom { name })
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
                allowed: decode_allowed(&allowed?, known, &list, problems),
                raw: credentials::without(raw),
            })
        }
        "mcp" => mcp::decode_choice(fields, raw, known.tools, problems),
        _ => {
            let kind = decode_type(&kind, known, place, problems)?;
            let echoed = serde_json::value::to_raw_value(&OfType { r#type: &kind });
            Some(ToolChoice::OfType {
                kind,
                raw: echoed.ok()?,
            })
        }
    }
}

/// The echo of a choice by type: nothing else of it means anything.
#[derive(serde::Serialize)]
struct OfType<'a> {
    r#type: &'a str,
}

/// Checks that a type is one of tools, and that there is such a tool.
fn decode_type(
    kind: &str,
    known: Known<'_>,
    place: &Place<'_>,
    problems: &mut Problems,
) -> Option<Box<str>> {
    if !TYPES.contains(&family(kind)) {
        problems.wrong_word(&place.member("type"), TYPES);
        return None;
    }
    if !known.has_type(kind) {
        not_there(problems);
        return None;
    }
    Some(kind.into())
}

/// The choice names what is not in `tools`: told as OpenAI tells it, of the whole choice.
fn not_there(problems: &mut Problems) {
    problems.add(
        &Place::Root.member("tool_choice"),
        ApiErrorCode::InvalidRequest,
        "`tool_choice` must name a tool that is in `tools`",
    );
}

fn decode_named(
    fields: &mut Fields<'_, '_>,
    known: Known<'_>,
    problems: &mut Problems,
) -> Option<Box<str>> {
    let name = fields.required_word("name", problems)?;
    if known.lacks(&name) {
        not_there(problems);
    }
    Some(name.into())
}

fn decode_allowed(
    tools_allowed: &[&RawValue],
    known: Known<'_>,
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
        match &*kind {
            "function" => allowed
                .functions
                .extend(decode_named(&mut fields, known, problems)),
            "custom" => allowed
                .customs
                .extend(decode_named(&mut fields, known, problems)),
            "namespace" => {
                let name = fields.required_word("name", problems);
                allowed.namespaces.extend(name.map(Into::into));
            }
            "mcp" => {
                let named = mcp::decode_named(&mut fields, known.tools, problems);
                allowed
                    .mcp
                    .extend(named.map(|(label, name)| AllowedMcp { label, name, index }));
            }
            _ => allowed
                .types
                .extend(decode_type(&kind, known, &place, problems)),
        }
    }
    allowed
}
