//! The turn machine: one response from request to terminal event.
//!
//! `step` takes one [`Input`], moves to the next phase and leaves [`Effects`]: bytes for the client and
//! actions for the actor. It knows neither HTTP nor time. It guarantees, whatever the upstream does:
//!
//! 1. Ids are fixed at `added`; sequence numbers are dense from 0; every item added is done; joined
//!    deltas equal the done text; `output` is in `output_index` order.
//! 2. One terminal event, then `data: [DONE]`. The stored status is the one the client saw.
//! 3. A fault before the client's first byte is an HTTP status with an error body; one after it is an
//!    `error` event and `response.failed`, with the partial output kept.
//! 4. The record is committed before the terminal event is written. A failed commit costs the client
//!    nothing but the truth: its terminal resource says `store: false`.
//!
//! ```text
//! Fresh ──History──▶ Calling ──finish, fault, cancel──▶ Storing ──Stored──▶ Over
//!   │                 ▲  ▼                │
//!   │               Running (see `tools`)  └── without `store` ──▶ Over
//!   └──Refused──▶ Over
//! ```

mod answer;
mod compaction;
pub mod effect;
mod effort;
mod ending;
mod fault;
mod known;
mod listing;
mod meaning;
mod numbers;
mod pictures;
mod references;
mod sealed;
mod shorten;
#[cfg(test)]
mod tests;
mod tools;

use std::sync::Arc;

use crate::blob::Marks;
use crate::chat::template::Template;
use crate::compose::{Composer, Out, ParallelCalls, Sealing};
use crate::error::ApiError;
use crate::ids::{IdSource, Owner};
use crate::record::Status;
use crate::responses::event::{Delivery, ReasoningEvents, Writer};
use crate::responses::item::{CodeOutputs, Item};
use crate::responses::request::{CreateRequest, Include};
use crate::responses::response::{Identity, State, Usage};
use crate::seal::{Bond, SealKeys};
use crate::sse::Decoder;
use crate::tools::code_interpreter::Container;
use crate::tools::{Catalogue, LoopLimits, Offers};
use crate::translate::{self, ChoiceMode, Efforts, StreamMode};
use answer::CallState;
use effect::{Action, Cancel, Effects, Input, Refusal};
pub use ending::Ended;
use ending::Terminal;
use fault::Explained;
use listing::Mcp;
use shorten::Shortening;
use tools::ToolLoop;

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To answer the request.
    Answer,
    /// To tell how many tokens its prompt has; nothing is kept.
    Count,
    /// To sum the conversation up for a client that goes on from there; nothing is kept.
    Compact,
}

/// What a turn is made from.
pub struct Seed {
    /// What it is for.
    pub purpose: Purpose,
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
    /// What seals thinking for clients that keep it themselves.
    pub seal_keys: Arc<SealKeys>,
    /// Words for the effort of thinking that the model is known to take.
    pub efforts: Efforts,
    /// What stands for large data in items of earlier turns.
    pub marks: Marks,
}

/// One response, from request to terminal event.
pub struct Turn {
    purpose: Purpose,
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
    /// Bytes of what the model wrote in streams.
    written: usize,
    /// How it ended.
    ended: Option<Ended>,
    /// Bytes behind the end of an answer.
    extra_bytes: usize,
    offers: Offers,
    seal_keys: Arc<SealKeys>,
    marks: Marks,
    catalogue: Catalogue,
    /// What the running model call is made with.
    call: Shortening,
    /// Items of earlier turns; kept only where a further call may need them.
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
    /// Waiting for the items that the request refers to; this is the history.
    Resolving(Vec<Item>),
    /// MCP servers are asked for their tools.
    Listing {
        /// Answers that are still to come.
        waiting: usize,
    },
    /// Whether what the client approved may run is asked.
    Claiming,
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
    pub fn new(mut seed: Seed) -> Self {
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
        let compacts = seed.request.take_trigger() || seed.purpose == Purpose::Compact;
        let composer = if compacts {
            Composer::of_summary()
        } else {
            Composer::new(parallel, code_outputs)
        };
        let choice = if compacts {
            ChoiceMode::Summary
        } else {
            ChoiceMode::AsAsked
        };
        let mut call = Shortening::new(choice);
        call.efforts = seed.efforts;
        Self {
            purpose: seed.purpose,
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
            composer,
            usage: None,
            written: 0,
            ended: None,
            extra_bytes: 0,
            offers: seed.offers,
            seal_keys: seed.seal_keys,
            marks: seed.marks,
            catalogue: Catalogue::default(),
            call,
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

    /// Whether the turn needs the settings of the response that it continues; see [`Turn::inherit`].
    pub fn inherits_tools(&self) -> bool {
        self.request.inherits_tools()
    }

    /// Takes over the tools of the previous response, whose settings these are; before its history.
    ///
    /// # Errors
    /// Why the request cannot be run with them.
    pub fn inherit(&mut self, settings: &str) -> Result<(), ApiError> {
        self.request.inherit_tools(settings)?;
        self.identity.settings = self.request.settings.echo();
        Ok(())
    }

    /// The closed items as JSON, for the log of model messages.
    pub fn output_json(&self) -> String {
        crate::history::items_json(&self.composer.items())
    }

    /// The tokens of all model calls so far, where the upstream told them.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
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
            (Phase::Fresh, Input::History(history)) => self.take_history(now_ms, history, effects),
            (Phase::Resolving(_), Input::Found(found)) => self.found(now_ms, &found, effects),
            (Phase::Fresh | Phase::Resolving(_), Input::Refused(error)) => {
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
            (Phase::Claiming, Input::Claimed(claimed)) => self.claimed(claimed, effects),
            (
                Phase::Fresh | Phase::Resolving(_) | Phase::Listing { .. } | Phase::Claiming,
                Input::Cancelled(Cancel::ClientLeft),
            ) => {
                self.end(effects);
            }
            (Phase::Calling(_) | Phase::Running { .. }, Input::Cancelled(Cancel::ClientLeft)) => {
                self.abandon(effects);
            }
            (
                Phase::Fresh
                | Phase::Resolving(_)
                | Phase::Listing { .. }
                | Phase::Claiming
                | Phase::Calling(_)
                | Phase::Running { .. },
                Input::Cancelled(why @ (Cancel::Shutdown | Cancel::Overloaded)),
            )
            | (
                Phase::Calling(_) | Phase::Running { .. },
                Input::Cancelled(why @ Cancel::ToolTimeSpent),
            ) => self.fail(fault::ended(why), effects),
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
                | Phase::Resolving(_)
                | Phase::Listing { .. }
                | Phase::Claiming
                | Phase::Running { .. }
                | Phase::Storing(_)
                | Phase::Over,
                _,
            ) => {}
        }
    }

