//! The body of a request: bytes, or pieces that are read while it is sent.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::LocalBoxStream;

/// Why a piece was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is not there, or not what it was.
    #[error("it is not there any more")]
    Gone,
    /// Who keeps it does not answer.
    #[error("the store is unavailable")]
    Unavailable,
}

/// The pieces of one body, in order.
pub type Pieces = LocalBoxStream<'static, Result<Bytes, Unread>>;

/// See the module. A request that is sent again has its pieces read again; cheap to clone.
#[derive(Clone)]
pub enum Payload {
    /// All of it.
    Bytes(Bytes),
    /// What is read piece by piece.
    Pieces {
        /// Of all of them.
        length: usize,
        /// Begins to read.
        read: Rc<dyn Fn() -> Pieces>,
    },
}

impl Default for Payload {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies have content.
        f.debug_struct("Payload")
            .field("length", &self.length())
            .finish()
    }
}

impl Payload {
    /// How long it is.
    pub fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Pieces { length, .. } => *length,
        }
    }

    /// From its beginning.
    pub(super) fn begin(&self) -> Rest {
        match self {
            Self::Bytes(bytes) => Rest {
                ready: VecDeque::from([bytes.clone()]),
                more: None,
                unread: 0,
            },
            Self::Pieces { length, read } => Rest {
                ready: VecDeque::new(),
                more: Some(read()),
                unread: *length,
            },
        }
    }
}

/// What is still to be sent.
pub(super) struct Rest {
    /// What can be sent now.
    ready: VecDeque<Bytes>,
    more: Option<Pieces>,
    /// Bytes that are still to be read.
    unread: usize,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

impl Rest {
    /// The same behind this head.
    pub(super) fn behind(mut self, head: Bytes) -> Self {
        self.ready.push_front(head);
        self
    }

    /// What can be sent now; none at the end. Reads the next piece when everything before it is sent.
    pub(super) fn poll_ready(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Result<Option<Ready<'_>>, Unread>> {
        while self.ready.front().is_some_and(Bytes::is_empty) {
            self.ready.pop_front();
        }
        while self.ready.is_empty() {
            let Some(more) = &mut self.more else {
                return Poll::Ready(Ok(None));
            };
            let Some(piece) = ready!(Pin::new(more).poll_next(task)) else {
                self.more = None;
                // Shorter than its head said: the server is not to take it for whole.
                return Poll::Ready(if self.unread == 0 {
                    Ok(None)
                } else {
                    Err(Unread::Gone)
                });
            };
            let piece = piece?;
            let Some(unread) = self.unread.checked_sub(piece.len()) else {
                return Poll::Ready(Err(Unread::Gone));
            };
            self.unread = unread;
            if !piece.is_empty() {
                self.ready.push_back(piece);
            }
        }
        Poll::Ready(Ok(Some(Ready(&mut self.ready))))
    }
}

/// What can be sent now: not empty.
pub(super) struct Ready<'a>(&'a mut VecDeque<Bytes>);

impl bytes::Buf for Ready<'_> {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |front| &front[..])
    }

    fn chunks_vectored<'b>(&'b self, into: &mut [std::io::IoSlice<'b>]) -> usize {
        let mut filled = 0;
        for (slice, bytes) in into.iter_mut().zip(self.0.iter()) {
            *slice = std::io::IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(front) = self.0.front_mut() else {
                return;
            };
            let part = front.len().min(count);
            front.advance(part);
            count -= part;
            if front.is_empty() {
                self.0.pop_front();
            }
        }
    }
}
