//! Writing JSON into buffers.

use serde::Serialize;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_json_is_what_serde_writes() {
        let text = "{ \"a b\" : [ 1 , \"x \\\" \\\\\", { } ],\n\"c\": null }";
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(compact(text), value.to_string());
    }
}