    fn while_calling(&mut self, now_ms: i64, input: Input<'_>, effects: &mut Effects) {
        match input {
            // Of a call that was given up while the prompt is counted.
            Input::UpstreamBytes(_)
            | Input::UpstreamEnded
            | Input::UpstreamAnswer(_)
            | Input::UpstreamFailed(_)
                if self.call.is_counting() => {}
            Input::UpstreamOpened | Input::HoldExpired => self.begin(effects),
            Input::UpstreamBytes(bytes) => self.bytes(now_ms, bytes, effects),
            Input::UpstreamEnded => self.answer_ended(now_ms, effects),
            Input::UpstreamAnswer(body) => self.answer(now_ms, body, effects),
            Input::UpstreamFailed(fault) if self.refuses_effort(&fault) => {
                self.call_with_common_effort(effects);
            }
            Input::UpstreamFailed(fault) => {
                let fault = fault::explain(fault);
                if !self.called_without_pictures(&fault, effects) {
                    self.shorten_or(now_ms, fault, effects);
                }
            }
            Input::Counted(count) => match self.purpose {
                Purpose::Answer | Purpose::Compact => self.counted(count, effects),
                Purpose::Count => self.tell_count(count, effects),
            },
            Input::History(_)
            | Input::Found(_)
            | Input::Refused(_)
            | Input::Stored(_)
            | Input::ToolsListed { .. }
            | Input::Claimed(_)
            | Input::ToolEnded { .. }
            | Input::Cancelled(_) => {}
        }
    }

    /// The first model call of the response.
    fn call_model(&mut self, effects: &mut Effects) {
        let bound = self.request.settings.max_output_tokens;
        self.call.max_output_tokens = bound.or_else(|| self.own_bound());
        let asked = match self.purpose {
            Purpose::Answer | Purpose::Compact => self.body(),
            Purpose::Count => self.with_ask(0, translate::tokenize_body),
        };
        match asked {
            Ok(body) => {
                let items = self.history.iter().chain(&self.request.input);
                self.composer.note_calls(items);
                let needed = self.catalogue.has_gateway_tools()
                    || self.may_leave_out()
                    || self.may_refuse_effort()
                    || self.compacts();
                if !needed {
                    self.history = Vec::new();
                }
                self.begin_call();
                effects.actions.push(match self.purpose {
                    Purpose::Answer | Purpose::Compact => Action::CallModel(body),
                    Purpose::Count => Action::CountTokens(body),
                });
            }
            Err(error) => self.fail(Explained::of(error), effects),
        }
    }

    /// A model call begins; of an earlier one nothing is known any more.
    fn begin_call(&mut self) {
        self.decoder = Decoder::default();
        self.template = Template::default();
        self.phase = Phase::Calling(CallState::default());
    }

    /// The body of the model call that `call` says.
    fn body(&self) -> Result<Vec<u8>, ApiError> {
        self.with_ask(self.call.left_out, translate::chat_body)
    }

    /// Whether the upstream streams.
    fn mode(&self) -> StreamMode {
        match self.delivery {
            Delivery::Events => StreamMode::Stream,
            Delivery::Whole => StreamMode::Whole,
        }
    }

    /// The composer, and where it writes.
    fn composing<'a>(&'a mut self, effects: &'a mut Effects) -> (&'a mut Composer, Out<'a>) {
        let compacts = self.compacts();
        let wanted = self.request.includes(Include::EncryptedReasoning) || !self.request.store;
        let seal = Sealing {
            keys: &self.seal_keys,
            bond: if compacts {
                Bond::of_summary(&self.owner)
            } else {
                Bond {
                    owner: &self.owner,
                    model: &self.request.model,
                }
            },
            at_ms: self.identity.created_at_ms,
        };
        let out = Out {
            summary: self.request.settings.summary,
            seal: (wanted || compacts).then_some(seal),
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
}
