//! A raw blocking HTTP/1.1 client: every byte and the way of leaving are the test's choice.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::SockRef;

/// Where requests go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no JSON ({e}), status {}: {}", self.status, self.text()))
    }

    /// Asserts an OpenAI error body with this status; gives its `code`.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let body = self.json();
        for key in ["message", "type", "param", "code"] {
            assert!(
                body["error"].get(key).is_some(),
                "error lacks {key}: {body}"
            );
        }
        assert!(
            self.body.len() <= 2048,
            "error body of {} bytes",
            self.body.len()
        );
        body["error"]["code"].clone()
    }
}

impl Client {
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        let json = [("content-type", "application/json")];
        self.send("POST", path, &json, body.to_string().as_bytes())
    }

    pub(crate) fn create(&self, body: &Value) -> Reply {
        self.post("/v1/responses", body)
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        self.try_send(method, path, headers, body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    pub(crate) fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Reply> {
        let mut open = Open::connect(self.address)?;
        open.write(&request(method, path, headers, body))?;
        if method == "HEAD" {
            open.head()
        } else {
            open.reply()
        }
    }

    /// Begins a request and leaves the rest to the caller.
    pub(crate) fn open(&self, body: &Value) -> Open {
        let open = Open::connect(self.address).expect("connect");
        open.asks(body)
    }

    /// The same with a receive buffer of hardly anything, from before the first byte of the answer.
    pub(crate) fn open_narrow(&self, body: &Value) -> Open {
        let open = Open::connect(self.address).expect("connect");
        SockRef::from(&open.stream)
            .set_recv_buffer_size(4096)
            .expect("buffer");
        open.asks(body)
    }
}

/// The bytes of a request with a length.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str("host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if method == "POST" || !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A connection with a request on it.
#[derive(Debug)]
pub(crate) struct Open {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Open {
    pub(crate) fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    fn asks(mut self, body: &Value) -> Self {
        let json = [("content-type", "application/json")];
        let bytes = request("POST", "/v1/responses", &json, body.to_string().as_bytes());
        self.write(&bytes).expect("write");
        self
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent, and stays to read.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Leaves in order.
    pub(crate) fn leave_fin(self) -> Instant {
        drop(self.stream);
        Instant::now()
    }

    /// Leaves with a reset.
    pub(crate) fn leave_reset(self) -> Instant {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("linger");
        drop(self.stream);
        Instant::now()
    }

    pub(crate) fn set_timeout(&self, time: Duration) {
        self.stream.set_read_timeout(Some(time)).expect("timeout");
    }

    /// Reads at most this much; 0 at the end.
    pub(crate) fn read_some(&mut self, limit: usize) -> std::io::Result<usize> {
        let mut buffer = vec![0; limit];
        let count = self.stream.read(&mut buffer)?;
        self.buffer.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// Everything read so far, framing included.
    pub(crate) fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Reads until the text shows up on the wire.
    #[track_caller]
    pub(crate) fn read_until(&mut self, text: &str) {
        while !self.so_far().contains(text) {
            let count = self.read_some(65536).expect("read");
            assert!(count > 0, "ended before {text:?}: {}", self.so_far());
        }
    }

    /// Reads the answer to HEAD, which ends with its head; the connection stays usable.
    pub(crate) fn head(&mut self) -> std::io::Result<Reply> {
        while !self.so_far().contains("\r\n\r\n") {
            if self.read_some(65536)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let bytes = std::mem::take(&mut self.buffer);
        let at = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let (head, body) = bytes.split_at(at.unwrap_or(0) + 4);
        // What the head says of a body is of GET's; here it counts what follows all the same.
        let lines = String::from_utf8_lossy(head).to_ascii_lowercase();
        let lines = (lines.split("\r\n"))
            .filter(|line| !line.starts_with("content-length") && !line.starts_with("transfer"));
        let bare = format!(
            "{}\r\n\r\n",
            lines.collect::<Vec<_>>().join("\r\n").trim_end()
        );
        let (mut reply, _) = parse(bare.as_bytes(), true)?.ok_or(ErrorKind::InvalidData)?;
        reply.body = body.to_vec();
        Ok(reply)
    }

    /// Reads one whole answer; the connection stays usable.
    pub(crate) fn reply(&mut self) -> std::io::Result<Reply> {
        loop {
            if let Some((reply, used)) = parse(&self.buffer, false)? {
                self.buffer.drain(..used);
                return Ok(reply);
            }
            if self.read_some(65536)? == 0 {
                return match parse(&self.buffer, true)? {
                    Some((reply, _)) => Ok(reply),
                    None => Err(ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }
}

/// One answer at the front of the bytes and its length on the wire.
fn parse(bytes: &[u8], ended: bool) -> std::io::Result<Option<(Reply, usize)>> {
    let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|l| l.split(' ').nth(1))
        .and_then(|s| s.parse().ok());
    let Some(status) = status else {
        return Err(ErrorKind::InvalidData.into());
    };
    if status == 100 {
        let rest = parse(&bytes[at + 4..], ended)?;
        return Ok(rest.map(|(reply, used)| (reply, used + at + 4)));
    }
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    let mut reply = Reply {
        status,
        headers,
        body: Vec::new(),
    };
    let rest = &bytes[at + 4..];
    if reply
        .header("transfer-encoding")
        .is_some_and(|v| v.contains("chunked"))
    {
        let Some((body, used)) = unchunk_used(rest) else {
            return Ok(None);
        };
        reply.body = body;
        return Ok(Some((reply, at + 4 + used)));
    }
    let length = reply
        .header("content-length")
        .and_then(|v| v.parse::<usize>().ok());
    match length {
        Some(length) if rest.len() >= length => {
            reply.body = rest[..length].to_vec();
            Ok(Some((reply, at + 4 + length)))
        }
        None if ended || status == 204 => {
            reply.body = rest.to_vec();
            Ok(Some((reply, bytes.len())))
        }
        _ => Ok(None),
    }
}

/// The body of complete chunked bytes, or none while the last chunk is missing.
pub(crate) fn unchunk(bytes: &[u8]) -> Option<Vec<u8>> {
    unchunk_used(bytes).map(|(body, _)| body)
}

fn unchunk_used(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let line = bytes[at..].windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at += line + 2;
        let chunk = bytes.get(at..at + size)?;
        bytes.get(at + size..at + size + 2)?;
        body.extend_from_slice(chunk);
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_cut_out_of_the_wire() {
        let wire =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nrest";
        let (reply, used) = parse(wire, false).unwrap().unwrap();
        assert_eq!((reply.status, reply.body.as_slice()), (200, &b"abc"[..]));
        assert_eq!(&wire[used..], b"rest");
        for cut in 0..wire.len() - 4 {
            assert!(parse(&wire[..cut], false).unwrap().is_none(), "cut {cut}");
        }
        let wire = b"HTTP/1.1 400 Bad\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(wire, false).unwrap().unwrap().0.text(), "{}");
    }
}
