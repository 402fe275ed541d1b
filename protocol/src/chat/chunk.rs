//! One chunk of a streamed chat completion, or a whole one, borrowed from the bytes that carried it.
//!
//! Only members that the gateway uses are read; unknown ones are skipped. Every member may be
//! missing, null or of another shape, since servers differ (fault U12).

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::complaint::ErrorObject;
use super::content::{Content, Thought};
use super::lenient::{Count, First, JsonText, List, Text, Words, object, or_nothing};
use super::repair::repaired;
use super::usage::ChatUsage;
use crate::responses::content::LogProb;

object! {
    /// A `chat.completion.chunk`, a `chat.completion`, or the error object that servers send in place
    /// of either.
    pub struct Chunk<'a> {
        /// The one choice, since the gateway never asks for more.
        "choices" choices: Choices<'a>,
        /// Token counts of the call so far.
        "usage" usage: ChatUsage,
        /// Groq's place for counts and errors.
        "x_groq" x_groq: Groq<'a>,
        /// Set when the call failed after its head was sent.
        "error" error: ErrorObject<'a>,
        /// Words of an error that is not nested.
        "message" message: Words<'a>,
        /// `FastAPI`'s words.
        "detail" detail: Words<'a>,
        /// The code of an error that is not nested.
        "code" code: Text<'a>,
        /// Its kind.
        "type" kind: Text<'a>,
        /// Its status.
        "status" status: Text<'a>,
    }
}

object! {
    /// One choice.
    pub struct Choice<'a> {
        /// Which of the answers that are written side by side.
        "index" index: Count,
        /// What a chunk adds.
        "delta" delta: Option<Delta<'a>>,
        /// What a whole answer is; some servers stream it, in one piece.
        "message" message: Option<Delta<'a>>,
        /// Probabilities of the new tokens.
        "logprobs" logprobs: ChatLogProbs,
        /// Set on the last chunk with a choice.
        "finish_reason" finish_reason: Text<'a>,
        /// Moonshot's place for counts.
        "usage" usage: ChatUsage,
        /// `OpenRouter`'s place for an error of the server behind it.
        "error" error: ErrorObject<'a>,
    }
}

object! {
    /// What one chunk adds. A whole message has the same members.
    pub struct Delta<'a> {
        /// Answer text.
        "content" content: Content<'a>,
        /// Thinking, as vLLM 0.12 and newer name it.
        "reasoning" reasoning: Thought<'a>,
        /// Thinking, as most other servers name it. Of all these the first that is not empty is read.
        "reasoning_content" reasoning_content: Thought<'a>,
        /// Thinking, as Ollama names it.
        "thinking" thinking: Thought<'a>,
        /// Thinking in parts, as `OpenRouter` names it.
        "reasoning_details" reasoning_details: Thought<'a>,
        /// Refusal text.
        "refusal" refusal: Text<'a>,
        /// Pieces of tool calls.
        "tool_calls" tool_calls: List<CallDelta<'a>>,
        /// A call as it was written before there were several.
        "function_call" function_call: FunctionDelta<'a>,
    }
}

object! {
    /// A piece of one tool call.
    pub struct CallDelta<'a> {
        /// Which call of this answer; absent in whole answers.
        "index" index: Count,
        /// Its id, on the first piece.
        "id" id: Text<'a>,
        /// Name and arguments.
        "function" function: FunctionDelta<'a>,
        /// The name where it is not nested: some servers write it so.
        "name" name: Text<'a>,
        /// The arguments where they are not nested.
        "arguments" arguments: JsonText<'a>,
        /// What the server wants back with the call, such as Gemini's thought signature.
        "extra_content" extra: JsonText<'a>,
    }
}

object! {
    /// A piece of a call's function.
    pub struct FunctionDelta<'a> {
        /// Name, whole or a piece of it.
        "name" name: Text<'a>,
        /// A piece of the arguments' JSON text.
        "arguments" arguments: JsonText<'a>,
    }
}

