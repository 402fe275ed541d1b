//! `POST /v1/responses`: the body, read, checked and normalised.

mod inherit;
mod sampling;
mod text;
mod warnings;

use serde_json::value::RawValue;

use super::decode::Reader;
use super::item::Item;
use super::settings::{CacheRetention, Settings, Truncation};
use super::tool::{self, Known, MayGrow, Tool};
use super::words::words;
use crate::error::{ApiError, ApiErrorCode};
use crate::ids::{IdSource, ResponseId};
use crate::json::{Fields, Kind, Place, Problems, kind, read, scan};
pub use inherit::{OmittedTools, ToolsFrom};
pub(crate) use text::decode_format;
use warnings::{Unserved, report_unknown};

/// How strictly requests are read; configuration.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Deepest nesting of a body.
    pub max_depth: usize,
    /// Unknown fields are refused, not warned about (decision 5).
    pub strict_requests: bool,
    /// Tools that are not served are refused, not warned about (decision 5).
    pub strict_tools: bool,
    /// Whether responses may be kept at all.
    pub retention: Retention,
    /// What omitted tools mean (decision 1).
    pub omitted_tools: OmittedTools,
}

/// Whether responses may be kept at all; configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// As each request says; yes where it says nothing.
    Asked,
    /// Never: requests that need it are refused.
    None,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_depth: 64,
            strict_requests: false,
            strict_tools: false,
            retention: Retention::Asked,
            omitted_tools: OmittedTools::None,
        }
    }
}

words! {
    /// Extra data that a client asks for.
    Include {
        /// Results of file search.
        FileSearchResults = "file_search_call.results",
        /// Results of web search.
        WebSearchResults = "web_search_call.results",
        /// Sources of web search.
        WebSearchSources = "web_search_call.action.sources",
        /// URLs of pictures in the input.
        InputImageUrl = "message.input_image.image_url",
        /// URLs of screenshots.
        ComputerImageUrl = "computer_call_output.output.image_url",
        /// Outputs of the code interpreter.
        CodeInterpreterOutputs = "code_interpreter_call.outputs",
        /// Sealed reasoning.
        EncryptedReasoning = "reasoning.encrypted_content",
        /// Token probabilities.
        Logprobs = "message.output_text.logprobs",
    }
}

/// A request, ready to be answered.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// The model's name, as the client asked for it.
    pub model: Box<str>,
    /// This turn's new items, each with an id.
    pub input: Vec<Item>,
    /// Whether the client streams.
    pub stream: bool,
    /// Whether the response is kept.
    pub store: bool,
    /// The response to continue.
    pub previous_response_id: Option<ResponseId>,
    /// Extra data asked for.
    pub include: Vec<Include>,
    /// The client's metadata, an object, as it came.
    pub metadata: Box<RawValue>,
    /// What the response echoes and the upstream is told.
    pub settings: Settings,
    /// Whose tools those of the settings are.
    pub tools_from: ToolsFrom,
    /// vLLM's own sampling parameters, passed on as they came.
    pub sampling: Vec<(&'static str, Box<RawValue>)>,
    /// What was ignored: names only, for the log.
    pub warnings: Vec<String>,
}

impl CreateRequest {
    /// Reads a body. Every problem of it is in the one error.
    pub fn decode(body: &[u8], rules: &Rules, ids: &mut dyn IdSource) -> Result<Self, ApiError> {
        let Ok(text) = std::str::from_utf8(body) else {
            return Err(not_json("the request body is not valid UTF-8"));
        };
        if text.trim_ascii().is_empty() {
            return Err(not_json(
                "the request body is empty; it must be a JSON object",
            ));
        }
        let text = scan::scan(text, rules.max_depth)?;
        let mut problems = Problems::default();
        let fields = Fields::parse(&text, &mut problems).map_err(|error| {
            if error.is_data() {
                let message = "the request body must be a JSON object";
                ApiError::new(ApiErrorCode::InvalidType, message)
            } else {
                let (line, column) = (error.line(), error.column());
                not_json(format!(
                    "the request body is not valid JSON at line {line}, column {column}"
                ))
            }
        })?;
        let request = decode_fields(fields, rules, ids, &mut problems);
        match (problems.into_error(), request) {
            (None, Some(request)) => Ok(request),
            (Some(error), _) => Err(error),
            // Unreachable: a request that cannot be built has a problem that says why.
            (None, None) => Err(ApiError::new(
                ApiErrorCode::InvalidRequest,
                "the request could not be read",
            )),
        }
    }

