//! Chat chunks and whole answers to one vocabulary: [`ModelEvent`].
//!
//! From here on nothing knows whether the upstream streamed, or which of its spellings it used.

mod spelling;

use crate::chat::chunk::{CallDelta, Choice, Delta};
use crate::chat::content::{Content, Kind};
use crate::chat::finish::FinishReason;
use crate::responses::content::LogProb;
pub(crate) use spelling::{Spelling, spelling};

/// One thing the model did.
#[derive(Debug, PartialEq)]
pub enum ModelEvent<'a> {
    /// More thinking.
    Reasoning(&'a str),
    /// More answer text.
    Text(&'a str),
    /// Probabilities of tokens, before the text that they spell. They may be of other text too, such
    /// as the end of a character that has not come yet, or marks around thinking.
    Tokens(Vec<LogProb>),
    /// More refusal.
    Refusal(&'a str),
    /// More of a tool call.
    Call(CallPiece<'a>),
}

impl ModelEvent<'_> {
    /// About how many bytes it has.
    pub fn size(&self) -> usize {
        match self {
            Self::Reasoning(text) | Self::Text(text) | Self::Refusal(text) => text.len(),
            Self::Tokens(tokens) => tokens.iter().map(LogProb::size).sum(),
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
    /// JSON that the upstream wants back with the call.
    pub extra: &'a str,
}

/// The index of a call that is written in the old way, as the only one; servers that write it beside
/// the new way mean the same call.
pub(crate) const LEGACY: u32 = u32::MAX - 1;

/// Feeds `sink` with what one chunk's choice says, in the order a model does it: thinking, text,
/// refusal, calls. Gives the finish reason once the answer has ended.
pub fn chunk<'a>(
    choice: &'a mut Choice<'_>,
    sink: &mut dyn FnMut(ModelEvent<'a>),
) -> Option<FinishReason> {
    let tokens = spelt_out(choice);
    let choice = &*choice;
    said(choice.delta.as_ref(), tokens, sink);
    FinishReason::parse(choice.finish_reason.as_str())
}

/// The tokens of a choice, each with its bytes.
fn spelt_out(choice: &mut Choice<'_>) -> Vec<LogProb> {
    let mut tokens = std::mem::take(&mut choice.logprobs.content.0);
    for token in &mut tokens {
        token.spell_out();
    }
    tokens
}

/// As [`chunk`], for a whole answer. Some servers write it as they would write a chunk.
pub fn answer<'a>(
    choice: &'a mut Choice<'_>,
    sink: &mut dyn FnMut(ModelEvent<'a>),
) -> Option<FinishReason> {
    if choice.message.is_none() {
        choice.message = choice.delta.take();
    }
    let mut tokens = spelt_out(choice);
    // Each entry is a call of its own, even where all have one index.
    for call in choice.message.iter_mut().flat_map(|m| &mut m.tool_calls.0) {
        call.index.0 = None;
    }
    let choice = &*choice;
    if choice
        .message
        .as_ref()
        .is_some_and(|message| is_foreign(&tokens, message))
    {
        tokens.clear();
    }
    said(choice.message.as_ref(), tokens, sink);
    FinishReason::parse(choice.finish_reason.as_str())
}

/// Whether these tokens are not known to be those of the answer's text: there is thinking, or a call,
/// and the text is not among them.
fn is_foreign(tokens: &[LogProb], message: &Delta<'_>) -> bool {
    let Content::Text(text) = &message.content else {
        return true;
    };
    let more = !message.thinking().is_empty() || !message.tool_calls.0.is_empty();
    more && spelling(tokens, text.as_str()).is_none()
}

fn said<'a>(
    delta: Option<&'a Delta<'_>>,
    tokens: Vec<LogProb>,
    sink: &mut dyn FnMut(ModelEvent<'a>),
) {
    let Some(delta) = delta else {
        if !tokens.is_empty() {
            sink(ModelEvent::Tokens(tokens));
        }
        return;
    };
    let thinking = delta.thinking();
    if !thinking.is_empty() {
        sink(ModelEvent::Reasoning(thinking.as_str()));
    }
    if !tokens.is_empty() {
        sink(ModelEvent::Tokens(tokens));
    }
    content(&delta.content, sink);
    if !delta.refusal.is_empty() {
        sink(ModelEvent::Refusal(delta.refusal.as_str()));
    }
    let calls = &delta.tool_calls.0;
    // Servers that know one way only write the other one too, with nothing in it.
    if !delta.function_call.is_empty() && calls.iter().all(CallDelta::is_empty) {
        sink(ModelEvent::Call(piece(
            LEGACY,
            "",
            delta.function_call.said(),
        )));
        return;
    }
    for (place, call) in calls.iter().enumerate() {
        sink(ModelEvent::Call(numbered(call, place)));
    }
}

fn content<'a>(content: &'a Content<'_>, sink: &mut dyn FnMut(ModelEvent<'a>)) {
    match content {
        Content::Text(text) if text.is_empty() => {}
        Content::Text(text) => sink(ModelEvent::Text(text.as_str())),
        Content::Parts(parts) => {
            for part in parts.iter().filter(|part| !part.text.is_empty()) {
                sink(match part.kind {
                    Kind::Text => ModelEvent::Text(&part.text),
                    Kind::Thinking => ModelEvent::Reasoning(&part.text),
                    Kind::Refusal => ModelEvent::Refusal(&part.text),
                });
            }
        }
    }
}

/// `place` stands in for an index that is absent, as in whole answers.
fn numbered<'a>(call: &'a CallDelta<'_>, place: usize) -> CallPiece<'a> {
    let index = call.index.0.and_then(|index| u32::try_from(index).ok());
    let index = index.unwrap_or_else(|| u32::try_from(place).unwrap_or(u32::MAX));
    CallPiece {
        extra: call.extra.as_str(),
        ..piece(index, call.id.as_str(), call.said())
    }
}

fn piece<'a>(index: u32, id: &'a str, (name, arguments): (&'a str, &'a str)) -> CallPiece<'a> {
    CallPiece {
        index,
        id,
        name,
        arguments,
        extra: "",
    }
}
