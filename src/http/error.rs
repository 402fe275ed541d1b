//! The only place where an error becomes a status and a body.

use actix_web::HttpResponse;
use actix_web::http::{ConnectionType, StatusCode, header};
use vllm_responses_actors::ask::AskError;
use vllm_responses_actors::limits::Limited;
use vllm_responses_actors::origin::Origin;
use vllm_responses_actors::store::messages::StoreError;
use vllm_responses_actors::supervisor::messages::Refused;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::turn::effect::Refusal;

use super::limits;

/// An error answer in the `OpenAI` shape. One that says the gateway is overloaded asks for another try
/// in a second.
pub(super) fn answer(error: &ApiError) -> HttpResponse {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    if error.code == ApiErrorCode::ServerIsOverloaded {
        response.insert_header((header::RETRY_AFTER, "1"));
    }
    if error.code.is_work_again() {
        // `OpenAI`'s SDKs send again what fails with 5xx, unless they are told not to.
        response.insert_header(("x-should-retry", "false"));
    }
    // What would have been understood (RFC 9110, 15.5.16).
    if error.code == ApiErrorCode::UnsupportedEncoding {
        response.insert_header((header::ACCEPT_ENCODING, "gzip, zstd"));
    } else if error.code == ApiErrorCode::UnsupportedMediaType {
        response.insert_header((header::ACCEPT, "application/json"));
    }
    response.content_type("application/json").body(error.body())
}

/// As [`answer`], with the `Retry-After` that goes with it.
pub(super) fn refusal(refusal: &Refusal) -> HttpResponse {
    let mut response = answer(&refusal.error);
    if let Some(value) = refusal
        .retry_after
        .as_deref()
        .and_then(|wait| header::HeaderValue::from_str(wait).ok())
    {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

/// The supervisor said no.
pub(super) fn refused(refused: Refused) -> HttpResponse {
    let (message, wait) = match refused {
        Refused::Starting => ("the gateway is starting; try again", "5"),
        Refused::Draining => ("the gateway is shutting down; try again", "1"),
        Refused::Full => (
            "the gateway runs as many responses as it may; try again",
            "1",
        ),
        Refused::Memory => ("the gateway is short of memory; try again", "1"),
        Refused::Limited(limited) => return over_limit(&limited),
    };
    let mut response = busy(message, wait);
    if refused == Refused::Full {
        // Its descriptor may be the one that somebody else needs (fault L3).
        response
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    response
}

/// 429, with everything that a well-behaved client needs to do better.
fn over_limit(limited: &Limited) -> HttpResponse {
    let error = ApiError::new(ApiErrorCode::RateLimitExceeded, limits::words(limited));
    let mut response = answer(&error);
    let headers = response.headers_mut();
    let wait = limits::retry_after(limited.wait);
    headers.insert(header::RETRY_AFTER, header::HeaderValue::from(wait));
    limits::tell(&limited.quota, headers);
    response
}

/// A component did not answer.
pub(super) fn no_answer(origin: &Origin, error: AskError) -> HttpResponse {
    log::error!(request_id = &*origin.request_id, response_id = &*origin.response_id;
        "a component gave no answer: {error}");
    busy("the gateway cannot answer now; try again", "1")
}

/// The store answered with an error.
pub(super) fn store(origin: &Origin, error: &StoreError) -> HttpResponse {
    log::warn!(request_id = &*origin.request_id, response_id = &*origin.response_id;
        "a stored response was not served: {error}");
    match error {
        StoreError::Unavailable(_) | StoreError::Busy => {
            busy("the response store is unavailable; try again", "1")
        }
        StoreError::Corrupt => answer(&ApiError::new(
            ApiErrorCode::ServerError,
            "the stored response cannot be read",
        )),
        StoreError::Incomplete | StoreError::TooLong => {
            answer(&ApiError::new(ApiErrorCode::ServerError, error.to_string()))
        }
    }
}

/// No response of this owner has this id. The id is not quoted.
pub(super) fn unknown_response() -> HttpResponse {
    answer(&ApiError::new(
        ApiErrorCode::NotFound,
        "no response with this id was found",
    ))
}

pub(super) fn busy(message: &str, wait: &str) -> HttpResponse {
    let error = ApiError::new(ApiErrorCode::ServerIsOverloaded, message);
    refusal(&Refusal {
        error,
        retry_after: Some(wait.into()),
    })
}
