//! The protocol between gateway and worker: length as u32, big-endian, then that many bytes of JSON.
//!
//! Every byte from a worker is hostile: model code may have taken it over. So this module, which does
//! no I/O, holds it to the letter: size, depth, shape, and only what belongs to the running call. Any
//! [`Violation`] is the end of the worker.

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};

use super::limits::{self, CallLimits};

/// What the gateway tells a worker.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker<'a> {
    /// Run this code.
    Run {
        /// Number of the call, which comes back on every frame of it.
        id: u64,
        /// Python.
        code: &'a str,
    },
    /// Import these, so that a later call need not wait for it.
    Warm {
        /// Names of modules.
        modules: &'a [String],
    },
}

/// What a worker tells.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromWorker {
    /// It can take calls.
    Ready {
        /// Version of Pyodide.
        pyodide: String,
    },
    /// The imports are done.
    Warmed {
        /// Those that succeeded.
        modules: Vec<String>,
    },
    /// Text that the call has printed.
    Out {
        /// The call.
        id: u64,
        /// The text.
        text: String,
    },
    /// A picture that the call has shown.
    Image {
        /// The call.
        id: u64,
        /// PNG in base64.
        png: String,
    },
    /// The call has ended.
    Result {
        /// The call.
        id: u64,
        /// The traceback, if it failed.
        error: Option<String>,
        /// Whether output was dropped.
        truncated: bool,
    },
    /// Python cannot go on.
    Fatal {
        /// Why, in words of the runtime or of model code.
        reason: String,
    },
}

/// How a worker broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame longer than [`limits::FRAME_BYTES`].
    #[error("a frame is too large")]
    Oversize,
    /// More than [`limits::CALL_BYTES`] in one call.
    #[error("too many bytes for one call")]
    Flood,
    /// JSON nested deeper than [`limits::JSON_DEPTH`].
    #[error("a frame nests too deep")]
    TooDeep,
    /// Not a frame of this protocol.
    #[error("a frame cannot be read")]
    Unreadable,
    /// A frame that makes no sense now, or names another call.
    #[error("a frame is out of place")]
    OutOfPlace,
    /// Too many pictures, too large ones, or no PNG.
    #[error("a picture is not acceptable")]
    Picture,
}

/// One message as bytes.
///
/// # Errors
/// When it is too large to be a frame, or cannot be JSON.
pub fn encode(message: &ToWorker<'_>) -> Result<Vec<u8>, Violation> {
    let mut frame = vec![0; HEAD];
    serde_json::to_writer(&mut frame, message).map_err(|_error| Violation::Unreadable)?;
    let length = u32::try_from(frame.len() - HEAD).map_err(|_error| Violation::Oversize)?;
    for (to, from) in frame.iter_mut().zip(length.to_be_bytes()) {
        *to = from;
    }
    Ok(frame)
}

const HEAD: usize = 4;

/// Cuts the bytes of a worker into frames, whatever pieces they come in.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Bytes since the last [`Decoder::begin`].
    spent: usize,
}

impl Decoder {
    /// A new call begins: its bytes are counted from here.
    pub fn begin(&mut self) {
        self.spent = 0;
    }

    /// Where the next bytes are to be put; [`Decoder::next_frame`] counts what was added.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`Violation`]; the worker must not be read on.
    pub fn next_frame(&mut self) -> Result<Option<FromWorker>, Violation> {
        let Some(head) = self.buffer.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > limits::FRAME_BYTES {
            return Err(Violation::Oversize);
        }
        // Counted by its announced length: a frame that would be too much is not waited for.
        if self.spent.saturating_add(length) > limits::CALL_BYTES {
            return Err(Violation::Flood);
        }
        if self.buffer.len() < HEAD + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        self.spent += HEAD + length;
        let frame = self.buffer.split_to(length);
        if depth(&frame) > limits::JSON_DEPTH {
            return Err(Violation::TooDeep);
        }
        serde_json::from_slice(&frame)
            .map(Some)
            .map_err(|_error| Violation::Unreadable)
    }
}

/// How deep JSON nests, text apart. Exact for valid JSON; anything else is refused later.
fn depth(json: &[u8]) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        if in_text {
            in_text = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// What a call has brought so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// Printed text.
    pub logs: String,
    /// PNGs in base64.
    pub images: Vec<String>,
    /// Whether output was dropped, here or there.
    pub truncated: bool,
}

