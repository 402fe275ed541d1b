//! Many texts that are looked for at once. Pure.

use super::SHORTEST;

/// Longer secrets are looked for in pieces of this many bytes, so that no text of others, and be it made
/// for that, has a place where more is compared; a secret of which a part is told is found too.
const LONGEST: usize = 256;
/// Words of 64 bits in the filter.
const WORDS: usize = 1024;

/// The texts, in an order in which the one that a place begins with is found by halving.
pub(super) struct Patterns {
    sorted: Vec<Pattern>,
    /// A bit for the first eight bytes of each: nearly all places of a text are passed over by one look.
    filter: Vec<u64>,
}

struct Pattern {
    text: Box<[u8]>,
    /// Where the longest other one is that this one begins with.
    parent: Option<usize>,
}

impl Patterns {
    pub(super) fn of<T: AsRef<str>>(secrets: impl IntoIterator<Item = T>) -> Self {
        let mut texts: Vec<Box<[u8]>> = Vec::new();
        for secret in secrets {
            let pieces = pieces(secret.as_ref());
            texts.extend(pieces.into_iter().map(|piece| piece.as_bytes().into()));
        }
        texts.sort_unstable();
        texts.dedup();
        let mut filter = vec![0; WORDS];
        let mut sorted: Vec<Pattern> = Vec::with_capacity(texts.len());
        for text in texts {
            let mut parent = sorted.len().checked_sub(1);
            while let Some(other) = parent.and_then(|at| sorted.get(at)) {
                if text.starts_with(&other.text) {
                    break;
                }
                parent = other.parent;
            }
            if let Some((word, bit)) = place(&text)
                && let Some(word) = filter.get_mut(word)
            {
                *word |= bit;
            }
            sorted.push(Pattern { text, parent });
        }
        Self { sorted, filter }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Bytes of the longest one that the text begins with.
    pub(super) fn at_start(&self, text: &[u8]) -> Option<usize> {
        let (word, bit) = place(text)?;
        self.filter.get(word).filter(|word| *word & bit != 0)?;
        let mut at = self.not_above(text).checked_sub(1)?;
        loop {
            let pattern = self.sorted.get(at)?;
            if text.starts_with(&pattern.text) {
                return Some(pattern.text.len());
            }
            at = pattern.parent?;
        }
    }

    /// Where the longest end of the text begins that is the beginning of one of these, but not the whole.
    pub(super) fn begun(&self, text: &[u8]) -> Option<usize> {
        let from = text.len().saturating_sub(LONGEST - 1);
        (from..text.len()).find(|at| {
            let rest = text.get(*at..).unwrap_or_default();
            let next = self.sorted.get(self.not_above(rest));
            next.is_some_and(|pattern| pattern.text.starts_with(rest))
        })
    }

    /// How many are not above the text in order: the last of them, or one that it begins with, is the
    /// longest that the text begins with.
    fn not_above(&self, text: &[u8]) -> usize {
        self.sorted
            .partition_point(|pattern| *pattern.text <= *text)
    }
}

/// The bit of a text in the filter.
fn place(text: &[u8]) -> Option<(usize, u64)> {
    let first = u64::from_le_bytes(*text.first_chunk()?);
    let hash = first.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    let word = usize::try_from(hash >> 6).ok()?;
    Some((word, 1 << (hash & 63)))
}

/// The secret, or pieces of it whose marks leave nothing of it.
fn pieces(secret: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = secret;
    while rest.len() > LONGEST {
        let at = (0..=LONGEST).rev().find(|at| rest.is_char_boundary(*at));
        let (piece, behind) = rest.split_at(at.unwrap_or_default());
        pieces.push(piece);
        rest = behind;
    }
    if rest.len() < SHORTEST && !pieces.is_empty() {
        // The last piece begins earlier than the one before it ends.
        let from = secret.len() - LONGEST;
        let from = (from..secret.len()).find(|at| secret.is_char_boundary(*at));
        rest = from.and_then(|from| secret.get(from..)).unwrap_or_default();
    }
    if rest.len() >= SHORTEST {
        pieces.push(rest);
    }
    pieces
}
