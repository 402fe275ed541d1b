//! A request and its history as a chat-completions body.
//!
//! [`conversation`] puts items in the order that chat templates want; [`messages`] writes them;
//! this file does the rest of the body.

mod conversation;
mod kept;
mod messages;
mod pairing;

use serde::Serialize;

use crate::chat::request::{
    ChatMessage, ChatName, ChatRequest, ChatSchema, ChatToolChoice, PassedOn, ResponseFormat,
    StreamOptions, StructuredOutputs, TEMPLATE_SWITCHES, TemplateSwitches,
};
use crate::chat::tokenize::TokenizeRequest;
use crate::error::{ApiError, ApiErrorCode};
use crate::json_text;
use crate::responses::emulated::Emulated;
use crate::responses::item::Item;
use crate::responses::request::{CreateRequest, Include};
use crate::responses::settings::{Effort, ReasoningContext, TextFormat};
use crate::responses::tool::{AllowedMode, Grammar, ToolChoice};
use crate::tools::{Catalogue, Route, code_interpreter};

/// Whether the upstream is to stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamMode {
    /// Chunks, the last with token counts.
    Stream,
    /// One answer.
    Whole,
}

/// What becomes of `tool_choice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChoiceMode {
    /// As the client asked: the first round.
    AsAsked,
    /// The model chooses: once a gateway tool has run, nothing forces it any more.
    Auto,
    /// The model chooses among the client's functions only: the last round.
    WithoutGatewayTools,
    /// There are no tools, and the model is asked to sum the conversation up.
    Summary,
}

/// Which words for the effort of thinking a model is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Efforts {
    /// As the client says.
    #[default]
    AsAsked,
    /// The nearest of `low`, `medium` and `high`: it has refused another.
    Common,
}

/// What the model is asked to go on from.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The request.
    pub request: &'a CreateRequest,
    /// The functions that the model is shown.
    pub catalogue: &'a Catalogue,
    /// Items of earlier turns.
    pub history: &'a [Item],
    /// Items of this response so far.
    pub produced: &'a [Item],
    /// Whether the upstream is to stream.
    pub mode: StreamMode,
    /// What becomes of `tool_choice`.
    pub choice: ChoiceMode,
    /// Words for the effort of thinking.
    pub efforts: Efforts,
    /// Bound of this call's tokens: what is left of the request's.
    pub max_output_tokens: Option<u64>,
    /// How many of the oldest turns are left out, since the prompt would be too long.
    pub left_out: usize,
    /// What becomes of the pictures that MCP tools gave.
    pub pictures: Pictures,
}

/// What becomes of the pictures that MCP tools gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pictures {
    /// The model is shown them.
    Shown,
    /// It has refused pictures, and is told of them.
    Told,
}

/// What the model is asked when a conversation is summed up.
const SUM_UP: &str = "\
Write a summary of the conversation above. It will take the place of the conversation: whoever goes on has \
nothing but your summary and the user's own messages. Keep, in this order and in few words: what the user \
wants, with every condition and preference; what was decided and why; what was done and what came of it, \
with names, paths, numbers and other facts exactly as they were; what is known to be wrong or open; what \
comes next. Do not answer the user, do not call tools, and write nothing but the summary.";

/// The body of one model call.
///
/// Fails when calls and outputs do not match, or nothing is there to answer.
pub fn chat_body(ask: Ask<'_>) -> Result<Vec<u8>, ApiError> {
    let request = ask.request;
    let settings = &request.settings;
    let messages = prompt(&ask)?;
    let tools = ask.catalogue.chat_tools(ask.choice);
    let has_tools = !tools.is_empty();
    let logprobs = request.includes(Include::Logprobs) || settings.top_logprobs > Some(0);
    let logprobs = logprobs && ask.choice != ChoiceMode::Summary;
    let streamed = ask.mode == StreamMode::Stream;
    let (thinking, format) = configured(&ask);
    let forced = forced(&ask);
    let body = ChatRequest {
        model: &request.model,
        messages,
        tool_choice: tool_choice(&ask).filter(|_| has_tools),
        parallel_tool_calls: settings.parallel_tool_calls.filter(|_| has_tools),
        tools,
        temperature: settings.temperature,
        top_p: settings.top_p,
        presence_penalty: settings.presence_penalty,
        frequency_penalty: settings.frequency_penalty,
        max_completion_tokens: ask.max_output_tokens,
        logprobs: logprobs.then_some(true),
        top_logprobs: settings.top_logprobs.filter(|count| *count > 0 && logprobs),
        response_format: response_format(format)
            .filter(|_| forced.is_none() && ask.choice != ChoiceMode::Summary),
        reasoning_effort: thinking.and_then(|effort| said_effort(effort, ask.efforts)),
        chat_template_kwargs: template_switches(request, thinking),
        passed_on: PassedOn {
            all: &request.sampling,
            but: left_out(ask.choice, forced.as_ref()),
        },
        structured_outputs: forced,
        stream: streamed,
        stream_options: streamed.then_some(StreamOptions {
            include_usage: true,
        }),
    };
    written(&body)
}

