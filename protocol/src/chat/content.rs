//! `content` of a message: a text, or parts of it.

use std::borrow::Cow;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::lenient::{Text, object, or_nothing};
use crate::json::read::members;
use crate::json::{self, kind};
use crate::json_text::compact;

/// `content`, as a text or as Mistral's reasoning models write it.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    /// Answer text.
    Text(Text<'a>),
    /// Parts in order.
    Parts(Vec<Part<'a>>),
}

impl Content<'_> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Parts(parts) => parts.iter().all(|part| part.text.is_empty()),
        }
    }
}

impl Default for Content<'_> {
    fn default() -> Self {
        Self::Text(Text::default())
    }
}

/// One part.
#[derive(Clone, Debug, Default)]
pub struct Part<'a> {
    /// Which text it is.
    pub kind: Kind,
    /// The text.
    pub text: Cow<'a, str>,
}

/// What a part is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Answer text.
    #[default]
    Text,
    /// Thinking.
    Thinking,
    /// A refusal.
    Refusal,
}

object! {
    /// A part as it is written.
    struct Written<'a> {
        "type" kind: Text<'a>,
        "text" text: Text<'a>,
        "thinking" thinking: Nested<'a>,
        "reasoning" reasoning: Nested<'a>,
        "refusal" refusal: Text<'a>,
    }
}

/// Thinking, as a text, or in the parts and objects that servers put it in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thought<'a>(Cow<'a, str>);

impl Thought<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Thinking that is this text.
    pub(crate) fn of(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

object! {
    /// An object around thinking. What is encrypted is of no use here.
    struct ThoughtObject<'a> {
        "text" text: Text<'a>,
        "content" content: Thought<'a>,
        "thinking" thinking: Thought<'a>,
        "summary" summary: Thought<'a>,
    }
}

impl<'de> Deserialize<'de> for Thought<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Thought<'de>;
            or_nothing!(unit number);
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Thought(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Thought(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = String::new();
                while let Some(thought) = seq.next_element::<Thought<'de>>()? {
                    all.push_str(&thought.0);
                }
                Ok(Thought(Cow::Owned(all)))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let object = ThoughtObject::deserialize(MapAccessDeserializer::new(map))?;
                let named = [object.content, object.thinking, object.summary];
                let named = named.into_iter().find(|thought| !thought.is_empty());
                Ok(match named {
                    Some(thought) if object.text.is_empty() => thought,
                    Some(_) | None => Thought(object.text.0),
                })
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A text, or parts with one each.
#[derive(Debug, Default)]
struct Nested<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Nested<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Content::deserialize(deserializer)? {
            Content::Text(text) => text.0,
            Content::Parts(parts) => {
                let texts: Vec<_> = parts.into_iter().map(|part| part.text).collect();
                Cow::Owned(texts.concat())
            }
        }))
    }
}

/// Types of parts that have no text which is shown.
const SILENT: [&str; 14] = [
    "reference",
    "citation",
    "image",
    "image_url",
    "input_image",
    "output_image",
    "audio",
    "output_audio",
    "input_audio",
    "tool_use",
    "tool_call",
    "tool_calls",
    "function_call",
    "redacted_thinking",
];

impl<'a> Part<'a> {
    /// A part from its JSON; `None` for what is no part, but JSON of the answer itself.
    fn read(raw: &'a RawValue, within: Within) -> Option<Self> {
        match kind(raw) {
            json::Kind::Null => Some(Self::default()),
            json::Kind::Number => Some(Self::of(Kind::Text, Cow::Borrowed(raw.get()))),
            json::Kind::String => {
                let text: Text<'a> = serde_json::from_str(raw.get()).unwrap_or_default();
                Some(Self::of(Kind::Text, text.0))
            }
            json::Kind::Bool | json::Kind::Array => None,
            json::Kind::Object => {
                let written: Written<'a> = serde_json::from_str(raw.get()).ok()?;
                let names = members(raw).unwrap_or_default();
                let has = |name: &str| names.iter().any(|(own, _)| own == name);
                let is_part = match written.kind.as_str() {
                    "" if within == Within::Nothing => has("text") && names.len() == 1,
                    "" => names.is_empty() || has("text"),
                    "text" | "output_text" | "reasoning_text" => has("text"),
                    "thinking" => has("thinking") || has("text"),
                    "reasoning" => has("reasoning") || has("text"),
                    "refusal" => has("refusal"),
                    silent => SILENT.contains(&silent),
                };
                is_part.then(|| written.read())
            }
        }
    }

    fn of(kind: Kind, text: Cow<'a, str>) -> Self {
        Self { kind, text }
    }
}

/// What an object stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    List,
    Nothing,
}

impl<'a> Written<'a> {
    fn read(self) -> Part<'a> {
        let or_text = |text: Nested<'a>, other: Text<'a>| {
            if text.0.is_empty() { other.0 } else { text.0 }
        };
        match self.kind.as_str() {
            "text" | "output_text" | "" => Part::of(Kind::Text, self.text.0),
            "thinking" => Part::of(Kind::Thinking, or_text(self.thinking, self.text)),
            "reasoning" | "reasoning_text" => {
                Part::of(Kind::Thinking, or_text(self.reasoning, self.text))
            }
            "refusal" => Part::of(Kind::Refusal, self.refusal.0),
            _ => Part::default(),
        }
    }
}

impl<'de> Deserialize<'de> for Content<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As it is written, since a number read and written is another text.
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(match kind(raw) {
            json::Kind::Null => Self::default(),
            json::Kind::Bool if raw.get() == "false" => Self::default(),
            json::Kind::Bool | json::Kind::Number => written(raw),
            json::Kind::String => {
                Self::Text(serde_json::from_str(raw.get()).map_err(Error::custom)?)
            }
            json::Kind::Array => {
                let list: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
                let parts = list.into_iter().map(|part| Part::read(part, Within::List));
                parts
                    .collect::<Option<Vec<_>>>()
                    .map_or_else(|| written(raw), Self::Parts)
            }
            json::Kind::Object if members(raw).is_some_and(|all| all.is_empty()) => Self::default(),
            json::Kind::Object => match Part::read(raw, Within::Nothing) {
                Some(part) => Self::Parts(vec![part]),
                None => written(raw),
            },
        })
    }
}

/// An answer in JSON that was not written as text.
fn written(raw: &RawValue) -> Content<'_> {
    Content::Text(Text(compact(raw.get()).into()))
}
