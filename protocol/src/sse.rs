//! Server-sent events, both ways: a push decoder over bytes and the writer of one frame.
//!
//! The decoder follows the WHATWG event-stream grammar: LF, CRLF and CR line ends, a leading BOM,
//! comments, `data:` with or without a space, several data lines joined by a newline; and one thing
//! more, `error:` lines, which are data of an `error` event: older llama.cpp servers write them. It keeps a
//! cap on what it buffers, so that an upstream that never ends a line cannot grow the process.

use memchr::memchr2;

/// Longest frame that is buffered, in bytes; a real chunk has a few hundred (fault U9).
pub const MAX_FRAME: usize = 4 * 1024 * 1024;

/// The upstream sent more than [`MAX_FRAME`] bytes without ending a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event-stream frame exceeds {MAX_FRAME} bytes")]
pub struct FrameTooLong;

/// One dispatched frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Value of the `event:` field; empty when there was none.
    pub event: &'a [u8],
    /// The data lines, joined by newlines.
    pub data: &'a [u8],
}

/// A range of the decoder's buffer, relative to the start of the pending frame.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    end: usize,
}

/// Turns pushed bytes into frames, whatever way the bytes were cut.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Where the pending frame starts.
    frame: usize,
    /// Where the pending line starts.
    line: usize,
    /// How far the pending line has been searched for its end.
    searched: usize,
    /// The last line ended in CR: a LF right behind it belongs to that end.
    after_cr: bool,
    /// Bytes before the stream's first line, where a BOM may stand.
    begun: bool,
    event: Span,
    data: Data,
}

/// The data lines of the pending frame.
#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    /// The usual case: one line, left where it is.
    One(Span),
    /// Several lines, joined.
    Joined(Vec<u8>),
}

impl Decoder {
    /// Takes what one read of the upstream brought.
    ///
    /// # Errors
    /// [`FrameTooLong`] when the pending frame passes the cap; the decoder is of no use then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FrameTooLong> {
        if self.frame > 0 {
            self.buffer.drain(..self.frame);
            self.line -= self.frame;
            self.searched -= self.frame;
            self.frame = 0;
        }
        if self.buffer.len() + bytes.len() > MAX_FRAME {
            return Err(FrameTooLong);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether the next byte pushed begins a frame: nothing of one is kept here.
    pub fn is_between_frames(&self) -> bool {
        let nothing_kept = self.frame == self.buffer.len() && matches!(self.data, Data::None);
        nothing_kept && self.begun && !self.after_cr
    }

    /// Bytes that were pushed and are part of no frame handed out.
    pub fn pending(&self) -> usize {
        self.buffer.len().saturating_sub(self.frame)
    }

    /// The next whole frame with data, or `None` until more bytes are pushed.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        loop {
            let (start, end) = self.next_line()?;
            if start == end {
                let frame_start = self.frame;
                self.frame = self.line;
                let event = std::mem::take(&mut self.event);
                match std::mem::take(&mut self.data) {
                    Data::None => {}
                    Data::One(span) => {
                        return Some(Frame {
                            event: self.slice(frame_start + event.start, frame_start + event.end),
                            data: self.slice(frame_start + span.start, frame_start + span.end),
                        });
                    }
                    Data::Joined(joined) => {
                        return Some(self.joined_frame(&joined, frame_start, event));
                    }
                }
            } else {
                self.field(start, end);
            }
        }
    }

    /// Hands out a frame of several data lines: event and data move to the end of the consumed part.
    fn joined_frame(&mut self, joined: &[u8], frame_start: usize, event: Span) -> Frame<'_> {
        // Both are shorter than the lines they came from, which end before `self.frame`. The event's line
        // may be the last, where the data goes.
        let event = self.slice(frame_start + event.start, frame_start + event.end);
        let event = event.to_vec();
        let data_start = self.frame - joined.len();
        let event_start = data_start - event.len();
        if let Some(target) = self.buffer.get_mut(data_start..self.frame) {
            target.copy_from_slice(joined);
        }
        if let Some(target) = self.buffer.get_mut(event_start..data_start) {
            target.copy_from_slice(&event);
        }
        Frame {
            event: self.slice(event_start, data_start),
            data: self.slice(data_start, self.frame),
        }
    }

    fn slice(&self, start: usize, end: usize) -> &[u8] {
        self.buffer.get(start..end).unwrap_or_default()
    }

    /// The next whole line without its end, as offsets into the buffer.
    fn next_line(&mut self) -> Option<(usize, usize)> {
        if !self.begun {
            self.skip_bom()?;
        }
        if self.after_cr && self.line < self.buffer.len() {
            self.after_cr = false;
            if self.slice(self.line, self.line + 1) == b"\n" {
                let at_frame_start = self.frame == self.line;
                self.line += 1;
                self.searched = self.searched.max(self.line);
                if at_frame_start {
                    self.frame = self.line;
                }
            }
        }
        let rest = self.buffer.get(self.searched..)?;
        let Some(offset) = memchr2(b'\n', b'\r', rest) else {
            self.searched = self.buffer.len();
            return None;
        };
        let (start, end) = (self.line, self.searched + offset);
        self.after_cr = rest.get(offset) == Some(&b'\r');
        self.line = end + 1;
        self.searched = self.line;
        Some((start, end))
    }

    /// Passes over a BOM at the very start; `None` while too few bytes are there to tell.
    fn skip_bom(&mut self) -> Option<()> {
        const BOM: &[u8] = b"\xEF\xBB\xBF";
        if self.buffer.is_empty() || (BOM.starts_with(&self.buffer) && self.buffer.len() < 3) {
            return None;
        }
        if self.buffer.starts_with(BOM) {
            (self.frame, self.line, self.searched) = (3, 3, 3);
        }
        self.begun = true;
        Some(())
    }

    /// Notes one non-empty line of the pending frame.
    fn field(&mut self, start: usize, end: usize) {
        let line = self.buffer.get(start..end).unwrap_or_default();
        let colon = line
            .iter()
            .position(|&byte| byte == b':')
            .unwrap_or(line.len());
        let (name, rest) = line.split_at(colon);
        let skip = match rest {
            [b':', b' ', ..] => 2,
            [b':', ..] => 1,
            _ => 0,
        };
        let value = Span {
            start: start + colon + skip - self.frame,
            end: end - self.frame,
        };
        match name {
            b"event" => self.event = value,
            b"data" => self.add_data(value),
            b"error" => {
                // The name of the field is that of the event.
                let start = start - self.frame;
                let end = start + name.len();
                self.event = Span { start, end };
                self.add_data(value);
            }
            // Comments, `id`, `retry` and unknown fields mean nothing here.
            _ => {}
        }
    }

    fn add_data(&mut self, value: Span) {
        let frame = self.frame;
        let text = |buffer: &[u8], span: Span| -> Vec<u8> {
            buffer
                .get(frame + span.start..frame + span.end)
                .unwrap_or_default()
                .to_vec()
        };
        self.data = match std::mem::take(&mut self.data) {
            Data::None => Data::One(value),
            Data::One(first) => {
                let mut joined = text(&self.buffer, first);
                joined.push(b'\n');
                joined.extend_from_slice(&text(&self.buffer, value));
                Data::Joined(joined)
            }
            Data::Joined(mut joined) => {
                joined.push(b'\n');
                joined.extend_from_slice(&text(&self.buffer, value));
                Data::Joined(joined)
            }
        };
    }
}

