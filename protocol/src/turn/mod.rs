//! The turn machine: one response from request to terminal event.
//!
//! `step` takes one [`Input`], moves to the next phase and leaves [`Effects`]: bytes for the client
//! and actions for the actor. It knows neither HTTP nor actors nor time, so every rule here is a
//! unit test. It guarantees, whatever the upstream does:
//!
//! 1. Ids are fixed at `added`; sequence numbers are dense from 0; every item added is done; joined
//!    deltas equal the done text; `output` is in `output_index` order.
//! 2. One terminal event, then `data: [DONE]`. The stored status is the one the client saw.
//! 3. A fault before the first byte for the client is an HTTP status with an error body. A fault
//!    after it is an `error` event and `response.failed`, with the partial output kept.
//! 4. The record is committed before the terminal event is written. A failed commit costs the client
//!    nothing but the truth: its terminal resource says `store: false`.
//!
//! ```text
//! Fresh ──History──▶ Calling ──finish, fault, cancel──▶ Storing ──Stored──▶ Over
//!   └──Refused──────────────────────▶ Over ◀── without `store` ──┘
//! ```

pub mod effect;
mod ending;
mod fault;
#[cfg(test)]
mod tests;

use crate::chat::answer::Answer;
use crate::chat::chunk::{ChatUsage, Chunk};
use crate::chat::fault::UpstreamFault;
use crate::compose::{Composer, Out, ParallelCalls};
use crate::ids::{IdSource, Owner};
use crate::normalize::{self, FinishReason};
use crate::record::Status;
use crate::responses::event::{Delivery, ReasoningEvents, Writer};
use crate::responses::item::Item;
use crate::responses::request::CreateRequest;
use crate::responses::response::{Identity, State, Usage};
use crate::sse::Decoder;
use crate::translate::{self, ChoiceMode, StreamMode};
use effect::{Action, Cancel, Effects, Input, Refusal};
use ending::Terminal;
use fault::Explained;

/// What a turn is made from.
pub struct Seed {
    /// The request, read and normalised.
    pub request: CreateRequest,
    /// Whose it is.
    pub owner: Owner,
    /// The response's lasting members.
    pub identity: Identity,
    /// Unix milliseconds at which it expires; `None` keeps it.
    pub expires_at_ms: Option<i64>,
    /// Names of the reasoning events.
    pub reasoning_events: ReasoningEvents,
    /// Ids of the items to come.
    pub ids: Box<dyn IdSource>,
}

/// One response, from request to terminal event.
pub struct Turn {
    identity: Identity,
    owner: Owner,
    request: CreateRequest,
    expires_at_ms: Option<i64>,
    ids: Box<dyn IdSource>,
    delivery: Delivery,
    downstream: Downstream,
    writer: Writer,
    decoder: Decoder,
    composer: Composer,
    usage: Option<Usage>,
    phase: Phase,
}

/// Where the turn stands.
#[derive(Debug)]
enum Phase {
    /// Waiting for the history.
    Fresh,
    /// The model was called.
    Calling(CallState),
    /// The record is on its way to the store.
    Storing(Terminal),
    /// Nothing more happens.
    Over,
}

/// What is known of the running model call.
#[derive(Debug, Default)]
struct CallState {
    finish: Option<FinishReason>,
    /// The last counts given; servers may send them with every chunk.
    usage: Option<ChatUsage>,
}

/// Whether the client has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Downstream {
    /// Not a byte: a fault can still be an HTTP status.
    Held,
    /// 200 and the first events are out.
    Begun,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn")
            .field("id", &self.identity.id)
            .finish_non_exhaustive()
    }
}

impl Turn {
    /// A turn that waits for its history.
    pub fn new(seed: Seed) -> Self {
        let delivery = if seed.request.stream {
            Delivery::Events
        } else {
            Delivery::Whole
        };
        let parallel = if seed.request.parallel_tool_calls() {
            ParallelCalls::Allowed
        } else {
            ParallelCalls::FirstOnly
        };
        Self {
            identity: seed.identity,
            owner: seed.owner,
            request: seed.request,
            expires_at_ms: seed.expires_at_ms,
            ids: seed.ids,
            delivery,
            downstream: Downstream::Held,
            writer: Writer::new(delivery, seed.reasoning_events),
            decoder: Decoder::default(),
            composer: Composer::new(parallel),
            usage: None,
            phase: Phase::Fresh,
        }
    }

    /// The response's lasting members.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The closed items as JSON, for the log of model messages.
    pub fn output_json(&self) -> String {
        crate::history::items_json(&self.composer.items())
    }

    /// Whether the client streams.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Whether nothing more will come of this turn.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether the answer is decided: what the upstream still sends is of no interest.
    pub fn is_decided(&self) -> bool {
        matches!(self.phase, Phase::Storing(_) | Phase::Over)
    }

    /// Takes one input; `now_ms` is Unix milliseconds.
    pub fn step(&mut self, now_ms: i64, input: Input<'_>, effects: &mut Effects) {
        match (&mut self.phase, input) {
            (Phase::Fresh, Input::History(history)) => self.call_model(&history, effects),
            (Phase::Fresh, Input::Refused(error)) => {
                self.refuse(
                    Refusal {
                        error,
                        retry_after: None,
                    },
                    effects,
                );
            }
            (Phase::Fresh, Input::Cancelled(Cancel::ClientLeft)) => self.end(effects),
            (Phase::Fresh, Input::Cancelled(Cancel::Shutdown)) => {
                self.fail(fault::stopping(), effects);
            }
            (Phase::Calling(_), input) => self.while_calling(now_ms, input, effects),
            (Phase::Storing(_), Input::Stored(kept)) => self.stored(kept, effects),
            // Late news of an upstream that is no longer listened to, or a client that leaves
            // while its record is being committed.
            (Phase::Fresh | Phase::Storing(_) | Phase::Over, _) => {}
        }
    }

