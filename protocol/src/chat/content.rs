//! `content` of a message: a text, or parts of it.

use std::borrow::Cow;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::lenient::{JsonText, Text, object, or_nothing};

/// `content`, as a text or as Mistral's reasoning models write it.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    /// Answer text.
    Text(Text<'a>),
    /// Parts in order.
    Parts(Vec<Part<'a>>),
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

impl<'de> Deserialize<'de> for Part<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Part<'de>;
            or_nothing!(unit seq);
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Part::of(Kind::Text, Cow::Owned(number.to_string())))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Part::of(Kind::Text, Cow::Owned(number.to_string())))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Part::of(Kind::Text, Cow::Owned(number.to_string())))
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Part::of(Kind::Text, Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Part::of(Kind::Text, Cow::Owned(text.to_owned())))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Written::deserialize(MapAccessDeserializer::new(map)).map(Written::read)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'a> Part<'a> {
    fn of(kind: Kind, text: Cow<'a, str>) -> Self {
        Self { kind, text }
    }
}

impl<'a> Written<'a> {
    /// Parts of other types, such as references, have no text that is shown.
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

fn digits<'a>(number: &impl ToString) -> Content<'a> {
    Content::Text(Text(Cow::Owned(number.to_string())))
}

/// An object alone: a part, or where it is none an answer in JSON that was not written as text.
fn lone<'a>(object: &JsonText<'_>) -> Content<'a> {
    let written: Written<'_> = serde_json::from_str(object.as_str()).unwrap_or_default();
    let is_part = !written.kind.is_empty() || object.as_str().starts_with("{\"text\":");
    let Part { kind, text } = written.read();
    if text.is_empty() && !is_part {
        return Content::Text(Text(Cow::Owned(object.as_str().to_owned())));
    }
    let text = Cow::Owned(text.into_owned());
    Content::Parts(vec![Part { kind, text }])
}

impl<'de> Deserialize<'de> for Content<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Content<'de>;
            or_nothing!(unit);
            // Some writers make numbers of texts that look like one.
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(digits(&number))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(digits(&number))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(digits(&number))
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Content::Text(Text(Cow::Borrowed(text))))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Content::Text(Text(Cow::Owned(text.to_owned()))))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let text = JsonText::deserialize(MapAccessDeserializer::new(map))?;
                Ok(lone(&text))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
