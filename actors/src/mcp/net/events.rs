//! A body of server-sent events, one whole event at a time: what is larger than what is taken is cut
//! where it is the result of a call, and is an error otherwise (fault M3).

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use vllm_responses_protocol::mcp::salvage::salvage;

use super::intake::Arriving;
use super::{MAX_MESSAGE, Progress, Trouble};

/// What the events answer.
#[derive(Clone, Debug)]
pub(in crate::mcp) enum Answering {
    /// One request, with this id as JSON: what comes after a result that was cut is of no interest.
    Request(String),
    /// Whatever we ask, for as long as the session lasts.
    Everything,
}

/// The bytes of `body`, at least one event of it at a time.
pub(super) fn events(
    body: Incoming,
    answering: Answering,
    progress: Progress,
    arriving: Arriving,
) -> impl Stream<Item = Result<Bytes, Trouble>> + Send + use<> {
    let state = (body, Gatherer::new(answering), progress, arriving);
    stream::try_unfold(
        state,
        |(mut body, mut gatherer, progress, mut arriving)| async move {
            while !gatherer.ended {
                let Some(frame) = body.frame().await else {
                    gatherer.ended = true;
                    let rest = std::mem::take(&mut gatherer.buffer);
                    let state = (body, gatherer, progress, arriving);
                    return Ok((!rest.is_empty()).then(|| (rest.into(), state)));
                };
                let frame = frame.map_err(|_broken| progress.trouble(Trouble::Broken))?;
                let Ok(bytes) = frame.into_data() else {
                    continue;
                };
                let events = gatherer.take(&bytes);
                let events = events.map_err(|trouble| progress.trouble(trouble))?;
                let fits = arriving.reaches(gatherer.buffer.len());
                fits.map_err(|trouble| progress.trouble(trouble))?;
                if !events.is_empty() {
                    return Ok(Some((events, (body, gatherer, progress, arriving))));
                }
            }
            Ok(None)
        },
    )
}

/// Gathers bytes until an event is whole.
#[derive(Debug)]
struct Gatherer {
    answering: Answering,
    /// The event that is not whole yet.
    buffer: Vec<u8>,
    lines: Lines,
    /// The rest of an event that was cut is passed over.
    skipping: bool,
    ended: bool,
}

impl Gatherer {
    fn new(answering: Answering) -> Self {
        Self {
            answering,
            buffer: Vec::new(),
            lines: Lines::default(),
            skipping: false,
            ended: false,
        }
    }

    /// The events that these bytes complete.
    fn take(&mut self, mut bytes: &[u8]) -> Result<Bytes, Trouble> {
        if self.skipping {
            let Some(end) = self.lines.first_end(bytes) else {
                return Ok(Bytes::new());
            };
            self.skipping = false;
            bytes = bytes.get(end..).unwrap_or_default();
        }
        let end = self
            .lines
            .last_end(bytes)
            .map(|end| self.buffer.len() + end);
        self.buffer.extend_from_slice(bytes);
        let mut whole = match end {
            None => Vec::new(),
            Some(end) => {
                let rest = self.buffer.split_off(end);
                std::mem::replace(&mut self.buffer, rest)
            }
        };
        if self.buffer.len() > MAX_MESSAGE {
            whole.extend(self.cut()?);
        }
        Ok(whole.into())
    }

    /// What is kept of an event that is too large.
    fn cut(&mut self) -> Result<Vec<u8>, Trouble> {
        let event = std::mem::take(&mut self.buffer);
        let id = match &self.answering {
            Answering::Request(id) => Some(id.as_str()),
            Answering::Everything => None,
        };
        let kept = salvage(&data(&event), id).ok_or(Trouble::TooLarge)?;
        self.ended = id.is_some();
        self.skipping = true;
        Ok(format!("data: {kept}\n\n").into())
    }
}

/// The data of an event, as far as it goes.
fn data(event: &[u8]) -> Vec<u8> {
    let lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
    let data = lines.filter_map(|line| line.strip_prefix(b"data:"));
    let data: Vec<&[u8]> = data
        .map(|line| line.strip_prefix(b" ").unwrap_or(line))
        .collect();
    data.join(&b'\n')
}

/// Finds empty lines, by which events end.
#[derive(Debug)]
struct Lines {
    /// Nothing of the line has come.
    is_empty: bool,
    /// The last byte was a carriage return: a line feed belongs to it.
    after_return: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            is_empty: true,
            after_return: false,
        }
    }
}

impl Lines {
    /// Takes a byte; says whether an event ends behind it.
    fn take(&mut self, byte: u8) -> bool {
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\n' if after_return => false,
            b'\n' | b'\r' => std::mem::replace(&mut self.is_empty, true),
            _ => {
                self.is_empty = false;
                false
            }
        }
    }

    /// Where the last event in these bytes ends.
    fn last_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut end = None;
        for (byte, at) in bytes.iter().zip(1..) {
            if self.take(*byte) {
                end = Some(at);
            }
        }
        end
    }

    /// Where the first one ends; nothing behind it is looked at.
    fn first_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut ends = bytes.iter().zip(1..);
        ends.find_map(|(byte, at)| self.take(*byte).then_some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(answering: Answering, chunks: &[&[u8]]) -> Result<Vec<String>, Trouble> {
        let mut gatherer = Gatherer::new(answering);
        let taken = chunks.iter().map(|chunk| gatherer.take(chunk));
        let taken: Result<Vec<Bytes>, Trouble> = taken.collect();
        let texts = taken?.into_iter().filter(|bytes| !bytes.is_empty());
        Ok(texts
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
            .collect())
    }

    #[test]
    fn events_come_whole_however_their_lines_end() {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!("id: 1{end}data: a{end}{end}data: b{end}{end}");
            for size in 1..text.len() {
                let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                let events = gather(Answering::Everything, &chunks).unwrap();
                assert!(events[0].starts_with("id: 1"), "{size} {events:?}");
                assert!(events.iter().all(|event| {
                    event.ends_with(&format!("{end}{end}")) || event.ends_with("\r\n\r")
                }));
            }
        }
        let small = b"data: x\r\n\r\n".repeat(1000);
        let chunks = vec![&small[..]; 1000];
        assert_eq!(gather(Answering::Everything, &chunks).unwrap().len(), 1000);
    }

    #[test]
    fn m3_an_endless_event_is_cut_where_it_is_a_result() {
        let begin = br#"data: {"id":1,"result":{"content":[{"type":"text","text":""#;
        let more = vec![b'x'; 65536];
        let mut chunks = vec![&begin[..]];
        chunks.extend(vec![&more[..]; 200]);
        let events = gather(Answering::Request("1".to_owned()), &chunks).unwrap();
        assert_eq!(events.len(), 1);
        assert!(events[0].contains("[cut: ") && events[0].len() < 1024 * 1024 + 100);
        // On a stream for everything the next event is found again.
        chunks.extend([&b"\"}]}}\n\ndata: nex"[..], b"t\n\n"]);
        let events = gather(Answering::Everything, &chunks).unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(events[1], "data: next\n\n");
        let other = b"data: xxxxxxxx\n".repeat(10_000);
        let chunks = vec![&other[..]; 100];
        assert_eq!(
            gather(Answering::Everything, &chunks),
            Err(Trouble::TooLarge)
        );
    }
}
