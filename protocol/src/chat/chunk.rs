//! One chunk of a streamed chat completion, borrowed from the frame that carried it.
//!
//! Only what the gateway uses is read; unknown members are skipped. Every member may be missing or
//! null, since servers differ (fault U12).

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::fault::ErrorObject;
use crate::responses::content::LogProb;

/// Text borrowed from the frame where it has no escapes.
///
/// A newtype, because `Option<Cow<str>>` would always be copied.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A `chat.completion.chunk`, or the error object that vLLM sends inside a 200 stream.
#[derive(Debug, Default, Deserialize)]
pub struct Chunk<'a> {
    /// The first choice; there is one, since the gateway never asks for more.
    #[serde(borrow, default)]
    pub choices: FirstChoice<'a>,
    /// Token counts of the call so far.
    #[serde(default)]
    pub usage: Option<ChatUsage>,
    /// Set when the call failed after its head was sent.
    #[serde(borrow, default)]
    pub error: Option<ErrorObject<'a>>,
}

/// The first element of `choices`, or nothing when it is empty or null.
#[derive(Debug, Default)]
pub struct FirstChoice<'a>(pub Option<ChunkChoice<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for FirstChoice<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = FirstChoice<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of choices")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(FirstChoice(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let first = seq.next_element()?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstChoice(first))
            }
        }
        deserializer.deserialize_any(First)
    }
}

/// One choice of a chunk.
#[derive(Debug, Default, Deserialize)]
pub struct ChunkChoice<'a> {
    /// What is new.
    #[serde(borrow, default)]
    pub delta: Option<Delta<'a>>,
    /// Probabilities of the new tokens.
    #[serde(default)]
    pub logprobs: Option<ChatLogProbs>,
    /// Set on the last chunk with a choice.
    #[serde(borrow, default)]
    pub finish_reason: Option<Text<'a>>,
}

/// What one chunk adds. A whole message of a non-streamed answer has the same members.
#[derive(Debug, Default, Deserialize)]
pub struct Delta<'a> {
    /// Answer text.
    #[serde(borrow, default)]
    pub content: Option<Text<'a>>,
    /// Thinking, as vLLM 0.12 and newer name it.
    #[serde(borrow, default)]
    pub reasoning: Option<Text<'a>>,
    /// Thinking, as older servers name it; read when `reasoning` is absent.
    #[serde(borrow, default)]
    pub reasoning_content: Option<Text<'a>>,
    /// Refusal text.
    #[serde(borrow, default)]
    pub refusal: Option<Text<'a>>,
    /// Pieces of tool calls.
    #[serde(borrow, default)]
    pub tool_calls: Option<Vec<CallDelta<'a>>>,
}

/// A piece of one tool call.
#[derive(Debug, Default, Deserialize)]
pub struct CallDelta<'a> {
    /// Which call of this answer; absent in non-streamed answers.
    #[serde(default)]
    pub index: Option<u32>,
    /// Its id, on the first piece.
    #[serde(borrow, default)]
    pub id: Option<Text<'a>>,
    /// Name and arguments.
    #[serde(borrow, default)]
    pub function: Option<FunctionDelta<'a>>,
}

/// A piece of a call's function.
#[derive(Debug, Default, Deserialize)]
pub struct FunctionDelta<'a> {
    /// Name, whole or a piece of it.
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    /// A piece of the arguments' JSON text.
    #[serde(borrow, default)]
    pub arguments: Option<Text<'a>>,
}

/// `logprobs` of a choice.
#[derive(Debug, Default, Deserialize)]
pub struct ChatLogProbs {
    /// One entry per token.
    #[serde(default)]
    pub content: Option<Vec<LogProb>>,
}

/// Token counts of one model call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ChatUsage {
    /// Tokens of the prompt.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Tokens made, reasoning included.
    #[serde(default)]
    pub completion_tokens: u64,
    /// What the prompt cache saved.
    #[serde(default)]
    pub prompt_tokens_details: Option<PromptDetails>,
    /// What was thinking.
    #[serde(default)]
    pub completion_tokens_details: Option<CompletionDetails>,
}

/// `prompt_tokens_details`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PromptDetails {
    /// Prompt tokens found in the cache.
    #[serde(default)]
    pub cached_tokens: Option<u64>,
}

/// `completion_tokens_details`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CompletionDetails {
    /// Tokens of thinking.
    #[serde(default)]
    pub reasoning_tokens: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u12_nulls_and_missing_members_are_nothing() {
        for text in [
            "{}",
            r#"{"choices":null,"usage":null}"#,
            r#"{"choices":[]}"#,
            r#"{"choices":[{}]}"#,
            r#"{"choices":[{"delta":null,"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{"content":null,"tool_calls":null}}],"x":[1]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"function":null}]}}]}"#,
        ] {
            serde_json::from_str::<Chunk<'_>>(text).unwrap();
        }
    }

    #[test]
    fn plain_text_is_borrowed() {
        let chunk: Chunk<'_> =
            serde_json::from_str(r#"{"choices":[{"delta":{"content":"hi"}},{"delta":5}]}"#)
                .unwrap();
        let delta = chunk.choices.0.unwrap().delta.unwrap();
        assert!(matches!(delta.content, Some(Text(Cow::Borrowed("hi")))));
    }
}