/// The body that asks how many tokens the prompt of [`chat_body`] has.
pub fn tokenize_body(ask: Ask<'_>) -> Result<Vec<u8>, ApiError> {
    let request = ask.request;
    let (thinking, _) = configured(&ask);
    let mut own = request.sampling.iter();
    let own = own.position(|(name, _)| *name == TEMPLATE_SWITCHES);
    let own = own.and_then(|at| request.sampling.get(at..=at));
    written(&TokenizeRequest {
        model: &request.model,
        messages: prompt(&ask)?,
        tools: ask.catalogue.chat_tools(ask.choice),
        chat_template_kwargs: template_switches(request, thinking),
        passed_on: PassedOn {
            all: own.unwrap_or_default(),
            but: &[],
        },
    })
}

/// How many of the oldest turns may be left out: all but the last.
pub fn turns_to_leave_out(ask: Ask<'_>) -> usize {
    let entries = conversation::arrange(ask.history, &ask.request.input, ask.produced);
    entries.map_or(0, |entries| conversation::turns(&entries).saturating_sub(1))
}

/// The conversation as messages.
fn prompt<'a>(ask: &Ask<'a>) -> Result<Vec<ChatMessage<'a>>, ApiError> {
    let mut entries = conversation::arrange(ask.history, &ask.request.input, ask.produced)?;
    if entries.is_empty() {
        let message = "`input` is empty and there is no earlier turn: there is nothing to answer";
        return Err(ApiError::new(ApiErrorCode::InvalidValue, message).with_param("input"));
    }
    conversation::leave_out(&mut entries, ask.left_out);
    if ask.request.settings.reasoning_context == Some(ReasoningContext::CurrentTurn) {
        conversation::forget_thinking(&mut entries);
    }
    let instructions = ask.request.settings.instructions.as_deref();
    let mut messages = messages::render(instructions, &entries, ask.catalogue, ask.pictures);
    if ask.choice == ChoiceMode::Summary {
        messages.push(messages::user(SUM_UP));
    }
    Ok(messages)
}

fn written<T: Serialize>(body: &T) -> Result<Vec<u8>, ApiError> {
    // String keys, finite numbers and valid raw values: nothing here can fail to be written.
    json_text::written(body).map_err(|_error| {
        ApiError::new(
            ApiErrorCode::ServerError,
            "the request could not be written for the model server",
        )
    })
}

/// Effort and format at the end of the conversation: an update in the input comes after what the
/// request says, one of an earlier turn before it.
fn configured<'a>(ask: &Ask<'a>) -> (Option<Effort>, &'a TextFormat) {
    let settings = &ask.request.settings;
    let updates = |items: &'a [Item]| {
        items.iter().rev().filter_map(|item| {
            let Item::ConfigurationUpdate(update) = item else {
                return None;
            };
            Some(update)
        })
    };
    let effort = |items| updates(items).find_map(|update| update.effort);
    let format = |items| updates(items).find_map(|update| update.format.as_ref());
    let own = match settings.format {
        TextFormat::Text => None,
        TextFormat::JsonObject | TextFormat::JsonSchema(_) => Some(&settings.format),
    };
    let input = &*ask.request.input;
    (
        effort(input)
            .or(settings.effort)
            .or_else(|| effort(ask.history)),
        format(input)
            .or(own)
            .or_else(|| format(ask.history))
            .unwrap_or(&settings.format),
    )
}

/// What the client says of its answer's text, and not of a summary.
const OF_THE_ANSWER: &[&str] = &[
    "structured_outputs",
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "min_tokens",
    "ignore_eos",
    "logit_bias",
    "bad_words",
    "allowed_token_ids",
];

/// The client's own parameters that this call is made without: a grammar of ours stands for theirs.
fn left_out(
    choice: ChoiceMode,
    grammar: Option<&StructuredOutputs<'_>>,
) -> &'static [&'static str] {
    match choice {
        ChoiceMode::Summary => OF_THE_ANSWER,
        ChoiceMode::AsAsked | ChoiceMode::Auto | ChoiceMode::WithoutGatewayTools => {
            let own = OF_THE_ANSWER.get(..1);
            own.filter(|_| grammar.is_some()).unwrap_or_default()
        }
    }
}

