//! The tool loop: rounds of gateway calls between model calls of one response.
//!
//! ```text
//! Calling ──whole answer with gateway calls──▶ Running ──last outcome──▶ Calling ─▶ ...
//!                                                 └──the answer also called the client──▶ Storing
//! ```
//!
//! 1. The calls of one answer run at the same time; their items keep the model's order.
//! 2. An answer that also calls the client's functions is the last: the client has the word.
//! 3. When the rounds or `max_tool_calls` are spent, one last answer is asked for without the
//!    gateway's tools, and the response ends `completed` (decision 2).
//! 4. A call made three times in a row with the same arguments is not run the third time.
//! 5. Calls that are not run, and tools that fail, are items of their own and told to the model:
//!    they never end the response.

use super::effect::{Action, Effects};
use super::{Phase, Turn};
use crate::compose::PendingCall;
use crate::ids::{self, Prefix};
use crate::record::Status;
use crate::responses::item::Item;
use crate::responses::response::{IncompleteReason, Usage};
use crate::responses::tool::{ContainerChoice, Tool};
use crate::tools::code_interpreter::Container;
use crate::tools::{LoopLimits, Route, ToolOutcome};
use crate::translate::ChoiceMode;

/// How often one call may be made in a row.
const MOST_REPEATS: u32 = 2;

pub(super) const REPEATED: &str = "not run: this is the same call for the third time in a row; use the result \
     that is there, or try something else";
pub(super) const SPENT: &str = "not run: no further tool calls are allowed in this response; answer with what \
     is there";

/// Where the loop of one response stands.
#[derive(Debug, Default)]
pub(super) struct ToolLoop {
    limits: LoopLimits,
    /// Answers that called the gateway.
    rounds: u32,
    /// Gateway calls that were run.
    calls: u64,
    /// The last gateway call, by name and arguments, and how often it came in a row.
    last: Option<(Box<str>, Box<str>, u32)>,
    /// The answer being made was asked for without gateway tools.
    last_round: bool,
    /// The interpreter session; set when the model is first shown the interpreter.
    pub(super) container: Option<Container>,
}

impl ToolLoop {
    pub(super) fn new(limits: LoopLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Whether a gateway call was begun: what it did cannot be undone.
    pub(super) fn has_begun(&self) -> bool {
        self.calls > 0
    }

    /// Whether this call has come too often in a row.
    fn is_repeated(&mut self, name: &str, arguments: &str) -> bool {
        match &mut self.last {
            Some((last_name, last_arguments, times))
                if &**last_name == name && &**last_arguments == arguments =>
            {
                *times += 1;
                *times > MOST_REPEATS
            }
            _ => {
                self.last = Some((name.into(), arguments.into(), 1));
                false
            }
        }
    }
}

impl Turn {
    /// Unix milliseconds at which the wall-clock cap of the tool loop is reached; `None` before any
    /// gateway tool was called: generating alone is bounded by the upstream's deadlines.
    pub fn overdue_at_ms(&self) -> Option<i64> {
        let started = self.identity.created_at_ms;
        (self.tools.rounds > 0).then(|| started.saturating_add(self.tools.limits.wall_ms))
    }

    /// The interpreter session that code of this response ran in.
    pub fn container(&self) -> Option<&str> {
        let used = self
            .tools
            .container
            .as_ref()
            .filter(|_| self.tools.calls > 0);
        used.map(Container::id)
    }

    /// Chooses the interpreter session: the named one, else the chain's last, else a fresh one.
    pub(super) fn choose_container(&mut self) {
        if self.catalogue.name_of(Route::CodeInterpreter).is_none() {
            return;
        }
        let choice = self
            .request
            .settings
            .tools
            .iter()
            .find_map(|tool| match tool {
                Tool::CodeInterpreter(tool) => Some(&tool.container),
                Tool::Function(_)
                | Tool::Custom(_)
                | Tool::Namespace(_)
                | Tool::ToolSearch(_)
                | Tool::Emulated(_)
                | Tool::Mcp(_)
                | Tool::Unserved(_) => None,
            });
        let container = match choice {
            Some(ContainerChoice::Named(id)) => Container::Named(id.clone()),
            Some(ContainerChoice::Auto) => match last_container(&self.history) {
                Some(id) => Container::Continued(id.into()),
                None => Container::Fresh(ids::fresh(Prefix::Container, &mut *self.ids)),
            },
            None => return,
        };
        self.tools.container = Some(container);
    }

    /// Runs what the answer asks the gateway for.
    pub(super) fn run_tools(&mut self, now_ms: i64, effects: &mut Effects) {
        self.tools.rounds += 1;
        let calls: Vec<usize> = self
            .composer
            .pending()
            .iter()
            .map(PendingCall::output_index)
            .collect();
        let mut waiting = 0;
        for output_index in calls {
            match self.reason_against(output_index) {
                Some(why) => {
                    let (composer, mut out) = self.composing(effects);
                    composer.refuse(output_index, why, &mut out);
                }
                None => waiting += usize::from(self.start_call(output_index, effects)),
            }
        }
        self.phase = Phase::Running { waiting };
        if waiting == 0 {
            self.after_round(now_ms, effects);
        }
    }

