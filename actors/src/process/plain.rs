//! Text of others, made harmless for a terminal and for a reader.
//!
//! A line of a child may hold whatever its own input made it write. Sequences that move the cursor, set
//! the window's title or clear the screen, and letters that make text read in another order than it
//! stands, would let it forge lines of ours.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

/// Whether a letter does something to a terminal or to the order of the letters around it, instead of
/// being one.
pub fn deceives(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{200e}' | '\u{200f}' | '\u{061c}' // marks of direction
            | '\u{2028}'..='\u{202e}' // line and paragraph ends, embeddings, overrides
            | '\u{2066}'..='\u{2069}' // isolates
            | '\u{feff}')
}

/// The line without colours and cursor movements, and with every other letter that deceives escaped.
/// A tab is a tab. What needs no change, as nearly every line, is not copied.
pub(super) fn plain(line: &[u8]) -> Cow<'_, [u8]> {
    if line.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return Cow::Borrowed(line);
    }
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' && letters.peek() == Some(&'[') {
            skip_sequence(&mut letters);
        } else if letter != '\t' && deceives(letter) {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    Cow::Owned(out.into_bytes())
}

/// Passes over a control sequence whose first letter has been taken: a bracket, parameters, and one
/// final letter.
fn skip_sequence(letters: &mut Peekable<Chars<'_>>) {
    letters.next();
    while letters
        .next_if(|letter| matches!(letter, ' '..='?'))
        .is_some()
    {}
    letters.next_if(|letter| matches!(letter, '@'..='~'));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_gone() {
        let cases = [
            ("plain\ttext", "plain\ttext"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("a\u{1b}[2Jb\u{1b}[H", "ab"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{1b}c\u{1b}[", "\\u{1b}c"),
            ("ab\u{202e}dc", "ab\\u{202e}dc"),
            (
                "\u{2066}x\u{2069}\u{2028}y",
                "\\u{2066}x\\u{2069}\\u{2028}y",
            ),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("Grüße 漢字 🦀", "Grüße 漢字 🦀"),
        ];
        for (line, expected) in cases {
            let plain = plain(line.as_bytes());
            assert_eq!(String::from_utf8_lossy(&plain), expected, "{line:?}");
        }
        assert_eq!(&*plain(b"bad \xff byte"), "bad \u{fffd} byte".as_bytes());
    }
}