/// The frame that ends a stream, after its terminal event.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// A comment that keeps proxies and clients from giving up on a silent stream.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for piece in pieces {
            decoder.push(piece).unwrap();
            while let Some(frame) = decoder.next_frame() {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                seen.push((text(frame.event), text(frame.data)));
            }
        }
        seen
    }

    fn pair(event: &str, data: &str) -> (String, String) {
        (event.to_owned(), data.to_owned())
    }

    #[test]
    fn u11_every_spelling_of_a_frame() {
        let table: &[(&str, Vec<(String, String)>)] = &[
            ("data: a\n\n", vec![pair("", "a")]),
            ("data:a\r\n\r\n", vec![pair("", "a")]),
            ("data: a\r\rdata: b\r\r", vec![pair("", "a"), pair("", "b")]),
            ("\u{feff}data: a\n\n", vec![pair("", "a")]),
            (": note\n\ndata: a\n\n", vec![pair("", "a")]),
            ("event: error\ndata: x\n\n", vec![pair("error", "x")]),
            ("data: a\ndata:  b\ndata\n\n", vec![pair("", "a\n b\n")]),
            (
                "event: e\nid: 7\nretry: 1\ndata: a\ndata: b\n\n",
                vec![pair("e", "a\nb")],
            ),
            ("data: a\ndata: b\nevent: e\n\n", vec![pair("e", "a\nb")]),
            ("event: lonely\n\ndata: a\n\n", vec![pair("", "a")]),
            ("error: {}\n\n", vec![pair("error", "{}")]),
            ("data: a\nerror:b\n\n", vec![pair("error", "a\nb")]),
            ("error\nerror\n\n", vec![pair("error", "\n")]),
            ("data: unfinished", vec![]),
            ("data: a:b: c\n\n\n\n", vec![pair("", "a:b: c")]),
        ];
        for (text, expected) in table {
            assert_eq!(&frames(&[text.as_bytes()]), expected, "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(&frames(&bytes), expected, "byte by byte: {text:?}");
        }
    }

    #[test]
    fn u9_a_line_without_end_is_cut_off_at_the_cap() {
        let mut decoder = Decoder::default();
        let piece = vec![b'x'; 64 * 1024];
        let mut pushed = 0;
        while decoder.push(&piece).is_ok() {
            assert!(decoder.next_frame().is_none());
            pushed += piece.len();
            assert!(pushed <= MAX_FRAME);
        }
        assert!(pushed > MAX_FRAME / 2);
    }

    #[test]
    fn between_frames_nothing_is_kept() {
        let mut decoder = Decoder::default();
        // A BOM may still come.
        assert!(!decoder.is_between_frames());
        for (piece, between) in [
            ("data: a\n", false),
            ("\n", true),
            (": note\n", false),
            ("\r", false),
            ("\ndata: b\n\n", true),
            ("event: e\n", false),
        ] {
            decoder.push(piece.as_bytes()).unwrap();
            while decoder.next_frame().is_some() {}
            assert_eq!(decoder.is_between_frames(), between, "{piece:?}");
        }
    }

    proptest! {
        #[test]
        fn f1_any_split_gives_the_same_frames(
            text in "(data|event|error|: c|x)?:? ?[a-c:é]{0,3}(\r|\n|\r\n){1,3}(data: ?[a-cé]{0,4}(\r|\n|\r\n){1,2}){0,6}",
            cuts in proptest::collection::vec(0usize..80, 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.push(0);
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(frames(&pieces), frames(&[bytes]));
        }
    }
}
