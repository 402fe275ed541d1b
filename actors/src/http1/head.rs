//! The head of an answer, and what it says of the body and of the connection (RFC 9112, 4 to 6). Pure.

use bytes::{Buf as _, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::frame::Framing;

/// Longest head, and most headers in it; servers and proxies allow 8 to 64 KiB.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
const BEGINNING: &[u8] = b"HTTP/1.";

/// These bytes are no answer that can be read safely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The head of a final answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) framing: Framing,
    /// The server goes on reading requests once this answer is sent.
    pub(super) persistent: bool,
}

/// Takes heads off the beginning of what was read.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// How far no end of a head was found, so that one that dribbles in is not searched anew.
    searched: usize,
}

impl HeadReader {
    /// The final head, once it is there; interim answers before it are passed over (RFC 9110, 15.2).
    pub(super) fn read(&mut self, bytes: &mut BytesMut) -> Result<Option<Head>, Malformed> {
        loop {
            let Some((status, length, head)) = self.next(bytes)? else {
                return Ok(None);
            };
            bytes.advance(length);
            self.searched = 0;
            if let Some(head) = head {
                return Ok(Some(head));
            }
            // 101 would hand the connection to a protocol that nobody asked for.
            if status == 101 {
                return Err(Malformed);
            }
        }
    }

    /// Status and length of the next head, and the head itself where it is final.
    fn next(&mut self, bytes: &[u8]) -> Result<Option<(u16, usize, Option<Head>)>, Malformed> {
        if !begins_as_an_answer(bytes) {
            return Err(Malformed);
        }
        while let Some(end) = self.end(bytes) {
            let head = bytes.get(..end).ok_or(Malformed)?;
            if let Some(parsed) = parse(head)? {
                return Ok(Some(parsed));
            }
            // Empty lines before the status line.
            self.searched = end;
        }
        if bytes.len() > MAX_HEAD {
            return Err(Malformed);
        }
        Ok(None)
    }

    /// Behind the next empty line.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let begin = self.searched;
        let rest = bytes.get(begin..)?;
        for at in memchr::memchr_iter(b'\n', rest) {
            let behind = rest.get(at + 1..).unwrap_or_default();
            match behind {
                [b'\n', ..] => return Some(begin + at + 2),
                [b'\r', b'\n', ..] => return Some(begin + at + 3),
                // Its continuation is not there yet.
                [] | [b'\r'] => {
                    self.searched = begin + at;
                    return None;
                }
                _ => {}
            }
        }
        self.searched = bytes.len();
        None
    }
}

/// A peer that speaks something else is noticed at its first bytes, not at the deadline.
fn begins_as_an_answer(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [b'\r' | b'\n', behind @ ..] = rest {
        rest = behind;
    }
    let known = rest.len().min(BEGINNING.len());
    rest.get(..known) == BEGINNING.get(..known)
}

fn parse(bytes: &[u8]) -> Result<Option<(u16, usize, Option<Head>)>, Malformed> {
    if bytes.len() > MAX_HEAD {
        return Err(Malformed);
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut fields);
    let length = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_bad) => return Err(Malformed),
    };
    let status = answer.code.filter(|code| *code >= 100).ok_or(Malformed)?;
    if status < 200 {
        return Ok(Some((status, length, None)));
    }
    let mut headers = HeaderMap::with_capacity(answer.headers.len());
    for field in &*answer.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Malformed);
        };
        headers.append(name, value);
    }
    let (framing, exact) = framing(status, &headers)?;
    let persistent = answer.version == Some(1) && exact && !closes(&headers);
    let head = Head {
        status,
        headers,
        framing,
        persistent,
    };
    Ok(Some((status, length, Some(head))))
}

/// How the body is framed (RFC 9112, 6.3), and whether its end leaves no doubt.
fn framing(status: u16, headers: &HeaderMap) -> Result<(Framing, bool), Malformed> {
    if matches!(status, 204 | 304) {
        return Ok((Framing::Length(0), true));
    }
    let codings: Vec<&str> = members(headers, header::TRANSFER_ENCODING)?;
    let lengths = members(headers, header::CONTENT_LENGTH)?;
    match codings.as_slice() {
        [] => {}
        // Only this coding was offered; a length beside it is a sign of smuggling.
        [coding] if coding.eq_ignore_ascii_case("chunked") => {
            return Ok((Framing::chunked(), lengths.is_empty()));
        }
        _ => return Err(Malformed),
    }
    let Some(first) = lengths.first() else {
        return Ok((Framing::UntilClose, false));
    };
    let digits = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || lengths.iter().any(|length| length != first) {
        return Err(Malformed);
    }
    let length = first.parse().map_err(|_too_large| Malformed)?;
    Ok((Framing::Length(length), true))
}

fn closes(headers: &HeaderMap) -> bool {
    // A header that cannot be read is no promise to stay.
    members(headers, header::CONNECTION).map_or(true, |options| {
        options
            .iter()
            .any(|option| option.eq_ignore_ascii_case("close"))
    })
}

/// The members of a header that is a list, over all its lines.
fn members(headers: &HeaderMap, name: HeaderName) -> Result<Vec<&str>, Malformed> {
    let mut found = Vec::new();
    for line in headers.get_all(name) {
        let line = line.to_str().map_err(|_not_text| Malformed)?;
        found.extend(line.split(',').map(str::trim));
    }
    Ok(found)
}
