//! Reads of stored responses: at a rate, few at once, in the memory budget, where each caller has a
//! share for them, and sent piece by piece. What is read may be as large as what was ever sent.

use std::time::Duration;

use actix_web::HttpResponse;
use serde::Serialize;
use vllm_responses_actors::ask::{ask, ask_actor};
use vllm_responses_actors::blobs::Whole;
use vllm_responses_actors::memory::{CallersPlace, CallersPlaces, Held, LARGE, Memory, Short};
use vllm_responses_actors::origin::Origin;
use vllm_responses_actors::store::messages::{StoreError, Weigh, Weighed, Weight};
use vllm_responses_actors::supervisor::messages::MayRead;
use vllm_responses_protocol::ids::Owner;

use super::super::context::Caller;
use super::super::state::{AppState, Intake, StoreDoors};
use super::super::whole::WholeBody;
use super::super::{error, extract};
use super::STORE_LIMIT;

/// How long a read waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// The supervisor answers from memory.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(5);

/// The right to read, and what is held meanwhile.
pub(super) struct Reading {
    /// Until the answer is made; the client may take its time.
    place: CallersPlace,
    held: Held,
    pub(super) doors: StoreDoors,
    pub(super) origin: Origin,
    owner: Owner,
    /// Where places come from.
    readers: CallersPlaces,
    /// How much there is to read.
    pub(super) weight: Weight,
}

impl Reading {
    /// Waits for the right to read this, which is weighed.
    pub(super) async fn begin(
        state: &AppState,
        caller: &Caller,
        origin: Origin,
        what: Weighed,
    ) -> Result<Self, HttpResponse> {
        if state.gate.limits_reads(caller.own_limits) {
            let ask = MayRead(caller.asker());
            match ask_actor(&state.supervisor, ask, SUPERVISOR_LIMIT).await {
                Ok(Ok(())) => {}
                Ok(Err(refused)) => return Err(error::refused(refused)),
                Err(gone) => return Err(error::no_answer(&origin, gone)),
            }
        }
        let doors = state.doors().map_err(error::refused)?;
        let intake = &state.intake;
        let readers = intake.readers.of(&caller.owner);
        let Ok(Some(place)) = tokio::time::timeout(PATIENCE, readers.take()).await else {
            intake.memory.note_refused();
            let message = "the gateway reads as many responses as it may, or as you may; try again";
            return Err(error::busy(message, "1"));
        };
        let weigh = Weigh {
            owner: caller.owner.clone(),
            what,
        };
        let weight = match ask(&doors.weights, weigh, STORE_LIMIT).await {
            Ok(Ok(Some(weight))) => weight,
            Ok(Ok(None)) => return Err(error::unknown_response()),
            Ok(Err(fault)) => return Err(error::store(&origin, &fault)),
            Err(gone) => return Err(error::no_answer(&origin, gone)),
        };
        Ok(Self {
            place,
            held: intake.memory.hold_in(intake.reads.of(&caller.owner)),
            doors,
            origin,
            owner: caller.owner.clone(),
            readers,
            weight,
        })
    }

    /// Makes room for so many bytes more.
    pub(super) async fn reserve(&mut self, bytes: usize) -> Result<(), HttpResponse> {
        let reserved = self.held.reserve(bytes).await;
        reserved.map_err(|short| self.no_room(short))
    }

    /// Does this with what was read, of so many bytes: on a thread that may block where it is large.
    pub(super) async fn work<T: Send + 'static>(
        mut self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(Self, T), HttpResponse> {
        if bytes < LARGE {
            let done = work();
            return Ok((self, done));
        }
        // What is held goes along, since the work goes on when the client leaves.
        let memory = self.held.memory().clone();
        let held = std::mem::replace(&mut self.held, memory.hold(0));
        match memory.work(move || (work(), held)).await {
            Ok((done, held)) => {
                self.held = held;
                Ok((self, done))
            }
            Err(short) => Err(self.no_room(short)),
        }
    }

    /// The answer: this text, whole.
    pub(super) async fn answer(mut self, text: String) -> Result<HttpResponse, HttpResponse> {
        // Whoever wrote it counted it with what it was made of, which is gone.
        self.held.cut(text.len());
        let whole = self.doors.blobs.whole(&self.owner, text.into());
        let window = whole.window().min(whole.length());
        self.reserve(window).await?;
        drop(self.place);
        Ok(json(whole, self.held, Some(self.readers)))
    }

    /// The store's error.
    pub(super) fn fault(&self, fault: &StoreError) -> HttpResponse {
        error::store(&self.origin, fault)
    }

    fn no_room(&self, short: Short) -> HttpResponse {
        no_room(short, self.held.memory())
    }
}

fn no_room(short: Short, memory: &Memory) -> HttpResponse {
    error::answer(&extract::short(short, memory))
}

/// An answer whose length a model server or an MCP server has in its hand, in its caller's share of
/// reads; `held` is what making it took.
pub(in crate::http) fn counted(body: &impl Serialize, mut held: Held) -> HttpResponse {
    // Strings, words and raw values: nothing here can fail to be written.
    let body = serde_json::to_vec(body).unwrap_or_default();
    if body.len() > held.bytes() && !held.try_set(body.len()) {
        held.memory().note_refused();
        return no_room(Short::Now, held.memory());
    }
    held.cut(body.len());
    json(Whole::Text(body.into()), held, None)
}

/// Room for so many bytes in the caller's share of reads.
pub(in crate::http) async fn room(
    bytes: usize,
    caller: &Caller,
    intake: &Intake,
) -> Result<Held, HttpResponse> {
    let mut held = intake.memory.hold_in(intake.reads.of(&caller.owner));
    match held.reserve(bytes).await {
        Ok(()) => Ok(held),
        Err(short) => Err(no_room(short, &intake.memory)),
    }
}

/// A whole answer, which is held until the client has taken it.
pub(super) fn json(whole: Whole, held: Held, places: Option<CallersPlaces>) -> HttpResponse {
    let body = WholeBody::new(whole, held, places);
    HttpResponse::Ok()
        .content_type("application/json")
        .body(body)
}
