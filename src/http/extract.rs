//! Request bodies under a limit, and the caller.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::ids::Owner;

use super::context::Caller;

impl FromRequest for Caller {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        // Routes outside `/v1` have no caller; nobody asks for one there.
        ready(Ok(caller.unwrap_or(Self {
            request_id: Box::default(),
            owner: Owner::default(),
        })))
    }
}

/// The whole body, at most `limit` bytes.
pub(super) async fn body(
    request: &HttpRequest,
    mut payload: web::Payload,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let headers = request.headers();
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding != "identity")
    {
        return Err(ApiError::new(
            ApiErrorCode::UnsupportedEncoding,
            "request bodies must not have a `content-encoding`",
        ));
    }
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
