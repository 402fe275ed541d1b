//! One linear look over a request's bytes for what none may contain (fault C5).
//!
//! `serde_json` skips unread values without counting depth, checking surrogates or evaluating
//! numbers; what it skips here is handed to the model server later. Nothing here judges syntax:
//! that is `serde_json`'s, afterwards.
//!
//! Half a surrogate pair is mended and not refused: programs cut strings between the halves, and a
//! client that has such an item in its history could never go on. NUL is a character like others:
//! tools print it, and the store and the model server are sent it escaped.

use std::borrow::Cow;

use super::surrogates::{Escape, LOST, escape};
use crate::error::{ApiError, ApiErrorCode};

/// Most members of one object.
pub(crate) const MAX_MEMBERS: usize = 10_000;

/// Most elements of one array.
pub(crate) const MAX_ELEMENTS: usize = 1_000_000;

/// Longest number, in bytes: more digits than any number that a program keeps exactly.
const MAX_NUMBER: usize = 1024;

/// Refuses a text that nests deeper than `max_depth`, has an object with too many members, an array
/// with too many elements, or a number that is too long or beyond the range of a double. Gives the
/// text, with U+FFFD for every lone surrogate.
pub(crate) fn scan(text: &str, max_depth: usize) -> Result<Cow<'_, str>, ApiError> {
    let mut lone = false;
    look(text, max_depth, &mut |_| lone = true)?;
    if !lone {
        return Ok(Cow::Borrowed(text));
    }
    let mut mended = text.as_bytes().to_vec();
    look(text, max_depth, &mut |at| {
        // As long as the escape whose place it takes.
        if let Some(escape) = mended.get_mut(at..at + LOST.len()) {
            escape.copy_from_slice(LOST);
        }
    })?;
    // Only whole escapes were changed, hence still UTF-8.
    Ok(Cow::Owned(String::from_utf8(mended).unwrap_or_default()))
}

/// Looks over the text; says where lone surrogates are.
fn look(text: &str, max_depth: usize, lone: &mut dyn FnMut(usize)) -> Result<(), ApiError> {
    let bytes = text.as_bytes();
    // Members of each open container so far; never longer than `max_depth`.
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = string(bytes, at, lone),
            b'{' | b'[' => {
                if open.len() >= max_depth {
                    return Err(refuse(format!(
                        "the request body must not be nested deeper than {max_depth} levels"
                    )));
                }
                open.push(Open::default());
            }
            b'}' | b']' => {
                open.pop();
            }
            b':' | b',' => count(&mut open, byte)?,
            b'-' | b'0'..=b'9' => at = number(text, at - 1)?,
            _ => {}
        }
    }
    Ok(())
}

/// What an open container has so far.
#[derive(Default)]
struct Open {
    colons: usize,
    commas: usize,
}

fn count(open: &mut [Open], byte: u8) -> Result<(), ApiError> {
    let Some(container) = open.last_mut() else {
        return Ok(());
    };
    if byte == b':' {
        container.colons += 1;
        if container.colons > MAX_MEMBERS {
            return Err(refuse(format!(
                "an object in the request body must not have more than {MAX_MEMBERS} members"
            )));
        }
    } else {
        container.commas += 1;
        if container.commas >= MAX_ELEMENTS {
            return Err(refuse(format!(
                "an array in the request body must not have more than {MAX_ELEMENTS} elements"
            )));
        }
    }
    Ok(())
}

/// Position after the string whose content begins at `at`.
fn string(bytes: &[u8], mut at: usize, lone: &mut dyn FnMut(usize)) -> usize {
    loop {
        at += plain(bytes.get(at..).unwrap_or_default());
        match bytes.get(at) {
            Some(b'\\') => {
                let Escape { length, is_lone } = escape(bytes.get(at..).unwrap_or_default());
                if is_lone {
                    lone(at);
                }
                at += length;
            }
            // The closing quote; or no end at all, which serde_json will say.
            Some(_) => return at + 1,
            None => return at,
        }
    }
}

