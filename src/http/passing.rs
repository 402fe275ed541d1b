//! An answer of the model server on its way to a client of `POST /v1/chat/completions`.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use serde::Deserialize as _;
use tokio::time::{Instant, Sleep, sleep_until};
use vllm_responses_actors::limits::estimate::Estimate;
use vllm_responses_actors::redact::Redacted;
use vllm_responses_actors::supervisor::messages::{Permit, StopStage};
use vllm_responses_actors::trace::Span;
use vllm_responses_protocol::chat::usage::ChatUsage;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};

/// How much of an answer's end is looked through for its usage, which servers write last.
const TAIL: usize = 4096;

/// Why an answer is cut off. The client finds its connection closed within the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cut {
    #[error("the model server broke off")]
    BrokenOff,
    #[error("the model server fell silent")]
    Silent,
    #[error("the gateway is shutting down")]
    Stopping,
    #[error("the gateway is short of memory")]
    Overloaded,
}

impl Cut {
    /// For a client that has no answer yet.
    pub(super) fn error(self) -> ApiError {
        let code = match self {
            Self::BrokenOff => ApiErrorCode::UpstreamUnavailable,
            Self::Silent => ApiErrorCode::UpstreamTimeout,
            Self::Stopping | Self::Overloaded => ApiErrorCode::ServerIsOverloaded,
        };
        ApiError::new(code, format!("{self}; try again"))
    }
}

/// Ready when the gateway ends what runs, or this call for lack of memory.
pub(super) fn ended_from_outside(permit: &Permit) -> Pin<Box<dyn Future<Output = Cut>>> {
    let (mut stop, shed) = (permit.stop.clone(), permit.account.shed());
    Box::pin(async move {
        let ending = async {
            let told = stop.wait_for(|stage| *stage == StopStage::Ending).await;
            if told.is_err() {
                // Nobody is left who could say so.
                pending::<()>().await;
            }
        };
        match select(pin!(ending), pin!(shed.cancelled())).await {
            Either::Left(_) => Cut::Stopping,
            Either::Right(_) => Cut::Overloaded,
        }
    })
}

/// See the module. Keeps its place among the running ones until its end.
pub(super) struct Passing {
    pub(super) answer: Redacted,
    pub(super) ended: Pin<Box<dyn Future<Output = Cut>>>,
    pub(super) silence: Silence,
    /// Why the answer is cut off, once what came before has been handed on.
    pub(super) cut: Option<Cut>,
    /// Where tokens are limited.
    pub(super) spent: Option<Spent>,
    pub(super) permit: Permit,
    /// The span of the call, whose end is the last byte's.
    pub(super) span: Span,
}

impl Stream for Passing {
    type Item = Result<Bytes, Cut>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(cut) = this.cut.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        let cut = match this.answer.poll_next_unpin(task) {
            Poll::Ready(Some(Ok(bytes))) => {
                this.silence.broken();
                if let Some(spent) = &mut this.spent {
                    spent.saw(&bytes);
                }
                return Poll::Ready(Some(Ok(bytes)));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(_broken))) => Cut::BrokenOff,
            Poll::Pending => match this.ended.poll_unpin(task) {
                Poll::Ready(cut) => cut,
                Poll::Pending => ready!(this.silence.poll(task)),
            },
        };
        let words = match cut {
            Cut::BrokenOff => "the model server broke off",
            Cut::Silent => "the model server was silent for too long",
            Cut::Stopping | Cut::Overloaded => "the gateway ended the answer",
        };
        this.span.fail(words);
        // The HTTP layer throws away what it has not written when a body fails: it is to write first.
        this.cut = Some(cut);
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Passing {
    /// However the answer ended: what its end says was used is charged, or what was seen.
    fn drop(&mut self) {
        if let (Some(meter), Some(spent)) = (&self.permit.meter, &self.spent) {
            meter.charge(spent.tokens());
        }
    }
}

/// The model server's silence while somebody listens: a client that does not read is no fault of its.
pub(super) struct Silence {
    limit: Duration,
    /// Since when nothing has come; `None` until it is listened to.
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            alarm: None,
        }
    }

    fn broken(&mut self) {
        self.since = None;
    }

    /// Nothing has come. The timer is set anew only when it rings, not for every part.
    fn poll(&mut self, task: &mut Context<'_>) -> Poll<Cut> {
        let until = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            ready!(alarm.as_mut().poll(task));
            if alarm.deadline() >= until {
                return Poll::Ready(Cut::Silent);
            }
            alarm.as_mut().reset(until);
        }
    }
}

/// What the call has used.
pub(super) struct Spent {
    estimate: Estimate,
    /// The end of what has passed, where the server tells it.
    tail: Vec<u8>,
}

impl Spent {
    pub(super) fn new(estimate: Estimate) -> Self {
        let tail = Vec::new();
        Self { estimate, tail }
    }

    fn saw(&mut self, part: &[u8]) {
        self.estimate.saw(part);
        let unseen = part.len().saturating_sub(TAIL);
        self.tail
            .extend_from_slice(part.get(unseen..).unwrap_or_default());
        let old = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..old);
    }

    fn tokens(&self) -> u64 {
        usage_in(&self.tail).map_or_else(
            || self.estimate.tokens(),
            |usage| {
                usage
                    .prompt_tokens()
                    .saturating_add(usage.completion_tokens())
            },
        )
    }
}

/// The last `usage` object; within a JSON string its quotes would be escaped.
fn usage_in(tail: &[u8]) -> Option<ChatUsage> {
    const MEMBER: &[u8] = b"\"usage\":";
    let at = tail
        .windows(MEMBER.len())
        .rposition(|window| window == MEMBER)?;
    let mut reader = serde_json::Deserializer::from_slice(tail.get(at + MEMBER.len()..)?);
    Option::deserialize(&mut reader).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_found_at_the_end_and_not_in_text() {
        let used = |text: &str| {
            usage_in(text.as_bytes())
                .map(|usage| (usage.prompt_tokens(), usage.completion_tokens()))
        };
        let usage = r#""usage":{"prompt_tokens":3,"total_tokens":7,"completion_tokens":4}"#;
        assert_eq!(
            used(&format!(r#"..."}}],{usage},"prompt_logprobs":null}}"#)),
            Some((3, 4))
        );
        let first = r#"data: {"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
        let stream = format!("{first}\n\ndata: {{{usage}}}\n\ndata: [DONE]\n\n");
        assert_eq!(used(&stream), Some((3, 4)));
        assert_eq!(
            used(r#"{"content":"\"usage\":{\"prompt_tokens\":9}"}"#),
            None
        );
        assert_eq!(used(r#""usage":null"#), None);
        assert_eq!(used(r#""usage":{"prompt_tok"#), None);
    }
}
