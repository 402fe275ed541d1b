//! Entries of a conversation as chat messages.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::conversation::{Call, Entry, Run};
use crate::chat::request::{
    ChatCall, ChatCallFunction, ChatContent, ChatMessage, ChatPart, ImageUrl,
};
use crate::mcp::names::model_name;
use crate::responses::content::Part;
use crate::responses::item::{Message, Output, Reasoning, ReasoningPart, Role, SummaryPart};
use crate::tools::{code_interpreter, mcp};

/// Names under which the gateway's own tools are shown to the model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub(super) code_interpreter: &'a str,
}

/// Writes the instructions and all entries.
pub(super) fn render<'a>(
    instructions: Option<&'a str>,
    entries: &[Entry<'a>],
    names: Names<'a>,
) -> Vec<ChatMessage<'a>> {
    let mut messages = Vec::with_capacity(entries.len() + 1);
    if let Some(text) = instructions {
        messages.push(plain("system", ChatContent::Text(text.into())));
    }
    for entry in entries {
        match entry {
            Entry::Said(message) => messages.push(said(message)),
            Entry::Run(run) => assistant(run, names, &mut messages),
        }
    }
    messages
}

fn plain<'a>(role: &'static str, content: ChatContent<'a>) -> ChatMessage<'a> {
    ChatMessage {
        role,
        content: Some(content),
        reasoning: None,
        tool_calls: Vec::new(),
        tool_call_id: None,
    }
}

fn said(message: &Message) -> ChatMessage<'_> {
    match message.role {
        // Templates know no developer, and many take only text from the system.
        Role::System | Role::Developer if is_text(&message.content) => {
            plain("system", ChatContent::Text(joined(&message.content)))
        }
        Role::System | Role::Developer => plain("system", content(&message.content)),
        Role::User | Role::Assistant => plain("user", content(&message.content)),
    }
}

/// An assistant message, and the tool messages that answer its calls, in the order of the calls.
fn assistant<'a>(run: &Run<'a>, names: Names<'a>, messages: &mut Vec<ChatMessage<'a>>) {
    let words = run.messages.iter().map(|message| spoken(&message.content));
    let words = join(words, "\n\n");
    let thoughts = run.reasoning.iter().map(|reasoning| thought(reasoning));
    let thoughts = join(thoughts, "\n\n");
    let calls = run.calls.iter().map(|call| chat_call(call, names));
    // Null is for messages that only call; templates print it elsewhere.
    let content = (!words.is_empty() || run.calls.is_empty()).then_some(ChatContent::Text(words));
    messages.push(ChatMessage {
        role: "assistant",
        content,
        reasoning: (!thoughts.is_empty()).then_some(thoughts),
        tool_calls: calls.collect(),
        tool_call_id: None,
    });
    messages.extend(run.calls.iter().filter_map(answer));
}

fn chat_call<'a>(call: &Call<'a>, names: Names<'a>) -> ChatCall<'a> {
    let (id, name, arguments) = match call {
        Call::Client { made, .. } => {
            let arguments = Cow::Borrowed(safe_arguments(&made.arguments));
            (&*made.call_id, Cow::Borrowed(&*made.name), arguments)
        }
        Call::Code(call) => {
            let arguments = Cow::Owned(code_interpreter::arguments(&call.code));
            (&*call.id, Cow::Borrowed(names.code_interpreter), arguments)
        }
        Call::Mcp(call) => {
            let arguments = Cow::Borrowed(safe_arguments(&call.arguments));
            let name = model_name(&call.server_label, &call.name);
            (&*call.id, Cow::Owned(name), arguments)
        }
        Call::Declined(request, _) => {
            let arguments = Cow::Borrowed(safe_arguments(&request.arguments));
            let name = model_name(&request.server_label, &request.name);
            (&*request.id, Cow::Owned(name), arguments)
        }
    };
    ChatCall {
        id,
        r#type: "function",
        function: ChatCallFunction { name, arguments },
    }
}

/// The tool message that answers a call. There always is one: see `arrange`.
fn answer<'a>(call: &Call<'a>) -> Option<ChatMessage<'a>> {
    let (id, content) = match call {
        Call::Client { made, output, .. } => (&*made.call_id, returned(&(*output)?.output)),
        Call::Code(call) => {
            let told = code_interpreter::told(call);
            (&*call.id, ChatContent::Text(Cow::Owned(told)))
        }
        Call::Mcp(call) => {
            let told = mcp::told(call);
            (&*call.id, ChatContent::Text(Cow::Owned(told)))
        }
        Call::Declined(request, why) => {
            let reason = why.reason.as_deref().unwrap_or("no reason was given");
            let told = format!("not run: the user did not approve this call ({reason})");
            (&*request.id, ChatContent::Text(Cow::Owned(told)))
        }
    };
    Some(ChatMessage {
        tool_call_id: Some(id),
        ..plain("tool", content)
    })
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
                url: &image.image_url,
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
