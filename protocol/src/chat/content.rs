//! `content` of a message: a text, or parts of it.

use std::borrow::Cow;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::lenient::{Text, object, or_nothing};

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
            or_nothing!(unit number seq);
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

impl<'de> Deserialize<'de> for Content<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Content<'de>;
            or_nothing!(unit number);
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
                let part = Part::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Content::Parts(vec![part]))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
