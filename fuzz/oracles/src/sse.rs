//! F1: the event-stream decoder gives the same frames however its bytes are cut, and holds no more
//! than its cap.

use vllm_responses_protocol::sse::{Decoder, MAX_FRAME};

/// A frame: its event and its data.
type Frame = (Vec<u8>, Vec<u8>);

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Frame> {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for piece in pieces {
        if decoder.push(piece).is_err() {
            break;
        }
        while let Some(frame) = decoder.next_frame() {
            frames.push((frame.event.to_vec(), frame.data.to_vec()));
        }
    }
    frames
}

fn add(data: &mut Option<Vec<u8>>, line: &[u8]) {
    match data {
        None => *data = Some(line.to_vec()),
        Some(data) => {
            data.push(b'\n');
            data.extend_from_slice(line);
        }
    }
}

/// The grammar again, written down the slow way.
fn reference(bytes: &[u8]) -> Vec<Frame> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (mut frames, mut event) = (Vec::new(), Vec::new());
    let mut data: Option<Vec<u8>> = None;
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let line = &rest[..end];
        rest = &rest[end..];
        rest = match rest {
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
            [] => &[],
        };
        if line.is_empty() {
            let event = std::mem::take(&mut event);
            if let Some(data) = data.take() {
                frames.push((event, data));
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = colon.map_or((line, &[][..]), |at| (&line[..at], &line[at + 1..]));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => event = value.to_vec(),
            b"data" => add(&mut data, value),
            // As if it were data of an event of this name: servers tell of errors so.
            b"error" => {
                event = b"error".to_vec();
                add(&mut data, value);
            }
            _ => {}
        }
    }
    frames
}

/// The first byte says how the others are cut.
pub fn check(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else {
        return;
    };
    if bytes.len() > MAX_FRAME {
        return;
    }
    let whole = decode(std::iter::once(bytes));
    let size = usize::from(cut % 16) + 1;
    assert_eq!(whole, decode(bytes.chunks(size)), "cut every {size} bytes");
    let (one, two) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(whole, decode([one, two].into_iter()), "cut at {cut}");
    assert_eq!(whole, reference(bytes), "not what the grammar says");
}
