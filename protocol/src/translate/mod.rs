//! A request and its history as a chat-completions body.
//!
//! [`conversation`] puts items in the order that chat templates want; [`messages`] writes them;
//! this file does the rest of the body.

mod conversation;
mod messages;

use crate::chat::request::{
    ChatName, ChatRequest, ChatSchema, ChatToolChoice, PassedOn, ResponseFormat, StreamOptions,
    TemplateSwitches,
};
use crate::error::{ApiError, ApiErrorCode};
use crate::responses::item::Item;
use crate::responses::request::{CreateRequest, Include};
use crate::responses::settings::{Effort, TextFormat};
use crate::responses::tool::{AllowedMode, ToolChoice};
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
    /// Bound of this call's tokens: what is left of the request's.
    pub max_output_tokens: Option<u64>,
}

/// The body of one model call.
///
/// Fails when calls and outputs do not match, or nothing is there to answer.
pub fn chat_body(ask: Ask<'_>) -> Result<Vec<u8>, ApiError> {
    let request = ask.request;
    let entries = conversation::arrange(ask.history, &request.input, ask.produced)?;
    let settings = &request.settings;
    let code_name = ask.catalogue.name_of(Route::CodeInterpreter);
    let names = messages::Names {
        code_interpreter: code_name.unwrap_or(code_interpreter::TYPE),
    };
    let messages = messages::render(settings.instructions.as_deref(), &entries, names);
    if entries.is_empty() {
        let message = "`input` is empty and there is no earlier turn: there is nothing to answer";
        return Err(ApiError::new(ApiErrorCode::InvalidValue, message).with_param("input"));
    }
    let tools = ask.catalogue.chat_tools(settings, ask.choice);
    let has_tools = !tools.is_empty();
    let logprobs = request.includes(Include::Logprobs) || settings.top_logprobs > Some(0);
    let streamed = ask.mode == StreamMode::Stream;
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
        top_logprobs: settings.top_logprobs.filter(|count| *count > 0),
        response_format: response_format(&settings.format),
        reasoning_effort: settings.effort.and_then(effort),
        chat_template_kwargs: template_switches(request),
        passed_on: PassedOn(&request.sampling),
        stream: streamed,
        stream_options: streamed.then_some(StreamOptions {
            include_usage: true,
        }),
    };
    // String keys, finite numbers and valid raw values: nothing here can fail to be written.
    serde_json::to_vec(&body).map_err(|_error| {
        ApiError::new(
            ApiErrorCode::ServerError,
            "the request could not be written for the model server",
        )
    })
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
        ToolChoice::Function { name } if forced => ChatToolChoice::Named {
            r#type: "function",
            function: ChatName { name },
        },
        ToolChoice::Mcp { label, name, .. } if forced => {
            match (name, ask.catalogue.mcp_name(label, name.as_deref())) {
                (Some(_), Some(name)) => ChatToolChoice::Named {
                    r#type: "function",
                    function: ChatName { name },
                },
                (None, Some(_)) => ChatToolChoice::Word("required"),
                (_, None) => ChatToolChoice::Word("auto"),
            }
        }
        ToolChoice::OfType { kind, .. } if forced => match named(ask.catalogue, kind) {
            Some(name) => ChatToolChoice::Named {
                r#type: "function",
                function: ChatName { name },
            },
            None => ChatToolChoice::Word("auto"),
        },
        ToolChoice::Auto
        | ToolChoice::Required
        | ToolChoice::Function { .. }
        | ToolChoice::Allowed { .. }
        | ToolChoice::Mcp { .. }
        | ToolChoice::OfType { .. } => ChatToolChoice::Word("auto"),
    })
}

/// The function that stands for the gateway tool of this type.
fn named<'a>(catalogue: &'a Catalogue, kind: &str) -> Option<&'a str> {
    match kind {
        code_interpreter::TYPE => catalogue.name_of(Route::CodeInterpreter),
        _ => None,
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

/// vLLM's word for the effort; `none` is a switch of the template instead.
fn effort(effort: Effort) -> Option<&'static str> {
    match effort {
        Effort::None => None,
        Effort::Minimal | Effort::Low | Effort::Medium | Effort::High => Some(effort.as_str()),
        Effort::Xhigh | Effort::Max => Some(Effort::High.as_str()),
    }
}

/// A client that sets the switches itself knows its template better.
fn template_switches(request: &CreateRequest) -> Option<TemplateSwitches> {
    let own = || {
        let mut names = request.sampling.iter().map(|(name, _)| *name);
        names.any(|name| name == "chat_template_kwargs")
    };
    let off = request.settings.effort == Some(Effort::None) && !own();
    off.then_some(TemplateSwitches {
        enable_thinking: false,
    })
}

#[cfg(test)]
mod tests;
