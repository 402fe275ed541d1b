//! Tools that the client runs and that are no plain functions.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{FunctionTool, Tool, credentials, decode_function, decode_name, unserved};
use crate::json::{Fields, Kind, Place, Problems, elements, kind};
use crate::responses::emulated::Emulated;
use crate::responses::words::words;

/// Most tools of one namespace.
const MAX_INNER: usize = 128;

/// A function of the client that takes one free text.
#[derive(Clone, Debug)]
pub struct CustomTool {
    /// Its name.
    pub name: Box<str>,
    /// What it does, for the model.
    pub description: Option<Box<str>>,
    /// What the text must be.
    pub format: CustomFormat,
    /// Whether it is hidden until the client's tool search loads it.
    pub defer_loading: bool,
    /// Its members as they came, for the echo.
    pub members: Vec<(Box<str>, Box<RawValue>)>,
}

/// What the input of a custom tool must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomFormat {
    /// Any text.
    Text,
    /// A text of this language.
    Grammar {
        /// How the language is described.
        syntax: Grammar,
        /// Its description.
        definition: Box<str>,
    },
}

words! {
    /// `syntax` of a grammar.
    Grammar {
        /// A Lark grammar.
        Lark = "lark",
        /// A regular expression.
        Regex = "regex",
    }
}

/// Functions and custom tools under one name.
#[derive(Clone, Debug)]
pub struct NamespaceTool {
    /// The name.
    pub name: Box<str>,
    /// What they are for, for the model.
    pub description: Arc<str>,
    /// The tools: functions and custom ones.
    pub tools: Vec<Tool>,
    /// Its members as they came, for the echo.
    pub members: Vec<(Box<str>, Box<RawValue>)>,
}

/// The client's own search for tools.
#[derive(Clone, Debug)]
pub struct ToolSearchTool {
    /// What it does, for the model.
    pub description: Option<Box<str>>,
    /// JSON schema of its arguments.
    pub parameters: Option<Box<RawValue>>,
    /// Its members as they came, for the echo.
    pub members: Vec<(Box<str>, Box<RawValue>)>,
}

words! {
    /// Who runs a tool search.
    Execution {
        /// The server.
        Server = "server",
        /// The client.
        Client = "client",
    }
}

/// A tool whose calls have a type of their own: the model calls a function, the client sees the item.
#[derive(Clone, Debug)]
pub struct EmulatedTool {
    /// Which.
    pub kind: Emulated,
    /// Its members as they came, for the echo.
    pub members: Vec<(Box<str>, Box<RawValue>)>,
}

pub(super) fn decode_custom(
    mut fields: Fields<'_, '_>,
    problems: &mut Problems,
) -> Option<CustomTool> {
    let members = credentials::own_members(fields.clone());
    let name = decode_name(&mut fields, problems);
    let description = fields.string("description", problems);
    let defer_loading = fields.boolean("defer_loading", problems).unwrap_or(false);
    let place = fields.place();
    let format = match fields.take("format") {
        None => Some(CustomFormat::Text),
        Some(raw) => decode_format(raw, place.member("format"), problems),
    };
    Some(CustomTool {
        name: name?,
        description: description.map(Into::into),
        format: format?,
        defer_loading,
        members,
    })
}

fn decode_format(
    raw: &RawValue,
    place: Place<'_>,
    problems: &mut Problems,
) -> Option<CustomFormat> {
    let mut fields = Fields::of(raw, place, problems)?;
    match &*fields.required_word("type", problems)? {
        "text" => Some(CustomFormat::Text),
        "grammar" => {
            if !fields.has("syntax") {
                problems.missing(&place.member("syntax"));
            }
            let syntax = fields.word("syntax", Grammar::WORDS, Grammar::parse, problems);
            let definition = fields.required_word("definition", problems);
            Some(CustomFormat::Grammar {
                syntax: syntax?,
                definition: definition?.into(),
            })
        }
        _ => {
            problems.wrong_word(&place.member("type"), &["text", "grammar"]);
            None
        }
    }
}

pub(super) fn decode_namespace(
    mut fields: Fields<'_, '_>,
    problems: &mut Problems,
) -> Option<NamespaceTool> {
    let members = credentials::own_members(fields.clone());
    let name = decode_name(&mut fields, problems);
    let description = fields.string("description", problems);
    let raw = fields.required("tools", problems)?;
    let place = fields.place();
    let list = place.member("tools");
    let raws = elements(raw, &list, problems)?;
    if raws.len() > MAX_INNER {
        problems.invalid(&list, format_args!("at most {MAX_INNER} tools"));
        return None;
    }
    let mut tools = Vec::with_capacity(raws.len());
    for (index, raw) in raws.into_iter().enumerate() {
        tools.extend(decode_inner(raw, list.element(index), problems));
    }
    Some(NamespaceTool {
        name: name?,
        description: description.unwrap_or_default().into(),
        tools,
        members,
    })
}

fn decode_inner(raw: &RawValue, place: Place<'_>, problems: &mut Problems) -> Option<Tool> {
    let mut fields = Fields::of(raw, place, problems)?;
    let kind = fields.peek_text("type").unwrap_or_default();
    match &*kind {
        "function" => {
            let tool: FunctionTool = decode_function(&mut fields, problems)?;
            Some(Tool::Function(Arc::new(tool)))
        }
        "custom" => Some(Tool::Custom(Arc::new(decode_custom(fields, problems)?))),
        _ => {
            problems.wrong_word(&place.member("type"), &["function", "custom"]);
            None
        }
    }
}

/// A search that the server should run needs none of it: the tools that it would find are shown.
pub(super) fn decode_search(mut fields: Fields<'_, '_>, problems: &mut Problems) -> Option<Tool> {
    let members = credentials::own_members(fields.clone());
    let execution = fields.word("execution", Execution::WORDS, Execution::parse, problems);
    if execution != Some(Execution::Client) {
        return Some(unserved("tool_search", fields));
    }
    let description = fields.string("description", problems);
    let parameters = fields.take("parameters");
    if let Some(raw) = parameters
        && kind(raw) != Kind::Object
    {
        problems.wrong_type(&fields.place().member("parameters"), "an object");
        return None;
    }
    Some(Tool::ToolSearch(Arc::new(ToolSearchTool {
        description: description.map(Into::into),
        parameters: parameters.map(ToOwned::to_owned),
        members,
    })))
}

/// A shell in a container of the server is not served.
pub(super) fn decode_emulated(kind: &str, fields: Fields<'_, '_>) -> Tool {
    let environment = fields.clone().take("environment");
    let local = environment.is_none_or(|raw| {
        let mut none = Problems::default();
        let environment = Fields::of(raw, Place::Root, &mut none);
        environment.is_some_and(|of| of.peek_text("type").as_deref() == Some("local"))
    });
    match Emulated::parse(kind) {
        Some(kind) if local => Tool::Emulated(EmulatedTool {
            kind,
            members: credentials::own_members(fields),
        }),
        _ => unserved(kind, fields),
    }
}
