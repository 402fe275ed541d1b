//! `GET /metrics`, and the middleware that counts requests.
//!
//! What was counted comes from memory; what components know of themselves is asked of them at each
//! scrape, side by side, and left out where they do not answer in time. The format is the text of
//! `OpenMetrics`, which Prometheus and its relatives read.

mod count;
mod snapshot;
mod write;

use std::time::Duration;

use actix::{Message, Recipient};
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::join_all;
use prometheus_client::encoding::text;
use vllm_responses_actors::ask::{ask, ask_actor};
use vllm_responses_actors::cache::messages as cache;
use vllm_responses_actors::interpreter::messages as interpreter;
use vllm_responses_actors::mcp::messages::ListServers;
use vllm_responses_actors::metrics::MetricsDoor;
use vllm_responses_actors::process::messages as process;
use vllm_responses_actors::store::messages as store;
use vllm_responses_actors::supervisor::messages::{Observe, ReadLimitFacts};

use super::context;
use super::error;
use super::paths;
use super::state::AppState;
pub(crate) use count::count;
use snapshot::Snapshot;

/// A component that has not answered by then is left out.
const LIMIT: Duration = Duration::from_secs(1);

/// Adds the route, where there is one.
pub(crate) fn route(config: &mut web::ServiceConfig, door: Option<&MetricsDoor>) {
    if let Some(door) = door {
        config.service(
            web::resource(&*door.path)
                .route(paths::reads().to(metrics))
                .default_service(paths::wrong_method()),
        );
    }
}

/// Open to all, unless the operator says otherwise: there is nothing of clients in it (decision 21).
async fn metrics(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let closed = state.metrics_door.as_ref().is_some_and(|door| door.keyed);
    if closed && state.asker(context::bearer(request.headers())).is_none() {
        return error::answer(&context::denied());
    }
    let snapshot = look(&state).await;
    let mut page = String::with_capacity(32 * 1024);
    let written = text::encode_registry(&mut page, state.metrics.registry())
        .and_then(|()| text::encode_registry(&mut page, &snapshot.registry()))
        .and_then(|()| text::encode_eof(&mut page));
    // Nothing is written but into memory.
    if written.is_err() {
        page.clear();
    }
    HttpResponse::Ok()
        .insert_header((
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ))
        .body(page)
}

/// Asks every component.
async fn look(state: &AppState) -> Snapshot {
    let observers = state.observers.borrow().clone();
    let children = observers.children.iter();
    let children = children.map(|(_, child)| ask(child, process::Observe, LIMIT));
    let (seen, limits, store, cache, python, children, servers, descriptors) = futures_util::join!(
        ask_actor(&state.supervisor, Observe, LIMIT),
        ask_actor(&state.supervisor, ReadLimitFacts, LIMIT),
        optional(observers.store.as_ref(), store::Observe),
        optional(observers.cache.as_ref(), cache::Observe),
        optional(
            observers.interpreter.as_ref().map(|door| &door.observe),
            interpreter::Observe,
        ),
        join_all(children),
        ask(&state.mcp.servers, ListServers, LIMIT),
        web::block(snapshot::descriptors),
    );
    Snapshot {
        gateway: seen.ok(),
        limits: limits.ok(),
        store: store.and_then(Result::ok),
        redis: cache.and_then(|seen| seen.redis),
        python,
        children: children.into_iter().flatten().collect(),
        servers: servers.ok().and_then(Result::ok).unwrap_or_default(),
        descriptors: descriptors.ok().flatten(),
        uptime: state.started.elapsed(),
    }
}

/// `None` while there is nobody to ask, and where there is no answer.
async fn optional<M>(to: Option<&Recipient<M>>, message: M) -> Option<M::Result>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    ask(to?, message, LIMIT).await.ok()
}
