//! Secrets in what other servers say: a model server may quote the key that it was called with, and
//! its words go on to clients, logs and the store.
//!
//! What passes is not copied unless a secret is in it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use memchr::memmem::Finder;

use crate::http1::{Body, BodyError};
use crate::secret::Secret;

/// Stands where a secret was.
const INSTEAD: &[u8] = b"[redacted]";
/// Shorter keys are no secrets but placeholders, such as `EMPTY`, and parts of ordinary words.
const SHORTEST: usize = 8;
/// Shorter keys without a digit may be ordinary words, such as `not-needed`, which a model may say.
const NO_WORD: usize = 20;

/// A secret in each of its spellings, made ready to be found; nothing where there is none.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Finder<'static>>);

/// What passes through in parts; a secret is found wherever it is cut.
#[derive(Debug, Default)]
struct Passing {
    secrets: Secrets,
    /// The end of what came, which may be the beginning of a secret.
    held: BytesMut,
}

/// A body without secrets.
#[derive(Debug)]
pub struct Redacted {
    body: Body,
    passing: Passing,
}

impl Secrets {
    /// This one, if it is there and a secret: for a server's words about a request.
    pub fn of(secret: Option<&Secret>) -> Self {
        let text = secret.map(Secret::expose);
        let text = text.filter(|text| text.len() >= SHORTEST);
        let spellings = text.map(spellings).unwrap_or_default();
        let finders = spellings.iter().map(|text| Finder::new(text).into_owned());
        Self(finders.collect())
    }

    /// The same for an answer, whose words are a model's: they are left alone unless they can only be
    /// the secret.
    #[must_use]
    pub fn in_answer(self) -> Self {
        let plain = self.0.first().map(Finder::needle);
        let word =
            plain.is_some_and(|text| text.len() < NO_WORD && !text.iter().any(u8::is_ascii_digit));
        if word { Self::default() } else { self }
    }

    /// Whether there is one.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// The text without secrets.
    pub fn redact(&self, text: Bytes) -> Bytes {
        self.0.iter().fold(text, |text, finder| {
            if finder.find(&text).is_none() {
                return text;
            }
            replaced(finder, &text).freeze()
        })
    }

    /// The beginning of a text without secrets, nor one that is cut off at its end.
    pub fn redact_beginning(&self, mut text: Vec<u8>) -> Bytes {
        text.truncate(text.len() - self.begun(&text));
        self.redact(text.into())
    }

    /// How many bytes at the end of the text may be the beginning of a secret.
    fn begun(&self, text: &[u8]) -> usize {
        let begun = self.0.iter().map(|finder| begun(finder.needle(), text));
        begun.max().unwrap_or(0)
    }

    /// A body whose secrets are replaced as it comes.
    pub fn strip(self, body: Body) -> Redacted {
        let passing = Passing {
            secrets: self,
            held: BytesMut::new(),
        };
        Redacted { body, passing }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secrets").field(&self.any()).finish()
    }
}

/// The secret as it is, and as JSON writers spell it that escape more than they must: PHP's `/`, and
/// .NET's `+` and what HTML has a meaning for. Words of an error are read only behind this.
fn spellings(secret: &str) -> Vec<String> {
    let coded = |spell: fn(u32) -> String| {
        let parts = secret.chars().map(|char| match char {
            '+' | '&' | '<' | '>' | '\'' | '`' | '"' => spell(u32::from(char)),
            _ => char.to_string(),
        });
        parts.collect::<String>()
    };
    let mut all = vec![secret.to_owned()];
    for other in [
        secret.replace('/', "\\/"),
        secret.replace('\\', "\\\\").replace('"', "\\\""),
        coded(|code| format!("\\u{code:04X}")),
        coded(|code| format!("\\u{code:04x}")),
        percent(secret, |byte| format!("%{byte:02X}")),
        percent(secret, |byte| format!("%{byte:02x}")),
        html(secret),
    ] {
        if !all.contains(&other) {
            all.push(other);
        }
    }
    all
}

/// As a URL has it.
fn percent(secret: &str, spell: fn(u8) -> String) -> String {
    let parts = secret.bytes().map(|byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            spell(byte)
        }
    });
    parts.collect()
}

/// As a page of errors has it.
fn html(secret: &str) -> String {
    let spelt = [
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("\"", "&quot;"),
    ];
    let secret = secret.to_owned();
    spelt
        .iter()
        .fold(secret, |text, (letter, name)| text.replace(letter, name))
}