object! {
    /// `logprobs` of a choice.
    pub struct ChatLogProbs {
        /// One entry per token.
        "content" content: List<LogProb>,
    }
}

object! {
    /// `x_groq`.
    pub struct Groq<'a> {
        /// Token counts.
        "usage" usage: ChatUsage,
        /// Why the stream ends early.
        "error" error: ErrorObject<'a>,
    }
}

/// The choices of an answer: of several, the one that is numbered 0, else the first.
#[derive(Debug, Default)]
pub struct Choices<'a>(pub Option<Choice<'a>>);

impl<'de> Deserialize<'de> for Choices<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Choices<'de>;
            or_nothing!(unit number text);
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut chosen: Option<Choice<'de>> = None;
                while let Some(choice) = seq.next_element::<Option<Choice<'de>>>()? {
                    let Some(mut choice) = choice else { continue };
                    chosen = Some(match chosen {
                        Some(mut chosen) if chosen.place() == 0 || choice.place() > 0 => {
                            chosen.complete(choice);
                            chosen
                        }
                        Some(chosen) => {
                            choice.complete(chosen);
                            choice
                        }
                        None => choice,
                    });
                }
                Ok(Choices(chosen))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let choice = Choice::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Choices(Some(choice)))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// What a choice takes of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lacking {
    Calls,
    All,
}

impl Choice<'_> {
    /// Its number.
    pub fn place(&self) -> u64 {
        self.index.or_zero()
    }

    /// Whether it adds to an answer, or ends one.
    pub fn says_something(&self) -> bool {
        let parts = [&self.delta, &self.message];
        let said = parts.into_iter().flatten().any(Delta::says_something);
        said || !self.finish_reason.is_empty()
    }

    /// Takes what another choice of the same answer has and this one lacks: some servers put a text
    /// and the calls behind it into a choice each. Of two texts only one is read.
    fn complete(&mut self, other: Self) {
        let is_whole = self.message.is_some() && other.message.is_some();
        let lacking = if is_whole {
            Lacking::All
        } else {
            Lacking::Calls
        };
        for (own, other) in [
            (&mut self.delta, other.delta),
            (&mut self.message, other.message),
        ] {
            match (own, other) {
                (Some(own), Some(other)) => own.complete(other, lacking),
                (own @ None, Some(other)) if !is_whole => {
                    let mut part = Delta::default();
                    part.complete(other, Lacking::Calls);
                    *own = Some(part);
                }
                (Some(_) | None, _) => {}
            }
        }
        if is_whole && self.finish_reason.is_empty() {
            self.finish_reason = other.finish_reason;
        }
    }
}

impl<'a> Delta<'a> {
    fn has_calls(&self) -> bool {
        !self.function_call.is_empty() || self.tool_calls.0.iter().any(|call| !call.is_empty())
    }

    /// Whether it adds to an answer.
    pub fn says_something(&self) -> bool {
        let is_text = !self.content.is_empty() || !self.thinking().is_empty();
        is_text || !self.refusal.is_empty() || self.has_calls()
    }

    /// See [`Choice::complete`]. Words are taken of whole answers alone: pieces of several answers that
    /// are written side by side are not to be mixed.
    fn complete(&mut self, other: Self, lacking: Lacking) {
        if !self.has_calls() {
            self.tool_calls = other.tool_calls;
            self.function_call = other.function_call;
        }
        if lacking == Lacking::Calls {
            return;
        }
        if self.content.is_empty() && self.refusal.is_empty() {
            self.content = other.content;
            self.refusal = other.refusal;
        }
        if self.thinking().is_empty() {
            self.reasoning = other.reasoning;
            self.reasoning_content = other.reasoning_content;
            self.thinking = other.thinking;
            self.reasoning_details = other.reasoning_details;
        }
    }

    /// Puts other thinking in the place of its own.
    pub(crate) fn set_thinking(&mut self, thinking: Thought<'a>) {
        self.reasoning = thinking;
        self.reasoning_content = Thought::default();
        self.thinking = Thought::default();
        self.reasoning_details = Thought::default();
    }

