//! A whole chat completion, for clients that do not stream.

use serde::Deserialize;

use super::chunk::{ChatLogProbs, ChatUsage, Delta, Text};
use super::fault::ErrorObject;

/// A `chat.completion`.
#[derive(Debug, Default, Deserialize)]
pub struct Answer<'a> {
    /// One choice, since the gateway never asks for more.
    #[serde(borrow, default)]
    pub choices: Vec<AnswerChoice<'a>>,
    /// Token counts.
    #[serde(default)]
    pub usage: Option<ChatUsage>,
    /// Some servers answer 200 with an error object.
    #[serde(borrow, default)]
    pub error: Option<ErrorObject<'a>>,
}

/// One choice of a whole answer.
#[derive(Debug, Default, Deserialize)]
pub struct AnswerChoice<'a> {
    /// The message; it has the members of a delta.
    #[serde(borrow, default)]
    pub message: Option<Delta<'a>>,
    /// Probabilities of all tokens.
    #[serde(default)]
    pub logprobs: Option<ChatLogProbs>,
    /// Why it ended.
    #[serde(borrow, default)]
    pub finish_reason: Option<Text<'a>>,
}
