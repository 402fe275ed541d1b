//! Request bodies under a limit, and the caller.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use vllm_responses_actors::limits::OwnLimits;
use vllm_responses_actors::memory::{Account, Held};
use vllm_responses_actors::trace::Scope;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::ids::Owner;

use super::context::Caller;
use super::encoding::{self, Coding, UnpackError};
use super::state::Intake;

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
            own_limits: OwnLimits::default(),
        })))
    }
}

/// Slowest body that is still taken once its time is over, in bytes a second (fault C3).
const SLOWEST: u64 = 1024;

/// A request's body, and its part of the memory budget.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) held: Held,
}

impl Body {
    /// Its bytes for a request to somebody else; their memory is given back with their last copy.
    pub(super) fn freed_when_sent(self, account: &Arc<Account>) -> Bytes {
        struct Counted {
            bytes: Bytes,
            _held: Held,
        }
        impl AsRef<[u8]> for Counted {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Counted {
            bytes: self.bytes,
            _held: self.held.of(account),
        })
    }
}

/// The whole body, unpacked; see [`sent_body`].
pub(super) async fn body(
    request: &HttpRequest,
    payload: web::Payload,
    intake: &Intake,
) -> Result<Body, ApiError> {
    let coding = Coding::of(request.headers())?;
    let limit = intake.body_limit;
    let Body { bytes, mut held } = sent_body(request, payload, intake).await?;
    if coding == Coding::Plain {
        return Ok(Body { bytes, held });
    }
    // A thread that may block: unpacking up to the limit takes a tenth of a second. Until it is done
    // the body may be as long as it is allowed to be.
    held.set(bytes.len().saturating_add(limit));
    let unpacked = web::block(move || encoding::unpack(coding, &bytes, limit)).await;
    match unpacked {
        Ok(Ok(bytes)) => {
            held.set(bytes.len());
            Ok(Body { bytes, held })
        }
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

/// The body as it was sent, as long, as slow and as much beside others as `intake` allows.
pub(super) async fn sent_body(
    request: &HttpRequest,
    mut payload: web::Payload,
    intake: &Intake,
) -> Result<Body, ApiError> {
    let limit = intake.body_limit;
    let headers = request.headers();
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let began = Instant::now();
    let mut held = intake.memory.hold(0);
    let mut body = BytesMut::with_capacity(length.unwrap_or(0).min(64 * 1024));
    loop {
        let slow = body.len().try_into().unwrap_or(u64::MAX) / SLOWEST;
        let allowed = intake.body_timeout.max(Duration::from_secs(slow));
        let next = tokio::time::timeout(allowed.saturating_sub(began.elapsed()), payload.next());
        let Some(piece) = next.await.map_err(|_elapsed| too_slow())? else {
            break;
        };
        let piece = piece.map_err(|_broken| {
            ApiError::new(ApiErrorCode::InvalidJson, "the request body ended early")
        })?;
        if body.len() + piece.len() > limit {
            return Err(too_large(limit));
        }
        // Before it is kept: many bodies may come at once (fault C4).
        if intake.memory.is_tight() {
            return Err(ApiError::new(
                ApiErrorCode::ServerIsOverloaded,
                "the gateway is short of memory; try again",
            ));
        }
        body.extend_from_slice(&piece);
        held.set(body.capacity());
    }
    held.set(body.len());
    Ok(Body {
        bytes: body.freeze(),
        held,
    })
}

fn too_slow() -> ApiError {
    ApiError::new(
        ApiErrorCode::RequestTimeout,
        "the request body came too slowly; send it again",
    )
}

fn too_large(limit: usize) -> ApiError {
    let message = format!("the request body exceeds the limit of {limit} bytes");
    ApiError::new(ApiErrorCode::PayloadTooLarge, message)
}