    /// The thinking in it, under whichever name.
    pub fn thinking(&self) -> &Thought<'a> {
        let thoughts = [
            &self.reasoning,
            &self.reasoning_content,
            &self.thinking,
            &self.reasoning_details,
        ];
        let said = thoughts.into_iter().find(|thought| !thought.is_empty());
        said.unwrap_or(&self.reasoning)
    }
}

/// Reads a chunk or a whole answer. What almost is JSON is repaired into `spare` first.
///
/// # Errors
/// The bytes are no JSON object.
pub fn read<'a>(data: &'a [u8], spare: &'a mut Vec<u8>) -> Result<Chunk<'a>, serde_json::Error> {
    let refused = match parse(data) {
        Ok(chunk) => return Ok(chunk),
        Err(error) => error,
    };
    let Some(text) = repaired(data) else {
        return Err(refused);
    };
    *spare = text;
    parse(spare)
}

/// Whether a frame is JSON that says nothing, such as the `null` or `""` that proxies send to keep a
/// connection alive.
pub fn is_nothing(data: &[u8]) -> bool {
    matches!(data.trim_ascii(), b"" | b"null" | b"\"\"" | b"[]")
}

/// Some writers begin a text with a byte order mark.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// Whether it is a chunk of an answer.
pub fn has_choices(data: &[u8]) -> bool {
    let mut spare = Vec::new();
    read(data, &mut spare).is_ok_and(|chunk| chunk.choices.0.is_some())
}

/// Google's servers put an error into a list.
fn parse(data: &[u8]) -> Result<Chunk<'_>, serde_json::Error> {
    let data = data.strip_prefix(BOM).unwrap_or(data);
    match data.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(data),
        Some(b'[') => match serde_json::from_slice::<First<Chunk<'_>>>(data)?.0 {
            Some(chunk) if chunk.complaint().is_some() => Ok(chunk),
            Some(_) | None => Err(serde::de::Error::custom("a list")),
        },
        Some(_) | None => Err(serde::de::Error::custom("no object")),
    }
}

impl CallDelta<'_> {
    /// Name and arguments, wherever they stand.
    pub fn said(&self) -> (&str, &str) {
        if self.function.is_empty() {
            return (self.name.as_str(), self.arguments.as_str());
        }
        self.function.said()
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.said() == ("", "")
    }
}

impl FunctionDelta<'_> {
    /// Name and arguments.
    pub fn said(&self) -> (&str, &str) {
        (self.name.as_str(), self.arguments.as_str())
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.name.is_empty() && self.arguments.as_str().is_empty()
    }
}

