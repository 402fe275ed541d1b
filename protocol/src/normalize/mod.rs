//! Chat chunks and whole answers to one vocabulary: [`ModelEvent`].
//!
//! From here on nothing knows whether the upstream streamed, or which of its spellings it used.

use crate::chat::answer::AnswerChoice;
use crate::chat::chunk::{CallDelta, ChunkChoice, Delta, Text};
use crate::responses::content::LogProb;

/// One thing the model did.
#[derive(Debug, PartialEq)]
pub enum ModelEvent<'a> {
    /// More thinking.
    Reasoning(&'a str),
    /// More answer text, and the probabilities of its tokens if they were asked for.
    Text(&'a str, Vec<LogProb>),
    /// More refusal.
    Refusal(&'a str),
    /// More of a tool call.
    Call(CallPiece<'a>),
}

impl ModelEvent<'_> {
    /// About how many bytes it has.
    pub fn size(&self) -> usize {
        match self {
            Self::Reasoning(text) | Self::Refusal(text) => text.len(),
            Self::Text(text, logprobs) => {
                let sizes = logprobs.iter().map(LogProb::size);
                text.len() + sizes.sum::<usize>()
            }
            Self::Call(piece) => piece.id.len() + piece.name.len() + piece.arguments.len(),
        }
    }
}

/// A piece of a tool call; empty strings where the piece has no such member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallPiece<'a> {
    /// Which call of this answer.
    pub index: u32,
    /// The upstream's call id.
    pub id: &'a str,
    /// Name or a piece of it.
    pub name: &'a str,
    /// A piece of the arguments.
    pub arguments: &'a str,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// By itself: `stop`, `tool_calls`, or a word of a later server.
    Stop,
    /// `length`.
    Length,
    /// `content_filter`.
    ContentFilter,
    /// `abort` or `error`: vLLM gave the request up.
    Aborted,
}

impl FinishReason {
    fn parse(word: &str) -> Self {
        match word {
            "length" => Self::Length,
            "content_filter" => Self::ContentFilter,
            "abort" | "error" => Self::Aborted,
            _ => Self::Stop,
        }
    }
}

/// Feeds `sink` with what one chunk's choice says, in the order a model does it: thinking, text,
/// refusal, calls. Gives the finish reason once the answer has ended.
pub fn chunk<'a>(
    choice: &'a mut ChunkChoice<'_>,
    sink: &mut dyn FnMut(ModelEvent<'a>),
) -> Option<FinishReason> {
    let logprobs = choice.logprobs.take().and_then(|logprobs| logprobs.content);
    if let Some(delta) = &choice.delta {
        content(delta, logprobs, sink);
    }
    choice
        .finish_reason
        .as_ref()
        .map(|reason| FinishReason::parse(reason.as_str()))
}

/// As [`chunk`], for a whole answer.
pub fn answer<'a>(
    choice: &'a mut AnswerChoice<'_>,
    sink: &mut dyn FnMut(ModelEvent<'a>),
) -> Option<FinishReason> {
    let logprobs = choice.logprobs.take().and_then(|logprobs| logprobs.content);
    if let Some(message) = &choice.message {
        content(message, logprobs, sink);
    }
    choice
        .finish_reason
        .as_ref()
        .map(|reason| FinishReason::parse(reason.as_str()))
}

fn content<'a>(
    delta: &'a Delta<'_>,
    logprobs: Option<Vec<LogProb>>,
    sink: &mut dyn FnMut(ModelEvent<'a>),
) {
    if let Some(reasoning) = delta
        .reasoning
        .as_ref()
        .or(delta.reasoning_content.as_ref())
        && !reasoning.as_str().is_empty()
    {
        sink(ModelEvent::Reasoning(reasoning.as_str()));
    }
    if let Some(text) = delta.content.as_ref()
        && !text.as_str().is_empty()
    {
        sink(ModelEvent::Text(
            text.as_str(),
            logprobs.unwrap_or_default(),
        ));
    }
    if let Some(refusal) = delta.refusal.as_ref()
        && !refusal.as_str().is_empty()
    {
        sink(ModelEvent::Refusal(refusal.as_str()));
    }
    for (place, call) in delta.tool_calls.iter().flatten().enumerate() {
        sink(ModelEvent::Call(piece(call, place)));
    }
}

/// `place` stands in for an index that is absent, as in whole answers.
fn piece<'a>(call: &'a CallDelta<'_>, place: usize) -> CallPiece<'a> {
    let function = call.function.as_ref();
    let text = |text: Option<&'a Text<'_>>| text.map_or("", Text::as_str);
    CallPiece {
        index: call
            .index
            .unwrap_or_else(|| u32::try_from(place).unwrap_or(u32::MAX)),
        id: text(call.id.as_ref()),
        name: text(function.and_then(|function| function.name.as_ref())),
        arguments: text(function.and_then(|function| function.arguments.as_ref())),
    }
}
