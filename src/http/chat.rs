//! `POST /v1/chat/completions`: verbatim to the upstream and back, streamed as it comes.
//!
//! A body that is compressed stays so: whether it can be read is the upstream's affair.
//! Status, body and the headers that describe them are the upstream's own; faults of the transport
//! are 502 and 504. A client that leaves drops the answer, which closes the upstream's connection.

use actix_web::body::{BodyStream, BoxBody, MessageBody as _};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use awc::error::SendRequestError;
use futures_util::StreamExt as _;
use vllm_responses_actors::trace::{Fact, Side, Span};
use vllm_responses_actors::vllm::client::in_trace;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};

use super::context::Caller;
use super::state::AppState;
use super::{error, extract};

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
    let body = match extract::sent_body(&request, payload, state.body_limit).await {
        Ok(body) => body,
        Err(fault) => return error::answer(&fault),
    };
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
    let sent = state.upstream.authorize(call).send_body(body);
    let limit = state.upstream.deadlines.whole;
    match tokio::time::timeout(limit, sent).await {
        Ok(Ok(answer)) => {
            span.note(Fact::HttpStatus(answer.status().as_u16()));
            pass_on(answer, span)
        }
        Ok(Err(fault)) => {
            span.fail("the model server cannot be reached");
            error::answer(&transport_fault(&fault))
        }
        Err(_elapsed) => error::answer(&ApiError::new(
            ApiErrorCode::UpstreamTimeout,
            "the upstream model server did not answer in time",
        )),
    }
}

fn pass_on(answer: awc::ClientResponse, span: Span) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::new(status);
    for name in PASSED {
        if let Some(value) = answer.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    // The call ends with its last byte.
    let bytes = answer.inspect(move |_| {
        let _held = &span;
    });
    let body: BoxBody = BodyStream::new(bytes).boxed();
    response.set_body(body)
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
