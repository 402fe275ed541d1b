//! What every request under `/v1` gets: an id, and the time it took.

use std::time::Instant;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, web};
use vllm_responses_actors::env::SystemIds;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::ids::{self, Owner, Prefix};

use super::error;
use super::state::AppState;

/// Longest request id taken from a client.
const MAX_REQUEST_ID: usize = 128;

/// Who asks, under which id.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The client's `x-request-id`, or a fresh one; in every log line and sent upstream.
    pub(crate) request_id: Box<str>,
    /// Whose responses the caller sees.
    pub(crate) owner: Owner,
}

/// Middleware: denies strangers, puts a [`Caller`] into the request, and the id and the duration into
/// the answer.
pub(super) async fn identify(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody>>, Error> {
    let start = Instant::now();
    let request_id = request_id(&request);
    let value = HeaderValue::from_str(&request_id);
    let mut response = if let Some(owner) = owner(&request) {
        request
            .extensions_mut()
            .insert(Caller { request_id, owner });
        next.call(request).await?.map_into_left_body()
    } else {
        request
            .into_response(error::answer(&denied()))
            .map_into_right_body()
    };
    let headers = response.headers_mut();
    if let Ok(value) = value {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert(
        HeaderName::from_static("openai-processing-ms"),
        HeaderValue::from(millis),
    );
    Ok(response)
}

/// What a stranger is told.
pub(super) fn denied() -> ApiError {
    ApiError::new(
        ApiErrorCode::InvalidApiKey,
        "this gateway needs a valid API key: send it as `Authorization: Bearer KEY`",
    )
}

/// Whose request this is; `None` for a stranger.
fn owner(request: &ServiceRequest) -> Option<Owner> {
    let state = request.app_data::<web::Data<AppState>>()?;
    state.owner(bearer(request.headers()))
}

/// The key that a request shows.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// The client's id where it is short and printable: it goes into logs and headers.
fn request_id(request: &ServiceRequest) -> Box<str> {
    request
        .headers()
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID)
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic()))
        .map_or_else(|| ids::fresh(Prefix::Request, &mut SystemIds), Box::from)
}
