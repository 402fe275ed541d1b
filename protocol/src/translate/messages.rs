//! Entries of a conversation as chat messages.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;

use super::conversation::{Call, Entry, Run};
use super::{Pictures, kept};
use crate::chat::request::{
    ChatCall, ChatCallFunction, ChatContent, ChatMessage, ChatPart, ImageUrl,
};
use crate::json_text::compact;
use crate::mcp::names::model_name;
use crate::responses::content::{ImageDetail, Part};
use crate::responses::emulated::EmulatedCall;
use crate::responses::item::{Item, Message, Output, Reasoning, ReasoningPart, Role, SummaryPart};
use crate::responses::mcp::McpCall;
use crate::tools::{Catalogue, Route, code_interpreter, mcp, shown};

/// Writes the instructions and all entries.
///
/// Everything that the system and the application say at the beginning is one message, since many
/// chat templates take one system message and only there.
pub(super) fn render<'a>(
    instructions: Option<&'a str>,
    entries: &[Entry<'a>],
    catalogue: &'a Catalogue,
    pictures: Pictures,
) -> Vec<ChatMessage<'a>> {
    let mut messages = Vec::with_capacity(entries.len() + 1);
    let leading = entries.iter().map_while(|entry| match entry {
        Entry::Said(message) if is_instruction(message) => Some(message),
        Entry::Said(_) | Entry::Run(_) => None,
    });
    let first = leading.clone().count();
    let words = leading.map(|message| joined(&message.content));
    let words = instructions.map(Cow::Borrowed).into_iter().chain(words);
    let words = join(words, "\n\n");
    if !words.is_empty() || instructions.is_some() {
        messages.push(plain("system", ChatContent::Text(words)));
    }
    let mut later = entries.iter().skip(first).peekable();
    while let Some(entry) = later.next() {
        match entry {
            Entry::Run(run) => assistant(run, catalogue, pictures, &mut messages),
            Entry::Said(message) => {
                let mut together = vec![*message];
                while let Some(Entry::Said(next)) = later.peek() {
                    together.push(next);
                    later.next();
                }
                messages.extend(said(&together));
            }
        }
    }
    messages
}

/// Words of the system or the application, and nothing but words.
fn is_instruction(message: &Message) -> bool {
    match message.role {
        Role::System | Role::Developer => is_text(&message.content),
        Role::User | Role::Assistant => false,
    }
}

fn plain<'a>(role: &'static str, content: ChatContent<'a>) -> ChatMessage<'a> {
    ChatMessage {
        role,
        content: Some(content),
        reasoning_content: None,
        tool_calls: Vec::new(),
        tool_call_id: None,
    }
}

/// A message of the user's.
pub(super) fn user(text: &str) -> ChatMessage<'_> {
    plain("user", ChatContent::Text(Cow::Borrowed(text)))
}

/// What others than the assistant say between two of its messages.
///
/// Later instructions are sent as the user's: templates that refuse a system message after the first
/// place are more than those that would tell the two apart. They are sent in one message with what
/// the user says beside them, since many of these templates want user and assistant to take turns.
/// What the user alone says stays in as many messages as the client made of it.
fn said<'a>(together: &[&'a Message]) -> Vec<ChatMessage<'a>> {
    let is_users = |message: &&Message| message.role == Role::User;
    if together.len() < 2 || together.iter().all(is_users) {
        return together.iter().map(|message| one(message)).collect();
    }
    let words = if together.iter().all(|message| is_text(&message.content)) {
        let texts = together.iter().map(|message| joined(&message.content));
        ChatContent::Text(join(texts, "\n\n"))
    } else {
        let parts = together.iter().flat_map(|message| &message.content);
        ChatContent::Parts(parts.map(chat_part).collect())
    };
    vec![plain("user", words)]
}

fn one(message: &Message) -> ChatMessage<'_> {
    match message.role {
        Role::System | Role::Developer if is_text(&message.content) => {
            plain("user", ChatContent::Text(joined(&message.content)))
        }
        Role::System | Role::Developer | Role::User | Role::Assistant => {
            plain("user", content(&message.content))
        }
    }
}

