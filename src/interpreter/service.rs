//! The service's HTTP: health, state, calls, and containers given back.
//!
//! Everything but health asks for the token, where there is one.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, error, web};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vllm_responses_actors::ask::ask_actor;
use vllm_responses_actors::interpreter::actor::CodeInterpreterActor;
use vllm_responses_actors::interpreter::limits::CallLimits;
use vllm_responses_actors::interpreter::messages::{Execute, Observe, Release};
use vllm_responses_actors::interpreter::wire::{
    Answer, GivenBack, HEALTH_PATH, Order, PROTOCOL, Report, trim,
};
use vllm_responses_actors::secret::Secret;

use crate::bearer;
use crate::http::door;

/// The actor answers from memory.
const ASK: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Clone, Debug)]
pub(super) struct ServiceState {
    pub(super) interpreter: Addr<CodeInterpreterActor>,
    pub(super) token: Option<Secret>,
    /// It listens on loopback only.
    pub(super) on_loopback: bool,
    /// Of every call, whatever an order says.
    pub(super) limits: CallLimits,
    /// Calls that run, and whether more are taken.
    pub(super) door: Door,
}

/// Counts the calls that run, and closes at a stop.
#[derive(Clone, Debug)]
pub(super) struct Door {
    state: Arc<watch::Sender<DoorState>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct DoorState {
    is_closed: bool,
    inside: usize,
}

/// A call inside; leaves when dropped.
#[derive(Debug)]
struct Inside(Door);

impl Door {
    pub(super) fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(DoorState::default())),
        }
    }

    fn enter(&self) -> Option<Inside> {
        let entered = self.state.send_if_modified(|state| {
            state.inside += usize::from(!state.is_closed);
            !state.is_closed
        });
        entered.then(|| Inside(self.clone()))
    }

    fn is_open(&self) -> bool {
        !self.state.borrow().is_closed
    }

    /// Takes no more calls, and resolves when none is inside.
    pub(super) async fn close(&self) {
        self.state.send_modify(|state| state.is_closed = true);
        let mut seen = self.state.subscribe();
        drop(seen.wait_for(|state| state.inside == 0).await);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.inside -= 1);
    }
}

/// Refuses whoever does not show the token, but for health, and pages that have pointed a name of theirs
/// here.
pub(super) async fn authorize(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let state = request.app_data::<web::Data<ServiceState>>();
    if state.is_some_and(|state| state.on_loopback) && !door::names_loopback(request.head()) {
        return Err(error::ErrorForbidden(door::LOOPBACK_ONLY));
    }
    let token = state.and_then(|state| state.token.as_ref());
    let is_open = request.path() == HEALTH_PATH;
    if token.is_some_and(|token| !is_open && !bearer::shows(request.headers(), token)) {
        return Err(error::ErrorUnauthorized("a token is needed"));
    }
    next.call(request).await
}

/// 200 while calls are served.
pub(super) async fn health(state: web::Data<ServiceState>) -> HttpResponse {
    let status = ask_actor(&state.interpreter, Observe, ASK).await;
    if state.door.is_open() && status.is_ok_and(|status| status.ready) {
        HttpResponse::Ok().body("ok\n")
    } else {
        HttpResponse::ServiceUnavailable().body("not ready\n")
    }
}

/// How the interpreters are.
pub(super) async fn status(state: web::Data<ServiceState>) -> HttpResponse {
    match ask_actor(&state.interpreter, Observe, ASK).await {
        Ok(status) if state.door.is_open() => HttpResponse::Ok().json(Report {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            status,
        }),
        Ok(_) | Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

/// Runs code. A caller that leaves cancels the call: its interpreter is killed.
pub(super) async fn execute(
    state: web::Data<ServiceState>,
    order: web::Json<Order>,
) -> HttpResponse {
    let Some(_inside) = state.door.enter() else {
        return HttpResponse::ServiceUnavailable().finish();
    };
    let Order {
        owner,
        container,
        code,
        limits,
    } = order.into_inner();
    let limits = limits.within(state.limits);
    let cancel = CancellationToken::new();
    let _left = cancel.clone().drop_guard();
    let execute = Execute {
        owner,
        container,
        code,
        // The host program's own limits are the service's: what is more is dropped below.
        limits: CallLimits {
            wall: limits.wall,
            ..state.limits
        },
        cancel,
    };
    // The queue and the call bound how long this takes.
    match state.interpreter.send(execute).await {
        Ok(ran) => HttpResponse::Ok().json(Answer::from(ran.map(|ran| trim(ran, &limits)))),
        Err(_gone) => HttpResponse::ServiceUnavailable().finish(),
    }
}

/// A container that its response uses no more.
pub(super) async fn release(
    state: web::Data<ServiceState>,
    given: web::Json<GivenBack>,
) -> HttpResponse {
    let GivenBack {
        owner,
        container_id,
    } = given.into_inner();
    let release = Release {
        owner,
        container_id,
    };
    match ask_actor(&state.interpreter, release, ASK).await {
        Ok(()) => HttpResponse::NoContent().finish(),
        Err(_gone) => HttpResponse::ServiceUnavailable().finish(),
    }
}
