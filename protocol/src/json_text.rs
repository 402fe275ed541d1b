//! Writing JSON into buffers.

use std::io::{self, Write};

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::chat::repair::repaired;

/// JSON without white space between its pieces; the text is known to be JSON.
pub(crate) fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut inside, mut escaped) = (false, false);
    for character in text.chars() {
        let is_space = matches!(character, ' ' | '\n' | '\r' | '\t');
        if inside || !is_space {
            out.push(character);
        }
        if character == '"' && !escaped {
            inside = !inside;
        }
        escaped = inside && character == '\\' && !escaped;
    }
    out
}

/// Appends `value` as JSON.
///
/// Our wire types have string keys and no fallible `Serialize`, and a `Vec` takes every write, so
/// this cannot fail; were it ever to, the buffer is left as it was.
pub(crate) fn append<T: Serialize>(buffer: &mut Vec<u8>, value: &T) {
    let before = buffer.len();
    if serde_json::to_writer(&mut *buffer, value).is_err() {
        buffer.truncate(before);
    }
}

/// `value` as JSON, in a buffer that is not much larger. A large one that doubled would be there three
/// times while it is copied; here it is gathered in pieces, each of which goes as it is copied.
pub(crate) fn written<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut pieces = Pieces::default();
    serde_json::to_writer(&mut pieces, value)?;
    Ok(pieces.join())
}

/// Pieces of a text that is being written.
#[derive(Default)]
struct Pieces {
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
}

/// A buffer of this size is not made larger.
const PIECE: usize = 1 << 20;

impl Pieces {
    fn join(self) -> Vec<u8> {
        let Self { mut full, last } = self;
        if full.is_empty() {
            return last;
        }
        full.push(last);
        let length = full.iter().map(Vec::len).sum();
        let mut whole = Vec::with_capacity(length);
        for piece in full {
            whole.extend_from_slice(&piece);
        }
        whole
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last.len() + bytes.len() > PIECE && !self.last.is_empty() {
            self.full.push(std::mem::take(&mut self.last));
        }
        if bytes.len() > PIECE {
            self.full.push(bytes.to_vec());
        } else {
            self.last.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// JSON that every reader takes: without lone halves of surrogate pairs, and with numbers that a
/// float holds. `None` where it cannot be had.
pub(crate) fn readable(text: &str) -> Option<String> {
    if serde_json::from_str::<Readable>(text).is_ok() {
        return Some(text.to_owned());
    }
    let repaired = String::from_utf8(repaired(text.as_bytes())?).ok()?;
    serde_json::from_str::<Readable>(&repaired)
        .is_ok()
        .then_some(repaired)
}

/// Any JSON, of which every string and number was read.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Self;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_pieces_is_the_same_text() {
        for lengths in [
            vec![],
            vec![1, 2],
            vec![PIECE + 7],
            vec![PIECE / 3; 7],
            vec![1, PIECE, 1, 3 * PIECE, 2, PIECE / 2, PIECE / 2],
        ] {
            let text = |length| "a\"b".repeat(length / 3 + 1);
            let texts: Vec<String> = lengths.into_iter().map(text).collect();
            let written = written(&texts).unwrap();
            assert!(written == serde_json::to_vec(&texts).unwrap());
            assert!(written.capacity() - written.len() <= PIECE);
        }
    }

    #[test]
    fn readable_json_is_read_by_everybody() {
        let sound = r#"{"a":[1,-1.5e3,"\ud83d\ude00",null,true]}"#;
        assert_eq!(readable(sound).as_deref(), Some(sound));
        let repaired = readable(r#"{"a":"\ud800"}"#);
        assert_eq!(repaired.as_deref(), Some(r#"{"a":"\ufffd"}"#));
        for bad in [r#"{"a":1e999}"#, "{", ""] {
            assert_eq!(readable(bad), None);
        }
    }

    #[test]
    fn compact_json_is_what_serde_writes() {
        let text = "{ \"a b\" : [ 1 , \"x \\\" \\\\\", { } ],\n\"c\": null }";
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(compact(text), value.to_string());
    }
}
