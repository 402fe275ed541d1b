//! One upstream call up to its status line: attempts, deadlines, and what an answer means.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header;
use vllm_responses_protocol::chat::fault::{UpstreamFault, Waited};
use vllm_responses_protocol::ids::IdSource as _;
use vllm_responses_protocol::responses::event::Delivery;

use crate::env::SystemIds;
use crate::http1::{self, Body, Client, Payload, SendError, Unread};
use crate::origin::Origin;
use crate::redact::{Redacted, Secrets};
use crate::trace::{Fact, Side, Span};
use crate::vllm::client::{after, in_trace};
use crate::vllm::settings::UpstreamSettings;

/// An upstream answer whose body is still to come; its head, which takes 3 KiB, is not kept.
pub(super) struct Answer {
    pub(super) body: Redacted,
    /// The model call's; ends with the answer.
    pub(super) span: Span,
}

/// Attempts beyond the first.
const MAX_RETRIES: u32 = 2;
/// An upstream that asks for a longer pause is passed on to the client (fault U8).
const MAX_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How much of an error body is read, and for how long.
const ERROR_BODY: usize = 64 * 1024;
const ERROR_BODY_LIMIT: Duration = Duration::from_secs(2);

/// What a call needs; cheap to clone.
pub(super) struct Call {
    pub(super) client: Client,
    pub(super) upstream: UpstreamSettings,
    pub(super) origin: Origin,
    /// Which of the response's model calls this is, from 1.
    pub(super) number: u32,
    /// For the span, once the upstream has accepted it.
    pub(super) model: Box<str>,
    pub(super) delivery: Delivery,
    pub(super) body: Payload,
}

/// Calls until an answer with status 200 comes, a fault is final, or the retries are spent.
///
/// Tried again is only what no model has worked on: no connection, or an answer that says so. See
/// [`Client::send`] for the one case in which a request is sent a second time without one.
pub(super) async fn call(call: Call) -> Result<Answer, UpstreamFault> {
    let mut retries = 0;
    loop {
        let mut span = call.origin.scope.span(Side::Client, "chat completions");
        span.note(Fact::Attempt(retries));
        let fault = match attempt(&call, retries, &mut span).await {
            Ok(body) => return Ok(Answer { body, span }),
            Err(fault) => fault,
        };
        span.fail(words(&fault));
        drop(span);
        let Some(pause) = pause_before_retry(&fault, retries).filter(|_| retries < MAX_RETRIES)
        else {
            return Err(fault);
        };
        retries += 1;
        log::debug!(request_id = &*call.origin.request_id, response_id = &*call.origin.response_id,
            call = call.number, retries;
            "upstream call failed, trying again");
        tokio::time::sleep(pause).await;
    }
}

/// How long to wait before trying again; `None` when this fault is final.
fn pause_before_retry(fault: &UpstreamFault, retries: u32) -> Option<Duration> {
    let backoff = || Some(jitter(Duration::from_millis(50 << retries)));
    match fault {
        UpstreamFault::Unreachable => backoff(),
        UpstreamFault::Status {
            status,
            retry_after,
            ..
        } => match (status, retry_after) {
            (429 | 503, Some(wait)) => {
                let seconds: u64 = wait.parse().ok()?;
                Some(Duration::from_secs(seconds)).filter(|wait| *wait <= MAX_RETRY_AFTER)
            }
            // 500 and 502 may come after a generation, which is not begun again: a prompt that brings
            // the server down would do so three times.
            (503, None) => backoff(),
            _ => None,
        },
        UpstreamFault::WrongContentType
        | UpstreamFault::TimedOut(_)
        | UpstreamFault::Reset
        | UpstreamFault::TooLong
        | UpstreamFault::PartGone
        | UpstreamFault::PartUnread => None,
    }
}

/// Between one and two times `base`, so that clients of a restarted upstream do not come at once.
fn jitter(base: Duration) -> Duration {
    let millis = u64::try_from(base.as_millis()).unwrap_or(u64::MAX).max(1);
    let random = u64::try_from(SystemIds.next_bits() % u128::from(millis)).unwrap_or(0);
    base + Duration::from_millis(random)
}

/// The name of one attempt at a call for the model server: `resp_...-2`, and `resp_...-2.1` where it is
/// tried again. Ours and fresh each time: vLLM keeps what it runs by this id, so that two requests of
/// one name fail or end each other, whoever's they are.
fn name(origin: &Origin, number: u32, retries: u32) -> String {
    match retries {
        0 => format!("{}-{number}", origin.response_id),
        _ => format!("{}-{number}.{retries}", origin.response_id),
    }
}

