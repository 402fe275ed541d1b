//! Reading raw JSON pieces: what kind a value is, objects member by member, typed values.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::problems::{Place, Problems, shown};
use crate::error::ApiErrorCode;

/// JSON type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// The type of a value, by its first byte: the text is known to be JSON.
pub(crate) fn kind(raw: &RawValue) -> Kind {
    match raw.get().as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'n') | None => Kind::Null,
        Some(_) => Kind::Number,
    }
}

/// The text of a JSON string; `None` for other types. Borrowed when nothing in it is escaped.
pub(crate) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    if kind(raw) != Kind::String {
        return None;
    }
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// The elements of an array; a problem for other types.
pub(crate) fn elements<'de>(
    raw: &'de RawValue,
    place: &Place<'_>,
    problems: &mut Problems,
) -> Option<Vec<&'de RawValue>> {
    if kind(raw) == Kind::Array
        && let Ok(elements) = serde_json::from_str(raw.get())
    {
        return Some(elements);
    }
    problems.wrong_type(place, "an array");
    None
}

/// A member name.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of an object in their order, doubles included.
struct Members<'de>(Vec<(Cow<'de, str>, &'de RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// The members of an object in their order; `None` for other types.
pub(crate) fn members(raw: &RawValue) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let members: Option<Members<'_>> = serde_json::from_str(raw.get()).ok();
    members.map(|Members(members)| members)
}

/// An object being read: members are taken by name, and what is left over is unknown.
#[derive(Clone)]
pub(crate) struct Fields<'de, 'p> {
    members: Vec<(Cow<'de, str>, &'de RawValue)>,
    place: Place<'p>,
}

impl<'de, 'p> Fields<'de, 'p> {
    /// Reads a whole text as one object. The error is that of `serde_json`, for its category only:
    /// its words may quote the text.
    pub(crate) fn parse(text: &'de str, problems: &mut Problems) -> serde_json::Result<Self> {
        let Members(members) = serde_json::from_str(text)?;
        let fields = Self {
            members,
            place: Place::Root,
        };
        fields.refuse_doubles(problems);
        Ok(fields)
    }

    /// Reads the value at `place` as an object; a problem for other types.
    pub(crate) fn of(
        raw: &'de RawValue,
        place: Place<'p>,
        problems: &mut Problems,
    ) -> Option<Self> {
        if kind(raw) == Kind::Object
            && let Ok(Members(members)) = serde_json::from_str(raw.get())
        {
            let fields = Self { members, place };
            fields.refuse_doubles(problems);
            return Some(fields);
        }
        problems.wrong_type(&place, "an object");
        None
    }

