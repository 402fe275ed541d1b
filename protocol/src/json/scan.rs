//! One linear look over a request's bytes for what none may contain (fault C5).
//!
//! `serde_json` skips unread values without counting depth, checking surrogates or evaluating
//! numbers; what it skips here is handed to the model server later. Nothing here judges syntax:
//! that is `serde_json`'s, afterwards.

use crate::error::{ApiError, ApiErrorCode};

/// Most members of one object.
pub(crate) const MAX_MEMBERS: usize = 10_000;

/// Longest number, in bytes: more digits than any number that a program keeps exactly.
const MAX_NUMBER: usize = 1024;

/// Refuses a text that nests deeper than `max_depth`, has an object with too many members, a number
/// that is too long or beyond the range of a double, a lone surrogate or a NUL character.
pub(crate) fn scan(text: &str, max_depth: usize) -> Result<(), ApiError> {
    let bytes = text.as_bytes();
    // Members of each open container so far; never longer than `max_depth`.
    let mut open: Vec<usize> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = string(bytes, at)?,
            b'{' | b'[' => {
                if open.len() >= max_depth {
                    return Err(refuse(format!(
                        "the request body must not be nested deeper than {max_depth} levels"
                    )));
                }
                open.push(0);
            }
            b'}' | b']' => {
                open.pop();
            }
            b':' => count(&mut open)?,
            b'-' | b'0'..=b'9' => at = number(text, at - 1)?,
            _ => {}
        }
    }
    Ok(())
}

fn count(open: &mut [usize]) -> Result<(), ApiError> {
    if let Some(members) = open.last_mut() {
        *members += 1;
        if *members > MAX_MEMBERS {
            return Err(refuse(format!(
                "an object in the request body must not have more than {MAX_MEMBERS} members"
            )));
        }
    }
    Ok(())
}

/// Position after the string whose content begins at `at`.
fn string(bytes: &[u8], mut at: usize) -> Result<usize, ApiError> {
    loop {
        at += plain(bytes.get(at..).unwrap_or_default());
        match bytes.get(at) {
            Some(b'\\') if bytes.get(at + 1) == Some(&b'u') => at = escape(bytes, at)?,
            Some(b'\\') => at += 2,
            // The closing quote; or no end at all, which serde_json will say.
            Some(_) => return Ok(at + 1),
            None => return Ok(at),
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

/// Position after the `\u` escape at `at`, and its second half if it is a pair.
fn escape(bytes: &[u8], at: usize) -> Result<usize, ApiError> {
    match unit(bytes, at) {
        Some(0) => Err(refuse("the request body must not contain NUL characters")),
        Some(0xD800..=0xDBFF) => match unit(bytes, at + 6) {
            Some(0xDC00..=0xDFFF) => Ok(at + 12),
            _ => Err(lone()),
        },
        Some(0xDC00..=0xDFFF) => Err(lone()),
        Some(_) => Ok(at + 6),
        // No escape at all, which serde_json will say.
        None => Ok(at + 2),
    }
}

/// The UTF-16 unit that the escape at `at` names.
fn unit(bytes: &[u8], at: usize) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = bytes.get(at..at + 6)? else {
        return None;
    };
    digits.iter().try_fold(0, |unit, &digit| {
        char::from(digit)
            .to_digit(16)
            .map(|digit| unit * 16 + digit)
    })
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

fn lone() -> ApiError {
    refuse("a string in the request body has an unpaired surrogate escape")
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
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\udc00"}"#,
            r#"{"a":"\ud800\ud800"}"#,
            r#"{"a":"\uD83D x"}"#,
            r#"{"a":"x\u0000"}"#,
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
            &members(MAX_MEMBERS),
        ] {
            assert!(!refused(good), "{}", good.get(..40).unwrap_or(good));
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
