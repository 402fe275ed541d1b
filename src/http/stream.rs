//! The body of a streamed response: the turn's channel as an HTTP body.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::Error;
use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use tokio::sync::mpsc::Receiver;

/// Yields what the turn writes. When the client leaves, actix drops this, and the turn sees its
/// channel close.
pub(super) struct TurnBody(pub(super) Receiver<Bytes>);

impl MessageBody for TurnBody {
    type Error = Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.0.poll_recv(task).map(|bytes| bytes.map(Ok))
    }
}