/// How many bytes come before the next quote or backslash; eight at a time, since this is where
/// nearly all bytes of a request are.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (words, _) = bytes.as_chunks::<8>();
    let zero_in = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let clean = words
        .iter()
        .take_while(|word| {
            let word = u64::from_le_bytes(**word);
            let quote = word ^ (ONES * u64::from(b'"'));
            let backslash = word ^ (ONES * u64::from(b'\\'));
            (zero_in(quote) | zero_in(backslash)) == 0
        })
        .count()
        * 8;
    let rest = bytes.get(clean..).unwrap_or_default();
    clean
        + rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\'))
            .unwrap_or(rest.len())
}

/// Position after the number that begins at `at`.
fn number(text: &str, at: usize) -> Result<usize, ApiError> {
    let rest = text.get(at..).unwrap_or_default();
    let length = rest
        .bytes()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        .unwrap_or(rest.len());
    let digits = rest.get(..length).unwrap_or_default();
    if length > MAX_NUMBER {
        return Err(refuse("a number in the request body has too many digits"));
    }
    // Short ones without an exponent cannot leave the range.
    if length > 300 || digits.contains(['e', 'E']) {
        let finite = digits.parse::<f64>().is_ok_and(f64::is_finite);
        if !finite {
            return Err(refuse(
                "a number in the request body is outside the range of a double",
            ));
        }
    }
    Ok(at + length.max(1))
}

fn refuse(message: impl Into<String>) -> ApiError {
    ApiError::new(ApiErrorCode::InvalidJson, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> bool {
        scan(text, 8).is_err()
    }

    #[test]
    fn c5_table() {
        let members = |count: usize| {
            let members: Vec<String> = (0..count).map(|at| format!("\"k{at}\":1")).collect();
            format!("{{{}}}", members.join(","))
        };
        for bad in [
            "[".repeat(100_000).as_str(),
            "[[[[[[[[[1]]]]]]]]]",
            &format!("[{}1]", "1,".repeat(MAX_ELEMENTS)),
            r#"{"a":1e999}"#,
            r#"{"a":-1E+999}"#,
            &"9".repeat(10_000_000),
            &members(1_000_000),
        ] {
            assert!(refused(bad), "{}", bad.get(..40).unwrap_or(bad));
        }
        for good in [
            "[[[[[[[[1]]]]]]]]",
            r#"{"a":"\ud83d\ude00 \\u0000 \\\" \u00e9"}"#,
            r#"{"a":1e308,"b":-0.5E-400}"#,
            r#"{"a":"x\u0000"}"#,
            &members(MAX_MEMBERS),
            &format!("[{}1]", "1,".repeat(MAX_ELEMENTS - 1)),
        ] {
            assert!(!refused(good), "{}", good.get(..40).unwrap_or(good));
        }
    }

    #[test]
    fn half_a_surrogate_pair_becomes_the_replacement_character() {
        for (given, mended) in [
            (r#"{"a":"\ud800"}"#, r#"{"a":"\ufffd"}"#),
            (r#"{"a\udc00":"\udc00x"}"#, r#"{"a\ufffd":"\ufffdx"}"#),
            (r#"["\ud800\ud800","é"]"#, r#"["\ufffd\ufffd","é"]"#),
            (r#"["\uD83D x\ud83d\ude00"]"#, r#"["\ufffd x\ud83d\ude00"]"#),
            (
                r#"["\\ud800","\ud83d\ude00"]"#,
                r#"["\\ud800","\ud83d\ude00"]"#,
            ),
        ] {
            assert_eq!(scan(given, 8).unwrap(), mended);
        }
    }

    #[test]
    fn quotes_and_backslashes_are_found_at_every_offset() {
        for offset in 0..20 {
            for byte in ['"', '\\'] {
                let text = format!("{}{byte}{}", "é1".repeat(offset), "x".repeat(9));
                assert_eq!(plain(text.as_bytes()), offset * 3);
            }
        }
    }
}
