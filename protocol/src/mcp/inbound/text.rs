//! JSON text whose strings every reader takes.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::read;

/// What stands where half a character stood.
const LOST: &str = "\\ufffd";

/// The message as text: bytes that are no UTF-8, and escapes of half a surrogate pair, become U+FFFD.
pub(super) fn mended(message: &[u8]) -> Cow<'_, str> {
    // Some servers begin with a byte order mark.
    let message = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    let text = String::from_utf8_lossy(message);
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return text;
    }
    Cow::Owned(whole_pairs(&text))
}

fn whole_pairs(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        kept.push_str(before);
        rest = match unit(after) {
            Some(0xd800..=0xdbff) => {
                let (high, behind) = after.split_at_checked(5).unwrap_or((after, ""));
                let low = behind.strip_prefix('\\').filter(|low| {
                    let low = unit(low);
                    low.is_some_and(|low| (0xdc00..=0xdfff).contains(&low))
                });
                if let Some((low, behind)) = low.and_then(|low| low.split_at_checked(5)) {
                    kept.push('\\');
                    kept.push_str(high);
                    kept.push('\\');
                    kept.push_str(low);
                    behind
                } else {
                    kept.push_str(LOST);
                    behind
                }
            }
            Some(0xdc00..=0xdfff) => {
                kept.push_str(LOST);
                after.get(5..).unwrap_or_default()
            }
            Some(_) | None => {
                kept.push('\\');
                let mut characters = after.chars();
                kept.extend(characters.next());
                characters.as_str()
            }
        };
    }
    kept.push_str(rest);
    kept
}

/// The code unit of an escape, behind its backslash.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('u')?.get(..4)?;
    u32::from_str_radix(digits, 16).ok()
}

/// The text of a JSON string; nothing for what is none.
pub(super) fn of(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    read::text(raw?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pair_becomes_the_replacement_character() {
        for (written, wanted) in [
            (r#""a\ud83d\ude00b""#, "a\u{1f600}b"),
            (r#""a\ud83d b""#, "a\u{fffd} b"),
            (r#""a\uDE00""#, "a\u{fffd}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\\ud83d""#, "\\ud83d"),
            (r#""\ud83d\n""#, "\u{fffd}\n"),
        ] {
            let mended = mended(written.as_bytes());
            let text: String = serde_json::from_str(&mended).unwrap();
            assert_eq!(text, wanted, "{written}");
        }
        assert_eq!(
            mended(b"\xef\xbb\xbf{\"a\":\"\xff\"}"),
            "{\"a\":\"\u{fffd}\"}"
        );
        for cut in [r"\ud83d", r"\ud83", r"\", r"\ud83d\"] {
            drop(mended(cut.as_bytes()));
        }
    }
}
