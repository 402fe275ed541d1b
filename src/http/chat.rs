//! `POST /v1/chat/completions`: verbatim to the upstream and back, streamed as it comes.
//!
//! A body that is compressed stays so: whether it can be read is the upstream's affair.
//! Status, body and the headers that describe them are the upstream's own, but for the gateway's key,
//! which it may quote; faults of the transport are 502 and 504. A client that leaves drops the answer,
//! which closes the upstream's connection.

use actix_web::body::{BodyStream, BoxBody, MessageBody as _};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::future::{Either, select};
use vllm_responses_actors::env::SystemIds;
use vllm_responses_actors::http1::{Answer, Client, Request, SendError};
use vllm_responses_actors::limits::estimate::Estimate;
use vllm_responses_actors::redact::Secrets;
use vllm_responses_actors::supervisor::messages::Permit;
use vllm_responses_actors::trace::{Fact, Side};
use vllm_responses_actors::vllm::client::{after, in_trace};
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::ids::{self, Prefix};

use super::access::Noted;
use super::context::Caller;
use super::passing::{Cut, Passing, Silence, Spent, ended_from_outside};
use super::responses::create;
use super::state::AppState;
use super::{error, extract, limits};

/// Headers of the answer that pass; the rest is between us and either side.
const PASSED: [HeaderName; 4] = [
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
    client: web::ThinData<Client>,
) -> HttpResponse {
    let body = match extract::sent_body(&request, payload, &caller, &state.intake).await {
        Ok(body) => body,
        Err(fault) => return error::answer(&fault),
    };
    let permit = match create::permit(&caller, &caller.origin(""), &state).await {
        Ok(permit) => permit,
        Err(refused) => return refused,
    };
    let quota = permit.quota;
    let metered = permit.meter.is_some();
    let estimate = metered.then(|| Estimate::of(&body.bytes));
    let body = body.freed_when_sent(&permit.account);
    let mut span = caller.scope.span(Side::Client, "chat completions");
    // Not the client's word: vLLM keeps what it runs by this id, and two of one name end each other.
    let id = ids::fresh(Prefix::Request, &mut SystemIds);
    request.extensions_mut().insert(Noted::call(&id));
    let call = in_trace(
        after(written(&request, id, &state, body), caller.hops),
        span.scope().context(),
    );
    let mut response = match answered(&client, call, &permit, &state).await {
        Ok(answer) => {
            span.note(Fact::HttpStatus(answer.status));
            // An error has cost nothing.
            let estimate = estimate.filter(|_| (200..300).contains(&answer.status));
            let passing = |answer| Passing {
                answer,
                ended: ended_from_outside(&permit),
                silence: Silence::new(state.upstream.deadlines.idle),
                cut: None,
                spent: estimate.map(Spent::new),
                permit,
                span,
            };
            pass_on(answer, &state.upstream.secrets(), passing)
        }
        Err(fault) => {
            span.fail("the model server gave no answer");
            error::answer(&fault)
        }
    };
    limits::tell(&quota, response.headers_mut());
    response
}

/// The request for the model server, under this id.
fn written(request: &HttpRequest, id: Box<str>, state: &AppState, body: Bytes) -> Request {
    let mut path = "/chat/completions".to_owned();
    if !request.query_string().is_empty() {
        path = format!("{path}?{}", request.query_string());
    }
    let mut call = state.upstream.post(&path, body).named(id);
    for name in [
        header::CONTENT_TYPE,
        header::ACCEPT,
        header::ACCEPT_ENCODING,
        header::CONTENT_ENCODING,
    ] {
        // In a compressed answer the gateway's key could not be found.
        if name == header::ACCEPT_ENCODING && state.upstream.secrets().any() {
            continue;
        }
        let value = request.headers().get(&name);
        if let Some(value) = value.and_then(|value| value.to_str().ok()) {
            call = call.header(name.as_str(), value);
        }
    }
    call
}

/// The head of the answer, within the limit of a whole call: it may come when all is done.
async fn answered(
    client: &Client,
    call: Request,
    permit: &Permit,
    state: &AppState,
) -> Result<Answer, ApiError> {
    let limit = state.upstream.deadlines.whole;
    let sent = Box::pin(tokio::time::timeout(limit, client.send(call)));
    let sent = match select(sent, ended_from_outside(permit)).await {
        Either::Left((sent, _)) => sent,
        Either::Right((cut, _)) => return Err(cut.error()),
    };
    let unavailable = |words| ApiError::new(ApiErrorCode::UpstreamUnavailable, words);
    sent.map_err(|_elapsed| {
        ApiError::new(
            ApiErrorCode::UpstreamTimeout,
            "the upstream model server did not answer in time",
        )
    })?
    .map_err(|error| match error {
        SendError::Unreachable(_) | SendError::Unwritable | SendError::Unread(_) => {
            unavailable("the upstream model server cannot be reached")
        }
        SendError::BrokenOff => {
            unavailable("the upstream model server ended the connection without an answer")
        }
        SendError::Malformed => ApiError::new(
            ApiErrorCode::UpstreamBadResponse,
            "the upstream model server's answer cannot be read",
        ),
    })
}

/// The client's answer; `passing` makes its body.
fn pass_on(
    answer: Answer,
    secrets: &Secrets,
    passing: impl FnOnce(vllm_responses_actors::redact::Redacted) -> Passing,
) -> HttpResponse {
    let Ok(status) = StatusCode::from_u16(answer.status) else {
        return error::answer(&Cut::BrokenOff.error());
    };
    if status.is_redirection() {
        // Nobody is sent on with the gateway's key, or with the client's words.
        return error::answer(&ApiError::new(
            ApiErrorCode::UpstreamBadResponse,
            "the upstream model server redirects, and redirects are not followed: its address is \
             another one than the gateway was given",
        ));
    }
    if secrets.any() && answer.is_encoded() {
        return error::answer(&ApiError::new(
            ApiErrorCode::UpstreamBadResponse,
            "the upstream model server compressed its answer without having been asked to",
        ));
    }
    let mut response = HttpResponse::new(status);
    for name in PASSED {
        let value = answer.headers.get(name.as_str());
        let value = value.map(|value| secrets.redact(Bytes::copy_from_slice(value.as_bytes())));
        if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(&value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    let secrets = match answer.status {
        200..=299 => secrets.clone().in_answer(),
        _ => secrets.clone(),
    };
    let body: BoxBody = BodyStream::new(passing(secrets.strip(answer.body))).boxed();
    response.set_body(body)
}