/// An assistant message, and the tool messages that answer its calls, in the order of the calls.
fn assistant<'a>(
    run: &Run<'a>,
    catalogue: &'a Catalogue,
    pictures: Pictures,
    messages: &mut Vec<ChatMessage<'a>>,
) {
    let words = run.messages.iter().map(|message| spoken(&message.content));
    let words = join(words, "\n\n");
    let thoughts = run.reasoning.iter().map(|reasoning| thought(reasoning));
    let thoughts = join(thoughts, "\n\n");
    let ids = chat_ids(&run.calls);
    let calls = run.calls.iter().zip(&ids);
    let calls = calls.filter_map(|(call, id)| chat_call(call, id, catalogue));
    // Null is for messages that only call; templates print it elsewhere.
    let content = (!words.is_empty() || run.calls.is_empty()).then_some(ChatContent::Text(words));
    messages.push(ChatMessage {
        role: "assistant",
        content,
        reasoning_content: (!thoughts.is_empty()).then_some(thoughts),
        tool_calls: calls.collect(),
        tool_call_id: None,
    });
    let answers = run.calls.iter().zip(&ids);
    messages.extend(answers.filter_map(|(call, id)| answer(call, id, catalogue, pictures)));
}

/// There always is one: see `arrange`.
fn chat_call<'a>(call: &Call<'a>, id: &'a str, catalogue: &'a Catalogue) -> Option<ChatCall<'a>> {
    let item = made(call);
    let (name, arguments) = match item {
        Item::FunctionCall(call) => (
            catalogue.shown_name(&call.name, call.namespace.as_deref()),
            Cow::Borrowed(safe_arguments(&call.arguments)),
        ),
        Item::CustomToolCall(call) => (
            catalogue.shown_name(&call.name, call.namespace.as_deref()),
            Cow::Owned(shown::input_arguments(&call.input)),
        ),
        Item::ToolSearchCall(call) => {
            let name = catalogue.name_of(Route::ToolSearch);
            (
                Cow::Borrowed(name.unwrap_or("tool_search")),
                // Clients read and write the object: its white space is not kept.
                Cow::Owned(compact(safe_arguments(call.arguments.get()))),
            )
        }
        Item::EmulatedCall(call) => emulated(call, catalogue),
        Item::CodeInterpreterCall(call) => {
            let name = catalogue.name_of(Route::CodeInterpreter);
            (
                Cow::Borrowed(name.unwrap_or(code_interpreter::TYPE)),
                Cow::Owned(code_interpreter::arguments(&call.code)),
            )
        }
        Item::McpCall(call) => (
            mcp_name(catalogue, &call.server_label, &call.name),
            Cow::Borrowed(safe_arguments(&call.arguments)),
        ),
        Item::McpApprovalRequest(request) => (
            mcp_name(catalogue, &request.server_label, &request.name),
            Cow::Borrowed(safe_arguments(&request.arguments)),
        ),
        Item::Kept(item) => {
            let (name, arguments) = kept::call(item);
            (Cow::Borrowed(name), arguments)
        }
        Item::Message(_)
        | Item::Reasoning(_)
        | Item::FunctionCallOutput(_)
        | Item::CustomToolCallOutput(_)
        | Item::ToolSearchOutput(_)
        | Item::AdditionalTools(_)
        | Item::ConfigurationUpdate(_)
        | Item::ItemReference(_)
        | Item::Compaction(_)
        | Item::CompactionTrigger(_)
        | Item::McpListTools(_)
        | Item::McpApprovalResponse(_) => return None,
    };
    Some(ChatCall {
        id,
        r#type: "function",
        function: ChatCallFunction { name, arguments },
        extra_content: item
            .said()
            .and_then(|said| said.extra.as_deref())
            .and_then(raw),
    })
}

/// Name and arguments of a call of a shell or patch tool.
fn emulated<'a>(call: &EmulatedCall, catalogue: &'a Catalogue) -> (Cow<'a, str>, Cow<'a, str>) {
    let kind = call.action.kind();
    let name = catalogue.name_of(Route::Emulated(kind));
    (
        Cow::Borrowed(name.unwrap_or(kind.as_str())),
        Cow::Owned(call.action.arguments()),
    )
}