    /// Whether the model may call several tools at once.
    pub fn parallel_tool_calls(&self) -> bool {
        self.settings.parallel_tool_calls.unwrap_or(true)
    }

    /// Whether the conversation is to be summed up instead of answered; takes the item that says so
    /// away, since it is no part of the conversation.
    pub fn take_trigger(&mut self) -> bool {
        let last = self
            .input
            .pop_if(|item| matches!(item, Item::CompactionTrigger(_)));
        last.is_some()
    }

    /// Types of its tools that the model is not shown, each as often as it is there.
    pub fn unserved_tools(&self) -> impl Iterator<Item = &str> {
        let loaded = self.input.iter().flat_map(Item::loaded_tools);
        self.settings
            .tools
            .iter()
            .chain(loaded)
            .filter_map(|tool| match tool {
                Tool::Unserved(tool) => Some(&*tool.kind),
                Tool::Function(_)
                | Tool::Custom(_)
                | Tool::Namespace(_)
                | Tool::ToolSearch(_)
                | Tool::Emulated(_)
                | Tool::CodeInterpreter(_)
                | Tool::Mcp(_) => None,
            })
    }

    /// Whether the client asked for this extra data.
    pub fn includes(&self, wanted: Include) -> bool {
        self.include.contains(&wanted)
    }
}

fn not_json(message: impl Into<String>) -> ApiError {
    ApiError::new(ApiErrorCode::InvalidJson, message)
}

/// Members that are taken and do nothing here: they ask for what OpenAI alone has, or tune it.
const IGNORED: &[&str] = &[
    "stream_options",
    "client_metadata",
    "service_tier",
    "moderation",
    "access_programs",
    "image",
    "context_management",
    "prompt_cache_options",
];

/// Members that would change the answer if they were served.
const UNSUPPORTED: &[&str] = &["conversation", "prompt", "multi_agent"];

fn decode_fields(
    mut fields: Fields<'_, '_>,
    rules: &Rules,
    ids: &mut dyn IdSource,
    problems: &mut Problems,
) -> Option<CreateRequest> {
    let mut tools_from = ToolsFrom::of(&fields, rules.omitted_tools);
    let model = fields.required_word("model", problems);
    refuse_unsupported(&mut fields, problems);
    let previous = fields.string("previous_response_id", problems);
    let input = decode_input(&mut fields, previous.as_deref(), ids, problems);
    let stream = fields.boolean("stream", problems).unwrap_or(false);
    let store = fields.boolean("store", problems);
    let store = match rules.retention {
        Retention::Asked => store.unwrap_or(true),
        Retention::None => {
            refuse_retention(store, previous.as_deref(), &input, problems);
            false
        }
    };
    let include = decode_include(&mut fields, problems);
    let metadata = decode_metadata(&mut fields, problems);
    let loads = |item: &Item| !item.loaded_tools().is_empty();
    let may_grow = match previous {
        Some(_) => MayGrow::Yes,
        None if input.iter().any(loads) => MayGrow::Yes,
        None => MayGrow::No,
    };
    let settings = decode_settings(&mut fields, may_grow, &mut tools_from, problems);
    let sampling = sampling::passed_on(&mut fields, problems);
    for name in IGNORED {
        fields.take(name);
    }
    let mut unserved = Unserved::default();
    let list = Place::Root.member("tools");
    unserved.note(&settings.tools, &list, rules, problems);
    let items = Place::Root.member("input");
    for (index, item) in input.iter().enumerate() {
        let item_place = items.element(index);
        let list = item_place.member("tools");
        unserved.note(item.loaded_tools(), &list, rules, problems);
    }
    let mut warnings = unserved.warnings();
    report_unknown(&fields, rules, &mut warnings, problems);
    Some(CreateRequest {
        model: model?.into(),
        input,
        stream,
        store,
        previous_response_id: previous.map(|id| ResponseId::new(&id)),
        include,
        metadata: metadata?,
        settings,
        tools_from,
        sampling,
        warnings,
    })
}

