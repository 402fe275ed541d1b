//! Where the body of an answer ends (RFC 9112, 6.3 and 7.1). Pure.

use bytes::{Buf as _, Bytes, BytesMut};

use super::head::Malformed;

/// Longest line of a chunk's size, with its extensions, and most bytes of trailers.
const MAX_LINE: usize = 4 * 1024;
const MAX_TRAILERS: usize = 64 * 1024;

/// What is left of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, from this place on.
    Chunked(Place),
    /// Everything until the connection is closed.
    UntilClose,
}

/// A place among chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the line with a chunk's size.
    Size,
    /// Within a chunk of which so many bytes are left.
    Data(u64),
    /// Before the end of the line behind a chunk.
    Behind,
    /// Among the trailers, of which so many bytes were read.
    Trailers(usize),
    /// Behind the last byte.
    Over,
}

/// What the bytes read so far bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Data(Bytes),
    /// More has to be read.
    More,
    /// The body is over; what is left belongs to nobody.
    End,
}

impl Framing {
    pub(super) fn chunked() -> Self {
        Self::Chunked(Place::Size)
    }

    /// Whether the body is whole if the connection ends here.
    pub(super) fn ends_with_the_connection(self) -> bool {
        self == Self::UntilClose
    }

    /// Takes the next part of the body off the beginning of what was read.
    pub(super) fn next(&mut self, bytes: &mut BytesMut) -> Result<Next, Malformed> {
        match self {
            Self::Length(0) => Ok(Next::End),
            Self::Length(left) => Ok(data(left, bytes)),
            Self::UntilClose if bytes.is_empty() => Ok(Next::More),
            Self::UntilClose => Ok(Next::Data(bytes.split().freeze())),
            Self::Chunked(place) => place.next(bytes),
        }
    }
}

impl Place {
    fn next(&mut self, bytes: &mut BytesMut) -> Result<Next, Malformed> {
        loop {
            match self {
                Self::Over => return Ok(Next::End),
                Self::Data(0) => *self = Self::Behind,
                Self::Data(left) => return Ok(data(left, bytes)),
                Self::Size => {
                    let Some(line) = line(bytes)? else {
                        return Ok(Next::More);
                    };
                    *self = match size(&line)? {
                        0 => Self::Trailers(0),
                        size => Self::Data(size),
                    };
                }
                Self::Behind => match bytes.get(..2) {
                    Some(b"\r\n") => {
                        bytes.advance(2);
                        *self = Self::Size;
                    }
                    None if b"\r\n".starts_with(bytes) => return Ok(Next::More),
                    Some(_) | None => return Err(Malformed),
                },
                Self::Trailers(read) => {
                    let Some(line) = line(bytes)? else {
                        return Ok(Next::More);
                    };
                    *read += line.len();
                    if *read > MAX_TRAILERS {
                        return Err(Malformed);
                    }
                    if line.is_empty() {
                        *self = Self::Over;
                    }
                }
            }
        }
    }
}

/// As much of `left` bytes as was read.
fn data(left: &mut u64, bytes: &mut BytesMut) -> Next {
    if bytes.is_empty() {
        return Next::More;
    }
    let take = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left = left.saturating_sub(u64::try_from(take).unwrap_or(u64::MAX));
    Next::Data(bytes.split_to(take).freeze())
}

/// The next line without its end, which is CR LF: a lone LF is read differently by different servers.
fn line(bytes: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
    let known = bytes.get(..bytes.len().min(MAX_LINE)).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', known) else {
        return if known.len() == MAX_LINE {
            Err(Malformed)
        } else {
            Ok(None)
        };
    };
    let mut line = bytes.split_to(end + 1);
    if !line.ends_with(b"\r\n") {
        return Err(Malformed);
    }
    line.truncate(end - 1);
    if line.contains(&b'\r') {
        return Err(Malformed);
    }
    Ok(Some(line))
}

/// The size that a line tells; extensions behind it mean nothing to us.
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (digits, behind) = line.split_at_checked(digits).ok_or(Malformed)?;
    let extension = behind.trim_ascii_start();
    if !extension.is_empty() && !extension.starts_with(b";") {
        return Err(Malformed);
    }
    let digits = std::str::from_utf8(digits).map_err(|_no_text| Malformed)?;
    // No digits, or more than fit.
    u64::from_str_radix(digits, 16).map_err(|_bad| Malformed)
}
