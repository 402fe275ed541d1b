//! Bytes that are almost JSON: what servers write that strict readers refuse.
//!
//! A string cut between the halves of a surrogate pair, characters that are no UTF-8, line ends
//! inside strings, and the words that Python has for numbers that JSON lacks. Only text that was
//! refused is looked at.

use crate::json::surrogates::{self, Escape, LOST};

/// The same text as JSON has it; `None` where nothing of the kind is in it.
pub(crate) fn repaired(data: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(data);
    let mut out = Vec::with_capacity(text.len() + 16);
    let mut rest = text.as_bytes();
    let mut inside = false;
    while let Some((byte, behind)) = rest.split_first() {
        let taken = match (inside, byte) {
            (true, b'\\') => escape(rest, &mut out),
            (true, byte) if *byte < 0x20 => {
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                1
            }
            (false, b'N' | b'I' | b'-') => word(rest, &mut out),
            (_, byte) => {
                inside ^= *byte == b'"';
                out.push(*byte);
                1
            }
        };
        rest = rest.get(taken..).unwrap_or(behind);
    }
    (out != data).then_some(out)
}

/// Writes the escape at the beginning of `rest`; gives its length.
fn escape(rest: &[u8], out: &mut Vec<u8>) -> usize {
    let Escape { length, is_lone } = surrogates::escape(rest);
    let length = rest.len().min(length);
    let written = rest.get(..length).unwrap_or_default();
    out.extend_from_slice(if is_lone { LOST } else { written });
    length
}

/// Writes null for a number that JSON lacks; gives how much was read.
fn word(rest: &[u8], out: &mut Vec<u8>) -> usize {
    for word in [&b"NaN"[..], b"Infinity", b"-Infinity"] {
        if rest.starts_with(word) {
            out.extend_from_slice(b"null");
            return word.len();
        }
    }
    out.extend(rest.first());
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strict_readers_refuse_becomes_json() {
        for (written, repaired_text) in [
            (&br#"{"a":"x\ud83d"}"#[..], r#"{"a":"x\ufffd"}"#),
            (
                br#"{"a":"\ude00\ud83d\ude00"}"#,
                r#"{"a":"\ufffd\ud83d\ude00"}"#,
            ),
            (
                br#"{"a":"\ud83d\ud83d\ude00"}"#,
                r#"{"a":"\ufffd\ud83d\ude00"}"#,
            ),
            (b"{\"a\":\"x\ny\"}", r#"{"a":"x\u000ay"}"#),
            (b"{\"a\":\"\xff\"}", "{\"a\":\"\u{fffd}\"}"),
            (b"{\"a\":-Infinity,\"b\":NaN}", r#"{"a":null,"b":null}"#),
        ] {
            assert_eq!(
                String::from_utf8(repaired(written).unwrap()).unwrap(),
                repaired_text
            );
        }
        for sound in [
            &br#"{"a":"NaN \\u \"\ud83d\ude00","b":-1}"#[..],
            b"",
            b"\\",
            br#"{"a":"\u"#,
        ] {
            assert_eq!(repaired(sound), None);
        }
    }
}