fn replaced(finder: &Finder<'_>, text: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = finder.find(rest) {
        let (before, behind) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(INSTEAD);
        rest = behind.get(finder.needle().len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

impl Passing {
    /// What may go on of this part and of what was held back.
    fn take(&mut self, part: Bytes) -> Bytes {
        if !self.secrets.any() {
            return part;
        }
        let part = if self.held.is_empty() {
            part
        } else {
            self.held.extend_from_slice(&part);
            self.held.split().freeze()
        };
        let mut part = self.secrets.redact(part);
        let begun = self.secrets.begun(&part);
        self.held
            .extend_from_slice(&part.split_off(part.len() - begun));
        part
    }
}

/// How many bytes at the end of the text may be the beginning of the secret.
fn begun(secret: &[u8], text: &[u8]) -> usize {
    let from = text.len().saturating_sub(secret.len() - 1);
    let end = text.get(from..).unwrap_or_default();
    let Some(first) = secret.first() else {
        return 0;
    };
    memchr::memchr_iter(*first, end)
        .filter_map(|at| end.get(at..))
        .find(|rest| secret.starts_with(rest))
        .map_or(0, <[u8]>::len)
}

impl Stream for Redacted {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.body.poll_next_unpin(task)) {
                Some(Ok(part)) => {
                    let part = self.passing.take(part);
                    if !part.is_empty() {
                        return Poll::Ready(Some(Ok(part)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.passing.held.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Ok(self.passing.held.split().freeze()))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "sk-sk-abc/1";

    fn secrets() -> Secrets {
        Secrets::of(Some(&Secret::new(KEY)))
    }

    fn passed(parts: &[&[u8]]) -> Vec<u8> {
        let mut passing = Passing {
            secrets: secrets(),
            held: BytesMut::new(),
        };
        let mut out = Vec::new();
        for part in parts {
            out.extend_from_slice(&passing.take(Bytes::copy_from_slice(part)));
        }
        out.extend_from_slice(&passing.held);
        out
    }

    #[test]
    fn a_secret_is_replaced_and_all_else_passes() {
        let text = Bytes::from(format!("key {KEY} and {KEY}{KEY}."));
        let clean = secrets().redact(text.clone());
        assert_eq!(&clean[..], b"key [redacted] and [redacted][redacted].");
        assert_eq!(passed(&[&text]), clean);
        assert_eq!(&secrets().redact(Bytes::from("sk-sk-")), "sk-sk-");
        let none = Secrets::of(Some(&Secret::new("EMPTY")));
        assert!(!none.any());
        assert_eq!(none.redact(text.clone()), text);
        let word = Secrets::of(Some(&Secret::new("not-needed")));
        assert!(word.any() && !word.in_answer().any());
        assert!(secrets().in_answer().any());
    }

    /// Servers escape in JSON what they need not; who reads the words finds the secret again.
    #[test]
    fn a_secret_is_found_as_json_spells_it() {
        for (key, spelt) in [
            ("ab/cd/efgh1", r"ab\/cd\/efgh1"),
            ("ab+cd/efgh1=", r"ab\u002Bcd/efgh1="),
            ("ab+cd&efgh1=", r"ab\u002bcd\u0026efgh1="),
            (r#"ab"cd\efgh1"#, r#"ab\"cd\\efgh1"#),
            ("ab+cd/efgh1=", "ab%2Bcd%2Fefgh1%3D"),
            ("ab&cd<efgh1", "ab&amp;cd&lt;efgh1"),
        ] {
            let secrets = Secrets::of(Some(&Secret::new(key)));
            let text = format!(r#"{{"message":"key {spelt}."}}"#);
            let clean = r#"{"message":"key [redacted]."}"#;
            assert_eq!(&secrets.redact(Bytes::from(text.clone())), clean, "{key}");
            for cut in 0..text.len() {
                let (one, two) = text.split_at(cut);
                let mut passing = Passing {
                    secrets: secrets.clone(),
                    held: BytesMut::new(),
                };
                let mut out = passing
                    .take(Bytes::copy_from_slice(one.as_bytes()))
                    .to_vec();
                out.extend_from_slice(&passing.take(Bytes::copy_from_slice(two.as_bytes())));
                out.extend_from_slice(&passing.held);
                assert_eq!(out, clean.as_bytes(), "{key} {cut}");
            }
            let cut = text.len() - 4;
            let beginning = secrets.redact_beginning(text.as_bytes()[..cut].to_vec());
            assert_eq!(&beginning, r#"{"message":"key "#, "{key}");
        }
    }

    proptest! {
        /// However the text is cut: the same, and no secret.
        #[test]
        fn cuts_do_not_matter(
            words in proptest::collection::vec(prop_oneof![
                Just(KEY), Just("sk-"), Just("sk-sk-abc"), Just("/1"), Just("x"),
            ], 0..12),
            cuts in proptest::collection::vec(0..80_usize, 0..8),
        ) {
            let text = words.concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).collect();
            cuts.sort_unstable();
            let mut parts = Vec::new();
            let mut from = 0;
            for at in cuts.into_iter().chain([text.len()]) {
                parts.push(&text.as_bytes()[from..at]);
                from = at;
            }
            let out = passed(&parts);
            prop_assert_eq!(&out[..], &secrets().redact(Bytes::from(text))[..]);
            prop_assert!(!String::from_utf8_lossy(&out).contains(KEY));
        }
    }
}