/// How a call ended, as far as frames can tell.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It ran to its end; the traceback if it failed.
    Completed(Option<String>),
    /// Python cannot go on, in its own words.
    Fatal(String),
}

impl Gathered {
    /// Takes one frame of call `id`; says how it ended once it has.
    ///
    /// # Errors
    /// [`Violation`], with everything before it kept.
    pub fn take(
        &mut self,
        id: u64,
        frame: FromWorker,
        limits: &CallLimits,
    ) -> Result<Option<Ended>, Violation> {
        match frame {
            FromWorker::Out { id: of, text } if of == id => {
                self.print(&text, limits.output_bytes);
                Ok(None)
            }
            FromWorker::Image { id: of, png } if of == id => {
                if self.images.len() >= limits.images || !is_png(&png, limits.image_bytes) {
                    return Err(Violation::Picture);
                }
                self.images.push(png);
                Ok(None)
            }
            FromWorker::Result {
                id: of,
                error,
                truncated,
            } if of == id => {
                self.truncated |= truncated;
                let error = error.map(|text| cut(&text, limits::ERROR_BYTES).to_owned());
                Ok(Some(Ended::Completed(error)))
            }
            FromWorker::Fatal { reason } => {
                Ok(Some(Ended::Fatal(cut(&reason, FATAL_BYTES).to_owned())))
            }
            FromWorker::Ready { .. }
            | FromWorker::Warmed { .. }
            | FromWorker::Out { .. }
            | FromWorker::Image { .. }
            | FromWorker::Result { .. } => Err(Violation::OutOfPlace),
        }
    }

    fn print(&mut self, text: &str, most: usize) {
        let room = most.saturating_sub(self.logs.len());
        let taken = cut(text, room);
        self.truncated |= taken.len() < text.len();
        self.logs.push_str(taken);
    }
}

/// The reason of an end is for a log line and a sentence.
pub(super) const FATAL_BYTES: usize = 500;

/// The longest beginning of at most `most` bytes that ends between characters.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

