//! `POST /v1/responses`, and the same request for another end: `POST /v1/responses/input_tokens`
//! counts it, `POST /v1/responses/compact` sums its conversation up.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{Handler, HttpMessage as _, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use log::Level;
use vllm_responses_actors::ask::{AskError, ask_actor};
use vllm_responses_actors::env::{Clock as _, SystemClock, SystemIds};
use vllm_responses_actors::http1::Client;
use vllm_responses_actors::memory::{LARGE, Share, weight};
use vllm_responses_actors::origin::Origin;
use vllm_responses_actors::supervisor::messages::{Acquire, Permit};
use vllm_responses_actors::trace::{Fact, Span};
use vllm_responses_actors::turn::{self, Head, Job, Load, TurnHandle};
use vllm_responses_protocol::error::ApiError;
use vllm_responses_protocol::ids::{ItemIds, ResponseId};
use vllm_responses_protocol::responses::request::CreateRequest;
use vllm_responses_protocol::responses::response::Identity;
use vllm_responses_protocol::turn::{Purpose, Seed, Turn};
use vllm_responses_protocol::weigh;

use super::super::access::Noted;
use super::super::context::Caller;
use super::super::state::AppState;
use super::super::stream::TurnBody;
use super::super::{error, extract, limits};
use super::reading;

/// The supervisor answers from memory.
const PERMIT_LIMIT: Duration = Duration::from_secs(5);

/// What a handler takes.
type Args = (
    HttpRequest,
    web::Payload,
    Caller,
    web::Data<AppState>,
    web::ThinData<Client>,
);

/// Handles requests for this purpose.
pub(in crate::http) fn handler(purpose: Purpose) -> impl Handler<Args, Output = HttpResponse> {
    move |request, payload, caller, state: web::Data<AppState>, client: web::ThinData<_>| async move {
        run(purpose, (request, payload), caller, &state, client.0).await
    }
}

/// Reads the request, asks for a permit, starts a turn on this worker, and answers as it says.
async fn run(
    purpose: Purpose,
    (head, payload): (HttpRequest, web::Payload),
    caller: Caller,
    state: &web::Data<AppState>,
    client: Client,
) -> HttpResponse {
    let (id, ids) = ItemIds::fresh(Box::new(SystemIds));
    let read = match extract::body(&head, payload, &caller, &state.intake).await {
        Ok(body) => read(body, ids, state).await,
        Err(fault) => Err(fault),
    };
    let (mut request, ids, load, settings) = match read {
        Ok(read) => read,
        Err(fault) => return error::answer(&fault),
    };
    if purpose != Purpose::Answer {
        request.stream = false;
        request.store = false;
    }
    let origin = caller.origin(id.as_str());
    let permit = match permit(&caller, &origin, state).await {
        Ok(permit) => permit,
        Err(refused) => return refused,
    };
    // Behind the permit: who is over a limit writes nothing into the log.
    for kind in request.unserved_tools() {
        state.metrics.tools().unserved(kind);
    }
    warn_once(&request.warnings, &origin);
    let quota = permit.quota;
    let spent = Arc::default();
    let noted = Noted::new(&request.model, &origin.response_id, Arc::clone(&spent));
    head.extensions_mut().insert(noted);
    let share = state.intake.reads.of(&caller.owner);
    let mut job = job(
        purpose,
        (request, load, settings),
        (id, ids),
        (caller, permit),
        state,
    );
    job.spent = spent;
    // From here to the last byte the span is the turn's.
    let span = head.extensions_mut().remove::<Span>();
    job.span = span.unwrap_or_default();
    job.span.note(Fact::ResponseId(&origin.response_id));
    let mut response = answer(turn::start(job, client), share, &origin).await;
    limits::tell(&quota, response.headers_mut());
    response
}

