//! `GET /v1/status`: every component as it is now, for people and for `vllm-responses status`.

use std::time::Duration;

use actix::{Message, Recipient};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::join_all;
use url::Url;
use vllm_responses_actors::ask::{AskError, ask, ask_actor};
use vllm_responses_actors::cache::messages as cache;
use vllm_responses_actors::interpreter::messages as interpreter;
use vllm_responses_actors::mcp::messages::{ListServers, RuntimeDown};
use vllm_responses_actors::process::messages as process;
use vllm_responses_actors::process::sandbox::Walls;
use vllm_responses_actors::store::messages as store;
use vllm_responses_actors::supervisor::messages::{Health, Observe};
use vllm_responses_actors::vllm::messages as vllm;

use super::context::Caller;
use super::error;
use super::state::{AppState, Observers};
use crate::status::{
    self, CacheStatus, ChildView, InterpreterView, Lines, McpView, Standing, Status, StoreStatus,
};

/// All components are asked side by side; one that hangs is shown as such.
const LIMIT: Duration = Duration::from_secs(1);

/// Answers whatever works and whatever does not; needs a key where keys are configured.
pub(super) async fn status(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<AppState>,
) -> HttpResponse {
    let observers = state.observers.borrow().clone();
    let (seen, upstream, store, cache, python, children, servers) = futures_util::join!(
        ask_actor(&state.supervisor, Observe, LIMIT),
        optional(observers.upstream.as_ref(), vllm::Observe),
        optional(observers.store.as_ref(), store::Observe),
        optional(observers.cache.as_ref(), cache::Observe),
        optional(
            observers.interpreter.as_ref().map(|door| &door.observe),
            interpreter::Observe
        ),
        children(&observers, &state, lines(&request, &state)),
        ask(&state.mcp.servers, ListServers, LIMIT),
    );
    let service = observers.interpreter.and_then(|door| door.service);
    let mcp = McpView {
        remote: state.mcp.remote,
        servers: servers.unwrap_or(Err(RuntimeDown)),
    };
    let seen = match seen {
        Ok(seen) => seen,
        Err(gone) => return error::no_answer(&caller.origin(""), gone),
    };
    HttpResponse::Ok().json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms: u64::try_from(state.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        ready: seen.ready,
        stop: seen.stop,
        in_flight: seen.in_flight,
        capacity: seen.capacity,
        upstream: upstream_status(&seen.upstream, upstream, &state.upstream.base_url),
        store: store_status(&seen.store, store),
        cache: cache_status(cache),
        children,
        code_interpreter: python.map(|own| interpreter_view(own, service)),
        tools: status::tools(observers.tools.offers(), mcp),
    })
}

/// Where no keys are configured, a child's own words stay on this machine. A key is one of many clients',
/// who are not told what the operator's programs write.
fn lines(request: &HttpRequest, state: &AppState) -> Lines {
    let local = request
        .peer_addr()
        .is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    match (state.keys.borrow().is_some(), local) {
        (true, _) => Lines::WithoutPrograms,
        (false, true) => Lines::Shown,
        (false, false) => Lines::Hidden,
    }
}

/// `None` while there is nobody to ask.
async fn optional<M>(to: Option<&Recipient<M>>, message: M) -> Option<Result<M::Result, AskError>>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    Some(ask(to?, message, LIMIT).await)
}

async fn children(observers: &Observers, state: &AppState, lines: Lines) -> Vec<ChildView> {
    let secret = state.upstream.api_key.as_ref();
    let asked = observers.children.iter().map(|(name, child)| async move {
        match ask(child, process::Observe, LIMIT).await {
            Ok(seen) => ChildView::new(seen, lines, secret),
            Err(silent) => ChildView::silent(name, silent.to_string()),
        }
    });
    join_all(asked).await
}

fn upstream_status(
    health: &Health,
    own: Option<Result<vllm::UpstreamObservation, AskError>>,
    url: &Url,
) -> status::UpstreamStatus {
    let (model, last_error) = match own {
        Some(Ok(own)) => (own.models.into_iter().next(), own.last_error),
        Some(Err(silent)) => (None, Some(silent.to_string())),
        None => (None, None),
    };
    status::UpstreamStatus {
        phase: Standing::from(health),
        url: url.to_string(),
        model,
        last_error: reason(health).or(last_error),
    }
}

