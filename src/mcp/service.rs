//! The runtime's HTTP service: health, a long poll for the state of all servers, and calls.
//!
//! It asks for the token that its starter chose.

use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse, error, web};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use vllm_responses_actors::ask::ask_actor;
use vllm_responses_actors::mcp::hosted::Servers;
use vllm_responses_actors::mcp::hosted::messages::{Call, Describe};
use vllm_responses_actors::secret::Secret;
use vllm_responses_protocol::mcp::outcome::Outcome;
use vllm_responses_protocol::mcp::wire::{CallOrder, ServerPhase, ServerState, Snapshot};

use crate::bearer;
use crate::http::{door, trace_context};

/// How long a poll without news is held.
const HOLD: Duration = Duration::from_secs(25);
/// A server's actor answers from memory.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Clone, Debug)]
pub(super) struct ServiceState {
    pub(super) servers: Servers,
    pub(super) token: Option<Secret>,
    /// It listens on a port of loopback.
    pub(super) on_loopback: bool,
    /// Beyond every limit that a call has of its own.
    pub(super) call_limit: Duration,
}

/// Refuses whoever does not show the token, and pages that have pointed a name of theirs here.
pub(super) async fn authorize(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let state = request.app_data::<web::Data<ServiceState>>();
    if state.is_some_and(|state| state.on_loopback) && !door::names_loopback(request.head()) {
        return Err(error::ErrorForbidden(door::LOOPBACK_ONLY));
    }
    let token = state.and_then(|state| state.token.as_ref());
    if token.is_some_and(|token| !bearer::shows(request.headers(), token)) {
        return Err(error::ErrorUnauthorized("a token is needed"));
    }
    next.call(request).await
}

#[derive(Debug, Serialize)]
struct HealthBody {
    ok: bool,
    /// Required servers that are not available yet.
    waiting: Vec<Box<str>>,
}

/// 200 once every required server is available.
pub(super) async fn health(state: web::Data<ServiceState>) -> HttpResponse {
    let waiting: Vec<_> = snapshot(&state.servers)
        .await
        .servers
        .into_iter()
        .filter(|server| server.required && server.phase != ServerPhase::Available)
        .map(|server| server.label)
        .collect();
    let body = HealthBody {
        ok: waiting.is_empty(),
        waiting,
    };
    if body.ok {
        HttpResponse::Ok().json(body)
    } else {
        HttpResponse::ServiceUnavailable().json(body)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Poll {
    /// The revision that the caller knows.
    #[serde(default)]
    since: u64,
}

/// The state of all servers, as soon as it is not the one that the caller knows.
pub(super) async fn servers(
    state: web::Data<ServiceState>,
    poll: web::Query<Poll>,
) -> HttpResponse {
    let mut revision = state.servers.revision.clone();
    let news = revision.wait_for(|revision| *revision != poll.since);
    // Without news the same state is told again: the caller sees that we live.
    drop(tokio::time::timeout(HOLD, news).await);
    HttpResponse::Ok().json(snapshot(&state.servers).await)
}

/// The revision is read first, so that a change in between is told by the next poll.
pub(super) async fn snapshot(servers: &Servers) -> Snapshot {
    let mut snapshot = Snapshot {
        revision: *servers.revision.borrow(),
        servers: Vec::new(),
    };
    for actor in servers.by_label.values() {
        let described: Result<ServerState, _> = ask_actor(actor, Describe, DESCRIBE_LIMIT).await;
        snapshot.servers.extend(described.ok());
    }
    snapshot
}

/// Calls a tool. A caller that leaves cancels the call.
pub(super) async fn call(
    request: HttpRequest,
    state: web::Data<ServiceState>,
    order: web::Json<CallOrder>,
) -> HttpResponse {
    let CallOrder {
        server,
        tool,
        arguments,
    } = order.into_inner();
    let Some(actor) = state.servers.by_label.get(&server) else {
        return HttpResponse::NotFound().finish();
    };
    let cancel = CancellationToken::new();
    let _left = cancel.clone().drop_guard();
    let call = Call {
        tool,
        arguments,
        trace: trace_context(request.headers()),
        cancel,
    };
    let outcome: Result<Option<Outcome>, _> = ask_actor(actor, call, state.call_limit).await;
    match outcome {
        Ok(Some(outcome)) => HttpResponse::Ok().json(outcome),
        Ok(None) => HttpResponse::Conflict().finish(),
        Err(_gone) => HttpResponse::ServiceUnavailable().finish(),
    }
}
