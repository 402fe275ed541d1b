//! `{"type":"mcp"}` in a request: a server, what of it may be used, and what needs approval.

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::Tool;
use super::address;
use super::choice::ToolChoice;
use super::credentials::{self, CREDENTIALS};
use crate::error::{ApiError, ApiErrorCode};
use crate::json::{Fields, Kind, Place, Problems, kind, read};
use crate::mcp::catalogue::ToolEntry;
use crate::mcp::file::is_label;
use crate::secret::Secret;

/// The tools of an MCP server.
#[derive(Clone, Debug)]
pub struct McpTool {
    /// The server.
    pub server: Arc<McpServer>,
    /// Which of its tools; `None` for all.
    pub allowed: Option<ToolFilter>,
    /// Which calls wait for the client; `None` for the server's default.
    pub approval: Option<Approval>,
    /// Its members as they came, for the echo, without credentials.
    pub members: Vec<(Box<str>, Box<RawValue>)>,
}

/// A server: the operator's with this label, or, with `access`, the client's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpServer {
    /// `server_label`
    pub label: Box<str>,
    /// How the client's own is reached.
    pub access: Option<McpAccess>,
}

/// How a client's own server is reached. Never stored, echoed or printed.
#[derive(Clone, PartialEq, Eq)]
pub struct McpAccess {
    /// `server_url`, not judged yet.
    pub url: Box<str>,
    /// `authorization`
    pub authorization: Option<Secret>,
    /// `headers`
    pub headers: Vec<(Box<str>, Secret)>,
}

impl fmt::Debug for McpAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("McpAccess")
    }
}

/// Most names in a list of a server's tools.
const MAX_NAMES: usize = 1024;

/// Some tools of a server: those that are named, or that say they change nothing, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolFilter {
    /// Names.
    pub names: Option<Vec<Box<str>>>,
    /// `readOnlyHint`.
    pub read_only: Option<bool>,
}

impl ToolFilter {
    /// Whether a tool is among them.
    pub fn takes(&self, tool: &ToolEntry) -> bool {
        let named = self.names.as_ref();
        named.is_none_or(|names| names.contains(&tool.name))
            && self.read_only.is_none_or(|wanted| wanted == tool.read_only)
    }
}

/// `require_approval`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approval {
    /// No call waits.
    Never,
    /// Every call waits.
    Always,
    /// By tool. Tools in neither list wait, unless only `always` was given.
    Some {
        /// These wait.
        always: Option<ToolFilter>,
        /// These do not.
        never: Option<ToolFilter>,
    },
}

impl Approval {
    /// Whether a call of this tool waits.
    pub fn is_needed(&self, tool: &ToolEntry) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Some { always, never } => {
                let takes = |filter: &Option<ToolFilter>| {
                    filter.as_ref().is_some_and(|filter| filter.takes(tool))
                };
                takes(always) || (never.is_some() && !takes(never))
            }
        }
    }
}

/// Reads the tool.
pub(super) fn decode(mut fields: Fields<'_, '_>, problems: &mut Problems) -> Option<McpTool> {
    let place = fields.place();
    let label = decode_label(&mut fields, problems);
    for name in ["connector_id", "tunnel_id"] {
        if fields.given(name) {
            let at = place.member(name);
            problems.add(
                &at,
                ApiErrorCode::UnsupportedValue,
                format_args!("`{at}` is not supported: give the server's `server_url`, or the label of one that the operator has set up"),
            );
        }
    }
    // Looked at, and left for the echo.
    let members: Vec<_> = fields.into_members().collect();
    let find = |wanted: &str| {
        let found = members.iter().find(|(name, _)| name == wanted);
        found
            .map(|(_, raw)| *raw)
            .filter(|raw| kind(raw) != Kind::Null)
    };
    let allowed = find("allowed_tools")
        .map(|raw| decode_filter(raw, place.member("allowed_tools"), problems));
    let approval = find("require_approval")
        .and_then(|raw| decode_approval(raw, place.member("require_approval"), problems));
    let access = decode_access(&find, &place, problems);
    let echoed = members
        .iter()
        .filter(|(name, _)| !credentials::is_credential(name));
    let label: Box<str> = label?;
    let quoted = serde_json::to_string(&label).ok();
    let kept = [
        ("type", Some("\"mcp\"".to_owned())),
        ("server_label", quoted),
    ];
    let kept = kept
        .into_iter()
        .filter_map(|(name, text)| Some((Box::from(name), RawValue::from_string(text?).ok()?)));
    let echoed = echoed.filter_map(|(name, raw)| match &**name {
        "server_url" => Some(("server_url".into(), address::shown(raw)?)),
        name => Some((name.into(), credentials::without(raw))),
    });
    let members = kept.chain(echoed).collect();
    Some(McpTool {
        server: Arc::new(McpServer { label, access }),
        allowed,
        approval,
        members,
    })
}