async fn attempt(call: &Call, retries: u32, span: &mut Span) -> Result<Redacted, UpstreamFault> {
    let accept = match call.delivery {
        Delivery::Events => "text/event-stream",
        Delivery::Whole => "application/json",
    };
    let request = call
        .upstream
        .post("/chat/completions", call.body.clone())
        .header("content-type", "application/json")
        .header("accept", accept)
        .named(name(&call.origin, call.number, retries));
    let request = after(request, call.origin.hops);
    let sent = call.client.send(in_trace(request, span.scope().context()));
    let limits = call.upstream.deadlines;
    let (limit, waited) = match call.delivery {
        Delivery::Events => (limits.head, Waited::Head(limits.head)),
        Delivery::Whole => (limits.whole, Waited::Whole(limits.whole)),
    };
    match tokio::time::timeout(limit, sent).await {
        Err(_elapsed) => Err(UpstreamFault::TimedOut(waited)),
        Ok(Err(error)) => Err(send_fault(error)),
        Ok(Ok(answer)) => {
            span.note(Fact::HttpStatus(answer.status));
            let secrets = call.upstream.secrets();
            let body = accept_answer(answer, &secrets).await?;
            span.note(Fact::Model(&call.model));
            Ok(secrets.in_answer().strip(body))
        }
    }
}

/// A fault for a span.
pub(super) fn words(fault: &UpstreamFault) -> &'static str {
    match fault {
        UpstreamFault::Unreachable => "the model server cannot be reached",
        UpstreamFault::Status { .. } => "the model server answered with an error",
        UpstreamFault::WrongContentType => "the model server's answer is of the wrong kind",
        UpstreamFault::TimedOut(_) => "the model server was silent for too long",
        UpstreamFault::Reset => "the model server broke off",
        UpstreamFault::TooLong => "the model server's answer is too long",
        UpstreamFault::PartGone | UpstreamFault::PartUnread => {
            "a part of the conversation could not be read"
        }
    }
}

fn send_fault(error: SendError) -> UpstreamFault {
    match error {
        SendError::Unreachable(_) => UpstreamFault::Unreachable,
        SendError::BrokenOff => UpstreamFault::Reset,
        SendError::Unread(Unread::Gone) => UpstreamFault::PartGone,
        SendError::Unread(Unread::Unavailable) => UpstreamFault::PartUnread,
        // No HTTP server, or a broken one.
        SendError::Malformed | SendError::Unwritable => UpstreamFault::WrongContentType,
    }
}

/// Sorts answers: a 200 of the right kind goes on, everything else is a fault.
async fn accept_answer(answer: http1::Answer, secrets: &Secrets) -> Result<Body, UpstreamFault> {
    if answer.status != 200 {
        let retry_after = answer.text(header::RETRY_AFTER);
        let retry_after = retry_after.map(|text| clean(text, secrets));
        let status = answer.status;
        // Words that are compressed cannot be read.
        let body = if answer.is_encoded() {
            Box::default()
        } else {
            beginning(answer.body, secrets).await
        };
        return Err(UpstreamFault::Status {
            status,
            retry_after,
            body,
        });
    }
    // Either kind: a server that was asked for a stream may answer with one JSON text, an error above
    // all, and some stream whatever they are asked for. The machine tells them apart.
    let kind = answer.text(header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.trim_start().to_ascii_lowercase();
    let mut known = ["text/event-stream", "application/json"].iter();
    if answer.is_encoded() || !known.any(|known| kind.starts_with(known)) {
        return Err(UpstreamFault::WrongContentType);
    }
    Ok(answer.body)
}

fn clean(text: &str, secrets: &Secrets) -> Box<str> {
    let text = secrets.redact(Bytes::copy_from_slice(text.as_bytes()));
    String::from_utf8_lossy(&text).into()
}

/// The beginning of an error body; whatever came within size and time.
async fn beginning(mut answer: Body, secrets: &Secrets) -> Box<[u8]> {
    let mut body = Vec::new();
    let read = async {
        while let Some(Ok(bytes)) = answer.next().await {
            body.extend_from_slice(&bytes);
            if body.len() >= ERROR_BODY {
                break;
            }
        }
    };
    // What came before the limit is enough.
    let _elapsed = tokio::time::timeout(ERROR_BODY_LIMIT, read).await;
    body.truncate(ERROR_BODY);
    Box::from(&secrets.redact_beginning(body)[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, retry_after: Option<&str>) -> UpstreamFault {
        UpstreamFault::Status {
            status,
            retry_after: retry_after.map(Box::from),
            body: Box::default(),
        }
    }

    #[test]
    fn u7_u8_what_is_tried_again() {
        let again = |fault| pause_before_retry(&fault, 0).is_some();
        assert!(again(UpstreamFault::Unreachable));
        assert!(again(status(503, None)));
        assert!(again(status(503, Some("1"))));
        for (code, wait) in [(503, "2"), (503, "soon"), (429, "30")] {
            assert!(!again(status(code, Some(wait))), "{code} {wait}");
        }
        for code in [400, 401, 404, 429, 500, 502, 504] {
            assert!(!again(status(code, None)), "{code}");
        }
        assert!(!again(UpstreamFault::Reset));
    }

    #[test]
    fn pauses_grow_and_vary_within_twice_the_base() {
        for retries in 0..MAX_RETRIES {
            let base = Duration::from_millis(50 << retries);
            for _ in 0..100 {
                let pause = pause_before_retry(&UpstreamFault::Unreachable, retries).unwrap();
                assert!(pause >= base && pause < base * 2);
            }
        }
    }
}
