//! `POST /v1/responses`.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use vllm_responses_actors::ask::ask_actor;
use vllm_responses_actors::env::{Clock as _, SystemClock, SystemIds};
use vllm_responses_actors::supervisor::messages::{Acquire, Permit};
use vllm_responses_actors::turn::{self, Head, Job};
use vllm_responses_protocol::ids::ResponseId;
use vllm_responses_protocol::responses::request::CreateRequest;
use vllm_responses_protocol::responses::response::Identity;
use vllm_responses_protocol::turn::{Seed, Turn};

use super::super::context::Caller;
use super::super::state::AppState;
use super::super::stream::TurnBody;
use super::super::{error, extract};

/// The supervisor answers from memory.
const PERMIT_LIMIT: Duration = Duration::from_secs(5);

/// Reads the request, asks for a permit, starts a turn on this worker, and answers as it says.
pub(in crate::http) async fn create(
    request: HttpRequest,
    payload: web::Payload,
    caller: Caller,
    state: web::Data<AppState>,
    client: web::ThinData<awc::Client>,
) -> HttpResponse {
    let body = match extract::body(&request, payload, state.body_limit).await {
        Ok(body) => body,
        Err(fault) => return error::answer(&fault),
    };
    let request = match CreateRequest::decode(&body, &state.rules, &mut SystemIds) {
        Ok(request) => request,
        Err(fault) => return error::answer(&fault),
    };
    drop(body);
    for warning in &request.warnings {
        log::warn!(request_id = &*caller.request_id; "{warning}");
    }
    let permit = match ask_actor(&state.supervisor, Acquire, PERMIT_LIMIT).await {
        Ok(Ok(permit)) => permit,
        Ok(Err(refused)) => return error::refused(refused),
        Err(gone) => return error::no_answer(gone),
    };
    let handle = turn::start(job(request, caller, permit, &state), client.0);
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

fn job(request: CreateRequest, caller: Caller, permit: Permit, state: &AppState) -> Job {
    let now = SystemClock.now_ms();
    let previous = request.previous_response_id.clone();
    let identity = Identity {
        id: ResponseId::fresh(&mut SystemIds),
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
        request,
        owner: caller.owner.clone(),
        identity,
        expires_at_ms,
        reasoning_events: state.reasoning_events,
        ids: Box::new(SystemIds),
        offers: permit.peers.tools.offers(),
        limits: state.loop_limits,
    });
    Job {
        turn,
        owner: caller.owner,
        previous,
        permit,
        request_id: caller.request_id,
    }
}
