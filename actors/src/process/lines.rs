//! Lines of a child: cut from its bytes, kept, and rid of what must not be told. Pure.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::plain::plain;
use crate::mask::{End, Mask};

/// How many lines of a child are kept.
pub const LAST_LINES: usize = 50;
/// Longer lines are cut: 50 of them stay well below the ring of 1 MiB that a child may cost.
const LONGEST_LINE: usize = 8 * 1024;

/// Cuts a byte stream into lines. Carriage return ends a line as line feed does, so that a progress
/// bar shows its newest state; empty lines are left out.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The beginning of a line whose end has not come yet, at most [`LONGEST_LINE`].
    partial: Vec<u8>,
}

impl Splitter {
    pub(super) fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        let mut pieces = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).peekable();
        while let Some(piece) = pieces.next() {
            let is_complete = pieces.peek().is_some();
            if is_complete && self.partial.is_empty() {
                emit(piece, &mut line);
                continue;
            }
            let room = LONGEST_LINE - self.partial.len();
            self.partial
                .extend_from_slice(piece.get(..room).unwrap_or(piece));
            if is_complete {
                emit(&self.partial, &mut line);
                self.partial.clear();
            }
        }
    }

    /// The last line, if it had no end.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        emit(&self.partial, &mut line);
        self.partial.clear();
    }
}

fn emit(text: &[u8], line: &mut impl FnMut(&[u8])) {
    if !text.is_empty() {
        line(text.get(..LONGEST_LINE).unwrap_or(text));
    }
}

/// The newest lines of a child, in buffers that are used again.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<Vec<u8>>);

impl Tail {
    pub(super) fn push(&mut self, line: &[u8]) {
        let mut buffer = if self.0.len() == LAST_LINES {
            self.0.pop_front().unwrap_or_default()
        } else {
            Vec::new()
        };
        buffer.clear();
        buffer.extend_from_slice(line);
        self.0.push_back(buffer);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect()
    }
}

/// The line without what deceives and without secrets, of which the cut of a long line may leave the
/// beginning.
pub(super) fn told<'a>(line: &'a [u8], secrets: &Mask) -> Cow<'a, [u8]> {
    let end = if line.len() < LONGEST_LINE {
        End::Whole
    } else {
        End::Cut
    };
    secrets.bytes(plain(line), end)
}

pub(super) fn is_hidden(line: &[u8], hidden: &[&str]) -> bool {
    let holds = |text: &&str| memchr::memmem::find(line, text.as_bytes()).is_some();
    hidden.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(parts: &[&[u8]]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        let mut keep = |line: &[u8]| lines.push(String::from_utf8_lossy(line).into_owned());
        for part in parts {
            splitter.feed(part, &mut keep);
        }
        splitter.finish(&mut keep);
        lines
    }

    #[test]
    fn every_split_of_the_bytes_gives_the_same_lines() {
        let text = b"one\r\ntwo\n\nload 1%\rload 2%\rlast";
        let whole = vec!["one", "two", "load 1%", "load 2%", "last"];
        for cut in 0..text.len() {
            let (head, tail) = text.split_at(cut);
            assert_eq!(split(&[head, tail]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn p7_a_line_without_end_is_cut_and_costs_its_limit_only() {
        let mut splitter = Splitter::default();
        for _ in 0..100 {
            splitter.feed(&[b'x'; 4096], |_| panic!("no line has ended"));
        }
        assert_eq!(splitter.partial.len(), LONGEST_LINE);
        let mut lines = Vec::new();
        splitter.feed(b"y\nnext\n", |line| lines.push(line.len()));
        assert_eq!(lines, [LONGEST_LINE, 4]);
        assert_eq!(split(&[&vec![b'z'; 20_000], b"\n"])[0].len(), LONGEST_LINE);
    }

    /// The fault: lines were not read as results are, and the end of a long one told half a secret.
    #[test]
    fn a_secret_in_a_line_is_marked_and_every_other_line_is_not_copied() {
        let secrets = Mask::of(["key-of-the-program", "p\u{e4}sswort-1"]);
        let line = |text: &'static [u8]| told(text, &secrets);
        assert_eq!(
            *line(b"a key-of-the-program, key-of-the-program"),
            *b"a ***, ***"
        );
        assert_eq!(*line(b"\xffkey-of-the-program"), *"\u{fffd}***".as_bytes());
        assert_eq!(*line(br#"{"p": "p\u00e4sswort-1"}"#), *br#"{"p": "***"}"#);
        assert!(matches!(line(b"key-of-the"), Cow::Borrowed(_)));
        let long = format!("{}key-of-the-program", "x".repeat(LONGEST_LINE - 6));
        let said = split(&[long.as_bytes(), b"\n"]).remove(0);
        let said = told(said.as_bytes(), &secrets);
        assert_eq!(
            *said,
            *format!("{}***", "x".repeat(LONGEST_LINE - 6)).as_bytes()
        );
    }
}
