//! What every request under `/v1` gets: an id, and the time it took.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _};
use vllm_responses_actors::env::SystemIds;
use vllm_responses_protocol::ids::{self, Owner, Prefix};

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

/// Middleware: puts a [`Caller`] into the request and the id and duration into the answer.
pub(super) async fn identify(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let start = Instant::now();
    let request_id = request_id(&request);
    let value = HeaderValue::from_str(&request_id);
    request.extensions_mut().insert(Caller {
        request_id,
        owner: Owner::default(),
    });
    let mut response = next.call(request).await?;
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