/// The request that a body is, once there is room for what is read out of it: a large one on a thread
/// that may block, where it goes on with what it holds when the client leaves.
async fn read(
    body: extract::Body,
    mut ids: ItemIds,
    state: &web::Data<AppState>,
) -> Result<(CreateRequest, ItemIds, Load, Arc<str>), ApiError> {
    let extract::Body { bytes, held } = body;
    let is_large = bytes.len() >= LARGE;
    let memory = &state.intake.memory;
    let no_room = |short| extract::short(short, memory);
    let weigh = |bytes: Bytes| (weigh::request(&bytes), bytes);
    let (weight, bytes) = if is_large {
        memory.work(move || weigh(bytes)).await.map_err(no_room)?
    } else {
        weigh(bytes)
    };
    let mut load = Load {
        held,
        kept: weight::kept(weight),
    };
    let more = weight::request(weight).saturating_sub(load.held.bytes());
    load.held.reserve(more).await.map_err(no_room)?;
    let rules = web::Data::clone(state);
    let decode = move || {
        let request = CreateRequest::decode(&bytes, &rules.rules, &mut ids)?;
        drop(bytes);
        let settings = request.settings.echo();
        Ok((request, ids, load, settings))
    };
    let (request, ids, mut load, settings) = if is_large {
        memory.work(decode).await.map_err(no_room)??
    } else {
        decode()?
    };
    // Its events say them again.
    let echoes = weight::settings(settings.len());
    load.held.reserve(echoes).await.map_err(no_room)?;
    load.kept += echoes;
    Ok((request, ids, load, settings))
}

/// Most warnings that a worker remembers; further ones are `debug`.
const REMEMBERED: usize = 256;

thread_local! {
    /// Warnings that this worker has given.
    static GIVEN: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// A client that sends a field which is not known sends it each time: the first is a warning.
fn warn_once(warnings: &[String], origin: &Origin) {
    for warning in warnings {
        let is_new = log::log_enabled!(Level::Warn)
            && GIVEN
                .with_borrow_mut(|given| given.len() < REMEMBERED && given.insert(warning.clone()));
        let level = if is_new { Level::Warn } else { Level::Debug };
        log::log!(level, request_id = &*origin.request_id, response_id = &*origin.response_id; "{warning}");
    }
}

/// The right to run a model, or the answer that says why not.
pub(in crate::http) async fn permit(
    caller: &Caller,
    origin: &Origin,
    state: &AppState,
) -> Result<Permit, HttpResponse> {
    let asker = caller.asker();
    if let Some(permit) = state.gate.enter(&asker) {
        return Ok(permit);
    }
    match ask_actor(&state.supervisor, Acquire(asker), PERMIT_LIMIT).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(refused)) => Err(error::refused(refused)),
        Err(gone) => Err(error::no_answer(origin, gone)),
    }
}

/// Answers as the turn says. A whole answer is in the share of what its caller reads.
async fn answer(handle: TurnHandle, share: Share, origin: &Origin) -> HttpResponse {
    match handle.head.await {
        Ok(Head::Stream) => HttpResponse::Ok()
            .content_type("text/event-stream; charset=utf-8")
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header(("x-accel-buffering", "no"))
            .body(TurnBody::new(handle.body)),
        Ok(Head::Whole(body, held)) => {
            let mut shared = held.memory().hold_in(share);
            shared.absorb(held);
            reading::json(body, shared, None)
        }
        Ok(Head::Refused(refusal)) => error::refusal(&refusal),
        // The turn's actor panicked: its half of the channel is gone.
        Err(_gone) => error::no_answer(origin, AskError::Unavailable),
    }
}

fn job(
    purpose: Purpose,
    (request, load, settings): (CreateRequest, Load, Arc<str>),
    (id, ids): (ResponseId, ItemIds),
    (caller, permit): (Caller, Permit),
    state: &AppState,
) -> Job {
    let now = SystemClock.now_ms();
    let previous = request.previous_response_id.clone();
    let origin = caller.origin(id.as_str());
    let identity = Identity {
        id,
        model: request.model.clone(),
        previous: previous.clone(),
        created_at_ms: now,
        metadata: request.metadata.clone(),
        settings,
        input_transformations: Vec::new(),
    };
    let expires_at_ms = state
        .retention
        .map(|age| now.saturating_add(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
    let efforts = permit.peers.efforts.of(&request.model);
    let marks = permit.peers.blobs.marks;
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
        seal_keys: Arc::clone(&permit.peers.seal_keys),
        efforts,
        marks,
    });
    Job {
        turn,
        owner: caller.owner,
        previous,
        permit,
        origin,
        span: Span::default(),
        queued: caller.arrived.elapsed(),
        load,
        spent: Arc::default(),
    }
}