    /// Where the object stands.
    pub(crate) fn place(&self) -> Place<'p> {
        self.place
    }

    /// Two readers of one request must not see different values, so a name is there once.
    fn refuse_doubles(&self, problems: &mut Problems) {
        /// Up to here comparing all is faster than hashing; nearly all objects are this small.
        const FEW: usize = 16;
        let mut seen = HashSet::new();
        for (index, (name, _)) in self.members.iter().enumerate() {
            let mut before = self.members.iter().take(index);
            let is_double = if self.members.len() > FEW {
                !seen.insert(&**name)
            } else {
                before.any(|(earlier, _)| earlier == name)
            };
            if is_double {
                let place = self.place.member(name);
                problems.add(
                    &place,
                    ApiErrorCode::InvalidJson,
                    format_args!("`{place}` is given more than once"),
                );
            }
        }
    }

    /// Takes the member with this name; null is as good as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'de RawValue> {
        self.take_even_null(name)
            .filter(|raw| kind(raw) != Kind::Null)
    }

    /// Takes the member with this name, null or not.
    pub(crate) fn take_even_null(&mut self, name: &str) -> Option<&'de RawValue> {
        let at = self.members.iter().position(|(known, _)| known == name)?;
        Some(self.members.remove(at).1)
    }

    /// Whether the member is absent or null; a null one is taken.
    pub(crate) fn take_if_null(&mut self, name: &str) -> bool {
        match self.members.iter().position(|(known, _)| known == name) {
            None => true,
            Some(at)
                if self
                    .members
                    .get(at)
                    .is_some_and(|(_, raw)| kind(raw) == Kind::Null) =>
            {
                self.members.remove(at);
                true
            }
            Some(_) => false,
        }
    }

    /// Looks at the text of a member without taking it.
    pub(crate) fn peek_text(&self, name: &str) -> Option<Cow<'de, str>> {
        let (_, raw) = self.members.iter().find(|(known, _)| known == name)?;
        text(raw)
    }

    /// The members that nobody took, in their order.
    pub(crate) fn into_members(self) -> impl Iterator<Item = (Cow<'de, str>, &'de RawValue)> {
        self.members.into_iter()
    }

    /// Whether there is such a member, and not null.
    pub(crate) fn given(&self, name: &str) -> bool {
        self.members
            .iter()
            .any(|(known, raw)| known == name && kind(raw) != Kind::Null)
    }

    /// Whether this is the one member that is left.
    pub(crate) fn is_only(&self, name: &str) -> bool {
        matches!(&*self.members, [(known, _)] if known == name)
    }

    /// Whether there is such a member, null or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(known, _)| known == name)
    }

    /// Names of the members that nobody took, cut to a length that fits a message; null ones are
    /// left out, since they ask for nothing.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &str> {
        self.members
            .iter()
            .filter(|(_, raw)| kind(raw) != Kind::Null)
            .map(|(name, _)| shown(name))
    }

    /// A string.
    pub(crate) fn string(&mut self, name: &str, problems: &mut Problems) -> Option<Cow<'de, str>> {
        let raw = self.take(name)?;
        let text = text(raw);
        if text.is_none() {
            problems.wrong_type(&self.place.member(name), "a string");
        }
        text
    }

    /// A string that must be there.
    pub(crate) fn required_string(
        &mut self,
        name: &str,
        problems: &mut Problems,
    ) -> Option<Cow<'de, str>> {
        let raw = self.required(name, problems)?;
        let text = text(raw);
        if text.is_none() {
            problems.wrong_type(&self.place.member(name), "a string");
        }
        text
    }

    /// A string that must be there and have at least one character.
    pub(crate) fn required_word(
        &mut self,
        name: &str,
        problems: &mut Problems,
    ) -> Option<Cow<'de, str>> {
        let text = self.required_string(name, problems)?;
        if text.is_empty() {
            problems.invalid(&self.place.member(name), "a non-empty string");
            return None;
        }
        Some(text)
    }

    /// A value that must be there.
    pub(crate) fn required(
        &mut self,
        name: &str,
        problems: &mut Problems,
    ) -> Option<&'de RawValue> {
        let raw = self.take(name);
        if raw.is_none() {
            problems.missing(&self.place.member(name));
        }
        raw
    }

    /// A string of at most `most` characters.
    pub(crate) fn short_string(
        &mut self,
        name: &str,
        most: usize,
        problems: &mut Problems,
    ) -> Option<Box<str>> {
        let text = self.string(name, problems)?;
        if text.chars().nth(most).is_some() {
            problems.invalid(
                &self.place.member(name),
                format_args!("at most {most} characters long"),
            );
            return None;
        }
        Some(text.into())
    }

    /// A boolean.
    pub(crate) fn boolean(&mut self, name: &str, problems: &mut Problems) -> Option<bool> {
        match self.take(name)?.get() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                problems.wrong_type(&self.place.member(name), "a boolean");
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(crate) fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<u64>,
        problems: &mut Problems,
    ) -> Option<u64> {
        let raw = self.take(name)?;
        let place = self.place.member(name);
        let text = raw.get();
        let whole = text.strip_prefix('-').unwrap_or(text);
        if kind(raw) != Kind::Number || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
            problems.wrong_type(&place, "an integer");
            return None;
        }
        let value: Option<u64> = text.parse().ok();
        let fitting = value.filter(|value| range.contains(value));
        if fitting.is_none() {
            let is_below =
                text.starts_with('-') || value.is_some_and(|value| value < *range.start());
            let code = if is_below {
                ApiErrorCode::IntegerBelowMinValue
            } else {
                ApiErrorCode::IntegerAboveMaxValue
            };
            let (least, most) = (range.start(), range.end());
            if *most == u64::MAX && is_below {
                let sentence = format_args!("`{place}` must be at least {least}");
                problems.add(&place, code, sentence);
            } else {
                let sentence = format_args!("`{place}` must be between {least} and {most}");
                problems.add(&place, code, sentence);
            }
        }
        fitting
    }

    /// A number within `range`.
    pub(crate) fn number(
        &mut self,
        name: &str,
        range: RangeInclusive<f64>,
        problems: &mut Problems,
    ) -> Option<f64> {
        let raw = self.take(name)?;
        let place = self.place.member(name);
        if kind(raw) != Kind::Number {
            problems.wrong_type(&place, "a number");
            return None;
        }
        let value = raw.get().parse().ok().filter(|value| range.contains(value));
        if value.is_none() {
            let (least, most) = (range.start(), range.end());
            problems.invalid(&place, format_args!("between {least} and {most}"));
        }
        value
    }

    /// One of the allowed words; `parse` knows what each means.
    pub(crate) fn word<T>(
        &mut self,
        name: &str,
        words: &[&str],
        parse: fn(&str) -> Option<T>,
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.string(name, problems)?;
        let value = parse(&text);
        if value.is_none() {
            problems.wrong_word(&self.place.member(name), words);
        }
        value
    }

    /// An array.
    pub(crate) fn array(
        &mut self,
        name: &str,
        problems: &mut Problems,
    ) -> Option<Vec<&'de RawValue>> {
        let raw = self.take(name)?;
        elements(raw, &self.place.member(name), problems)
    }
}