/// Whether this is base64 of something that begins as a PNG does, not larger than allowed.
pub(super) fn is_png(base64: &str, most: usize) -> bool {
    // The eight bytes of the signature fill ten characters and leave four bits of the eleventh.
    const SIGNATURE: &str = "iVBORw0KGg";
    let body = base64.trim_end_matches('=');
    base64.len() <= most.div_ceil(3) * 4
        && base64.len().is_multiple_of(4)
        && base64.len() - body.len() <= 2
        && base64.starts_with(SIGNATURE)
        && body
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(call: &mut Gathered, id: u64, frame: FromWorker) -> Result<Option<Ended>, Violation> {
        call.take(id, frame, &CallLimits::default())
    }

    fn frame(json: &str) -> Vec<u8> {
        let length = u32::try_from(json.len()).unwrap();
        [&length.to_be_bytes(), json.as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Result<Vec<FromWorker>, Violation> {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn out(id: u64, text: &str) -> FromWorker {
        FromWorker::Out {
            id,
            text: text.to_owned(),
        }
    }

    const RED_DOT: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";

    #[test]
    fn frames_read_back() {
        let bytes = [
            frame(r#"{"type":"ready","pyodide":"314"}"#),
            frame(r#"{"type":"out","id":1,"text":"a"}"#),
            frame(r#"{"type":"result","id":1,"error":null,"truncated":false}"#),
        ]
        .concat();
        let frames = decode(&bytes).unwrap();
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[1], out(1, "a"));
    }

    #[test]
    fn a_message_is_one_frame() {
        let code = "print('é')\n";
        let bytes = encode(&ToWorker::Run { id: 7, code }).unwrap();
        let (head, body) = bytes.split_first_chunk::<4>().unwrap();
        assert_eq!(
            u32::from_be_bytes(*head),
            u32::try_from(body.len()).unwrap()
        );
        assert_eq!(
            std::str::from_utf8(body).unwrap(),
            r#"{"type":"run","id":7,"code":"print('é')\n"}"#
        );
    }

    #[test]
    fn what_is_not_a_frame_is_a_violation() {
        let deep = format!(
            r#"{{"type":"out","id":1,"text":{}1{}}}"#,
            "[".repeat(9),
            "]".repeat(9)
        );
        for (bytes, violation) in [
            (u32::MAX.to_be_bytes().to_vec(), Violation::Oversize),
            (vec![2, 0, 0, 1], Violation::Oversize),
            (frame("x"), Violation::Unreadable),
            (frame(""), Violation::Unreadable),
            (frame(r#"{"type":"other"}"#), Violation::Unreadable),
            (
                frame(r#"{"type":"out","id":1,"text":"","more":1}"#),
                Violation::Unreadable,
            ),
            (
                frame(r#"{"type":"out","id":-1,"text":""}"#),
                Violation::Unreadable,
            ),
            (frame(&deep), Violation::TooDeep),
        ] {
            assert_eq!(decode(&bytes), Err(violation));
        }
    }

    #[test]
    fn brackets_in_text_are_no_depth() {
        let text = format!(r#"{{"type":"out","id":1,"text":"\"{}\\"}}"#, "[".repeat(50));
        assert_eq!(decode(&frame(&text)).unwrap().len(), 1);
    }

    #[test]
    fn a_call_has_a_budget_of_bytes() {
        let bytes = frame(r#"{"type":"out","id":1,"text":"a"}"#);
        let mut decoder = Decoder {
            spent: limits::CALL_BYTES - bytes.len(),
            ..Decoder::default()
        };
        decoder.buffer().extend_from_slice(&bytes);
        assert!(matches!(decoder.next_frame(), Ok(Some(_))));
        // The announced length is enough to refuse the next one.
        decoder.buffer().extend_from_slice(&bytes[..HEAD]);
        assert_eq!(decoder.next_frame(), Err(Violation::Flood));
        decoder.begin();
        decoder.buffer().extend_from_slice(&bytes[HEAD..]);
        assert!(matches!(decoder.next_frame(), Ok(Some(_))));
    }

    #[test]
    fn only_the_running_call_is_heard() {
        let result = |id| FromWorker::Result {
            id,
            error: Some("E".to_owned()),
            truncated: true,
        };
        let mut call = Gathered::default();
        assert_eq!(take(&mut call, 3, out(3, "a")), Ok(None));
        for stranger in [
            out(2, "b"),
            out(4, "b"),
            result(2),
            FromWorker::Warmed {
                modules: Vec::new(),
            },
        ] {
            assert_eq!(take(&mut call, 3, stranger), Err(Violation::OutOfPlace));
        }
        let end = take(&mut call, 3, result(3)).unwrap();
        assert_eq!(end, Some(Ended::Completed(Some("E".to_owned()))));
        assert_eq!(
            (call.logs.as_str(), call.truncated, call.images.len()),
            ("a", true, 0)
        );
    }

    #[test]
    fn text_beyond_the_limit_is_dropped_between_characters() {
        let mut call = Gathered::default();
        take(&mut call, 1, out(1, &"é".repeat(limits::OUTPUT_BYTES))).unwrap();
        take(&mut call, 1, out(1, "z")).unwrap();
        assert_eq!(call.logs.len(), limits::OUTPUT_BYTES);
        assert!(call.truncated && call.logs.ends_with('é'));
    }

    #[test]
    fn pictures_are_pngs_within_limits() {
        let image = |png: &str| FromWorker::Image {
            id: 1,
            png: png.to_owned(),
        };
        let mut call = Gathered::default();
        for _ in 0..limits::IMAGES {
            assert_eq!(take(&mut call, 1, image(RED_DOT)), Ok(None));
        }
        assert_eq!(take(&mut call, 1, image(RED_DOT)), Err(Violation::Picture));
        let huge = format!("iVBORw0KGgoA{}", "A".repeat(8 * 1024 * 1024));
        for bad in ["", "<svg>", "iVBORw0KGgo", "iVBORw0KGgo\"", &huge] {
            let mut call = Gathered::default();
            assert_eq!(
                take(&mut call, 1, image(bad)),
                Err(Violation::Picture),
                "{}",
                bad.len()
            );
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(cuts in proptest::collection::vec(0_usize..90, 0..6)) {
            let bytes = [
                frame(r#"{"type":"out","id":1,"text":"abc"}"#),
                frame(r#"{"type":"fatal","reason":"r"}"#),
            ].concat();
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            let mut from = 0;
            let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            for to in ends {
                decoder.buffer().extend_from_slice(&bytes[from..to]);
                from = to;
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            prop_assert_eq!(frames, decode(&bytes).unwrap());
        }

        #[test]
        fn any_bytes_end_in_frames_or_a_violation(bytes: Vec<u8>) {
            if let Ok(frames) = decode(&bytes) {
                prop_assert!(frames.len() <= bytes.len() / HEAD);
            }
        }
    }
}
