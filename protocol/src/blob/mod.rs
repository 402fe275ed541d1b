//! Large data URLs in stored conversations: their data is kept once, beside the rows that refer to it.
//!
//! Three forms of one text:
//!
//! - **whole**, as clients send it and as model servers and clients get it;
//! - **stored**: behind `data:...,` stands a reference instead of the data. It is between two control
//!   characters that JSON allows nowhere in a text, so no client can write one, and a version that
//!   does not know references takes the row for damaged instead of showing a model half of it;
//! - **marked**, in memory: the reference is a word that only this process can write ([`Marks`]). Items
//!   stay what they are, and whatever writes a mark, however nested, writes it unchanged.
//!
//! Data with a character that JSON escapes stays where it is: it would not be the same at each depth.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use memchr::{memchr, memchr2, memmem};
use sha2::{Digest as _, Sha256};

use crate::record::Record;

/// Data URLs with more bytes than this are taken out of their text.
pub const LEAST: usize = 64 << 10;

/// Where the head of a data URL has its comma at the latest.
const HEAD: usize = 256;

/// Both ends of a stored reference.
const FENCE: u8 = 0x01;
/// Behind the first of them; other ways to name data may come.
const KIND: &str = "sha256:";

const HASH_DIGITS: usize = 64;
const NONCE_DIGITS: usize = 32;
const LENGTH_DIGITS: usize = 16;
const WORD: &str = "vrblob-";
/// `vrblob-NONCE-`.
const PREFIX: usize = WORD.len() + NONCE_DIGITS + 1;
/// `vrblob-NONCE-HASH-LENGTH`.
const MARK: usize = PREFIX + HASH_DIGITS + 1 + LENGTH_DIGITS;

/// The member whose text goes to servers that are not the model's: it stays whole.
const ARGUMENTS: &[u8] = b"\"arguments\":";

/// Which data, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobRef {
    hash: [u8; 32],
    bytes: usize,
}

impl BlobRef {
    /// Of this data.
    pub fn of(data: &str) -> Self {
        Self {
            hash: Sha256::digest(data.as_bytes()).into(),
            bytes: data.len(),
        }
    }

    /// SHA-256 of the data, in hexadecimal digits.
    pub fn digits(&self) -> String {
        self.to_string()
    }

    /// Length of the data.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn read(hash: &str, bytes: usize) -> Option<Self> {
        let mut read = [0; 32];
        let digit = |byte: u8| char::from(byte).to_digit(16);
        if hash.len() != HASH_DIGITS {
            return None;
        }
        for (byte, digits) in read.iter_mut().zip(hash.as_bytes().chunks(2)) {
            let [high, low] = digits else { return None };
            *byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
        }
        Some(Self { hash: read, bytes })
    }
}

impl fmt::Display for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hash
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Data that a record refers to.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    /// Which.
    pub at: BlobRef,
    /// The data itself: printable ASCII. `None` when it was stored before.
    pub data: Option<Box<str>>,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Data is a client's.
        f.debug_struct("Blob")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// A piece of a text that was cut at its marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes of the text.
    Text(Range<usize>),
    /// This data.
    Blob(BlobRef),
}

/// Writes and finds the marks of one process. Who does not know its number cannot write one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Marks(u128);

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Marks")
    }
}

impl Marks {
    /// With this number, which nobody can guess.
    pub const fn new(number: u128) -> Self {
        Self(number)
    }

    fn prefix(self) -> String {
        format!("{WORD}{:032x}-", self.0)
    }

    fn mark(self, blob: BlobRef) -> String {
        format!("{}{blob}-{:016x}", self.prefix(), blob.bytes)
    }

