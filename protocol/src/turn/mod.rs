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
mod fault;
#[cfg(test)]
mod tests;

use crate::chat::answer::Answer;
use crate::chat::chunk::{ChatUsage, Chunk};
use crate::chat::fault::UpstreamFault;
use crate::compose::{Composer, Ending, Out, ParallelCalls};
use crate::ids::{IdSource, Owner};
use crate::normalize::{self, FinishReason, ModelEvent};
use crate::record::{Record, Status};
use crate::responses::event::{Delivery, ErrorEvent, Event, NestedError, ReasoningEvents, Writer};
use crate::responses::item::Item;
use crate::responses::request::CreateRequest;
use crate::responses::response::{Identity, IncompleteReason, ResponseError, State, Usage};
use crate::sse::{DONE, Decoder};
use crate::translate::{self, ChoiceMode, StreamMode};
use effect::{Action, Cancel, Effects, Input, Kept, Refusal};
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

/// How the turn ends.
#[derive(Debug)]
struct Terminal {
    status: Status,
    incomplete: Option<IncompleteReason>,
    fault: Option<Explained>,
    completed_at_ms: Option<i64>,
    output: Vec<Item>,
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
                self.fail(now_ms, fault::stopping(), effects);
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
            Input::Cancelled(Cancel::Shutdown) => self.fail(now_ms, fault::stopping(), effects),
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
            normalize::chunk(choice, &mut |event| match event {
                ModelEvent::Finished(reason) => call.finish = Some(reason),
                event => composer.apply(event, &mut out),
            });
        }
        Ok(())
    }

    /// Takes a whole answer.
    fn answer(&mut self, now_ms: i64, body: &[u8], effects: &mut Effects) {
        let mut answer = match serde_json::from_slice::<Answer<'_>>(body) {
            Ok(answer) => answer,
            // The connection may end in good order before the announced length is there (U4).
            Err(error) if error.is_eof() => return self.fail(now_ms, fault::cut_short(), effects),
            Err(_malformed) => {
                let fault = fault::explain(UpstreamFault::WrongContentType);
                return self.fail(now_ms, fault, effects);
            }
        };
        if let Some(error) = &answer.error {
            let explained = fault::explain_in_stream(error);
            self.fail(now_ms, explained, effects);
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
            normalize::answer(choice, &mut |event| match event {
                ModelEvent::Finished(reason) => call.finish = Some(reason),
                event => composer.apply(event, &mut out),
            });
        }
        self.conclude_or(now_ms, fault::cut_short(), effects);
    }

    /// Ends the turn as the model ended it, or with this fault if the model never did.
    fn conclude_or(&mut self, now_ms: i64, fault: Explained, effects: &mut Effects) {
        let Phase::Calling(CallState { finish, .. }) = self.phase else {
            return;
        };
        let (status, incomplete) = match finish {
            None => return self.fail(now_ms, fault, effects),
            Some(FinishReason::Aborted) => return self.fail(now_ms, fault::aborted(), effects),
            Some(FinishReason::Stop) => (Status::Completed, None),
            Some(FinishReason::Length) => {
                (Status::Incomplete, Some(IncompleteReason::MaxOutputTokens))
            }
            Some(FinishReason::ContentFilter) => {
                (Status::Incomplete, Some(IncompleteReason::ContentFilter))
            }
        };
        let ending = if incomplete.is_some() {
            Ending::Cut
        } else {
            Ending::Whole
        };
        let output = self.close_output(ending, effects);
        let completed_at_ms = (status == Status::Completed).then_some(now_ms);
        let terminal = Terminal {
            status,
            incomplete,
            fault: None,
            completed_at_ms,
            output,
        };
        self.store_or_end(terminal, effects);
    }

    /// Ends the turn with a fault: an HTTP error while the client has nothing, events afterwards.
    fn fail(&mut self, _now_ms: i64, fault: Explained, effects: &mut Effects) {
        if self.downstream == Downstream::Held {
            let Explained { error, retry_after } = fault;
            return self.refuse(Refusal { error, retry_after }, effects);
        }
        let output = self.close_output(Ending::Cut, effects);
        let terminal = Terminal {
            status: Status::Failed,
            incomplete: None,
            fault: Some(fault),
            completed_at_ms: None,
            output,
        };
        self.store_or_end(terminal, effects);
    }

    /// Ends a turn that nobody listens to any more (decision 7).
    fn abandon(&mut self, effects: &mut Effects) {
        let output = self.close_output(Ending::Cut, effects);
        let terminal = Terminal {
            status: Status::Cancelled,
            incomplete: None,
            fault: None,
            completed_at_ms: None,
            output,
        };
        self.store_or_end(terminal, effects);
    }

    fn refuse(&mut self, refusal: Refusal, effects: &mut Effects) {
        effects.actions.push(Action::Refuse(refusal));
        self.end(effects);
    }

    fn end(&mut self, effects: &mut Effects) {
        self.phase = Phase::Over;
        effects.actions.push(Action::End);
    }

    /// Closes all items and books the call's tokens.
    fn close_output(&mut self, ending: Ending, effects: &mut Effects) -> Vec<Item> {
        if let Phase::Calling(CallState {
            usage: Some(call), ..
        }) = self.phase
        {
            self.usage = Some(self.usage.unwrap_or_default().plus(call));
        }
        let mut out = Out {
            buffer: &mut effects.bytes,
            writer: &mut self.writer,
            ids: &mut *self.ids,
        };
        self.composer.finish(ending, &mut out);
        self.composer.items()
    }

    fn store_or_end(&mut self, terminal: Terminal, effects: &mut Effects) {
        if !self.request.store {
            return self.finish(&terminal, Kept::No, effects);
        }
        effects
            .actions
            .push(Action::Persist(Box::new(self.record(&terminal))));
        self.phase = Phase::Storing(terminal);
    }

    fn record(&self, terminal: &Terminal) -> Record {
        let mut core = Vec::with_capacity(1024);
        self.identity
            .write_core(&self.state(terminal, Kept::Yes), &mut core);
        Record {
            id: self.identity.id.clone(),
            previous: self.identity.previous.clone(),
            owner: self.owner.clone(),
            model: self.identity.model.clone(),
            status: terminal.status,
            created_at_ms: self.identity.created_at_ms,
            completed_at_ms: terminal.completed_at_ms,
            expires_at_ms: self.expires_at_ms,
            input_items: crate::history::items_json(&self.request.input).into(),
            // Written by serde_json, hence UTF-8.
            response: String::from_utf8(core).unwrap_or_default().into(),
            settings: std::sync::Arc::clone(&self.identity.settings),
        }
    }

    fn stored(&mut self, kept: Kept, effects: &mut Effects) {
        if let Phase::Storing(terminal) = std::mem::replace(&mut self.phase, Phase::Over) {
            self.finish(&terminal, kept, effects);
        }
    }

    /// Says how the turn ended.
    fn finish(&mut self, terminal: &Terminal, kept: Kept, effects: &mut Effects) {
        match (terminal.status, self.delivery) {
            (Status::Cancelled, _) => {}
            (_, Delivery::Whole) => {
                self.identity
                    .write_resource(&self.state(terminal, kept), &mut effects.bytes);
                effects.actions.push(Action::Answer);
            }
            (_, Delivery::Events) => self.finish_stream(terminal, kept, effects),
        }
        self.end(effects);
    }

    fn finish_stream(&mut self, terminal: &Terminal, kept: Kept, effects: &mut Effects) {
        self.begin(effects);
        if let Some(fault) = &terminal.fault {
            self.error_event(fault, effects);
        }
        let name = match terminal.status {
            Status::Completed => "response.completed",
            Status::Incomplete => "response.incomplete",
            Status::Failed | Status::Cancelled | Status::Queued | Status::InProgress => {
                "response.failed"
            }
        };
        let state = self.state(terminal, kept);
        let (identity, writer) = (&self.identity, &mut self.writer);
        writer.lifecycle(&mut effects.bytes, name, |buffer| {
            identity.write_resource(&state, buffer);
        });
        effects.bytes.extend_from_slice(DONE);
    }

    fn error_event(&mut self, fault: &Explained, effects: &mut Effects) {
        let error = &fault.error;
        let code = error.code.wire().unwrap_or("invalid_request_error");
        let param = error.param.as_deref();
        let event = Event::Error(ErrorEvent {
            code,
            message: &error.message,
            param,
            error: NestedError {
                r#type: error.code.error_type(),
                code,
                message: &error.message,
                param,
            },
        });
        self.writer.event(&mut effects.bytes, &event);
    }

    fn state<'a>(&self, terminal: &'a Terminal, kept: Kept) -> State<'a> {
        State {
            status: terminal.status,
            completed_at_ms: terminal.completed_at_ms,
            error: terminal.fault.as_ref().map(|fault| ResponseError {
                code: fault.response_code(),
                message: &fault.error.message,
            }),
            incomplete: terminal.incomplete,
            output: &terminal.output,
            usage: self.usage,
            store: self.request.store && kept == Kept::Yes,
        }
    }
}
