//! `POST /v1/responses`, and the same request for another end: `POST /v1/responses/input_tokens`
//! counts it, `POST /v1/responses/compact` sums its conversation up.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use vllm_responses_actors::env::{Clock as _, SystemClock, SystemIds};
use vllm_responses_actors::supervisor::messages::Permit;
use vllm_responses_actors::turn::{self, Head, Job};
use vllm_responses_protocol::ids::{ItemIds, ResponseId};
use vllm_responses_protocol::responses::request::CreateRequest;
use vllm_responses_protocol::responses::response::Identity;
use vllm_responses_protocol::turn::{Purpose, Seed, Turn};

use super::super::context::Caller;
use super::super::state::AppState;
use super::super::stream::TurnBody;
use super::super::{error, extract};

/// Answers the request.
pub(in crate::http) async fn create(
    request: HttpRequest,
    payload: web::Payload,
    caller: Caller,
    state: web::Data<AppState>,
    client: web::ThinData<awc::Client>,
) -> HttpResponse {
    run(
        Purpose::Answer,
        (request, payload),
        caller,
        &state,
        client.0,
    )
    .await
}

/// Tells how many tokens the request's prompt has.
pub(in crate::http) async fn input_tokens(
    request: HttpRequest,
    payload: web::Payload,
    caller: Caller,
    state: web::Data<AppState>,
    client: web::ThinData<awc::Client>,
) -> HttpResponse {
    run(Purpose::Count, (request, payload), caller, &state, client.0).await
}

/// Sums the conversation up.
pub(in crate::http) async fn compact(
    request: HttpRequest,
    payload: web::Payload,
    caller: Caller,
    state: web::Data<AppState>,
    client: web::ThinData<awc::Client>,
) -> HttpResponse {
    run(
        Purpose::Compact,
        (request, payload),
        caller,
        &state,
        client.0,
    )
    .await
}

/// Reads the request, asks for a permit, starts a turn on this worker, and answers as it says.
async fn run(
    purpose: Purpose,
    (request, payload): (HttpRequest, web::Payload),
    caller: Caller,
    state: &AppState,
    client: awc::Client,
) -> HttpResponse {
    let body = match extract::body(&request, payload, state.body_limit).await {
        Ok(body) => body,
        Err(fault) => return error::answer(&fault),
    };
    let (id, mut ids) = ItemIds::fresh(Box::new(SystemIds));
    let mut request = match CreateRequest::decode(&body, &state.rules, &mut ids) {
        Ok(request) => request,
        Err(fault) => return error::answer(&fault),
    };
    if purpose != Purpose::Answer {
        request.stream = false;
        request.store = false;
    }
    drop(body);
    for kind in request.unserved_tools() {
        state.metrics.tools().unserved(kind);
    }
    for warning in &request.warnings {
        log::warn!(request_id = &*caller.request_id; "{warning}");
    }
    let permit = match state.gate.enter() {
        Ok(permit) => permit,
        Err(refused) => return error::refused(refused),
    };
    let job = job(purpose, request, (id, ids), (caller, permit), state);
    let handle = turn::start(job, client);
    match handle.head.await {
        Ok(Head::Stream) => HttpResponse::Ok()
            .content_type("text/event-stream; charset=utf-8")
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header(("x-accel-buffering", "no"))
            .body(TurnBody(handle.body)),
        Ok(Head::Whole(body)) => HttpResponse::Ok()
            .content_type("application/json")
            .body(body),
        Ok(Head::Refused(refusal)) => error::refusal(&refusal),
        // The turn's actor panicked: its half of the channel is gone.
        Err(_gone) => error::no_answer(vllm_responses_actors::ask::AskError::Unavailable),
    }
}

fn job(
    purpose: Purpose,
    request: CreateRequest,
    (id, ids): (ResponseId, ItemIds),
    (caller, permit): (Caller, Permit),
    state: &AppState,
) -> Job {
    let now = SystemClock.now_ms();
    let previous = request.previous_response_id.clone();
    let identity = Identity {
        id,
        model: request.model.clone(),
        previous: previous.clone(),
        created_at_ms: now,
        metadata: request.metadata.clone(),
        settings: request.settings.echo(),
    };
    let expires_at_ms = state
        .retention
        .map(|age| now.saturating_add(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
    let turn = Turn::new(Seed {
        purpose,
        request,
        owner: caller.owner.clone(),
        identity,
        expires_at_ms,
        reasoning_events: state.reasoning_events,
        ids: Box::new(ids),
        offers: permit.peers.tools.offers(),
        limits: state.loop_limits,
        seal_keys: Arc::clone(&state.seal_keys),
    });
    Job {
        turn,
        owner: caller.owner,
        previous,
        permit,
        request_id: caller.request_id,
    }
}
