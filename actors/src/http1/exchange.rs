//! One request and its answer on one connection.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::Answer;
use super::frame::{Framing, Next};
use super::head::{HeadReader, Malformed};
use super::payload::{Rest, Unread};
use super::pool::Pool;

/// How much is read at once. What a reader holds keeps a buffer of this size.
const READ: usize = 8 * 1024;
/// A buffer with less room than this is not read into.
const ROOM: usize = 1024;

/// A stream of bytes both ways, with TLS or without.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// A connection.
pub(super) struct Connection {
    io: Box<dyn Io>,
    /// What was read and belongs to no answer yet.
    read: BytesMut,
}

/// Why an answer's head did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection ended before the first byte of an answer.
    Unanswered,
    /// It ended within the head.
    BrokenOff,
    Malformed,
    /// A part of the request was not read.
    Unread(Unread),
}

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection ended first.
    #[error("the answer broke off")]
    BrokenOff,
    /// The bytes are not framed as the head says.
    #[error("the answer is not framed as its head says")]
    Malformed,
    /// Longer than its reader takes.
    #[error("the answer is too long")]
    TooLong,
    /// The memory budget has no room for it.
    #[error("there is no memory for the answer")]
    NoRoom,
}

impl Connection {
    pub(super) fn new(io: impl Io + 'static) -> Self {
        Self {
            io: Box::new(io),
            read: BytesMut::new(),
        }
    }

    /// Whether nothing has come since the last answer, not even the end: between two exchanges every
    /// byte is one too many.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut task = Context::from_waker(Waker::noop());
        let read = Pin::new(&mut self.io).poll_read(&mut task, &mut ReadBuf::new(&mut byte));
        self.read.is_empty() && read.is_pending()
    }

    /// Reads what is there.
    fn poll_fill(&mut self, task: &mut Context<'_>) -> Poll<Filled> {
        if self.read.capacity() - self.read.len() < ROOM {
            self.read.reserve(READ);
        }
        let read = ready!(poll_read_buf(Pin::new(&mut self.io), task, &mut self.read));
        Poll::Ready(match read {
            Ok(0) => Filled::End,
            Ok(_) => Filled::More,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Filled::Reset,
            // With TLS, many servers end without saying so.
            Err(_) => Filled::End,
        })
    }
}

/// What reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    More,
    End,
    /// The server is gone, or wants no more of it: what it sent may not be all.
    Reset,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// A request on its way.
#[derive(Debug)]
enum Upload {
    Writing(Rest),
    Flushing,
    Sent,
    /// The server takes no more; it may have answered before.
    Failed,
    /// A part of it was not read: the server waits for ever.
    Unread(Unread),
}

impl Upload {
    /// Sends what can be sent, and lets go of it.
    fn advance(&mut self, io: &mut Box<dyn Io>, task: &mut Context<'_>) {
        loop {
            let step = match self {
                Self::Sent | Self::Failed | Self::Unread(_) => return,
                Self::Writing(rest) => match rest.poll_ready(task) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(Some(mut ready))) => {
                        poll_write_buf(Pin::new(io), task, &mut ready).map_ok(|count| count > 0)
                    }
                    Poll::Ready(Ok(None)) => {
                        *self = Self::Flushing;
                        continue;
                    }
                    Poll::Ready(Err(why)) => {
                        *self = Self::Unread(why);
                        return;
                    }
                },
                Self::Flushing => Pin::new(&mut *io).poll_flush(task).map_ok(|()| true),
            };
            match step {
                Poll::Pending => return,
                Poll::Ready(Ok(true)) if matches!(self, Self::Flushing) => *self = Self::Sent,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false) | Err(_)) => *self = Self::Failed,
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Exchange {
    /// `None` once the answer has it.
    line: Option<(Connection, Upload)>,
    heads: HeadReader,
    heard: bool,
}

impl Exchange {
    pub(super) fn begin(connection: Connection, head: Bytes, body: Rest) -> Self {
        Self {
            line: Some((connection, Upload::Writing(body.behind(head)))),
            heads: HeadReader::default(),
            heard: false,
        }
    }

    /// Sends the request and reads up to the body of its answer. May be dropped and called again.
    pub(super) async fn answer(&mut self, home: &Rc<Pool>) -> Result<Answer, Failure> {
        poll_fn(|task| self.poll_answer(home, task)).await
    }

    fn poll_answer(
        &mut self,
        home: &Rc<Pool>,
        task: &mut Context<'_>,
    ) -> Poll<Result<Answer, Failure>> {
        let Some((connection, upload)) = &mut self.line else {
            return Poll::Ready(Err(Failure::BrokenOff));
        };
        upload.advance(&mut connection.io, task);
        if let Upload::Unread(why) = upload {
            return Poll::Ready(Err(Failure::Unread(*why)));
        }
        let head = loop {
            match self.heads.read(&mut connection.read) {
                Ok(Some(head)) => break head,
                Ok(None) => {}
                Err(Malformed) => return Poll::Ready(Err(Failure::Malformed)),
            }
            match ready!(connection.poll_fill(task)) {
                Filled::More => self.heard = true,
                Filled::End | Filled::Reset if self.heard => {
                    return Poll::Ready(Err(Failure::BrokenOff));
                }
                Filled::End | Filled::Reset => return Poll::Ready(Err(Failure::Unanswered)),
            }
        };
        let body = self.line.take().map(|(connection, upload)| Reading {
            connection,
            upload,
            framing: head.framing,
            home: head.persistent.then(|| Rc::clone(home)),
        });
        let mut body = Body { reading: body };
        if head.framing == Framing::Length(0) {
            body.end();
        }
        Poll::Ready(Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        }))
    }
}

/// The body of an answer, part by part.
#[derive(Debug)]
pub struct Body {
    /// `None` behind its end.
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    connection: Connection,
    /// A server may begin its answer before it has the whole request.
    upload: Upload,
    framing: Framing,
    /// Where the connection goes afterwards; `None` where it cannot be used again.
    home: Option<Rc<Pool>>,
}

impl Body {
    /// The body is whole: its connection may be used again.
    fn end(&mut self) {
        let Some(reading) = self.reading.take() else {
            return;
        };
        if let (Some(home), Upload::Sent) = (reading.home, &reading.upload) {
            home.put(reading.connection);
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.reading = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Body {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(reading) = &mut self.reading else {
                return Poll::Ready(None);
            };
            match reading.framing.next(&mut reading.connection.read) {
                Ok(Next::Data(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Ok(Next::End) => {
                    self.end();
                    return Poll::Ready(None);
                }
                Ok(Next::More) => {}
                Err(Malformed) => return self.fail(BodyError::Malformed),
            }
            reading.upload.advance(&mut reading.connection.io, task);
            if matches!(reading.upload, Upload::Unread(_)) {
                return self.fail(BodyError::BrokenOff);
            }
            match ready!(reading.connection.poll_fill(task)) {
                Filled::More => {}
                Filled::End if reading.framing.ends_with_the_connection() => {
                    self.reading = None;
                    return Poll::Ready(None);
                }
                Filled::End | Filled::Reset => return self.fail(BodyError::BrokenOff),
            }
        }
    }
}