/// The model's name of an MCP tool, also of one that it is not shown any more.
fn mcp_name<'a>(catalogue: &'a Catalogue, label: &str, name: &str) -> Cow<'a, str> {
    let shown = catalogue.mcp_name(label, Some(name));
    shown.map_or_else(|| Cow::Owned(model_name(label, name)), Cow::Borrowed)
}

fn made<'a>(call: &Call<'a>) -> &'a Item {
    match call {
        Call::Client { made, .. } => made,
        Call::Hosted(item) | Call::Declined(item, _) => item,
    }
}

/// JSON text that was kept as text.
fn raw(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

/// What joins each call of a run with its tool message: the model's own id where it is known, unless
/// another call of the run has it too.
fn chat_ids<'a>(calls: &[Call<'a>]) -> Vec<&'a str> {
    let mut seen = HashSet::new();
    let ids = calls.iter().map(|call| {
        let item = made(call);
        let said = item.said().and_then(|said| said.id.as_deref());
        let said = said.filter(|said| !seen.contains(said));
        let id = said.unwrap_or_else(|| chat_id(item));
        seen.insert(id);
        id
    });
    ids.collect()
}

/// What joins a call with its output for the client.
fn chat_id(call: &Item) -> &str {
    match call {
        Item::FunctionCall(call) => &call.call_id,
        Item::CustomToolCall(call) => &call.call_id,
        Item::EmulatedCall(call) => &call.call_id,
        Item::ToolSearchCall(call) => call.call_id.as_deref().unwrap_or(&call.id),
        Item::Kept(call) if !call.call_id.is_empty() => &call.call_id,
        Item::Message(_)
        | Item::Reasoning(_)
        | Item::FunctionCallOutput(_)
        | Item::CodeInterpreterCall(_)
        | Item::CustomToolCallOutput(_)
        | Item::ToolSearchOutput(_)
        | Item::AdditionalTools(_)
        | Item::ConfigurationUpdate(_)
        | Item::ItemReference(_)
        | Item::Compaction(_)
        | Item::CompactionTrigger(_)
        | Item::McpListTools(_)
        | Item::McpCall(_)
        | Item::McpApprovalRequest(_)
        | Item::McpApprovalResponse(_)
        | Item::Kept(_) => call.id(),
    }
}

/// The tool message that answers a call. There always is one: see `arrange`.
fn answer<'a>(
    call: &Call<'a>,
    id: &'a str,
    catalogue: &Catalogue,
    pictures: Pictures,
) -> Option<ChatMessage<'a>> {
    let told = match call {
        Call::Client { output, .. } => (*output)?,
        Call::Hosted(item) => *item,
        Call::Declined(_, why) => {
            let reason = why.reason.as_deref().unwrap_or("no reason was given");
            let told = format!("not run: the user did not approve this call ({reason})");
            return Some(tool_message(id, ChatContent::Text(Cow::Owned(told))));
        }
    };
    let content = match told {
        Item::FunctionCallOutput(output) | Item::CustomToolCallOutput(output) => {
            returned(&output.output)
        }
        Item::CodeInterpreterCall(call) => {
            ChatContent::Text(Cow::Owned(code_interpreter::told(call)))
        }
        Item::McpCall(call) => given(call, pictures),
        Item::ToolSearchOutput(output) => {
            ChatContent::Text(Cow::Owned(kept::found(&output.tools, catalogue)))
        }
        Item::Kept(item) => kept::told(item),
        Item::Message(_)
        | Item::Reasoning(_)
        | Item::FunctionCall(_)
        | Item::CustomToolCall(_)
        | Item::ToolSearchCall(_)
        | Item::EmulatedCall(_)
        | Item::AdditionalTools(_)
        | Item::ConfigurationUpdate(_)
        | Item::ItemReference(_)
        | Item::Compaction(_)
        | Item::CompactionTrigger(_)
        | Item::McpListTools(_)
        | Item::McpApprovalRequest(_)
        | Item::McpApprovalResponse(_) => return None,
    };
    Some(tool_message(id, content))
}

fn tool_message<'a>(id: &'a str, content: ChatContent<'a>) -> ChatMessage<'a> {
    ChatMessage {
        tool_call_id: Some(id),
        ..plain("tool", content)
    }
}