fn refuse_unsupported(fields: &mut Fields<'_, '_>, problems: &mut Problems) {
    if fields.given("conversation") && fields.given("previous_response_id") {
        problems.add(
            &Place::Root,
            ApiErrorCode::MutuallyExclusiveParameters,
            "`conversation` and `previous_response_id` exclude each other: give one of them",
        );
        fields.take("conversation");
    }
    let background = fields.boolean("background", problems) == Some(true);
    let asked = UNSUPPORTED
        .iter()
        .filter(|name| fields.take(name).is_some())
        .copied()
        .collect::<Vec<_>>();
    if read_background_options(fields, problems) && !background {
        let at = Place::Root.member("background_options");
        let at = at.member("completion_window");
        problems.invalid(&at, "`soonest`, unless `background` is true");
    }
    for name in asked.into_iter().chain(background.then_some("background")) {
        problems.add(
            &Place::Root.member(name),
            ApiErrorCode::UnsupportedValue,
            format_args!("`{name}` is not supported by this server"),
        );
    }
}

/// Reads `background_options`: hints for jobs that run later, of which one means nothing here. They
/// are checked, and not echoed. Says whether one is for work in the background only.
fn read_background_options(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> bool {
    const WINDOWS: &[&str] = &["soonest", "2h", "8h"];
    let place = Place::Root.member("background_options");
    let Some(raw) = fields.take("background_options") else {
        return false;
    };
    let Some(mut options) = Fields::of(raw, place, problems) else {
        return false;
    };
    let parse = |word: &str| WINDOWS.contains(&word).then(|| word == "soonest");
    let soonest = options.word("completion_window", WINDOWS, parse, problems);
    options.short_string("continuation_id", MAX_LABEL, problems);
    soonest == Some(false)
}

/// Refuses what needs something to be kept.
fn refuse_retention(
    store: Option<bool>,
    previous: Option<&str>,
    input: &[Item],
    problems: &mut Problems,
) {
    let mut refuse = |place: &Place<'_>, remedy: &str| {
        problems.add(
            place,
            ApiErrorCode::UnsupportedValue,
            format_args!("`{place}` is not supported: this server keeps nothing; {remedy}"),
        );
    };
    if store == Some(true) {
        refuse(
            &Place::Root.member("store"),
            "leave it out, or send `false`",
        );
    }
    if previous.is_some() {
        let remedy = "send the whole conversation in `input`";
        refuse(&Place::Root.member("previous_response_id"), remedy);
    }
    let list = Place::Root.member("input");
    for (index, item) in input.iter().enumerate() {
        if let Item::ItemReference(_) = item {
            refuse(&list.element(index), "send the item itself");
        }
    }
}

fn decode_input(
    fields: &mut Fields<'_, '_>,
    previous: Option<&str>,
    ids: &mut dyn IdSource,
    problems: &mut Problems,
) -> Vec<Item> {
    let place = Place::Root.member("input");
    let Some(raw) = fields.take("input") else {
        if previous.is_none() {
            problems.missing(&place);
        }
        return Vec::new();
    };
    let mut reader = Reader { ids, problems };
    let items = reader.input(raw, &place);
    for (index, item) in items.iter().enumerate().rev().skip(1) {
        if let Item::CompactionTrigger(_) = item {
            problems.invalid(&place.element(index), "the last item");
        }
    }
    let is_empty = raw.get().strip_prefix('[').map(str::trim_ascii) == Some("]");
    if is_empty && previous.is_none() {
        problems.invalid(
            &place,
            "at least one item, or come with `previous_response_id`",
        );
    }
    items
}

