//! The body of a streamed response: the turn's channel as an HTTP body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::Error;
use actix_web::body::{BodySize, MessageBody};
use actix_web::error::ErrorInternalServerError;
use bytes::Bytes;
use vllm_responses_actors::turn::Pieces;
use vllm_responses_protocol::sse::DONE;

/// Yields what the turn writes. When the client leaves, actix drops this, and the turn sees its
/// channel close. A turn that ends without its last words breaks the connection: the client is not to
/// take what it has for a whole stream.
pub(super) struct TurnBody {
    pieces: Pieces,
    whole: bool,
}

impl TurnBody {
    pub(super) fn new(pieces: Pieces) -> Self {
        Self {
            pieces,
            whole: false,
        }
    }
}

impl MessageBody for TurnBody {
    type Error = Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let piece = ready!(self.pieces.poll_next(task));
        if let Some(bytes) = &piece {
            self.whole = bytes.ends_with(DONE);
        }
        Poll::Ready(match piece {
            Some(bytes) => Some(Ok(bytes)),
            None if self.whole => None,
            None => Some(Err(ErrorInternalServerError("the stream was cut off"))),
        })
    }
}
