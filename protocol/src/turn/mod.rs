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
//!   │                 ▲  ▼                │
//!   │               Running (see `tools`)  └── without `store` ──▶ Over
//!   └──Refused──▶ Over
//! ```

pub mod effect;
mod ending;
mod fault;
mod listing;
#[cfg(test)]
mod tests;
mod tools;

use crate::chat::answer::Answer;
use crate::chat::chunk::{ChatUsage, Chunk};
use crate::chat::fault::UpstreamFault;
use crate::chat::template::{Piece, Template};
use crate::compose::{Composer, Out, ParallelCalls};
use crate::error::ApiError;
use crate::ids::{IdSource, Owner};
use crate::normalize::{self, FinishReason, ModelEvent};
use crate::record::Status;
use crate::responses::event::{Delivery, ReasoningEvents, Writer};
use crate::responses::item::{CodeOutputs, Item};
use crate::responses::request::{CreateRequest, Include};
use crate::responses::response::{Identity, State, Usage};
use crate::sse::Decoder;
use crate::tools::code_interpreter::Container;
use crate::tools::{Catalogue, LoopLimits, Offers};
use crate::translate::{self, Ask, ChoiceMode, StreamMode};
use effect::{Action, Cancel, Effects, Input, Refusal};
use ending::Terminal;
use fault::Explained;
use listing::Mcp;
use tools::ToolLoop;

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
    /// The gateway's tools at this moment.
    pub offers: Offers,
    /// Bounds of the tool loop.
    pub limits: LoopLimits,
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
    template: Template,
    composer: Composer,
    usage: Option<Usage>,
    offers: Offers,
    catalogue: Catalogue,
    /// Items of earlier turns; kept only where a further round may need them.
    history: Vec<Item>,
    tools: ToolLoop,
    mcp: Mcp,
    phase: Phase,
}