fn decode_label(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Box<str>> {
    fields.take("type");
    let label = fields.required_word("server_label", problems)?;
    if !is_label(&label) {
        let place = fields.place();
        problems.invalid(
            &place.member("server_label"),
            "1 to 64 letters, digits, `_` or `-`",
        );
        return None;
    }
    Some(label.into())
}

/// `server_url`, `authorization` and `headers`. Credentials without a URL would go to a server that
/// the operator chose: they are refused.
fn decode_access<'a>(
    find: &impl Fn(&str) -> Option<&'a RawValue>,
    place: &Place<'_>,
    problems: &mut Problems,
) -> Option<McpAccess> {
    let mut text = |name: &str| {
        let raw = find(name)?;
        let text = read::text(raw);
        if text.is_none() {
            problems.wrong_type(&place.member(name), "a string");
        }
        text
    };
    let url = text("server_url");
    let authorization = text("authorization").map(|token| Secret::new(&token));
    let mut headers = Vec::new();
    if let Some(raw) = find("headers") {
        let at = place.member("headers");
        for (name, raw) in Fields::of(raw, at, problems)?.into_members() {
            match read::text(raw) {
                Some(value) => headers.push((name.as_ref().into(), Secret::new(&value))),
                // The name is not quoted: it may be a secret that was put in the wrong place.
                None => problems.wrong_type(&at, "an object of strings"),
            }
        }
    }
    let Some(url) = url else {
        for name in CREDENTIALS.iter().filter(|name| find(name).is_some()) {
            problems.invalid(&place.member(name), "absent where there is no `server_url`");
        }
        return None;
    };
    Some(McpAccess {
        url: url.into(),
        authorization,
        headers,
    })
}

/// A list of names, or the object form.
fn decode_filter(raw: &RawValue, place: Place<'_>, problems: &mut Problems) -> ToolFilter {
    if kind(raw) == Kind::Array {
        return ToolFilter {
            names: Some(decode_names(raw, &place, problems)),
            read_only: None,
        };
    }
    let Some(mut fields) = Fields::of(raw, place, problems) else {
        return ToolFilter::default();
    };
    let at = place.member("tool_names");
    let names = fields
        .take("tool_names")
        .map(|raw| decode_names(raw, &at, problems));
    ToolFilter {
        names,
        read_only: fields.boolean("read_only", problems),
    }
}

fn decode_names(raw: &RawValue, place: &Place<'_>, problems: &mut Problems) -> Vec<Box<str>> {
    let names: Option<Vec<String>> = serde_json::from_str(raw.get()).ok();
    if names.is_none() {
        problems.wrong_type(place, "an array of strings");
    }
    if names.as_ref().is_some_and(|names| names.len() > MAX_NAMES) {
        problems.invalid(place, format_args!("an array of at most {MAX_NAMES} names"));
        return Vec::new();
    }
    names
        .unwrap_or_default()
        .into_iter()
        .map(Into::into)
        .collect()
}

fn decode_approval(raw: &RawValue, place: Place<'_>, problems: &mut Problems) -> Option<Approval> {
    if let Some(word) = read::text(raw) {
        return match &*word {
            "never" => Some(Approval::Never),
            "always" => Some(Approval::Always),
            _ => {
                problems.wrong_word(&place, &["never", "always"]);
                None
            }
        };
    }
    let mut fields = Fields::of(raw, place, problems)?;
    let mut filter = |name: &str| {
        let raw = fields.take(name)?;
        Some(decode_filter(raw, place.member(name), problems))
    };
    Some(Approval::Some {
        always: filter("always"),
        never: filter("never"),
    })
}

/// Two servers of one label could not be told apart in calls.
pub(super) fn refuse_same_label(
    before: &[Tool],
    tool: &Tool,
    place: &Place<'_>,
    problems: &mut Problems,
) {
    let Tool::Mcp(tool) = tool else {
        return;
    };
    if find(before, &tool.server.label).is_some() {
        problems.invalid(
            &place.member("server_label"),
            "given once: labels must differ",
        );
    }
}

fn find<'a>(tools: &'a [Tool], label: &str) -> Option<&'a McpTool> {
    tools.iter().find_map(|tool| match tool {
        Tool::Mcp(tool) if *tool.server.label == *label => Some(tool),
        Tool::Mcp(_)
        | Tool::Function(_)
        | Tool::Custom(_)
        | Tool::Namespace(_)
        | Tool::ToolSearch(_)
        | Tool::Emulated(_)
        | Tool::CodeInterpreter(_)
        | Tool::Unserved(_) => None,
    })
}

/// Refuses tools of the response before whose address was not kept: its path and query may have had a
/// key in them, so the client has to say them again.
pub(crate) fn refuse_unkept(tools: &[Tool]) -> Result<(), ApiError> {
    let is_unkept = |tool: &Tool| matches!(tool, Tool::Mcp(tool) if tool.server.access.is_some());
    if !tools.iter().any(is_unkept) {
        return Ok(());
    }
    let message = "`tools` must be sent again: of the response in `previous_response_id` the whole \
                   `server_url` of an MCP server is not kept, since it may have a key in it";
    let error = ApiError::new(ApiErrorCode::MissingRequiredParameter, message);
    Err(error.with_param("tools"))
}

/// Reads a choice of a server, or of one of its tools.
pub(super) fn decode_choice(
    mut fields: Fields<'_, '_>,
    raw: &RawValue,
    tools: &[Tool],
    problems: &mut Problems,
) -> Option<ToolChoice> {
    let (label, name) = decode_named(&mut fields, tools, problems)?;
    Some(ToolChoice::Mcp {
        label,
        name,
        raw: credentials::without(raw),
    })
}

/// Reads the label of a server in `tools`, and the name of a tool of it if there is one. Whether the
/// server has the tool is known when it has been asked.
pub(super) fn decode_named(
    fields: &mut Fields<'_, '_>,
    tools: &[Tool],
    problems: &mut Problems,
) -> Option<(Box<str>, Option<Box<str>>)> {
    let label = fields.required_word("server_label", problems)?;
    let name = fields.string("name", problems);
    if find(tools, &label).is_none() {
        let place = fields.place();
        problems.invalid(
            &place.member("server_label"),
            "the label of an MCP server in `tools`",
        );
    }
    Some((label.into(), name.map(Into::into)))
}
