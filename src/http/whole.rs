//! Whole bodies that go to the client in pieces: those that are here, and those whose data is read from
//! the store while they are sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use futures_util::Stream as _;
use vllm_responses_actors::blobs::Whole;
use vllm_responses_actors::http1::{Pieces, Unread};
use vllm_responses_actors::memory::{CallersPlaces, Held};

/// A body goes to the HTTP layer, which copies it, in pieces of this size.
const PIECE: usize = 32 * 1024;

/// See the module. Where data cannot be read the connection is broken, since the status is sent.
pub(super) struct WholeBody {
    /// What is here of it.
    rest: Bytes,
    more: Option<Pieces>,
    length: usize,
    _held: Held,
}

impl WholeBody {
    /// Holds this until it is sent; reads each chunk in one of these places.
    pub(super) fn new(whole: Whole, held: Held, places: Option<CallersPlaces>) -> Self {
        let length = whole.length();
        let (rest, more) = match whole {
            Whole::Text(text) => (text, None),
            Whole::Parts(parts) => (Bytes::new(), Some(parts.read(places))),
        };
        Self {
            rest,
            more,
            length,
            _held: held,
        }
    }
}

impl MessageBody for WholeBody {
    type Error = Unread;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.length.try_into().unwrap_or(u64::MAX))
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        while self.rest.is_empty() {
            let Some(more) = &mut self.more else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(more).poll_next(task)) {
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(error)) => {
                    self.more = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.more = None,
            }
        }
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(self.rest.split_to(length))))
    }
}