/// Where the turn stands.
#[derive(Debug)]
enum Phase {
    /// Waiting for the history.
    Fresh,
    /// MCP servers are asked for their tools.
    Listing {
        /// Answers that are still to come.
        waiting: usize,
    },
    /// The model was called.
    Calling(CallState),
    /// Gateway tools run.
    Running {
        /// Calls whose outcome is still to come.
        waiting: usize,
    },
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
        let code_outputs = if seed.request.includes(Include::CodeInterpreterOutputs) {
            CodeOutputs::Shown
        } else {
            CodeOutputs::Hidden
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
            template: Template::default(),
            composer: Composer::new(parallel, code_outputs),
            usage: None,
            offers: seed.offers,
            catalogue: Catalogue::default(),
            history: Vec::new(),
            tools: ToolLoop::new(seed.limits),
            mcp: Mcp::default(),
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
            (Phase::Fresh, Input::History(history)) => self.list_tools(history, effects),
            (Phase::Fresh, Input::Refused(error)) => {
                self.refuse(
                    Refusal {
                        error,
                        retry_after: None,
                    },
                    effects,
                );
            }
            (Phase::Listing { .. }, Input::ToolsListed { tool_index, answer }) => {
                self.listed(tool_index, answer, effects);
            }
            (Phase::Fresh | Phase::Listing { .. }, Input::Cancelled(Cancel::ClientLeft)) => {
                self.end(effects);
            }
            (Phase::Calling(_) | Phase::Running { .. }, Input::Cancelled(Cancel::ClientLeft)) => {
                self.abandon(effects);
            }
            (
                Phase::Fresh | Phase::Listing { .. } | Phase::Calling(_) | Phase::Running { .. },
                Input::Cancelled(Cancel::Shutdown),
            ) => self.fail(fault::stopping(), effects),
            (
                Phase::Calling(_) | Phase::Running { .. },
                Input::Cancelled(Cancel::ToolTimeSpent),
            ) => self.fail(fault::tool_time_spent(), effects),
            (Phase::Calling(_), input) => self.while_calling(now_ms, input, effects),
            (
                Phase::Running { .. },
                Input::ToolEnded {
                    output_index,
                    outcome,
                },
            ) => self.tool_ended(now_ms, output_index, outcome, effects),
            (Phase::Running { .. }, Input::HoldExpired) => self.begin(effects),
            (Phase::Storing(_), Input::Stored(kept)) => self.stored(kept, effects),
            // Late news of an upstream that is no longer listened to, or a client that leaves
            // while its record is being committed.
            (
                Phase::Fresh
                | Phase::Listing { .. }
                | Phase::Running { .. }
                | Phase::Storing(_)
                | Phase::Over,
                _,
            ) => {}
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
            Input::History(_)
            | Input::Refused(_)
            | Input::Stored(_)
            | Input::ToolsListed { .. }
            | Input::ToolEnded { .. }
            | Input::Cancelled(_) => {}
        }
    }

    /// The first model call of the response.
    fn call_model(&mut self, effects: &mut Effects) {
        let history = std::mem::take(&mut self.history);
        self.choose_container(&history);
        let bound = self.request.settings.max_output_tokens;
        let produced = self.composer.items();
        match self.body(&history, &produced, ChoiceMode::AsAsked, bound) {
            Ok(body) => {
                if self.catalogue.has_gateway_tools() {
                    self.history = history;
                }
                self.phase = Phase::Calling(CallState::default());
                effects.actions.push(Action::CallModel(body));
            }
            Err(error) => self.fail(Explained::of(error), effects),
        }
    }

    /// The body of a model call.
    fn body(
        &self,
        history: &[Item],
        produced: &[Item],
        choice: ChoiceMode,
        max_output_tokens: Option<u64>,
    ) -> Result<Vec<u8>, ApiError> {
        translate::chat_body(Ask {
            request: &self.request,
            catalogue: &self.catalogue,
            history,
            produced,
            mode: match self.delivery {
                Delivery::Events => StreamMode::Stream,
                Delivery::Whole => StreamMode::Whole,
            },
            choice,
            max_output_tokens,
        })
    }

    /// The composer, and where it writes.
    fn composing<'a>(&'a mut self, effects: &'a mut Effects) -> (&'a mut Composer, Out<'a>) {
        let out = Out {
            buffer: &mut effects.bytes,
            writer: &mut self.writer,
            ids: &mut *self.ids,
            catalogue: &self.catalogue,
            container: self.tools.container.as_ref().map_or("", Container::id),
        };
        (&mut self.composer, out)
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
        self.tell_lists(effects);
    }

    fn bytes(&mut self, now_ms: i64, bytes: &[u8], effects: &mut Effects) {
        self.begin(effects);
        // Set aside, since a chunk is borrowed from it while the rest of the machine moves.
        let mut decoder = std::mem::take(&mut self.decoder);
        let ended = self.frames(&mut decoder, bytes, effects);
        // Before the answer is concluded: a further round begins with a decoder of its own.
        self.decoder = decoder;
        if let Err(explained) = ended {
            self.conclude_or(now_ms, explained, effects);
        }
    }

    /// Takes the frames that these bytes complete; fails with what to say if the answer, which has
    /// ended here, was not whole.
    fn frames(
        &mut self,
        decoder: &mut Decoder,
        bytes: &[u8],
        effects: &mut Effects,
    ) -> Result<(), Explained> {
        if decoder.push(bytes).is_err() {
            return Err(fault::explain(UpstreamFault::TooLong));
        }
        while let Some(frame) = decoder.next_frame() {
            if frame.data == b"[DONE]" {
                return Err(fault::cut_short());
            }
            self.chunk(frame.data, effects)?;
        }
        Ok(())
    }

    /// Takes one chunk of the stream.
    fn chunk(&mut self, data: &[u8], effects: &mut Effects) -> Result<(), Explained> {
        if let Some((piece, text)) = self.template.recognise(data) {
            let (composer, mut out) = self.composing(effects);
            let event = match piece {
                Piece::Text => ModelEvent::Text(text, Vec::new()),
                Piece::Reasoning => ModelEvent::Reasoning(text),
            };
            composer.apply(event, &mut out);
            return Ok(());
        }
        // A derived struct would also be read from an array.
        if data.trim_ascii_start().first() != Some(&b'{') {
            return Err(fault::bad_chunk());
        }
        let mut chunk: Chunk<'_> =
            serde_json::from_slice(data).map_err(|_malformed| fault::bad_chunk())?;
        if let Some(error) = &chunk.error {
            return Err(fault::explain_in_stream(error));
        }
        self.template.learn(data, &chunk);
        let finish = chunk.choices.0.as_mut().and_then(|choice| {
            let (composer, mut out) = self.composing(effects);
            normalize::chunk(choice, &mut |event| composer.apply(event, &mut out))
        });
        self.note(chunk.usage, finish);
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
        self.tell_lists(effects);
        let finish = answer.choices.first_mut().and_then(|choice| {
            let (composer, mut out) = self.composing(effects);
            normalize::answer(choice, &mut |event| composer.apply(event, &mut out))
        });
        self.note(answer.usage, finish);
        self.conclude_or(now_ms, fault::cut_short(), effects);
    }

    /// Keeps what is known of the running model call.
    fn note(&mut self, usage: Option<ChatUsage>, finish: Option<FinishReason>) {
        if let Phase::Calling(call) = &mut self.phase {
            call.usage = usage.or(call.usage);
            call.finish = finish.or(call.finish);
        }
    }
}