/// The grammar of a custom tool that must be called: the model writes the input as its answer.
fn forced<'a>(ask: &Ask<'a>) -> Option<StructuredOutputs<'a>> {
    let (_, syntax, definition) = ask.catalogue.forced()?;
    let grammar = match syntax {
        Grammar::Lark => StructuredOutputs::Grammar(definition),
        Grammar::Regex => StructuredOutputs::Regex(definition),
    };
    Some(grammar).filter(|_| ask.choice == ChoiceMode::AsAsked)
}

fn tool_choice<'a>(ask: &Ask<'a>) -> Option<ChatToolChoice<'a>> {
    let forced = ask.choice == ChoiceMode::AsAsked;
    Some(match ask.request.settings.tool_choice.as_ref()? {
        ToolChoice::None => ChatToolChoice::Word("none"),
        ToolChoice::Required
        | ToolChoice::Allowed {
            mode: AllowedMode::Required,
            ..
        } if forced => ChatToolChoice::Word("required"),
        // The answer itself is the input: the functions are shown, and none is called.
        ToolChoice::Custom { .. } if forced && ask.catalogue.forced().is_some() => {
            ChatToolChoice::Word("none")
        }
        ToolChoice::Function { name } if forced => one(ask.catalogue.named(name, Route::Function)),
        ToolChoice::Custom { name } if forced => one(ask.catalogue.named(name, Route::Custom)),
        ToolChoice::Mcp { label, name, .. } if forced => {
            let shown = ask.catalogue.mcp_name(label, name.as_deref());
            match (name, shown) {
                (None, Some(_)) => ChatToolChoice::Word("required"),
                (Some(_), _) | (None, None) => one(shown),
            }
        }
        ToolChoice::OfType { kind, .. } if forced => one(of_type(ask.catalogue, kind)),
        ToolChoice::Auto
        | ToolChoice::Required
        | ToolChoice::Function { .. }
        | ToolChoice::Custom { .. }
        | ToolChoice::Allowed { .. }
        | ToolChoice::Mcp { .. }
        | ToolChoice::OfType { .. } => ChatToolChoice::Word("auto"),
    })
}

/// One function must be called; as the model likes where there is none.
fn one(name: Option<&str>) -> ChatToolChoice<'_> {
    match name {
        Some(name) => ChatToolChoice::Named {
            r#type: "function",
            function: ChatName { name },
        },
        None => ChatToolChoice::Word("auto"),
    }
}

/// The function that stands for the tool of this type.
fn of_type<'a>(catalogue: &'a Catalogue, kind: &str) -> Option<&'a str> {
    match kind {
        code_interpreter::TYPE => catalogue.name_of(Route::CodeInterpreter),
        "tool_search" => catalogue.name_of(Route::ToolSearch),
        _ => catalogue.name_of(Route::Emulated(Emulated::parse(kind)?)),
    }
}

fn response_format(format: &TextFormat) -> Option<ResponseFormat<'_>> {
    match format {
        TextFormat::Text => None,
        TextFormat::JsonObject => Some(ResponseFormat::JsonObject),
        TextFormat::JsonSchema(schema) => Some(ResponseFormat::JsonSchema {
            json_schema: ChatSchema {
                name: &schema.name,
                description: schema.description.as_deref(),
                schema: &schema.schema,
                strict: schema.strict,
            },
        }),
    }
}

/// The word for the effort; `none` is a switch of the template instead.
fn said_effort(effort: Effort, efforts: Efforts) -> Option<&'static str> {
    let known = match (effort, efforts) {
        (Effort::None, _) => return None,
        (Effort::Minimal, Efforts::Common) => Effort::Low,
        (Effort::Xhigh | Effort::Max, Efforts::Common) => Effort::High,
        (as_asked, _) => as_asked,
    };
    Some(known.as_str())
}

/// Whether the prompt asks for an effort by a word that only some models know.
pub fn has_rare_effort(ask: &Ask<'_>) -> bool {
    let (thinking, _) = configured(ask);
    thinking.is_some_and(|effort| {
        said_effort(effort, Efforts::AsAsked) != said_effort(effort, Efforts::Common)
    })
}

/// A client that sets the switches itself knows its template better.
fn template_switches(
    request: &CreateRequest,
    thinking: Option<Effort>,
) -> Option<TemplateSwitches> {
    let own = || {
        let mut names = request.sampling.iter().map(|(name, _)| *name);
        names.any(|name| name == TEMPLATE_SWITCHES)
    };
    let off = thinking == Some(Effort::None) && !own();
    off.then_some(TemplateSwitches {
        enable_thinking: false,
    })
}

#[cfg(test)]
mod tests;
