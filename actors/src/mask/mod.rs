//! Secrets in the words of others, found in whatever form the words have them.
//!
//! A form is undone in the text rather than made of each secret: JSON's escapes (several times, as of JSON
//! in a text of JSON), those of a URL, of HTML and of programs that print bytes. What is found in one of
//! these views is marked where it stands in the text itself, whose other letters stay. The work is linear
//! in the text, whoever wrote it: a secret is looked for in pieces of bounded length, all at once. Pure.

mod patterns;
mod views;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use patterns::Patterns;
use views::View;

/// What stands where a secret stood.
const MARK: &[u8] = b"***";
/// Shorter texts are no secrets: they are parts of ordinary words. In bytes.
pub const SHORTEST: usize = 8;
/// How many times JSON's escapes are undone: JSON in a text of JSON in a result that is JSON, and one more.
const LEVELS: usize = 4;
/// The longest that an escape may be whose rest was cut off, in bytes.
const ESCAPE: usize = 12;

/// Secrets, made ready to be found; copies share them.
#[derive(Clone, Default)]
pub struct Mask(Option<Arc<Patterns>>);

/// How a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing of it is missing.
    Whole,
    /// Its rest was cut off, and with it perhaps the rest of a secret.
    Cut,
}

impl Mask {
    /// Finds these texts, but those shorter than [`SHORTEST`].
    pub fn of<T: AsRef<str>>(secrets: impl IntoIterator<Item = T>) -> Self {
        let patterns = Patterns::of(secrets);
        Self((!patterns.is_empty()).then(|| Arc::new(patterns)))
    }

    /// The text with `***` where a secret stood.
    pub fn text(&self, text: Box<str>, end: End) -> Box<str> {
        match self.marked(text.as_bytes(), end) {
            Some(clean) => String::from_utf8_lossy(&clean).into(),
            None => text,
        }
    }

    /// The same for bytes, as of a line that need not be UTF-8.
    pub fn bytes<'a>(&self, bytes: Cow<'a, [u8]>, end: End) -> Cow<'a, [u8]> {
        match self.marked(&bytes, end) {
            Some(clean) => Cow::Owned(clean),
            None => bytes,
        }
    }

    fn marked(&self, text: &[u8], end: End) -> Option<Vec<u8>> {
        let patterns = self.0.as_deref()?;
        let mut found = Vec::new();
        let mut level = View::of(text);
        for _ in 0..=LEVELS {
            look(patterns, &level, end, &mut found);
            for undo in [views::encoded, views::html] {
                if let Some(view) = level.undone(undo) {
                    look(patterns, &view, end, &mut found);
                }
            }
            match level.undone(views::escaped) {
                Some(next) => level = next,
                None => break,
            }
        }
        (!found.is_empty()).then(|| without(text, found))
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mask").field(&self.0.is_some()).finish()
    }
}

/// Adds where the secrets of a view stand in the text.
fn look(patterns: &Patterns, view: &View<'_>, end: End, found: &mut Vec<Range<usize>>) {
    let first = found.len();
    let mut add = |place: Range<usize>| match found.get_mut(first..).and_then(<[_]>::last_mut) {
        Some(last) if place.start <= last.end => last.end = last.end.max(place.end),
        Some(_) | None => found.push(place),
    };
    for at in 0..view.bytes.len() {
        let rest = view.bytes.get(at..).unwrap_or_default();
        if let Some(length) = patterns.at_start(rest) {
            add(view.source(at)..view.source(at + length));
        }
    }
    if end == End::Cut {
        let whole = &view.bytes;
        let begun = [whole, uncut(whole)].map(|text| patterns.begun(text));
        if let Some(at) = begun.into_iter().flatten().min() {
            add(view.source(at)..view.source(whole.len()));
        }
    }
}

/// The text before a letter or an escape that the cut may have gone through.
fn uncut(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix("\u{fffd}".as_bytes()).unwrap_or(text);
    let from = text.len().saturating_sub(ESCAPE);
    let tail = text.get(from..).unwrap_or_default();
    let at = tail.iter().position(|byte| b"\\%&".contains(byte));
    at.and_then(|at| text.get(..from + at)).unwrap_or(text)
}

fn without(text: &[u8], mut found: Vec<Range<usize>>) -> Vec<u8> {
    found.sort_unstable_by_key(|place| (place.start, place.end));
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    let mut open: Option<Range<usize>> = None;
    let mut mark = |place: Range<usize>| {
        out.extend_from_slice(text.get(done..place.start).unwrap_or_default());
        out.extend_from_slice(MARK);
        done = place.end;
    };
    for place in found {
        match &mut open {
            Some(last) if place.start <= last.end => last.end = last.end.max(place.end),
            Some(_) | None => open.replace(place).into_iter().for_each(&mut mark),
        }
    }
    open.into_iter().for_each(&mut mark);
    out.extend_from_slice(text.get(done..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests;
