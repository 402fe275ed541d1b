//! A text with one way of escaping undone, and where each of its bytes stands in the text itself. Pure.

use std::borrow::Cow;

/// A text as a reader sees it.
pub(super) struct View<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    /// Where each byte comes from, and the end; without it each comes from its own place. Texts are at
    /// most some MiB long.
    from: Option<Vec<u32>>,
}

/// Adds what the escape at the beginning of a text stands for, and says how many bytes the escape has;
/// 0 where there is none.
pub(super) type Undo = fn(&[u8], &mut Vec<u8>) -> usize;

impl<'a> View<'a> {
    /// The text itself.
    pub(super) fn of(text: &'a [u8]) -> Self {
        Self {
            bytes: Cow::Borrowed(text),
            from: None,
        }
    }

    /// Where a byte of the view stands in the text.
    pub(super) fn source(&self, at: usize) -> usize {
        match &self.from {
            None => at,
            Some(from) => from
                .get(at)
                .and_then(|at| usize::try_from(*at).ok())
                .unwrap_or(at),
        }
    }

    /// The view without such escapes, if it has any.
    pub(super) fn undone(&self, undo: Undo) -> Option<View<'static>> {
        let starts = |byte: &u8| matches!(byte, b'\\' | b'%' | b'&');
        self.bytes.iter().find(|byte| starts(byte))?;
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut from = Vec::with_capacity(self.bytes.len() + 1);
        let mut at = 0;
        let mut any = false;
        while let Some(first) = self.bytes.get(at) {
            let source = u32::try_from(self.source(at)).ok()?;
            let taken = if starts(first) {
                undo(self.bytes.get(at..)?, &mut bytes)
            } else {
                0
            };
            any |= taken > 0;
            if taken == 0 {
                bytes.push(*first);
            }
            from.resize(bytes.len(), source);
            at += taken.max(1);
        }
        from.push(u32::try_from(self.source(at)).ok()?);
        any.then_some(View {
            bytes: Cow::Owned(bytes),
            from: Some(from),
        })
    }
}

/// What a backslash begins in JSON, and in the words of programs that print texts of theirs.
pub(super) fn escaped(text: &[u8], out: &mut Vec<u8>) -> usize {
    let Some((b'\\', behind)) = text.split_first() else {
        return 0;
    };
    let letter = match behind.first() {
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(quoted @ (b'\\' | b'/' | b'"' | b'\'')) => char::from(*quoted),
        Some(b'x') => return numbered(behind, 2, 2, out),
        Some(b'U') => return numbered(behind, 8, 2, out),
        Some(b'u') => return unicode(behind, out),
        Some(_) | None => return 0,
    };
    push(letter, out);
    2
}

/// A `u` and four digits, two such for letters above, or digits in braces.
fn unicode(text: &[u8], out: &mut Vec<u8>) -> usize {
    if text.get(1) == Some(&b'{') {
        let digits = text.iter().skip(2).position(|byte| *byte == b'}');
        let digits = digits.filter(|digits| (1..=6).contains(digits));
        let code = digits.and_then(|digits| number(text.get(2..2 + digits)?, 16));
        let letter = code.and_then(char::from_u32);
        return match (letter, digits) {
            (Some(letter), Some(digits)) => {
                push(letter, out);
                digits + 4
            }
            _ => 0,
        };
    }
    let half = |at: usize| number(text.get(at..at + 4)?, 16);
    let Some(high @ 0xd800..0xdc00) = half(1) else {
        return numbered(text, 4, 2, out);
    };
    let low = text.get(5..7).filter(|between| *between == b"\\u");
    let low = low
        .and_then(|_| half(7))
        .filter(|low| (0xdc00..0xe000).contains(low));
    let letter = low.and_then(|low| {
        let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        char::from_u32(code)
    });
    letter.map_or(0, |letter| {
        push(letter, out);
        12
    })
}

/// A letter by its number, behind one byte that names the kind. `before` are the bytes of the escape in
/// front of the digits.
fn numbered(text: &[u8], digits: usize, before: usize, out: &mut Vec<u8>) -> usize {
    let code = text
        .get(1..=digits)
        .and_then(|digits| number(digits, 16))
        .and_then(char::from_u32);
    code.map_or(0, |letter| {
        push(letter, out);
        before + digits
    })
}

/// Bytes as a URL has them, and as programs print those that they take for no text.
pub(super) fn encoded(text: &[u8], out: &mut Vec<u8>) -> usize {
    let start = match text {
        [b'%', ..] => 1,
        [b'\\', b'x', ..] => 2,
        _ => return 0,
    };
    let byte = text
        .get(start..start + 2)
        .and_then(|digits| number(digits, 16));
    let byte = byte.and_then(|byte| u8::try_from(byte).ok());
    byte.map_or(0, |byte| {
        out.push(byte);
        start + 2
    })
}

/// Letters as a page has them, by name or number.
pub(super) fn html(text: &[u8], out: &mut Vec<u8>) -> usize {
    let Some((b'&', behind)) = text.split_first() else {
        return 0;
    };
    let end = behind.iter().take(10).position(|byte| *byte == b';');
    let Some((end, name)) = end.and_then(|end| Some((end, behind.get(..end)?))) else {
        return 0;
    };
    let letter = match name {
        b"amp" => Some('&'),
        b"lt" => Some('<'),
        b"gt" => Some('>'),
        b"quot" => Some('"'),
        b"apos" => Some('\''),
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16).and_then(char::from_u32),
        [b'#', digits @ ..] => number(digits, 10).and_then(char::from_u32),
        _ => None,
    };
    letter.map_or(0, |letter| {
        push(letter, out);
        end + 2
    })
}

/// Digits alone: no sign.
fn number(digits: &[u8], base: u32) -> Option<u32> {
    digits.first().filter(|first| first.is_ascii_hexdigit())?;
    u32::from_str_radix(str::from_utf8(digits).ok()?, base).ok()
}

fn push(letter: char, out: &mut Vec<u8>) {
    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
}
