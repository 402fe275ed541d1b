//! What every request under `/v1` gets: an id, a span, and the time it took.

use std::sync::Arc;
use std::time::Instant;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, web};
use vllm_responses_actors::env::SystemIds;
use vllm_responses_actors::limits::{Asker, OwnLimits};
use vllm_responses_actors::origin::{Hops, Origin};
use vllm_responses_actors::trace::{Fact, Scope, Side, Span};
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::ids::{self, MAX_ID_LEN, Owner, Prefix};
use vllm_responses_protocol::trace::{TRACEPARENT, TRACESTATE, TraceContext};

use super::error;
use super::state::AppState;

/// Longest request id taken from a client.
const MAX_REQUEST_ID: usize = 128;

/// Who asks, under which id.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The client's `x-request-id`, or a fresh one; in every log line and the answer.
    pub(crate) request_id: Arc<str>,
    /// When its head was there.
    pub(crate) arrived: Instant,
    /// Where its work stands in a trace.
    pub(crate) scope: Scope,
    /// Whose responses the caller sees.
    pub(crate) owner: Owner,
    /// What its line in the keys file says of limits.
    pub(crate) own_limits: OwnLimits,
    /// The gateways that the request has passed before this one.
    pub(crate) hops: Hops,
}

impl Caller {
    /// The caller, to those who judge limits.
    pub(crate) fn asker(&self) -> Asker {
        Asker {
            owner: self.owner.clone(),
            own: self.own_limits,
        }
    }

    /// For work that is about this response; an id that cannot be one of ours is not repeated.
    pub(crate) fn origin(&self, response_id: &str) -> Origin {
        let is_ours = response_id.len() <= MAX_ID_LEN
            && response_id.starts_with(Prefix::Response.as_str())
            && response_id.bytes().all(|byte| byte.is_ascii_graphic());
        Origin {
            request_id: Arc::clone(&self.request_id),
            response_id: if is_ours { response_id } else { "" }.into(),
            scope: self.scope.clone(),
            hops: self.hops,
        }
    }
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
    let hops = hops(request.headers());
    let mut response = if hops.are_too_many() {
        request
            .into_response(error::answer(&goes_round()))
            .map_into_right_body()
    } else if let Some(asker) = asker(&request) {
        let span = begin_span(&request, &request_id);
        let caller = Caller {
            request_id,
            arrived: start,
            scope: span.scope().clone(),
            owner: asker.owner,
            own_limits: asker.own,
            hops,
        };
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(span);
        let response = next.call(request).await?;
        // A turn has taken it: then it ends with the turn.
        let span = response.request().extensions_mut().remove::<Span>();
        if let Some(mut span) = span {
            let status = response.status();
            span.note(Fact::HttpStatus(status.as_u16()));
            if status.is_server_error() {
                span.fail("the request failed");
            }
        }
        response.map_into_left_body()
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

/// The span of a request that is let in, below what the client says of its trace. Strangers get none:
/// they cannot make us record anything.
fn begin_span(request: &ServiceRequest, request_id: &str) -> Span {
    let Some(state) = request.app_data::<web::Data<AppState>>() else {
        return Span::default();
    };
    let scope = state.tracing.below(trace_context(request.headers()));
    let method = match request.method() {
        known @ (&Method::GET | &Method::POST | &Method::DELETE) => known.as_str(),
        _ => "_OTHER",
    };
    if !scope.is_on() {
        return scope.span(Side::Server, "");
    }
    let route = request.match_pattern();
    let name = match &route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    };
    let mut span = scope.span(Side::Server, name);
    span.note(Fact::Method(method));
    span.note(Fact::RequestId(request_id));
    if let Some(route) = &route {
        span.note(Fact::Route(route));
    }
    span
}

/// What the client says of its trace. Two `traceparent`s are none, several `tracestate`s are one list.
pub(crate) fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT);
    let parent = parents.next()?.to_str().ok()?;
    if parents.next().is_some() {
        return None;
    }
    let states: Vec<&str> = headers
        .get_all(TRACESTATE)
        .filter_map(|state| state.to_str().ok())
        .collect();
    TraceContext::parse(parent, &states.join(","))
}

fn hops(headers: &HeaderMap) -> Hops {
    let value = headers.get(Hops::HEADER);
    Hops::read(value.and_then(|value| value.to_str().ok()))
}

/// What a gateway is told that calls itself through others; its log and its client show it.
pub(super) fn goes_round() -> ApiError {
    ApiError::new(
        ApiErrorCode::LoopDetected,
        "this request has passed several gateways, which call each other in a circle: give one of them a \
         model server as `--upstream`",
    )
}

/// What a stranger is told.
pub(super) fn denied() -> ApiError {
    ApiError::new(
        ApiErrorCode::InvalidApiKey,
        "this gateway needs a valid API key: send it as `Authorization: Bearer KEY`",
    )
}

/// Whose request this is; `None` for a stranger.
fn asker(request: &ServiceRequest) -> Option<Asker> {
    let state = request.app_data::<web::Data<AppState>>()?;
    state.asker(bearer(request.headers()))
}

/// The key that a request shows.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// The client's id where it is short and printable: it goes into logs and headers.
fn request_id(request: &ServiceRequest) -> Arc<str> {
    request
        .headers()
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID)
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic()))
        .map_or_else(
            || ids::fresh(Prefix::Request, &mut SystemIds).into(),
            Arc::from,
        )
}
