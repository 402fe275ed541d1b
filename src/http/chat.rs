//! `POST /v1/chat/completions`: verbatim to the upstream and back, streamed as it comes.
//!
//! A body that is compressed stays so: whether it can be read is the upstream's affair.
//! Status, body and the headers that describe them are the upstream's own; faults of the transport
//! are 502 and 504. A client that leaves drops the answer, which closes the upstream's connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodyStream, BoxBody, MessageBody as _};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use awc::error::{PayloadError, SendRequestError};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::Deserialize as _;
use vllm_responses_actors::memory::Held;
use vllm_responses_actors::supervisor::messages::Permit;
use vllm_responses_actors::trace::{Fact, Side, Span};
use vllm_responses_actors::vllm::client::in_trace;
use vllm_responses_protocol::chat::chunk::ChatUsage;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};

use super::context::Caller;
use super::responses::create;
use super::state::AppState;
use super::{error, extract, limits};

/// Headers of the answer that pass; the rest is between us and either side.
const PASSED: [header::HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::RETRY_AFTER,
    header::CACHE_CONTROL,
];

/// See the module.
pub(super) async fn passthrough(
    request: HttpRequest,
    payload: web::Payload,
    caller: Caller,
    state: web::Data<AppState>,
    client: web::ThinData<awc::Client>,
) -> HttpResponse {
    let body = match extract::sent_body(&request, payload, &caller, &state.intake).await {
        Ok(body) => body,
        Err(fault) => return error::answer(&fault),
    };
    let permit = match create::permit(&caller, &caller.origin(""), &state).await {
        Ok(permit) => permit,
        Err(refused) => return refused,
    };
    let extract::Body { bytes, held } = body;
    let (held, quota) = (held.of(&permit.account), permit.quota);
    let mut path = "/chat/completions".to_owned();
    if !request.query_string().is_empty() {
        path = format!("{path}?{}", request.query_string());
    }
    let mut call = client
        .post(state.upstream.endpoint(&path))
        .no_decompress()
        .insert_header(("x-request-id", &*caller.request_id));
    for name in [
        header::CONTENT_TYPE,
        header::ACCEPT,
        header::ACCEPT_ENCODING,
        header::CONTENT_ENCODING,
    ] {
        if let Some(value) = request.headers().get(&name) {
            call = call.insert_header((name, value.clone()));
        }
    }
    let mut span = caller.scope.span(Side::Client, "chat completions");
    let call = in_trace(call, span.scope().context());
    let sent = state.upstream.authorize(call).send_body(bytes);
    let limit = state.upstream.deadlines.whole;
    let mut response = match tokio::time::timeout(limit, sent).await {
        Ok(Ok(answer)) => {
            span.note(Fact::HttpStatus(answer.status().as_u16()));
            pass_on(answer, permit, (held, span))
        }
        Ok(Err(fault)) => {
            span.fail("the model server cannot be reached");
            error::answer(&transport_fault(&fault))
        }
        Err(_elapsed) => error::answer(&ApiError::new(
            ApiErrorCode::UpstreamTimeout,
            "the upstream model server did not answer in time",
        )),
    };
    limits::tell(&quota, response.headers_mut());
    response
}

fn pass_on(
    answer: awc::ClientResponse,
    permit: Permit,
    ends_with_it: (Held, Span),
) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::new(status);
    for name in PASSED {
        if let Some(value) = answer.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    let answer = Passing {
        answer,
        permit,
        tail: Vec::new(),
        _ends_with_it: ends_with_it,
    };
    let body: BoxBody = BodyStream::new(answer).boxed();
    response.set_body(body)
}

/// How much of an answer's end is looked through for its usage, which servers write last.
const TAIL: usize = 4096;

/// An answer on its way; keeps its place among the running ones until its end.
struct Passing {
    answer: awc::ClientResponse,
    permit: Permit,
    /// The end of what has passed, where tokens are counted.
    tail: Vec<u8>,
    /// The request's memory, and the span of the call, whose end is the last byte's.
    _ends_with_it: (Held, Span),
}

impl Stream for Passing {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(self.answer.poll_next_unpin(task));
        if let (Some(Ok(bytes)), Some(_)) = (&piece, &self.permit.meter) {
            let unseen = bytes.len().saturating_sub(TAIL);
            self.tail
                .extend_from_slice(bytes.get(unseen..).unwrap_or_default());
            let old = self.tail.len().saturating_sub(TAIL);
            self.tail.drain(..old);
        }
        Poll::Ready(piece)
    }
}

impl Drop for Passing {
    /// However the answer ended: what its end says was used is charged.
    fn drop(&mut self) {
        if let (Some(meter), Some(usage)) = (&self.permit.meter, usage_in(&self.tail)) {
            meter.charge(usage.prompt_tokens.saturating_add(usage.completion_tokens));
        }
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

fn transport_fault(fault: &SendRequestError) -> ApiError {
    if matches!(fault, SendRequestError::Timeout) {
        return ApiError::new(
            ApiErrorCode::UpstreamTimeout,
            "the upstream model server did not answer in time",
        );
    }
    ApiError::new(
        ApiErrorCode::UpstreamUnavailable,
        "the upstream model server cannot be reached",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_found_at_the_end_and_not_in_text() {
        let used = |text: &str| {
            usage_in(text.as_bytes()).map(|usage| (usage.prompt_tokens, usage.completion_tokens))
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
