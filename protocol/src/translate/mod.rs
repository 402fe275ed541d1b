//! A request and its history as a chat-completions body.
//!
//! [`conversation`] puts items in the order that chat templates want; [`messages`] writes them;
//! this file does the rest of the body.

mod conversation;
mod messages;

use crate::chat::request::{
    ChatFunction, ChatName, ChatRequest, ChatSchema, ChatTool, ChatToolChoice, PassedOn,
    ResponseFormat, StreamOptions, TemplateSwitches,
};
use crate::error::{ApiError, ApiErrorCode};
use crate::responses::item::Item;
use crate::responses::request::{CreateRequest, Include};
use crate::responses::settings::{Effort, TextFormat};
use crate::responses::tool::{AllowedMode, FunctionTool, Tool, ToolChoice};

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

/// The body that asks the model to go on from `history` (earlier turns), the request's own input,
/// and `produced` (this response's items so far).
///
/// Fails when calls and outputs do not match, or nothing is there to answer.
pub fn chat_body(
    request: &CreateRequest,
    history: &[Item],
    produced: &[Item],
    mode: StreamMode,
    choice: ChoiceMode,
) -> Result<Vec<u8>, ApiError> {
    let entries = conversation::arrange(history, &request.input, produced)?;
    let settings = &request.settings;
    let messages = messages::render(settings.instructions.as_deref(), &entries);
    if entries.is_empty() {
        let message = "`input` is empty and there is no earlier turn: there is nothing to answer";
        return Err(ApiError::new(ApiErrorCode::InvalidValue, message).with_param("input"));
    }
    let tools: Vec<ChatTool<'_>> = shown_tools(request).map(chat_tool).collect();
    let has_tools = !tools.is_empty();
    let logprobs = request.includes(Include::Logprobs) || settings.top_logprobs > Some(0);
    let streamed = mode == StreamMode::Stream;
    let body = ChatRequest {
        model: &request.model,
        messages,
        tool_choice: tool_choice(request, choice).filter(|_| has_tools),
        parallel_tool_calls: settings.parallel_tool_calls.filter(|_| has_tools),
        tools,
        temperature: settings.temperature,
        top_p: settings.top_p,
        presence_penalty: settings.presence_penalty,
        frequency_penalty: settings.frequency_penalty,
        max_completion_tokens: settings.max_output_tokens,
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

/// The functions that the model sees. A choice among some is a hard limit, and leaving the others
/// out is the one way to hold a model to it.
fn shown_tools(request: &CreateRequest) -> impl Iterator<Item = &FunctionTool> {
    let settings = &request.settings;
    let allowed = match &settings.tool_choice {
        Some(ToolChoice::Allowed { functions, .. }) => Some(functions),
        _ => None,
    };
    settings
        .tools
        .iter()
        .filter_map(|tool| match tool {
            Tool::Function(function) => Some(function),
            Tool::Unserved(_) => None,
        })
        .filter(move |function| allowed.is_none_or(|names| names.contains(&function.name)))
}

fn chat_tool(function: &FunctionTool) -> ChatTool<'_> {
    ChatTool {
        r#type: "function",
        function: ChatFunction {
            name: &function.name,
            description: function.description.as_deref(),
            parameters: function.parameters.as_deref(),
            strict: function.strict,
        },
    }
}

fn tool_choice(request: &CreateRequest, mode: ChoiceMode) -> Option<ChatToolChoice<'_>> {
    let forced = mode == ChoiceMode::AsAsked;
    Some(match request.settings.tool_choice.as_ref()? {
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
        ToolChoice::Auto
        | ToolChoice::Required
        | ToolChoice::Function { .. }
        | ToolChoice::Allowed { .. }
        | ToolChoice::Unserved { .. } => ChatToolChoice::Word("auto"),
    })
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