    fn while_calling(&mut self, now_ms: i64, input: Input<'_>, effects: &mut Effects) {
        match input {
            Input::UpstreamOpened | Input::HoldExpired => self.begin(effects),
            Input::UpstreamBytes(bytes) => self.bytes(now_ms, bytes, effects),
            Input::UpstreamEnded => self.conclude_or(now_ms, fault::cut_short(), effects),
            Input::UpstreamAnswer(body) => self.answer(now_ms, body, effects),
            Input::UpstreamFailed(fault) => {
                self.conclude_or(now_ms, fault::explain(fault), effects);
            }
            Input::Cancelled(Cancel::ClientLeft) => self.abandon(effects),
            Input::Cancelled(Cancel::Shutdown) => self.fail(fault::stopping(), effects),
            Input::History(_) | Input::Refused(_) | Input::Stored(_) => {}
        }
    }

    fn call_model(&mut self, history: &[Item], effects: &mut Effects) {
        let mode = match self.delivery {
            Delivery::Events => StreamMode::Stream,
            Delivery::Whole => StreamMode::Whole,
        };
        match translate::chat_body(&self.request, history, &[], mode, ChoiceMode::AsAsked) {
            Ok(body) => {
                self.phase = Phase::Calling(CallState::default());
                effects.actions.push(Action::CallModel(body));
            }
            Err(error) => self.refuse(
                Refusal {
                    error,
                    retry_after: None,
                },
                effects,
            ),
        }
    }

    /// Answers a streaming client: 200, `response.created`, `response.in_progress`.
    fn begin(&mut self, effects: &mut Effects) {
        if self.downstream == Downstream::Begun || self.delivery == Delivery::Whole {
            return;
        }
        self.downstream = Downstream::Begun;
        let state = State {
            status: Status::InProgress,
            completed_at_ms: None,
            error: None,
            incomplete: None,
            output: &[],
            usage: None,
            store: self.request.store,
        };
        for name in ["response.created", "response.in_progress"] {
            self.writer.lifecycle(&mut effects.bytes, name, |buffer| {
                self.identity.write_resource(&state, buffer);
            });
        }
        effects.actions.push(Action::Begin);
    }

    fn bytes(&mut self, now_ms: i64, bytes: &[u8], effects: &mut Effects) {
        self.begin(effects);
        let mut decoder = std::mem::take(&mut self.decoder);
        if decoder.push(bytes).is_err() {
            self.conclude_or(now_ms, fault::explain(UpstreamFault::TooLong), effects);
            return;
        }
        while let Phase::Calling(_) = self.phase {
            let Some(frame) = decoder.next_frame() else {
                break;
            };
            if frame.data == b"[DONE]" {
                self.conclude_or(now_ms, fault::cut_short(), effects);
            } else if let Err(explained) = self.chunk(frame.data, effects) {
                self.conclude_or(now_ms, explained, effects);
            }
        }
        self.decoder = decoder;
    }

    /// Takes one chunk of the stream.
    fn chunk(&mut self, data: &[u8], effects: &mut Effects) -> Result<(), Explained> {
        // A derived struct would also be read from an array.
        if data.trim_ascii_start().first() != Some(&b'{') {
            return Err(fault::bad_chunk());
        }
        let mut chunk: Chunk<'_> =
            serde_json::from_slice(data).map_err(|_malformed| fault::bad_chunk())?;
        if let Some(error) = &chunk.error {
            return Err(fault::explain_in_stream(error));
        }
        let Phase::Calling(call) = &mut self.phase else {
            return Ok(());
        };
        call.usage = chunk.usage.or(call.usage);
        if let Some(choice) = &mut chunk.choices.0 {
            let mut out = Out {
                buffer: &mut effects.bytes,
                writer: &mut self.writer,
                ids: &mut *self.ids,
            };
            let composer = &mut self.composer;
            let finish = normalize::chunk(choice, &mut |event| composer.apply(event, &mut out));
            call.finish = finish.or(call.finish);
        }
        Ok(())
    }

    /// Takes a whole answer.
    fn answer(&mut self, now_ms: i64, body: &[u8], effects: &mut Effects) {
        let mut answer = match serde_json::from_slice::<Answer<'_>>(body) {
            Ok(answer) => answer,
            // The connection may end in good order before the announced length is there (U4).
            Err(error) if error.is_eof() => return self.fail(fault::cut_short(), effects),
            Err(_malformed) => {
                return self.fail(fault::explain(UpstreamFault::WrongContentType), effects);
            }
        };
        if let Some(error) = &answer.error {
            let explained = fault::explain_in_stream(error);
            self.fail(explained, effects);
            return;
        }
        let Phase::Calling(call) = &mut self.phase else {
            return;
        };
        call.usage = answer.usage;
        if let Some(choice) = answer.choices.first_mut() {
            let mut out = Out {
                buffer: &mut effects.bytes,
                writer: &mut self.writer,
                ids: &mut *self.ids,
            };
            let composer = &mut self.composer;
            let finish = normalize::answer(choice, &mut |event| composer.apply(event, &mut out));
            call.finish = finish.or(call.finish);
        }
        self.conclude_or(now_ms, fault::cut_short(), effects);
    }
}
