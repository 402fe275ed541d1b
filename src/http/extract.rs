//! Request bodies under a limit, and the caller.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Instant;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use vllm_responses_actors::trace::Scope;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::ids::Owner;

use super::context::Caller;
use super::encoding::{self, Coding, UnpackError};

impl FromRequest for Caller {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        // Routes outside `/v1` have no caller; nobody asks for one there.
        ready(Ok(caller.unwrap_or(Self {
            request_id: Arc::default(),
            arrived: Instant::now(),
            scope: Scope::default(),
            owner: Owner::default(),
        })))
    }
}

/// The whole body, unpacked, at most `limit` bytes.
pub(super) async fn body(
    request: &HttpRequest,
    payload: web::Payload,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let coding = Coding::of(request.headers())?;
    let sent = sent_body(request, payload, limit).await?;
    if coding == Coding::Plain {
        return Ok(sent);
    }
    // A thread that may block: unpacking up to the limit takes a tenth of a second.
    let unpacked = web::block(move || encoding::unpack(coding, &sent, limit)).await;
    match unpacked {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(UnpackError::TooLong)) => Err(too_large(limit)),
        Ok(Err(UnpackError::Broken)) => Err(ApiError::new(
            ApiErrorCode::InvalidJson,
            "the request body is not what its `content-encoding` says, or ends early",
        )),
        Err(_pool_gone) => Err(ApiError::new(
            ApiErrorCode::ServerIsOverloaded,
            "the request body could not be unpacked; try again",
        )),
    }
}

/// The body as it was sent, at most `limit` bytes.
pub(super) async fn sent_body(
    request: &HttpRequest,
    mut payload: web::Payload,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let headers = request.headers();
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let mut body = BytesMut::with_capacity(length.unwrap_or(0).min(64 * 1024));
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|_broken| {
            ApiError::new(ApiErrorCode::InvalidJson, "the request body ended early")
        })?;
        if body.len() + piece.len() > limit {
            return Err(too_large(limit));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

fn too_large(limit: usize) -> ApiError {
    let message = format!("the request body exceeds the limit of {limit} bytes");
    ApiError::new(ApiErrorCode::PayloadTooLarge, message)
}
