//! Chunks of one stream differ in one string: they are known again by their bytes.
//!
//! A model server writes the same chunk for every token, but for the text in it. Once one such chunk
//! was parsed, the next is compared with it: the same bytes before and after a plain string are the
//! same JSON with another string, and nothing has to be parsed. Whatever differs in anything else is
//! parsed.

use super::chunk::{Chunk, Delta};
use super::content::Content;

/// What the one string is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Piece {
    /// Answer text.
    #[default]
    Text,
    /// Thinking.
    Reasoning,
}

/// The bytes around the string of the last chunk that said one thing only.
#[derive(Debug, Default)]
pub struct Template {
    /// Before and behind it; empty before the first such chunk.
    around: Vec<u8>,
    /// Length of what is before it.
    before: usize,
    piece: Piece,
}

impl Template {
    /// The string of a chunk that differs from the template in nothing else; never empty.
    pub fn recognise<'a>(&self, data: &'a [u8]) -> Option<(Piece, &'a str)> {
        if self.around.is_empty() {
            return None;
        }
        let (before, behind) = self.around.split_at_checked(self.before)?;
        let inner = data.strip_prefix(before)?.strip_suffix(behind)?;
        let is_plain = !inner.is_empty() && !inner.iter().any(|byte| needs_escape(*byte));
        let text = std::str::from_utf8(inner).ok().filter(|_| is_plain)?;
        Some((self.piece, text))
    }

    /// As [`Self::recognise`] for the frame of an event stream at the beginning of `bytes`, as most
    /// servers write it; also gives what follows the frame.
    pub fn recognise_frame<'a>(&self, bytes: &'a [u8]) -> Option<(Piece, &'a str, &'a [u8])> {
        if self.around.is_empty() {
            return None;
        }
        let (before, behind) = self.around.split_at_checked(self.before)?;
        let inner = bytes.strip_prefix(b"data: ")?.strip_prefix(before)?;
        let length = inner.iter().position(|byte| needs_escape(*byte))?;
        let (inner, rest) = inner.split_at_checked(length)?;
        let rest = rest.strip_prefix(behind)?.strip_prefix(b"\n\n")?;
        let text = std::str::from_utf8(inner).ok()?;
        (!text.is_empty()).then_some((self.piece, text, rest))
    }

    /// Takes a parsed chunk for the template if it says one thing only. `chunk` is borrowed from
    /// `data`.
    pub fn learn(&mut self, data: &[u8], chunk: &Chunk<'_>) {
        let Some((piece, text)) = only_piece(chunk) else {
            return;
        };
        // A string with escapes is a copy and lies elsewhere.
        let Some(start) = text.as_ptr().addr().checked_sub(data.as_ptr().addr()) else {
            return;
        };
        let end = start.saturating_add(text.len());
        let (Some(before), Some(behind)) = (data.get(..start), data.get(end..)) else {
            return;
        };
        if before.last() == Some(&b'"') && behind.first() == Some(&b'"') {
            self.around.clear();
            self.around.extend_from_slice(before);
            self.around.extend_from_slice(behind);
            self.before = start;
            self.piece = piece;
        }
    }
}