    /// A stored text, marked. What is damaged stays as it is, and is no JSON.
    pub fn read(self, stored: &str) -> Cow<'_, str> {
        let Some(first) = memchr(FENCE, stored.as_bytes()) else {
            return Cow::Borrowed(stored);
        };
        let mut marked = String::with_capacity(stored.len());
        let (begin, rest) = stored.split_at(first);
        marked.push_str(begin);
        let fence = char::from(FENCE);
        let mut rest = rest;
        while let Some(behind) = rest.strip_prefix(fence) {
            let (name, next) = behind.split_once(fence).unwrap_or((behind, ""));
            match named(name) {
                Some(blob) => marked.push_str(&self.mark(blob)),
                None => return Cow::Borrowed(stored),
            }
            let text = next.split(fence).next().unwrap_or_default();
            marked.push_str(text);
            rest = next.strip_prefix(text).unwrap_or_default();
        }
        Cow::Owned(marked)
    }

    /// Where the marks of a text are.
    fn find(self, text: &[u8]) -> impl Iterator<Item = (Range<usize>, BlobRef)> {
        let prefix = self.prefix();
        let found: Vec<usize> = memmem::find_iter(text, prefix.as_bytes()).collect();
        found.into_iter().filter_map(move |at| {
            let rest = text.get(at + PREFIX..at + MARK)?;
            let (hash, length) = std::str::from_utf8(rest)
                .ok()?
                .split_at_checked(HASH_DIGITS)?;
            let bytes = usize::from_str_radix(length.strip_prefix('-')?, 16).ok()?;
            Some((at..at + MARK, BlobRef::read(hash, bytes)?))
        })
    }

    /// Whether a text has marks.
    pub fn are_in(self, text: &[u8]) -> bool {
        self.find(text).next().is_some()
    }

    /// Cuts a marked text; one piece when it has no marks.
    pub fn cut(self, text: &[u8]) -> Vec<Piece> {
        let (mut pieces, mut at) = (Vec::new(), 0);
        for (range, blob) in self.find(text) {
            pieces.push(Piece::Text(at..range.start));
            pieces.push(Piece::Blob(blob));
            at = range.end;
        }
        pieces.push(Piece::Text(at..text.len()));
        pieces
    }

    /// Length of a marked text when it is whole.
    pub fn whole_length(self, text: &[u8]) -> usize {
        let marks = self.find(text);
        marks.fold(text.len(), |length, (_, blob)| {
            length.saturating_sub(MARK).saturating_add(blob.bytes)
        })
    }

    /// The beginning of a marked text for people: in place of marks stands how much it is.
    pub fn shown(self, text: &[u8], most: usize) -> Vec<u8> {
        let mut shown = Vec::with_capacity(most.min(text.len()));
        for piece in self.cut(text) {
            match piece {
                Piece::Text(range) => {
                    let text = text.get(range).unwrap_or_default();
                    shown.extend_from_slice(text.get(..most).unwrap_or(text));
                }
                Piece::Blob(blob) => {
                    shown.extend_from_slice(format!("[{} bytes]", blob.bytes).as_bytes());
                }
            }
            if shown.len() >= most {
                break;
            }
        }
        shown.truncate(most);
        shown
    }

    /// A JSON text in the form that is the same whether its data is there or marked.
    pub(crate) fn canonical(self, text: &str) -> Cow<'_, str> {
        let taken_out = self.taken_out(text, LEAST, &mut Vec::new());
        taken_out.map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// A record as it is stored, with the data that it refers to. Reads all of it: not on a thread
    /// that serves others where it is large.
    pub fn store(self, mut record: Box<Record>) -> Box<Record> {
        for text in [&mut record.input_items, &mut record.response] {
            if let Some(stored) = self.taken_out(text, LEAST, &mut record.blobs) {
                *text = stored.into();
            }
        }
        record
    }

    /// A whole or marked text in its stored form; `None` when that is the same. Data that it refers to
    /// is put to the other data, each once.
    fn taken_out(self, text: &str, least: usize, blobs: &mut Vec<Blob>) -> Option<String> {
        let bytes = text.as_bytes();
        let mut cuts: Vec<(Range<usize>, BlobRef)> = self.find(bytes).collect();
        for (_, at) in &cuts {
            remember(blobs, *at, || None);
        }
        if bytes.len() > least {
            let marked = cuts.len();
            for range in data_in(bytes, least) {
                let holds = |(mark, _): &(Range<usize>, BlobRef)| range.contains(&mark.start);
                let Some(data) = text.get(range.clone()) else {
                    continue;
                };
                if !cuts.iter().take(marked).any(holds) {
                    let at = BlobRef::of(data);
                    remember(blobs, at, || Some(data.into()));
                    cuts.push((range, at));
                }
            }
            cuts.sort_unstable_by_key(|(range, _)| range.start);
        }
        if cuts.is_empty() {
            return None;
        }
        let mut stored = String::new();
        let mut at = 0;
        let fence = char::from(FENCE);
        for (range, blob) in cuts {
            stored.push_str(text.get(at..range.start).unwrap_or_default());
            let reference = format!("{fence}{KIND}{blob}:{}{fence}", blob.bytes);
            stored.push_str(&reference);
            at = range.end;
        }
        stored.push_str(text.get(at..).unwrap_or_default());
        Some(stored)
    }
}

/// Puts data to the other data unless it is there.
fn remember(blobs: &mut Vec<Blob>, at: BlobRef, data: impl FnOnce() -> Option<Box<str>>) {
    match blobs.iter_mut().find(|blob| blob.at == at) {
        Some(blob) if blob.data.is_some() => {}
        Some(blob) => blob.data = data(),
        None => blobs.push(Blob { at, data: data() }),
    }
}

/// What stands between the ends of a stored reference.
fn named(name: &str) -> Option<BlobRef> {
    let (hash, bytes) = name.strip_prefix(KIND)?.split_once(':')?;
    BlobRef::read(hash, bytes.parse().ok()?)
}

/// Where a JSON text has the data of large data URLs.
fn data_in(text: &[u8], least: usize) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(quote) = memchr(b'"', text.get(at..).unwrap_or_default()) {
        let begin = at + quote + 1;
        let end = end_of_string(text, begin);
        at = end + 1;
        if end.saturating_sub(begin) <= least {
            continue;
        }
        let before = text.get(..begin - 1).unwrap_or_default();
        if !before.trim_ascii_end().ends_with(ARGUMENTS) {
            found.extend(data_of(text.get(begin..end).unwrap_or_default(), begin));
        }
    }
    found
}

/// Where the data is in a string that is a data URL and stands there.
fn data_of(string: &[u8], begin: usize) -> Option<Range<usize>> {
    const SCHEME: &[u8] = b"data:";
    if !string.starts_with(SCHEME) {
        return None;
    }
    let head = string.get(..HEAD).unwrap_or(string);
    let comma = memchr(b',', head)?;
    let data = string.get(comma + 1..)?;
    let is_plain = |byte: &u8| (0x20..0x7f).contains(byte) && *byte != b'\\';
    let range = begin + comma + 1..begin + string.len();
    (!data.is_empty() && data.iter().all(is_plain)).then_some(range)
}

/// Where the string that begins there has its last quote, or the text its end.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found;
        if text.get(at) == Some(&b'"') {
            return at;
        }
        at += 2;
    }
    text.len()
}
