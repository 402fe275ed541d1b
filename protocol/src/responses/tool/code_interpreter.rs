//! `{"type":"code_interpreter"}` in a request.

use serde_json::value::RawValue;

use super::credentials::members_without;
use crate::error::ApiErrorCode;
use crate::ids::MAX_ID_LEN;
use crate::json::{Fields, Kind, Place, Problems, kind, read};

/// Python in a sandbox.
#[derive(Clone, Debug)]
pub struct CodeInterpreterTool {
    /// Where it runs.
    pub container: ContainerChoice,
    /// Its members as they came, for the echo.
    pub members: Vec<(Box<str>, Box<RawValue>)>,
}

/// `container` of the tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerChoice {
    /// The conversation's, or a fresh one.
    Auto,
    /// This one.
    Named(Box<str>),
}

impl CodeInterpreterTool {
    /// Whether it has a `container`.
    pub(super) fn says_where(&self) -> bool {
        let mut members = self.members.iter();
        members.any(|(name, raw)| &**name == "container" && kind(raw) != Kind::Null)
    }
}

/// Reads the tool; without `container` it is taken for `auto`, which only what was stored may be.
pub(super) fn decode(
    fields: Fields<'_, '_>,
    problems: &mut Problems,
) -> Option<CodeInterpreterTool> {
    let place = fields.place();
    let place = place.member("container");
    let members = members_without(fields);
    let raw = members.iter().find(|(name, _)| &**name == "container");
    let container = match raw {
        None => ContainerChoice::Auto,
        Some((_, raw)) => decode_container(raw, &place, problems)?,
    };
    Some(CodeInterpreterTool { container, members })
}

fn decode_container(
    raw: &RawValue,
    place: &Place<'_>,
    problems: &mut Problems,
) -> Option<ContainerChoice> {
    match kind(raw) {
        Kind::Null => Some(ContainerChoice::Auto),
        Kind::String => {
            let id = read::text(raw).filter(|id| !id.is_empty() && id.len() <= MAX_ID_LEN);
            if id.is_none() {
                problems.invalid(place, "`auto` in an object, or the id of a container");
            }
            Some(ContainerChoice::Named(id?.into()))
        }
        Kind::Object => decode_auto(Fields::of(raw, *place, problems)?, problems),
        Kind::Bool | Kind::Number | Kind::Array => {
            problems.wrong_type(place, "a string or an object");
            None
        }
    }
}

fn decode_auto(mut fields: Fields<'_, '_>, problems: &mut Problems) -> Option<ContainerChoice> {
    const TYPES: &[&str] = &["auto"];
    let place = fields.place();
    fields.word(
        "type",
        TYPES,
        |word| (word == "auto").then_some(()),
        problems,
    );
    let files = fields.array("file_ids", problems);
    if files.is_some_and(|files| !files.is_empty()) {
        unsupported(
            &place.member("file_ids"),
            "this server keeps no files",
            problems,
        );
    }
    if let Some(raw) = fields.take("network_policy") {
        let place = place.member("network_policy");
        let policy = Fields::of(raw, place, problems)?;
        if policy.peek_text("type").as_deref() != Some("disabled") {
            unsupported(&place, "the interpreter has no network", problems);
        }
    }
    // Both are mapped to the configured limits: the process is there before the request.
    let served = ["1g", "4g"];
    let memory = fields.string("memory_limit", problems);
    if memory.is_some_and(|memory| !served.contains(&&*memory)) {
        let why = "Python runs as 32-bit WebAssembly here: `1g` or `4g`";
        unsupported(&place.member("memory_limit"), why, problems);
    }
    Some(ContainerChoice::Auto)
}

fn unsupported(place: &Place<'_>, why: &str, problems: &mut Problems) {
    problems.add(
        place,
        ApiErrorCode::UnsupportedValue,
        format_args!("`{place}` is not supported: {why}"),
    );
}