fn decode_include(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Vec<Include> {
    let raws = fields.array("include", problems).unwrap_or_default();
    let list = Place::Root.member("include");
    let mut include = Vec::new();
    for (index, raw) in raws.into_iter().enumerate() {
        let place = list.element(index);
        match read::text(raw) {
            None => problems.wrong_type(&place, "a string"),
            Some(word) => match Include::parse(&word) {
                Some(known) if include.contains(&known) => {}
                Some(known) => include.push(known),
                None => problems.wrong_word(&place, Include::WORDS),
            },
        }
    }
    include
}

/// OpenAI's limits: pairs, characters of a name, characters of a value.
const MAX_METADATA: (usize, usize, usize) = (16, 64, 512);

fn decode_metadata(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Box<RawValue>> {
    let (pairs, name_chars, value_chars) = MAX_METADATA;
    let place = Place::Root.member("metadata");
    let Some(raw) = fields.take("metadata") else {
        return RawValue::from_string("{}".to_owned()).ok();
    };
    let members: Vec<_> = Fields::of(raw, place, problems)?.into_members().collect();
    if members.len() > pairs {
        problems.invalid(&place, format_args!("at most {pairs} pairs"));
        return None;
    }
    for (name, value) in members {
        let at = place.member(&name);
        if name.chars().nth(name_chars).is_some() {
            problems.invalid(
                &place,
                format_args!("pairs whose names have at most {name_chars} characters"),
            );
        }
        match read::text(value) {
            None => problems.wrong_type(&at, "a string"),
            Some(text) if text.chars().nth(value_chars).is_some() => {
                problems.invalid(&at, format_args!("at most {value_chars} characters long"));
            }
            Some(_) => {}
        }
    }
    Some(raw.to_owned())
}

/// Longest end-user and cache-key text, in characters.
const MAX_LABEL: usize = 512;

fn decode_settings(
    fields: &mut Fields<'_, '_>,
    may_grow: MayGrow,
    tools_from: &mut ToolsFrom,
    problems: &mut Problems,
) -> Settings {
    let mut settings = Settings {
        instructions: fields.string("instructions", problems).map(Into::into),
        parallel_tool_calls: fields.boolean("parallel_tool_calls", problems),
        truncation: fields.word("truncation", Truncation::WORDS, Truncation::parse, problems),
        max_output_tokens: fields.integer("max_output_tokens", 1..=u64::MAX, problems),
        max_tool_calls: fields.integer("max_tool_calls", 1..=u64::MAX, problems),
        safety_identifier: fields.short_string("safety_identifier", MAX_LABEL, problems),
        prompt_cache_key: fields.short_string("prompt_cache_key", MAX_LABEL, problems),
        prompt_cache_retention: fields.word(
            "prompt_cache_retention",
            CacheRetention::WORDS,
            CacheRetention::parse,
            problems,
        ),
        user: fields.short_string("user", MAX_LABEL, problems),
        ..Settings::default()
    };
    sampling::decode(fields, &mut settings, problems);
    text::decode(fields, &mut settings, problems);
    let place = Place::Root.member("tools");
    if let Some(tools) = fields.array("tools", problems) {
        settings.tools = tool::decode_tools(&tools, &place, problems);
        tool::require_container(&settings.tools, &place, problems);
    }
    let place = Place::Root.member("tool_choice");
    if let Some(raw) = fields.take("tool_choice") {
        match tools_from {
            ToolsFrom::Request => {
                let known = Known {
                    tools: &settings.tools,
                    may_grow,
                };
                settings.tool_choice = tool::decode_choice(raw, known, &place, problems);
            }
            ToolsFrom::Previous { choice } => *choice = Some(raw.to_owned()),
        }
    }
    settings
}

/// Whether a value is an object; a problem where it is not.
fn object(raw: &RawValue, place: &Place<'_>, problems: &mut Problems) -> bool {
    let is_object = kind(raw) == Kind::Object;
    if !is_object {
        problems.wrong_type(place, "an object");
    }
    is_object
}

#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;
