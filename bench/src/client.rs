//! One keep-alive HTTP/1.1 connection of the load generator. It understands just what the servers
//! measured here send, so that its own cost stays small.

use std::time::{Duration, Instant};

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest answer that is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection that sends one request after another.
pub(crate) struct Client {
    stream: TcpStream,
    host: String,
    /// Bytes read and not yet understood.
    unread: Vec<u8>,
}

/// An answer that was read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// From sending until the first byte of the body.
    pub(crate) byte: Duration,
    /// From sending until the marker was seen; until the end where there was none.
    pub(crate) delta: Duration,
    /// From sending until the end.
    pub(crate) whole: Duration,
}

/// How the end of a body is known.
enum Framing {
    Length(usize),
    Chunks,
}

impl Client {
    /// Connects to `host:port`.
    pub(crate) async fn connect(host: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(host)
            .await
            .map_err(|error| format!("cannot connect to {host}: {error}"))?;
        stream
            .set_nodelay(true)
            .map_err(|error| format!("cannot set TCP_NODELAY: {error}"))?;
        Ok(Self {
            stream,
            host: host.to_owned(),
            unread: Vec::with_capacity(4 << 10),
        })
    }

    /// Sends a GET and reads the answer.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer, String> {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
        self.exchange(head.as_bytes(), b"").await
    }

    /// Sends a JSON body and reads the answer; `marker` is what [`Answer::delta`] looks for.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        body: &[u8],
        marker: &[u8],
    ) -> Result<Answer, String> {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            self.host,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.exchange(&request, marker).await
    }

    /// One exchange, within [`LIMIT`]: a server that hangs is a fault, and the run goes on.
    async fn exchange(&mut self, request: &[u8], marker: &[u8]) -> Result<Answer, String> {
        let answered = tokio::time::timeout(LIMIT, self.answered(request, marker));
        let late = |_elapsed| format!("no answer within {} s", LIMIT.as_secs());
        answered.await.map_err(late)?
    }

    async fn answered(&mut self, request: &[u8], marker: &[u8]) -> Result<Answer, String> {
        let start = Instant::now();
        self.stream
            .write_all(request)
            .await
            .map_err(|error| format!("cannot send: {error}"))?;
        let end = loop {
            if let Some(at) = memmem::find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let (status, framing) = parse_head(&head)?;
        let mut body = Vec::new();
        let (mut byte, mut delta) = (None, None);
        loop {
            let before = body.len();
            let done = take(&framing, &mut self.unread, &mut body)?;
            if byte.is_none() && !body.is_empty() {
                byte = Some(start.elapsed());
            }
            let from = before.saturating_sub(marker.len());
            let new = body.get(from..).unwrap_or_default();
            if delta.is_none() && !marker.is_empty() && memmem::find(new, marker).is_some() {
                delta = Some(start.elapsed());
            }
            if done {
                break;
            }
            self.more().await?;
        }
        let whole = start.elapsed();
        Ok(Answer {
            status,
            body,
            byte: byte.unwrap_or(whole),
            delta: delta.unwrap_or(whole),
            whole,
        })
    }

    async fn more(&mut self) -> Result<(), String> {
        match self.stream.read_buf(&mut self.unread).await {
            Ok(0) => Err("the connection ended within an answer".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("cannot read: {error}")),
        }
    }
}

fn parse_head(head: &[u8]) -> Result<(u16, Framing), String> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or("the answer has no status")?;
    for line in head.lines() {
        if let Some(length) = line.strip_prefix("content-length:") {
            let length = length.trim().parse();
            let length = length.map_err(|error| format!("bad content-length: {error}"))?;
            return Ok((status, Framing::Length(length)));
        }
        if line.starts_with("transfer-encoding:") && line.ends_with("chunked") {
            return Ok((status, Framing::Chunks));
        }
    }
    Err("the answer has neither a length nor chunks".to_owned())
}

/// Moves body bytes from `unread` to `body`; true when the body is complete.
fn take(framing: &Framing, unread: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<bool, String> {
    if let Framing::Length(length) = framing {
        let missing = length.saturating_sub(body.len()).min(unread.len());
        body.extend(unread.drain(..missing));
        return Ok(body.len() == *length);
    }
    let mut used = 0;
    let mut done = false;
    while let Some((chunk, length)) = chunk(unread.get(used..).unwrap_or_default())? {
        body.extend_from_slice(chunk);
        used += length;
        done = chunk.is_empty();
        if done {
            break;
        }
    }
    unread.drain(..used);
    Ok(done)
}

/// The data of the first chunk and the chunk's length with its framing, once it is complete.
fn chunk(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, String> {
    let Some(line) = memmem::find(bytes, b"\r\n") else {
        return Ok(None);
    };
    let size = bytes.get(..line).unwrap_or_default();
    let size = std::str::from_utf8(size)
        .ok()
        .and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok())
        .ok_or("a chunk has no size")?;
    let data = line + 2;
    let end = data + size + 2;
    if bytes.len() < end {
        return Ok(None);
    }
    Ok(bytes.get(data..data + size).map(|chunk| (chunk, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_may_be_cut_anywhere() {
        let wire = b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
        for cut in 0..wire.len() {
            let (mut unread, mut body) = (wire[..cut].to_vec(), Vec::new());
            assert!(!take(&Framing::Chunks, &mut unread, &mut body).unwrap());
            unread.extend_from_slice(&wire[cut..]);
            assert!(take(&Framing::Chunks, &mut unread, &mut body).unwrap());
            assert_eq!((body.as_slice(), unread.len()), (&b"hello!"[..], 0));
        }
    }
}
