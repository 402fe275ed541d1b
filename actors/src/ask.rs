//! Asking an actor: every request has a deadline, and "the actor is gone" is an answer.

use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, MailboxError, Message, Recipient};

/// Why an actor gave no answer. What it answers itself is the message's own result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The actor has stopped, or a panic ended the work behind this message.
    #[error("the component is unavailable")]
    Unavailable,
    /// No answer within the deadline; the work may still be going on.
    #[error("the component did not answer in time")]
    TimedOut,
}

impl From<MailboxError> for AskError {
    fn from(error: MailboxError) -> Self {
        match error {
            MailboxError::Closed => Self::Unavailable,
            MailboxError::Timeout => Self::TimedOut,
        }
    }
}

/// Sends `message` to whoever takes it and waits for the answer.
pub async fn ask<M>(
    to: &Recipient<M>,
    message: M,
    deadline: Duration,
) -> Result<M::Result, AskError>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    within(deadline, to.send(message)).await
}

/// As [`ask`], to an actor whose type is known.
pub async fn ask_actor<A, M>(
    to: &Addr<A>,
    message: M,
    deadline: Duration,
) -> Result<M::Result, AskError>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    within(deadline, to.send(message)).await
}

async fn within<R>(
    deadline: Duration,
    answer: impl Future<Output = Result<R, MailboxError>>,
) -> Result<R, AskError> {
    tokio::time::timeout(deadline, answer)
        .await
        .map_err(|_elapsed| AskError::TimedOut)?
        .map_err(AskError::from)
}