/// Whether a byte cannot stand for itself in a JSON string.
pub(crate) fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The one string of a chunk that says nothing else.
fn only_piece<'a>(chunk: &'a Chunk<'_>) -> Option<(Piece, &'a str)> {
    let choice = chunk.choices.0.as_ref()?;
    // Some servers stream a whole message.
    if choice.message.is_some() {
        return None;
    }
    let ends = !choice.finish_reason.is_empty() || !choice.logprobs.content.0.is_empty();
    let Delta {
        content: Content::Text(text),
        reasoning,
        reasoning_content,
        thinking,
        reasoning_details,
        refusal,
        tool_calls,
        function_call,
    } = choice.delta.as_ref()?
    else {
        return None;
    };
    let calls = !tool_calls.0.is_empty() || !function_call.is_empty();
    if ends || calls || !refusal.is_empty() {
        return None;
    }
    let thoughts = [reasoning, reasoning_content, thinking, reasoning_details];
    let mut thoughts = thoughts.iter().filter(|thought| !thought.is_empty());
    let piece = match (text.as_str(), thoughts.next(), thoughts.next()) {
        ("", None, _) | (_, _, Some(_)) => return None,
        (text, None, None) => (Piece::Text, text),
        ("", Some(thinking), None) => (Piece::Reasoning, thinking.as_str()),
        (_, Some(_), None) => return None,
    };
    let more = chunk.counts().is_some() || chunk.complaint().is_some();
    (!more).then_some(piece)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::sse::Decoder;

    fn learnt(data: &str) -> Template {
        let mut template = Template::default();
        template.learn(data.as_bytes(), &serde_json::from_str(data).unwrap());
        template
    }

    fn chunk(text: &str) -> String {
        json!({"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
            .to_string()
    }

    #[test]
    fn the_same_chunk_with_another_text_is_known_again() {
        let template = learnt(&chunk("a"));
        for text in ["b", "longer text", "é😀"] {
            let next = chunk(text);
            let known = template.recognise(next.as_bytes());
            assert_eq!(known, Some((Piece::Text, text)));
            let frame = format!("data: {next}\n\nmore");
            let known = template.recognise_frame(frame.as_bytes());
            assert_eq!(known, Some((Piece::Text, text, &b"more"[..])));
        }
    }

    #[test]
    fn what_differs_in_anything_else_is_not() {
        let template = learnt(&chunk("a"));
        let other_id = chunk("b").replace("\"c\"", "\"d\"");
        let ended = chunk("b").replace("null", "\"stop\"");
        for data in [
            &chunk(""),
            &chunk("a\"b"),
            &chunk("a\n"),
            &other_id,
            &ended,
            "{}",
            "",
        ] {
            assert_eq!(template.recognise(data.as_bytes()), None, "{data}");
            let frame = format!("data: {data}\n\n");
            assert_eq!(template.recognise_frame(frame.as_bytes()), None, "{data}");
        }
        let mut bad_utf8 = chunk("b").into_bytes();
        let place = bad_utf8.iter().position(|byte| *byte == b'b').unwrap();
        bad_utf8[place] = 0xFF;
        assert_eq!(template.recognise(&bad_utf8), None);
    }

    #[test]
    fn chunks_that_say_more_are_no_template() {
        for data in [
            r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}"#,
            r#"{"choices":[{"delta":{"content":"a","reasoning":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"delta":{"content":"a","tool_calls":[{}]}}]}"#,
            r#"{"choices":[{"delta":{"content":["a"]}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"error":"no"}"#,
            r#"{"choices":[{"delta":{"content":""}}]}"#,
            r#"{"choices":[{"delta":{"content":"\u0061"}}]}"#,
            r#"{"choices":[{"delta":{"role":"assistant"}}]}"#,
        ] {
            assert_eq!(learnt(data).recognise(data.as_bytes()), None, "{data}");
        }
    }

    proptest! {
        /// A frame that is recognised is the frame that decoding would have given, and what follows it
        /// is what would have been left.
        #[test]
        fn recognising_a_frame_is_decoding(first in any::<String>(), next in "\\PC{0,9}", rest in "(data: |\n|\r|\\{){0,3}", cut in any::<prop::sample::Index>()) {
            let template = learnt(&chunk(&first));
            let mut frame = format!("data: {}\n\n{rest}", chunk(&next));
            if cut.index(4) == 0 {
                frame.truncate(frame.floor_char_boundary(cut.index(frame.len())));
            }
            if let Some((piece, text, left)) = template.recognise_frame(frame.as_bytes()) {
                let mut decoder = Decoder::default();
                decoder.push(frame.as_bytes()).unwrap();
                let decoded = decoder.next_frame().unwrap();
                prop_assert_eq!(template.recognise(decoded.data), Some((piece, text)));
                let whole = frame.len() - left.len();
                prop_assert_eq!(whole, "data: \n\n".len() + decoded.data.len());
            }
        }

        /// What is recognised is what parsing would have said.
        #[test]
        fn recognising_is_parsing(first in any::<String>(), next in any::<String>(), cut in any::<prop::sample::Index>()) {
            let template = learnt(&chunk(&first));
            let mut data = chunk(&next);
            if cut.index(4) == 0 {
                data.truncate(data.floor_char_boundary(cut.index(data.len())));
            }
            if let Some((piece, text)) = template.recognise(data.as_bytes()) {
                prop_assert_eq!(piece, Piece::Text);
                let parsed: Chunk<'_> = serde_json::from_str(&data).unwrap();
                prop_assert_eq!(only_piece(&parsed), Some((Piece::Text, text)));
            }
        }
    }
}
