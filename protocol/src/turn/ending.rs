//! How a turn ends: the second half of the machine, from "it is decided" to the last byte.

use std::sync::Arc;

use super::effect::{Action, Effects, Kept, Refusal};
use super::fault::{self, Explained};
use super::{CallState, Downstream, Phase, Purpose, Turn};
use crate::chat::finish::FinishReason;
use crate::compose::Ending;
use crate::record::{Record, Status};
use crate::responses::event::{Delivery, ErrorEvent, Event, NestedError};
use crate::responses::item::Item;
use crate::responses::request::Include;
use crate::responses::response::{IncompleteReason, ResponseError, State};
use crate::responses::said;
use crate::sse::DONE;

/// How a turn ended, in words for people who watch the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The final status, or `refused` where the client was answered with an HTTP error.
    pub status: &'static str,
    /// The public code of what went wrong.
    pub code: Option<&'static str>,
}

/// How the turn ends.
#[derive(Debug)]
pub(super) struct Terminal {
    status: Status,
    incomplete: Option<IncompleteReason>,
    fault: Option<Explained>,
    completed_at_ms: Option<i64>,
    output: Vec<Item>,
}

impl Turn {
    /// Ends the turn as the model ended it, or with this fault if the model never did.
    pub(super) fn conclude_or(&mut self, now_ms: i64, fault: Explained, effects: &mut Effects) {
        let Phase::Calling(CallState { finish, .. }) = self.phase else {
            return;
        };
        let (status, incomplete) = match finish {
            None => return self.fail(fault, effects),
            Some(FinishReason::Aborted) => return self.fail(fault::aborted(), effects),
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
        self.close_answer(ending, effects);
        if self.compacts() && self.composer.items().is_empty() {
            return self.fail(fault::no_summary(), effects);
        }
        if self.composer.pending().is_empty() {
            self.complete(now_ms, status, incomplete, effects);
        } else {
            self.run_tools(now_ms, effects);
        }
    }

    /// Ends the turn as the model, or a limit, ended it; no item is open.
    pub(super) fn complete(
        &mut self,
        now_ms: i64,
        status: Status,
        incomplete: Option<IncompleteReason>,
        effects: &mut Effects,
    ) {
        let output = self.composer.items();
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
    ///
    /// Once a gateway call was begun it is no HTTP error either: clients send a request that failed so
    /// once more, and the call would be made twice. The response fails, with its items.
    pub(super) fn fail(&mut self, fault: Explained, effects: &mut Effects) {
        if self.downstream == Downstream::Held && !self.tools.has_begun() {
            self.book(effects);
            let Explained { error, retry_after } = fault;
            return self.refuse(Refusal { error, retry_after }, effects);
        }
        self.close_answer(Ending::Cut, effects);
        let output = self.composer.items();
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
    pub(super) fn abandon(&mut self, effects: &mut Effects) {
        self.close_answer(Ending::Cut, effects);
        let output = self.composer.items();
        let terminal = Terminal {
            status: Status::Cancelled,
            incomplete: None,
            fault: None,
            completed_at_ms: None,
            output,
        };
        self.store_or_end(terminal, effects);
    }

    pub(super) fn refuse(&mut self, refusal: Refusal, effects: &mut Effects) {
        self.ended = Some(Ended {
            status: "refused",
            code: refusal.error.code.wire(),
        });
        effects.actions.push(Action::Refuse(refusal));
        self.end(effects);
    }

    pub(super) fn end(&mut self, effects: &mut Effects) {
        self.phase = Phase::Over;
        effects.actions.push(Action::End);
    }

    /// Closes the items of the answer and books the call's tokens.
    fn close_answer(&mut self, ending: Ending, effects: &mut Effects) {
        self.book(effects);
        let (composer, mut out) = self.composing(effects);
        composer.finish(ending, &mut out);
        let lost = composer.take_lost();
        if lost > 0 {
            effects.actions.push(Action::LostCalls(lost));
        }
    }

    /// Books the tokens of the running model call.
    fn book(&mut self, effects: &mut Effects) {
        if let Phase::Calling(CallState { usage, .. }) = &mut self.phase
            && let Some(call) = usage.take()
        {
            self.usage = Some(self.usage.unwrap_or_default().plus(call));
            effects.actions.push(Action::Used(call));
        }
    }

    fn store_or_end(&mut self, terminal: Terminal, effects: &mut Effects) {
        if !self.request.store {
            return self.finish(terminal, Kept::No, effects);
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
            response: said::keep(
                String::from_utf8(core).unwrap_or_default(),
                self.request.input.iter().chain(&terminal.output),
            )
            .into(),
            settings: Arc::clone(&self.identity.settings),
            blobs: Vec::new(),
        }
    }

    /// How the turn ended; `None` before that, and where the client left before anything was made.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.filter(|_| self.purpose != Purpose::Count)
    }

    /// Bytes that came together with the end of an answer and were ignored (fault U10).
    pub fn extra_bytes(&self) -> usize {
        self.extra_bytes
    }

    /// The closed items.
    pub fn output(&self) -> impl Iterator<Item = &Item> {
        self.composer.closed()
    }

    /// What the turn took, by kind of token; all zero where the model server told nothing.
    pub fn tokens(&self) -> [(&'static str, u64); 4] {
        let usage = self.usage.unwrap_or_default();
        [
            ("input", usage.input_tokens()),
            ("output", usage.output_tokens()),
            ("cached", usage.cached_tokens()),
            ("reasoning", usage.reasoning_tokens()),
        ]
    }

    pub(super) fn stored(&mut self, kept: Kept, effects: &mut Effects) {
        if let Phase::Storing(terminal) = std::mem::replace(&mut self.phase, Phase::Over) {
            self.finish(terminal, kept, effects);
        }
    }

    /// Says how the turn ended.
    fn finish(&mut self, mut terminal: Terminal, kept: Kept, effects: &mut Effects) {
        let fault = terminal.fault.as_ref();
        self.ended = Some(Ended {
            status: terminal.status.as_str(),
            code: fault.and_then(|fault| fault.error.code.wire()),
        });
        if !self.request.includes(Include::CodeInterpreterOutputs) {
            terminal.output.iter_mut().for_each(Item::hide_code_outputs);
        }
        match (terminal.status, self.delivery) {
            (Status::Cancelled, _) => {}
            (_, Delivery::Whole) if self.is_compact_request() => {
                self.tell_compacted(&terminal.output, effects);
            }
            (_, Delivery::Whole) => {
                self.identity
                    .write_resource(&self.state(&terminal, kept), &mut effects.bytes);
                effects.actions.push(Action::Answer);
            }
            (_, Delivery::Events) => self.finish_stream(&terminal, kept, effects),
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

    pub(super) fn state<'a>(&self, terminal: &'a Terminal, kept: Kept) -> State<'a> {
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
