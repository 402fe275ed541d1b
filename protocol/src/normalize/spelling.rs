//! Which tokens spell a text.
//!
//! A model server tells the probabilities of all tokens it made: those of thinking, of marks and of
//! the end among them. A client is told those whose bytes are its text.

use memchr::memmem;

use crate::responses::content::LogProb;

/// Where a text stands among tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spelling {
    /// The first token of it.
    pub(crate) start: usize,
    /// Behind the last one.
    pub(crate) end: usize,
}

/// The last place where the tokens spell `text`, white space around it aside: servers trim it. The
/// first and the last token may have more in them, as where a stop word cut the text.
pub(crate) fn spelling(tokens: &[LogProb], text: &str) -> Option<Spelling> {
    let wanted = text.trim_ascii().as_bytes();
    let wanted = if wanted.is_empty() {
        text.as_bytes()
    } else {
        wanted
    };
    if wanted.is_empty() {
        return None;
    }
    let bytes: Vec<u8> = tokens.iter().flat_map(LogProb::spelt).copied().collect();
    let from = memmem::rfind(&bytes, wanted)?;
    let until = from + wanted.len();
    // The white space at both ends of the text, where it is among the tokens too.
    let (lead, tail) = if wanted.len() == text.len() {
        ("", "")
    } else {
        text.split_once(text.trim_ascii()).unwrap_or_default()
    };
    let from = match bytes.get(..from) {
        Some(before) if before.ends_with(lead.as_bytes()) => from - lead.len(),
        Some(_) | None => from,
    };
    let until = match bytes.get(until..) {
        Some(behind) if behind.starts_with(tail.as_bytes()) => until + tail.len(),
        Some(_) | None => until,
    };
    let mut at = 0;
    let mut spelling = Spelling {
        start: tokens.len(),
        end: 0,
    };
    for (index, token) in tokens.iter().enumerate() {
        let next = at + token.spelt().len();
        if next > from && at < until {
            spelling.start = spelling.start.min(index);
            spelling.end = index + 1;
        }
        at = next;
    }
    (spelling.start < spelling.end).then_some(spelling)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(texts: &[&[u8]]) -> Vec<LogProb> {
        let token = |bytes: &&[u8]| {
            let entry = format!(r#"{{"token":"t","logprob":-1,"bytes":{bytes:?}}}"#);
            serde_json::from_str(&entry).unwrap()
        };
        texts.iter().map(token).collect()
    }

    #[test]
    fn s2_5_foreign_tokens_are_none_of_the_text() {
        let all = tokens(&[
            b"<think>",
            b"ab",
            b"</think>",
            b"\n",
            b"a",
            b"b",
            b"<|im_end|>",
        ]);
        let place = |text| spelling(&all, text).map(|found| (found.start, found.end));
        assert_eq!(place("ab"), Some((4, 6)));
        assert_eq!(place("\nab"), Some((3, 6)));
        assert_eq!(place("ab\n"), Some((4, 6)));
        assert_eq!(place("\n"), Some((3, 4)));
        assert_eq!(place("other"), None);
        assert_eq!(place(""), None);
        let halves = tokens(&[b"a", &[0xF0, 0x9F], &[0x98, 0x80], b"!x"]);
        let place = |text| spelling(&halves, text).map(|found| (found.start, found.end));
        assert_eq!(place("a😀"), Some((0, 3)));
        assert_eq!(place("😀!"), Some((1, 4)));
    }
}