    /// Why a pending call is not run.
    fn reason_against(&mut self, output_index: usize) -> Option<&'static str> {
        let mut pending = self.composer.pending().iter();
        let call = pending.find(|call| call.output_index() == output_index)?;
        let (name, arguments) = call.identity();
        if self.tools.is_repeated(name, arguments) {
            return Some(REPEATED);
        }
        if self.tools.last_round || self.calls_are_spent() {
            return Some(SPENT);
        }
        call.problem()
    }

    fn calls_are_spent(&self) -> bool {
        let limit = self.request.settings.max_tool_calls;
        limit.is_some_and(|limit| self.tools.calls >= limit)
    }

    /// Lets a pending call run; false when it cannot.
    pub(super) fn start_call(&mut self, output_index: usize, effects: &mut Effects) -> bool {
        let container = self.tools.container.clone();
        let (composer, mut out) = self.composing(effects);
        let Some(call) = composer.start(output_index, container.as_ref(), &mut out) else {
            return false;
        };
        self.tools.calls += 1;
        effects.actions.push(Action::RunTool(call));
        true
    }

    /// A gateway call has ended.
    pub(super) fn tool_ended(
        &mut self,
        now_ms: i64,
        output_index: usize,
        outcome: ToolOutcome,
        effects: &mut Effects,
    ) {
        self.note_container(&outcome);
        let (composer, mut out) = self.composing(effects);
        composer.settle(output_index, outcome, &mut out);
        let Phase::Running { waiting } = &mut self.phase else {
            return;
        };
        *waiting = waiting.saturating_sub(1);
        if *waiting == 0 {
            self.after_round(now_ms, effects);
        }
    }

    /// Later calls of this response go where this one ran.
    fn note_container(&mut self, outcome: &ToolOutcome) {
        let ToolOutcome::CodeInterpreter(outcome) = outcome else {
            return;
        };
        let ran_in = outcome.container_id.as_deref();
        self.tools.container = match (self.tools.container.take(), ran_in) {
            (Some(Container::Named(id)), None) => Some(Container::Named(id)),
            (_, Some(id)) => Some(Container::Continued(id.into())),
            (Some(Container::Fresh(id) | Container::Continued(id)), None) => {
                Some(Container::Continued(id))
            }
            (None, None) => None,
        };
    }

    /// All calls of the round have ended: the client has the word, or the model again.
    fn after_round(&mut self, now_ms: i64, effects: &mut Effects) {
        if self.composer.client_called() || self.tools.last_round {
            return self.complete(now_ms, Status::Completed, None, effects);
        }
        let bound = self.request.settings.max_output_tokens;
        let used = self.usage.map_or(0, Usage::output_tokens);
        let left = bound.map(|bound| bound.saturating_sub(used));
        if left == Some(0) {
            let why = Some(IncompleteReason::MaxOutputTokens);
            return self.complete(now_ms, Status::Incomplete, why, effects);
        }
        let spent = self.tools.rounds >= self.tools.limits.rounds || self.calls_are_spent();
        self.tools.last_round = spent;
        let choice = if spent {
            ChoiceMode::WithoutGatewayTools
        } else {
            ChoiceMode::Auto
        };
        self.call.choice = choice;
        self.call.max_output_tokens = left;
        match self.body() {
            Ok(body) => {
                self.composer.begin_answer();
                self.begin_call();
                effects.actions.push(Action::CallModel(body));
            }
            Err(error) => self.fail(super::fault::Explained::of(error), effects),
        }
    }
}

/// The session that the chain used last.
fn last_container(history: &[Item]) -> Option<&str> {
    history.iter().rev().find_map(|item| match item {
        Item::CodeInterpreterCall(call) if !call.container_id.is_empty() => {
            Some(&*call.container_id)
        }
        Item::CodeInterpreterCall(_)
        | Item::Message(_)
        | Item::Reasoning(_)
        | Item::FunctionCall(_)
        | Item::FunctionCallOutput(_)
        | Item::McpListTools(_)
        | Item::McpCall(_)
        | Item::McpApprovalRequest(_)
        | Item::McpApprovalResponse(_)
        | Item::CustomToolCall(_)
        | Item::CustomToolCallOutput(_)
        | Item::ToolSearchCall(_)
        | Item::ToolSearchOutput(_)
        | Item::AdditionalTools(_)
        | Item::ConfigurationUpdate(_)
        | Item::ItemReference(_)
        | Item::Compaction(_)
        | Item::CompactionTrigger(_)
        | Item::EmulatedCall(_)
        | Item::Kept(_) => None,
    })
}
