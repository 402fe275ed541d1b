//! The HTTP/1.1 client for model servers, one per thread: what is between the gateway and an upstream
//! it does not own.
//!
//! `head` and `frame` read an answer as RFC 9112 has it and do no I/O; `exchange` sends one request and
//! reads its answer; `pool` keeps connections; `dial` makes them. Requests are written from headers that
//! were checked. There is no task between the socket and the reader of a body: who polls the body reads
//! the socket.
//!
//! A connection is used again only when its answer was read to its end, the whole request was sent, and
//! nothing followed the answer. So no byte of one exchange can reach another.

mod dial;
mod exchange;
mod frame;
mod head;
mod payload;
mod pool;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::HeaderMap;
use tokio::time::timeout;
use url::Url;

use crate::memory::Held;
use dial::Origin;
use exchange::{Exchange, Failure};
pub use payload::{Payload, Pieces, Unread};
use pool::Pool;

pub use exchange::{Body, BodyError};

/// A server that closes a connection while it is idle does so without reading what we send; the news
/// takes one way through the network. What fails later was read, and may have been worked on.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Why there is no connection: an operator looks for a refused one elsewhere than for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// The resolver gives no address.
    #[error("its name is not known")]
    Name,
    /// The machine is there, the server is not.
    #[error("the connection was refused: nothing listens there")]
    Refused,
    /// No route.
    #[error("there is no way to it")]
    NoWay,
    /// The limit ran out.
    #[error("no connection in time")]
    TimedOut,
    /// No TLS, or a certificate that is not trusted.
    #[error("TLS failed: does it speak https at this port, with a certificate that is trusted?")]
    Tls,
    /// Somebody else's socket.
    #[error("another process listens there")]
    Foreign,
    /// Anything else.
    #[error("the connection failed")]
    Failed,
}

impl From<io::Error> for Unreached {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        if kind == io::ErrorKind::ConnectionRefused {
            Self::Refused
        } else if matches!(
            kind,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
        ) {
            Self::NoWay
        } else if kind == io::ErrorKind::TimedOut {
            Self::TimedOut
        } else {
            Self::Failed
        }
    }
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No connection: nothing was sent.
    #[error("cannot be reached: {0}")]
    Unreachable(Unreached),
    /// The connection ended with the request sent and no answer read. It may have been worked on.
    #[error("ended the connection without an answer")]
    BrokenOff,
    /// What came is no HTTP/1.1 answer, or one that cannot be read safely.
    #[error("answered with something else than HTTP/1.1")]
    Malformed,
    /// A header or the path has characters that HTTP does not allow.
    #[error("the request cannot be written as HTTP/1.1")]
    Unwritable,
    /// A part of the body could not be read, so the request was broken off.
    #[error("a part of the request could not be read: {0}")]
    Unread(Unread),
}

/// A request. Its body is let go of as soon as it is sent and cannot be needed again.
pub struct Request {
    method: &'static str,
    path: String,
    /// Lines with their ends.
    headers: String,
    /// Empty where nobody needs one.
    id: String,
    body: Payload,
    sound: bool,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct Answer {
    /// Its status; never an interim one.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body. Dropped before its end, the connection is closed.
    pub body: Body,
}

/// A client for one origin; cheap to clone, and the clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    origin: Rc<Origin>,
    pool: Rc<Pool>,
    check: Option<Check>,
}

/// Says of a connection that has just been made to an address whether it went to whom it should.
#[derive(Clone)]
struct Check(Rc<dyn Fn(SocketAddr) -> bool>);

impl Check {
    fn passes(&self, address: SocketAddr) -> bool {
        (self.0)(address)
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Check")
    }
}

