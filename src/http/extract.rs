//! Request bodies under a limit, and the caller.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::time::Instant;
use vllm_responses_actors::limits::OwnLimits;
use vllm_responses_actors::memory::{Account, Held, Memory, Short};
use vllm_responses_actors::origin::Hops;
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
            arrived: std::time::Instant::now(),
            scope: Scope::default(),
            owner: Owner::default(),
            own_limits: OwnLimits::default(),
            hops: Hops::default(),
        })))
    }
}

/// Slowest body that is taken for longer than its time, in bytes a second (fault C3).
const SLOWEST: u64 = 1024;
/// Longest silence in a body. One that is over holds memory for nobody: its line is gone, or it never
/// meant to go on.
const SILENCE: Duration = Duration::from_secs(10);
/// Longest body that is not large: its buffer is made at once, and it needs no part of a share.
const AT_ONCE: usize = 64 * 1024;

/// How long a body that is refused is read on.
const PASSED_OVER: Duration = Duration::from_millis(100);

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
    caller: &Caller,
    intake: &Intake,
) -> Result<Body, ApiError> {
    let coding = Coding::of(request.headers())?;
    let limit = intake.body_limit;
    let Body { bytes, mut held } = sent_body(request, payload, caller, intake).await?;
    if coding == Coding::Plain {
        return Ok(Body { bytes, held });
    }
    // On a thread that may block: unpacking up to the limit takes a tenth of a second. What it holds
    // goes with it, since it goes on when the client leaves.
    let unpacked = intake.memory.work(move || {
        let packed = bytes.len();
        let room = |bytes: usize| held.try_set(packed + bytes);
        let unpacked = encoding::unpack(coding, &bytes, limit, room);
        drop(bytes);
        unpacked.map(|bytes| {
            held.cut(bytes.len());
            Body { bytes, held }
        })
    });
    let no_room = |short: Short| self::short(short, &intake.memory);
    match unpacked.await.map_err(no_room)? {
        Ok(body) => Ok(body),
        Err(UnpackError::TooLong) => Err(too_large(limit)),
        Err(UnpackError::Broken) => Err(ApiError::new(
            ApiErrorCode::InvalidJson,
            "the request body is not what its `content-encoding` says, or ends early",
        )),
        Err(UnpackError::NoRoom) => {
            intake.memory.note_refused();
            Err(no_room(Short::Now))
        }
    }
}

/// The body as it was sent, as long, as slow and as much beside others as `intake` allows.
pub(super) async fn sent_body(
    request: &HttpRequest,
    mut payload: web::Payload,
    caller: &Caller,
    intake: &Intake,
) -> Result<Body, ApiError> {
    let body = taken(request, &mut payload, caller, intake).await;
    if body.is_err() {
        pass_over(&mut payload).await;
    }
    body
}

/// Reads on for a moment. While room was waited for nothing was read, and the HTTP layer does not begin
/// again for a body that is dropped: a client that writes before it reads would never see its answer.
async fn pass_over(payload: &mut web::Payload) {
    let until = Instant::now() + PASSED_OVER;
    while let Ok(Some(Ok(_piece))) = tokio::time::timeout_at(until, payload.next()).await {}
}

async fn taken(
    request: &HttpRequest,
    payload: &mut web::Payload,
    caller: &Caller,
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
    let no_room = |short: Short| self::short(short, &intake.memory);
    let mut held = intake.memory.hold(0);
    let mut body = BytesMut::with_capacity(length.unwrap_or(0).min(AT_ONCE));
    let mut pace = Pace::new(intake.body_timeout);
    loop {
        let next = tokio::time::timeout_at(pace.deadline(), payload.next());
        let Some(piece) = next.await.map_err(|_elapsed| too_slow())? else {
            break;
        };
        let piece = piece.map_err(|_broken| {
            ApiError::new(ApiErrorCode::InvalidJson, "the request body ended early")
        })?;
        let with_it = body.len() + piece.len();
        if with_it > limit {
            return Err(too_large(limit));
        }
        if body.len() <= AT_ONCE && with_it > AT_ONCE {
            // Only large ones share: a small request finds room beside a caller's large ones.
            let mut shared = intake.memory.hold_in(intake.bodies.of(&caller.owner));
            shared.reserve(held.bytes()).await.map_err(no_room)?;
            held = shared;
        }
        if with_it > body.capacity() {
            // To its length at once where it said one, so that nothing is copied twice. Otherwise it
            // doubles, and while it is copied it is there twice. Before it is taken: many bodies may
            // come at once (fault C4).
            let capacity = length.unwrap_or(with_it * 2).clamp(with_it, limit);
            held.reserve(body.len()).await.map_err(no_room)?;
            body.reserve(capacity - body.len());
            held.cut(body.len());
        }
        held.reserve(piece.len()).await.map_err(no_room)?;
        body.extend_from_slice(&piece);
        pace.note(piece.len());
    }
    Ok(Body {
        bytes: body.freeze(),
        held,
    })
}

/// How fast a body comes: never a silence, and in no stretch of its time less than the slowest.
struct Pace {
    stretch: Duration,
    since: Instant,
    bytes: u64,
    heard: Instant,
}

impl Pace {
    fn new(stretch: Duration) -> Self {
        let now = Instant::now();
        Self {
            stretch,
            since: now,
            bytes: 0,
            heard: now,
        }
    }

    /// When the next piece is overdue.
    fn deadline(&self) -> Instant {
        let silence = self.heard + SILENCE.min(self.stretch);
        let enough = SLOWEST.saturating_mul(self.stretch.as_secs().max(1));
        if self.bytes >= enough {
            silence
        } else {
            silence.min(self.since + self.stretch)
        }
    }

    /// A piece came, in time.
    fn note(&mut self, bytes: usize) {
        self.heard = Instant::now();
        self.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        if self.heard >= self.since + self.stretch {
            (self.since, self.bytes) = (self.heard, 0);
        }
    }
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

/// Why there is no memory for a request.
pub(super) fn short(short: Short, memory: &Memory) -> ApiError {
    match short {
        Short::Now => ApiError::new(
            ApiErrorCode::ServerIsOverloaded,
            "the gateway is short of memory; try again",
        ),
        Short::Never => {
            let message = format!(
                "the request takes more memory than this gateway has for requests ({} bytes): send \
                 fewer items, or ask its operator to raise `limits.memory`",
                memory.limit()
            );
            ApiError::new(ApiErrorCode::PayloadTooLarge, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRETCH: Duration = Duration::from_secs(30);

    #[test]
    fn c3_a_silence_ends_a_body_whatever_came_before() {
        let mut pace = Pace::new(STRETCH);
        pace.note(20 << 20);
        assert_eq!(pace.deadline(), pace.heard + SILENCE);
        let mut quick = Pace::new(Duration::from_secs(1));
        quick.note(1 << 20);
        assert_eq!(quick.deadline(), quick.heard + quick.stretch);
    }

    #[test]
    fn c3_each_stretch_needs_bytes_of_its_own() {
        let mut pace = Pace::new(STRETCH);
        pace.heard += Duration::from_secs(25);
        assert_eq!(pace.deadline(), pace.since + STRETCH);
        pace.bytes = 30 * SLOWEST;
        assert_eq!(pace.deadline(), pace.heard + SILENCE);
        // The next stretch begins with nothing.
        pace.since -= STRETCH;
        pace.note(1);
        assert_eq!((pace.bytes, pace.since), (0, pace.heard));
    }
}