/// What an MCP tool gave: its text, and its pictures as a model is shown those of a user.
fn given(call: &McpCall, pictures: Pictures) -> ChatContent<'_> {
    if call.images.is_empty() {
        return ChatContent::Text(Cow::Owned(mcp::told(call)));
    }
    let text = call.output.as_deref().unwrap_or_default();
    if pictures == Pictures::Told {
        let text = format!("{text}\n(the pictures are not shown: this model takes none)");
        return ChatContent::Text(Cow::Owned(text));
    }
    let images = call.images.iter().map(|image| ChatPart::ImageUrl {
        image_url: ImageUrl {
            url: Cow::Borrowed(&image.url),
            detail: ImageDetail::Auto,
        },
    });
    let parts = std::iter::once(ChatPart::Text { text }).chain(images);
    ChatContent::Parts(parts.collect())
}

/// What the client's function returned.
fn returned(output: &Output) -> ChatContent<'_> {
    match output {
        Output::Text(text) => ChatContent::Text(Cow::Borrowed(text)),
        Output::Parts(parts) if is_text(parts) => ChatContent::Text(joined(parts)),
        Output::Parts(parts) => content_of(parts),
    }
}

/// Arguments that a template can parse. What the model cut or garbled is replayed as an empty
/// object: the conversation must recover from it.
fn safe_arguments(arguments: &str) -> &str {
    let is_object = arguments.trim_ascii_start().starts_with('{')
        && serde_json::from_str::<&RawValue>(arguments).is_ok();
    if is_object { arguments } else { "{}" }
}

/// The raw text, else the summary.
fn thought(reasoning: &Reasoning) -> Cow<'_, str> {
    if reasoning.content.is_empty() {
        let texts = reasoning.summary.iter();
        return join(
            texts.map(|SummaryPart::SummaryText { text }| Cow::Borrowed(&**text)),
            "\n\n",
        );
    }
    let texts = reasoning.content.iter();
    join(
        texts.map(|ReasoningPart::ReasoningText { text }| Cow::Borrowed(&**text)),
        "",
    )
}

/// One text goes as a string, which every template takes; more, or pictures, as parts.
fn content(parts: &[Part]) -> ChatContent<'_> {
    match parts {
        [] => ChatContent::Text(Cow::Borrowed("")),
        [only] if is_text(parts) => ChatContent::Text(Cow::Borrowed(text_of(only))),
        _ => content_of(parts),
    }
}

fn content_of(parts: &[Part]) -> ChatContent<'_> {
    ChatContent::Parts(parts.iter().map(chat_part).collect())
}

fn chat_part(part: &Part) -> ChatPart<'_> {
    match part {
        Part::InputImage(image) => ChatPart::ImageUrl {
            image_url: ImageUrl {
                url: Cow::Borrowed(&image.image_url),
                detail: image.detail,
            },
        },
        Part::InputText { .. } | Part::OutputText(_) | Part::Refusal { .. } => ChatPart::Text {
            text: text_of(part),
        },
    }
}

fn is_text(parts: &[Part]) -> bool {
    !parts.iter().any(|part| matches!(part, Part::InputImage(_)))
}

fn text_of(part: &Part) -> &str {
    match part {
        Part::InputText { text } => text,
        Part::OutputText(output) => &output.text,
        Part::Refusal { refusal } => refusal,
        Part::InputImage(_) => "",
    }
}

/// Parts of one answer follow each other without a gap, as the model wrote them.
fn spoken(parts: &[Part]) -> Cow<'_, str> {
    join(parts.iter().map(|part| Cow::Borrowed(text_of(part))), "")
}

/// Text parts of somebody else, one a line, as vLLM joins them for templates that take strings.
fn joined(parts: &[Part]) -> Cow<'_, str> {
    join(parts.iter().map(|part| Cow::Borrowed(text_of(part))), "\n")
}

/// Joins texts; a single one is not copied.
fn join<'a>(texts: impl Iterator<Item = Cow<'a, str>>, between: &str) -> Cow<'a, str> {
    texts
        .filter(|text| !text.is_empty())
        .reduce(|mut all, text| {
            let so_far = all.to_mut();
            so_far.push_str(between);
            so_far.push_str(&text);
            all
        })
        .unwrap_or_default()
}
