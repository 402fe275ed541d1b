//! What a model call has used, where the model server does not tell: its answer was not read to the
//! end, or has no usage. Pure.

use memchr::memmem;

/// Of a chat request or an answer; of English text and code a token is about four bytes.
const BYTES_PER_TOKEN: usize = 4;

/// A call whose usage is not known yet.
#[derive(Debug)]
pub struct Estimate {
    prompt: u64,
    /// Events of a stream, each of which has a token or more; a whole answer's bytes.
    events: usize,
    bytes: usize,
}

impl Estimate {
    /// Of a call with this body.
    pub fn of(body: &[u8]) -> Self {
        Self {
            prompt: tokens(text_bytes(body)),
            events: 0,
            bytes: 0,
        }
    }

    /// Part of the answer came.
    pub fn saw(&mut self, part: &[u8]) {
        self.bytes += part.len();
        self.events += memmem::find_iter(part, b"data:").count();
    }

    /// Tokens, read and written, as far as they were seen.
    pub fn tokens(&self) -> u64 {
        let written = match self.events {
            0 => tokens(self.bytes),
            events => u64::try_from(events).unwrap_or(u64::MAX),
        };
        self.prompt.saturating_add(written)
    }
}

fn tokens(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u64::MAX)
}

/// Without pictures and other data, whose tokens have nothing to do with their bytes.
fn text_bytes(body: &[u8]) -> usize {
    const DATA: &[u8] = b";base64,";
    let mut left = body;
    let mut data = 0;
    while let Some(at) = memmem::find(left, DATA) {
        let behind = left.get(at + DATA.len()..).unwrap_or_default();
        let end = memchr::memchr(b'"', behind).unwrap_or(behind.len());
        data += end;
        left = behind.get(end..).unwrap_or_default();
    }
    body.len().saturating_sub(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_counted_and_pictures_are_not() {
        let body = format!(
            r#"{{"a":"data:image/png;base64,{}","b":"four"}}"#,
            "x".repeat(4000)
        );
        let mut estimate = Estimate::of(body.as_bytes());
        let prompt = estimate.tokens();
        assert!((9..=12).contains(&prompt), "{prompt}");
        estimate.saw(b"data: {}\n\ndata: {}\n\n");
        assert_eq!(estimate.tokens(), prompt + 2);
        let mut whole = Estimate::of(b"");
        whole.saw(&[b' '; 40]);
        assert_eq!(whole.tokens(), 10);
    }
}
