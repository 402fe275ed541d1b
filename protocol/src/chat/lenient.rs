//! Members of a model server's JSON, whatever it wrote there.
//!
//! Servers differ: a count may be a float, a text null, an object a list. None of these types fails
//! on JSON of another shape than it wants; what cannot be read is empty. So one odd member never
//! costs the members beside it.

use std::borrow::Cow;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// The visits that a lenient type does not care for: lists and objects are read over, the rest is
/// what the type is without anything.
macro_rules! or_nothing {
    (seq) => {
        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut seq: A,
        ) -> Result<Self::Value, A::Error> {
            while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
    (map) => {
        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            while map
                .next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?
                .is_some()
            {}
            Ok(Self::Value::default())
        }
    };
    (text) => {
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    (unit) => {
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("anything")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    (number) => {
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    ($($which:ident)+) => { $($crate::chat::lenient::or_nothing!($which);)+ };
}
pub(crate) use or_nothing;

/// A struct read from an object, by a table of member names; from anything else it is empty. Of a
/// member that comes twice the later counts.
macro_rules! object {
    ($(#[$meta:meta])* $vis:vis struct $name:ident<'a> { $($(#[$doc:meta])* $member:literal $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        $vis struct $name<'a> { $($(#[$doc])* pub $field: $type,)* }

        $crate::chat::lenient::object!(impl ($name<'de>) ($name<'a>) 'a $name { $($member $field,)* });
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$doc:meta])* $member:literal $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        $vis struct $name { $($(#[$doc])* pub $field: $type,)* }

        $crate::chat::lenient::object!(impl ($name) ($name) 'a $name { $($member $field,)* });
    };
    (impl ($own:ty) ($any:ty) $lt:lifetime $name:ident { $($member:literal $field:ident,)* }) => {
        impl<'de> serde::Deserialize<'de> for $own {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;
                impl<'de> serde::de::Visitor<'de> for Reader {
                    type Value = $own;
                    $crate::chat::lenient::or_nothing!(unit number text seq);
                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<Self::Value, A::Error> {
                        let mut read = Self::Value::default();
                        while let Some(key) = map.next_key::<$crate::chat::lenient::Text<'de>>()? {
                            match key.as_str() {
                                $($member => read.$field = map.next_value()?,)*
                                _ => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                }
                            }
                        }
                        Ok(read)
                    }
                }
                deserializer.deserialize_any(Reader)
            }
        }
    };
}
pub(crate) use object;

/// Text borrowed from the frame where it has no escapes. A number is its digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(pub(crate) Cow<'a, str>);

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;
            or_nothing!(unit seq map);
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text)))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(number.to_string())))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(number.to_string())))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(number.to_string())))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Text that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Kept(pub Box<str>);

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(|text| Self(text.0.into()))
    }
}

/// JSON text: of a string what is in it, of an object or a list the text of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonText<'a>(pub(crate) Cow<'a, str>);

impl JsonText<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for JsonText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = JsonText<'de>;
            or_nothing!(unit number);
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(JsonText(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(JsonText(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut text = String::from("[");
                while let Some(value) = seq.next_element::<&RawValue>()? {
                    separate(&mut text);
                    text.push_str(value.get());
                }
                text.push(']');
                Ok(JsonText(Cow::Owned(text)))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut text = String::from("{");
                while let Some((key, value)) = map.next_entry::<Text<'de>, &RawValue>()? {
                    separate(&mut text);
                    // A string: it can always be written.
                    text.push_str(&serde_json::to_string(key.as_str()).unwrap_or_default());
                    text.push(':');
                    text.push_str(value.get());
                }
                // An empty object is how some servers begin arguments that they then send as text.
                if text.len() == 1 {
                    return Ok(JsonText::default());
                }
                text.push('}');
                Ok(JsonText(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A comma, unless this is the first element.
fn separate(text: &mut String) {
    if text.len() > 1 {
        text.push(',');
    }
}

/// A count: what is no whole number is cut to one, and what is none at all is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count(pub Option<u64>);

impl Count {
    /// The count, or 0.
    pub fn or_zero(self) -> u64 {
        self.0.unwrap_or(0)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Count;
            or_nothing!(unit seq map);
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Count(Some(number)))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Count(u64::try_from(number).ok()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                // Its digits before the point: beyond 2^64 it is no count.
                let whole = format!("{:.0}", number.trunc());
                Ok(Count(whole.parse().ok()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Count(text.trim().parse().ok()))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A list; an object alone is a list of one. Elements of another shape are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Reader<T> {
            type Value = List<T>;
            or_nothing!(unit number text);
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element::<Option<T>>()? {
                    list.extend(element);
                }
                Ok(List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| List(vec![one]))
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The first element of a list, or nothing.
#[derive(Clone, Debug)]
pub(crate) struct First<T>(pub(crate) Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = First<T>;
            or_nothing!(unit number text map);
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let first = seq.next_element::<Option<T>>()?.flatten();
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// The words of an error, however deep they are wrapped: a text, the `message` of an object, or
/// several of either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words<'a>(pub(crate) Cow<'a, str>);

impl Words<'_> {
    /// The words.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Problems of one answer that are told.
const MOST_WORDS: usize = 4;

impl<'de> Deserialize<'de> for Words<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Words<'de>;
            or_nothing!(unit number);
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Words(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Words(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(words) = seq.next_element::<Words<'de>>()? {
                    if !words.0.is_empty() && all.len() < MOST_WORDS {
                        all.push(words.0);
                    }
                }
                Ok(Words(Cow::Owned(all.join(", "))))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Wrapped::deserialize(MapAccessDeserializer::new(map)).map(Wrapped::words)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

object! {
    /// An object around words. `FastAPI`'s has a place beside them.
    struct Wrapped<'a> {
        "message" message: Words<'a>,
        "msg" msg: Words<'a>,
        "detail" detail: Words<'a>,
        "error" error: Words<'a>,
        "loc" place: List<Text<'a>>,
    }
}

impl<'a> Wrapped<'a> {
    fn words(self) -> Words<'a> {
        let all = [self.message, self.msg, self.detail, self.error];
        let words = all.into_iter().find(|words| !words.0.is_empty());
        let words = words.unwrap_or_default();
        let place: Vec<&str> = self.place.0.iter().map(Text::as_str).collect();
        if place.is_empty() || words.0.is_empty() {
            return words;
        }
        Words(Cow::Owned(format!("at {}: {}", place.join("."), words.0)))
    }
}