impl Request {
    /// `path` begins with a slash, and may have a query.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path.into(), Payload::default())
    }

    /// As [`Self::get`], with a body.
    pub fn post(path: impl Into<String>, body: impl Into<Payload>) -> Self {
        Self::new("POST", path.into(), body.into())
    }

    fn new(method: &'static str, path: String, body: Payload) -> Self {
        let sound = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        Self {
            method,
            path,
            headers: String::new(),
            id: String::new(),
            body,
            sound,
        }
    }

    /// Adds a header; the name is ours. A value that is not visible ASCII makes the request unwritable.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let value = value.as_ref();
        let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t';
        self.sound &= value.bytes().all(visible);
        for part in [name, ": ", value.trim(), "\r\n"] {
            self.headers.push_str(part);
        }
        self
    }

    /// Names the request for the server, as `x-request-id`. Where [`Client::send`] sends it a second
    /// time it is named anew: vLLM keeps what it runs by this id.
    #[must_use]
    pub fn named(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self.sound &= self.id.bytes().all(|byte| byte.is_ascii_graphic());
        self
    }

    /// The request's head for a server of this name; `again` goes behind its id.
    fn head(&self, authority: &str, again: &str) -> Result<Bytes, SendError> {
        if !self.sound {
            return Err(SendError::Unwritable);
        }
        let named = self.id.len() + again.len();
        let mut head = String::with_capacity(256 + self.path.len() + self.headers.len() + named);
        let Self {
            method,
            path,
            headers,
            id,
            body,
            ..
        } = self;
        // Writing to a string cannot fail.
        let _written = write!(
            head,
            "{method} {path} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: vllm-responses\r\n{headers}"
        );
        if !id.is_empty() {
            let _written = write!(head, "x-request-id: {id}{again}\r\n");
        }
        if *method == "POST" {
            let _written = write!(head, "content-length: {}\r\n", body.length());
        }
        head.push_str("\r\n");
        Ok(head.into())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers have secrets, bodies have content.
        f.debug_struct("Request")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client for the server of `url`, whose path does not matter. `connect` is the limit for
    /// finding, reaching and, with TLS, greeting it.
    ///
    /// Redirects are not followed (fault U13), proxies are not asked, nothing is compressed. The
    /// callers have deadlines of their own.
    pub fn new(url: &Url, connect: Duration) -> Self {
        Self {
            origin: Rc::new(Origin::of(url, connect)),
            pool: Rc::new(Pool::default()),
            check: None,
        }
    }

    /// Asks this of each new connection, by the address that it was made to, before anything is sent;
    /// where the answer is no, there is none.
    #[must_use]
    pub(crate) fn checked(mut self, check: impl Fn(SocketAddr) -> bool + 'static) -> Self {
        self.check = Some(Check(Rc::new(check)));
        self
    }

    /// Sends a request and reads the head of its answer.
    ///
    /// A request is sent a second time in one case: a connection that was used before failed at once
    /// and without one byte of an answer (fault U16). Dropping the future closes the connection.
    pub async fn send(&self, request: Request) -> Result<Answer, SendError> {
        let mut head = request.head(&self.origin.authority, "")?;
        if let Some(connection) = self.pool.take() {
            let mut exchange = Exchange::begin(connection, head, request.body.begin());
            match timeout(AT_ONCE, exchange.answer(&self.pool)).await {
                Ok(Err(Failure::Unanswered)) => {}
                Ok(outcome) => return outcome.map_err(SendError::from),
                Err(_elapsed) => {
                    drop(request);
                    return exchange.answer(&self.pool).await.map_err(SendError::from);
                }
            }
            head = request.head(&self.origin.authority, "-again")?;
        }
        let connection = self.origin.dial(self.check.as_ref()).await?;
        let mut exchange = Exchange::begin(connection, head, request.body.begin());
        drop(request);
        exchange.answer(&self.pool).await.map_err(SendError::from)
    }
}

impl From<Failure> for SendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unanswered | Failure::BrokenOff => Self::BrokenOff,
            Failure::Malformed => Self::Malformed,
            Failure::Unread(why) => Self::Unread(why),
        }
    }
}

impl Answer {
    /// Whether its body is compressed; nobody asked for that.
    pub fn is_encoded(&self) -> bool {
        let encodings = self.headers.get_all(http::header::CONTENT_ENCODING);
        let is_plain = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"identity");
        encodings.iter().any(|value| !is_plain(value.as_bytes()))
    }

    /// A header's text, where it is text.
    pub fn text(&self, name: http::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Body {
    /// All of it, or nothing when there are more than `most` bytes or it breaks off. For one who asks
    /// alone: what requests cause is gathered by [`Self::whole_in`].
    pub async fn whole(self, most: usize) -> Result<Bytes, BodyError> {
        self.gather(most, |_| true).await
    }

    /// As [`Self::whole`], as far as there is room in the memory budget. The buffer doubles, and is
    /// held so.
    pub async fn whole_in(self, most: usize, held: &mut Held) -> Result<Bytes, BodyError> {
        let room = |bytes: usize| {
            let more = (2 * bytes).saturating_sub(held.bytes());
            more == 0 || held.try_grow(more)
        };
        self.gather(most, room).await
    }

    async fn gather(
        mut self,
        most: usize,
        mut room: impl FnMut(usize) -> bool,
    ) -> Result<Bytes, BodyError> {
        let mut body = BytesMut::new();
        while let Some(more) = self.next().await.transpose()? {
            let with_it = body.len() + more.len();
            if with_it > most {
                return Err(BodyError::TooLong);
            }
            if !room(with_it) {
                return Err(BodyError::NoRoom);
            }
            body.extend_from_slice(&more);
        }
        Ok(body.freeze())
    }
}
