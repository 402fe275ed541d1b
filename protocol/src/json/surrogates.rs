//! Escapes of halves of surrogate pairs in JSON text: programs cut strings between the halves, and
//! strict readers refuse what is left. A half without the other becomes U+FFFD.

use std::borrow::Cow;

/// What stands where half a character stood: as long as the escape whose place it takes.
pub(crate) const LOST: &[u8; 6] = b"\\ufffd";

/// An escape, from its backslash on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Escape {
    /// Its bytes; those of both halves of a pair.
    pub(crate) length: usize,
    /// Whether it is half a pair.
    pub(crate) is_lone: bool,
}

/// The escape that the text begins with. One that is cut, or is none, is two bytes long: a reader of
/// JSON will say so.
pub(crate) fn escape(text: &[u8]) -> Escape {
    let second = || text.get(6..).and_then(unit);
    let (length, is_lone) = match unit(text) {
        Some(0xD800..=0xDBFF) if matches!(second(), Some(0xDC00..=0xDFFF)) => (12, false),
        Some(0xD800..=0xDFFF) => (6, true),
        Some(_) => (6, false),
        None => (2, false),
    };
    Escape { length, is_lone }
}

/// The UTF-16 unit that the escape at the beginning names.
fn unit(text: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = text.get(..6)? else {
        return None;
    };
    digits.iter().try_fold(0, |unit, &digit| {
        char::from(digit)
            .to_digit(16)
            .map(|digit| unit * 16 + digit)
    })
}

/// The text with whole pairs only.
pub(crate) fn mended(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut kept: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        at += found;
        let Escape { length, is_lone } = escape(bytes.get(at..).unwrap_or_default());
        let kept = if is_lone {
            Some(kept.get_or_insert_with(|| bytes.to_vec()))
        } else {
            None
        };
        if let Some(place) = kept.and_then(|kept| kept.get_mut(at..at + length)) {
            place.copy_from_slice(LOST);
        }
        at += length;
    }
    // Only whole escapes were changed, hence still UTF-8.
    kept.map_or(Cow::Borrowed(text), |kept| {
        Cow::Owned(String::from_utf8(kept).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pair_becomes_the_replacement_character() {
        for (written, wanted) in [
            (r#""a\ud83d\ude00b""#, r#""a\ud83d\ude00b""#),
            (r#""a\ud83d b""#, r#""a\ufffd b""#),
            (r#""a\uDE00""#, r#""a\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\ud83d\n\u00e9é""#, r#""\ufffd\n\u00e9é""#),
            (r"\u+d83", r"\u+d83"),
            (r"\ud83", r"\ud83"),
            (r"\", r"\"),
            (r"\ud83d\", r"\ufffd\"),
        ] {
            assert_eq!(mended(written), wanted);
        }
    }
}