impl Chunk<'_> {
    /// The counts, wherever they stand; `None` where there are none.
    pub fn counts(&self) -> Option<ChatUsage> {
        let choice = self.choices.0.as_ref().map(|choice| choice.usage);
        [Some(self.usage), choice, Some(self.x_groq.usage)]
            .into_iter()
            .flatten()
            .find(|usage| *usage != ChatUsage::default())
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn u12_nulls_and_missing_members_are_nothing() {
        for text in [
            "{}",
            r#"{"choices":null,"usage":null}"#,
            r#"{"choices":[]}"#,
            r#"{"choices":[{}]}"#,
            r#"{"choices":[null]}"#,
            r#"{"choices":[{"delta":null,"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{"content":null,"tool_calls":null}}],"x":[1]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"function":null}]}}]}"#,
        ] {
            let mut spare = Vec::new();
            let chunk = read(text.as_bytes(), &mut spare).unwrap();
            assert_eq!(chunk.counts(), None);
            assert!(chunk.complaint().is_none());
        }
    }

    /// Every member of every object, with a value of every shape: nothing fails, and the text beside
    /// it is read.
    #[expect(clippy::too_many_lines, reason = "a table")]
    #[test]
    fn u12_no_member_of_any_shape_fails_a_chunk() {
        const SHAPES: [&str; 12] = [
            "null",
            "true",
            "-3",
            "3.5",
            "1e300",
            "\"\"",
            "\"x\"",
            "\"\\ud800\"",
            "[]",
            "{}",
            "[null,1,\"x\",{\"a\":[]},[[]]]",
            "{\"a\":1,\"type\":[],\"content\":{\"content\":5}}",
        ];
        let places = [
            ("usage prompt_tokens", r#"{"usage":{"prompt_tokens":@},C}"#),
            (
                "usage details",
                r#"{"usage":{"prompt_tokens_details":@,"completion_tokens_details":{"reasoning_tokens":@}},C}"#,
            ),
            ("usage", r#"{"usage":@,C}"#),
            ("x_groq", r#"{"x_groq":@,C}"#),
            (
                "id",
                r#"{"id":@,"object":@,"created":@,"model":@,"system_fingerprint":@,C}"#,
            ),
        ];
        let in_choice = ["finish_reason", "logprobs", "index", "usage", "stop_reason"];
        let in_delta = [
            "role",
            "reasoning",
            "refusal",
            "tool_calls",
            "function_call",
            "annotations",
        ];
        let check = |what: &str, text: String| {
            let mut spare = Vec::new();
            let chunk = read(text.as_bytes(), &mut spare);
            let choice = chunk
                .unwrap_or_else(|e| panic!("{what} {text}: {e}"))
                .choices
                .0;
            let content = choice.unwrap().delta.unwrap().content;
            let Content::Text(said) = content else {
                panic!("{text}")
            };
            assert_eq!(said.as_str(), "hi", "{text}");
        };
        for shape in SHAPES {
            let sound = r#""choices":[{"delta":{"content":"hi"}}]"#;
            for (what, text) in places {
                check(what, text.replace('C', sound).replace('@', shape));
            }
            for member in in_choice {
                let text =
                    format!(r#"{{"choices":[{{"{member}":{shape},"delta":{{"content":"hi"}}}}]}}"#);
                check(member, text);
            }
            for member in in_delta {
                let text =
                    format!(r#"{{"choices":[{{"delta":{{"{member}":{shape},"content":"hi"}}}}]}}"#);
                check(member, text);
            }
            for call in ["index", "id", "type", "function"] {
                let text = format!(
                    r#"{{"choices":[{{"delta":{{"tool_calls":[{{"{call}":{shape}}}],"content":"hi"}}}}]}}"#
                );
                check(call, text);
            }
            for entry in ["token", "bytes", "logprob", "top_logprobs"] {
                let text = format!(
                    r#"{{"choices":[{{"logprobs":{{"content":[{{"{entry}":{shape}}}]}},"delta":{{"content":"hi"}}}}]}}"#
                );
                check(entry, text);
            }
        }
    }

    #[test]
    fn plain_text_is_borrowed() {
        let mut spare = Vec::new();
        let data = br#"{"choices":[{"delta":{"content":"hi"}},{"delta":5}]}"#;
        let chunk = read(data, &mut spare).unwrap();
        let delta = chunk.choices.0.unwrap().delta.unwrap();
        assert!(matches!(
            delta.content,
            Content::Text(Text(Cow::Borrowed("hi")))
        ));
    }

    #[test]
    fn counts_stand_in_several_places() {
        for text in [
            r#"{"usage":{"prompt_tokens":3,"completion_tokens":4.0}}"#,
            r#"{"usage":null,"choices":[{"usage":{"prompt_tokens":3,"completion_tokens":4}}]}"#,
            r#"{"x_groq":{"usage":{"prompt_tokens":3,"completion_tokens":"4"}}}"#,
            r#"{"usage":{"input_tokens":3,"output_tokens":4}}"#,
        ] {
            let mut spare = Vec::new();
            let counts = read(text.as_bytes(), &mut spare).unwrap().counts().unwrap();
            assert_eq!(
                (counts.prompt_tokens(), counts.completion_tokens()),
                (3, 4),
                "{text}"
            );
        }
    }
}