fn store_status(
    health: &Health,
    own: Option<Result<Result<store::StoreObservation, store::StoreError>, AskError>>,
) -> StoreStatus {
    let phase = Standing::from(health);
    let silent = |problem: String| StoreStatus {
        phase: Standing::Down,
        backend: None,
        queued_writes: 0,
        queue_capacity: 0,
        last_error: Some(problem),
    };
    match own {
        None => StoreStatus {
            phase,
            last_error: reason(health),
            ..silent(String::new())
        },
        Some(Err(error)) => silent(error.to_string()),
        Some(Ok(Err(error))) => silent(error.to_string()),
        Some(Ok(Ok(own))) => StoreStatus {
            phase,
            backend: Some(own.backend),
            queued_writes: own.facts.queued,
            queue_capacity: own.queue_capacity,
            last_error: own.last_error,
        },
    }
}

fn cache_status(own: Option<Result<cache::CacheObservation, AskError>>) -> CacheStatus {
    let phase = match own {
        None => Standing::Starting,
        Some(Err(_silent)) => Standing::Down,
        Some(Ok(own)) => {
            let phase = match &own.redis {
                None => Standing::Off,
                Some(redis) if redis.breaker_open => Standing::Down,
                Some(_) => Standing::Ready,
            };
            return CacheStatus {
                phase,
                redis: own.redis,
            };
        }
    };
    CacheStatus { phase, redis: None }
}

/// One that is not ready has either just begun or cannot start any.
fn interpreter_view(
    own: Result<interpreter::InterpreterStatus, AskError>,
    service: Option<Box<str>>,
) -> InterpreterView {
    let service = service.map(String::from);
    match own {
        Ok(own) => InterpreterView {
            service,
            phase: match (own.ready, &own.last_error) {
                (true, _) => Standing::Ready,
                (false, None) => Standing::Starting,
                (false, Some(_)) => Standing::Down,
            },
            live: own.live,
            idle: own.idle + own.warm,
            waiting: own.waiting,
            failures: own.failures,
            last_error: own.last_error,
            // A service that does not answer yet has said nothing of its own.
            walls: (own.walls != Walls::default() || own.ready).then_some(own.walls),
        },
        Err(silent) => InterpreterView {
            service,
            phase: Standing::Down,
            live: 0,
            idle: 0,
            waiting: 0,
            failures: 0,
            last_error: Some(silent.to_string()),
            walls: None,
        },
    }
}

fn reason(health: &Health) -> Option<String> {
    match health {
        Health::Down { reason } => Some(reason.clone()),
        Health::Starting | Health::Ready => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> Health {
        Health::Down {
            reason: "gone".to_owned(),
        }
    }

    #[test]
    fn a_component_that_gives_no_answer_is_down_and_says_so() {
        let hangs = || Some(Err(AskError::TimedOut));
        let store = store_status(&Health::Ready, hangs());
        assert_eq!((store.phase, store.backend), (Standing::Down, None));
        assert_eq!(store.last_error, Some(AskError::TimedOut.to_string()));
        let gone = Some(Err(AskError::Unavailable));
        assert_eq!(cache_status(gone).phase, Standing::Down);
        let python = interpreter_view(Err(AskError::TimedOut), None);
        assert_eq!((python.phase, python.live), (Standing::Down, 0));
        let url = Url::parse("http://h/v1").unwrap();
        let upstream = upstream_status(&Health::Ready, Some(Err(AskError::TimedOut)), &url);
        assert_eq!(upstream.last_error, Some(AskError::TimedOut.to_string()));
    }

    #[test]
    fn what_is_not_up_yet_starts_and_what_is_down_says_why() {
        let store = store_status(&Health::Starting, None);
        assert_eq!((store.phase, store.last_error), (Standing::Starting, None));
        assert_eq!(cache_status(None).phase, Standing::Starting);
        let url = Url::parse("http://h/v1").unwrap();
        let upstream = upstream_status(&down(), None, &url);
        assert_eq!(upstream.phase, Standing::Down);
        assert_eq!(upstream.last_error.as_deref(), Some("gone"));
    }
}
