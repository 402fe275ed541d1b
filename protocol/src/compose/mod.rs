//! Model events to items and stream events.
//!
//! The composer owns the output of one response. Text, thinking and calls may come in any order and
//! may alternate; each lands in an item of its own. An item is closed when an item of another kind
//! opens, except that a call whose arguments are not yet a whole JSON object stays open until they
//! are, or until the answer ends: servers may interleave parallel calls. A call that the gateway
//! runs stays open until its outcome is there, while later items open and close.

mod call;
mod calls;
mod client;
mod compaction;
mod gateway;
mod mcp;
mod message;
mod object;
mod reasoning;
mod summary;

use std::collections::{HashMap, HashSet};

use crate::ids::IdSource;
use crate::normalize::{ModelEvent, Spelling, spelling};
use crate::responses::content::LogProb;
use crate::responses::delta::DeltaFrame;
use crate::responses::event::{ArgumentsDelta, Event, ItemEvent, Writer};
use crate::responses::item::{CodeOutputs, Item, ItemStatus, ToolStatus};
use crate::responses::mcp::{McpApprovalRequest, McpCall, McpListTools};
use crate::responses::settings::SummaryMode;
use crate::seal::{Bond, SealKeys};
use crate::tools::code_interpreter::Container;
use crate::tools::{Catalogue, ToolCall, ToolOutcome};
use call::{CallDraft, is_blank};
use calls::WholeCall;
use compaction::SummaryDraft;
pub use gateway::PendingCall;
use message::MessageDraft;
use reasoning::ReasoningDraft;

/// How an answer ended, for the items that were still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself: open items are whole.
    Whole,
    /// By a limit or a fault: open items are cut.
    Cut,
}

impl Ending {
    fn item_status(self) -> ItemStatus {
        match self {
            Self::Whole => ItemStatus::Completed,
            Self::Cut => ItemStatus::Incomplete,
        }
    }
}

/// Whether the model may make several calls in one answer (`parallel_tool_calls`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParallelCalls {
    /// All calls are kept.
    Allowed,
    /// Only the first call is kept, whatever the upstream sends.
    FirstOnly,
}

/// Where events go and ids come from during one step.
pub(crate) struct Out<'a> {
    pub(crate) buffer: &'a mut Vec<u8>,
    pub(crate) writer: &'a mut Writer,
    pub(crate) ids: &'a mut dyn IdSource,
    /// The functions that the model was shown.
    pub(crate) catalogue: &'a Catalogue,
    /// Id of the interpreter session for calls of this response.
    pub(crate) container: &'a str,
    /// Whether thinking is summarised.
    pub(crate) summary: Option<SummaryMode>,
    /// How thinking is sealed, where it is.
    pub(crate) seal: Option<Sealing<'a>>,
}

/// How the thinking of a response is sealed.
#[derive(Clone, Copy)]
pub(crate) struct Sealing<'a> {
    pub(crate) keys: &'a SealKeys,
    pub(crate) bond: Bond<'a>,
    /// Unix milliseconds.
    pub(crate) at_ms: i64,
}

impl Sealing<'_> {
    fn seal(self, text: &str, ids: &mut dyn IdSource) -> Option<String> {
        self.keys.seal(text, self.bond, self.at_ms, ids)
    }
}

impl Out<'_> {
    fn emit(&mut self, event: &Event<'_>) {
        self.writer.event(self.buffer, event);
    }

    /// Emits a delta whose event, but for the delta, is always the same.
    fn delta<'e>(
        &mut self,
        frame: &mut DeltaFrame,
        delta: &str,
        event: impl FnOnce() -> Event<'e>,
    ) {
        self.writer.delta(self.buffer, frame, delta, event);
    }
}

/// Most bytes of white space, and most tokens, that wait for what follows them.
const MAX_HELD: usize = 256;

/// Most items of a response: a client that keeps its own history sends all of them back, and a model
/// server that changes between text and thinking with every token is out of order.
const MAX_OUTPUT: usize = 4096;

/// Text that may turn out to be nothing: leading white space waits here for what follows it.
#[derive(Debug, Default)]
struct Held {
    text: String,
    logprobs: Vec<LogProb>,
}

/// The output of one response while it grows.
#[derive(Debug)]
pub struct Composer {
    /// One slot per item in `output_index` order; `None` while the item is open.
    slots: Vec<Option<Item>>,
    message: Option<MessageDraft>,
    reasoning: Option<ReasoningDraft>,
    /// Calls not yet closed, announced or not.
    calls: Vec<CallDraft>,
    held_text: Held,
    held_reasoning: String,
    /// Set where the conversation is summed up: then nothing else is made.
    summary: Option<SummaryDraft>,
    /// Calls for the gateway that are not done, in `output_index` order.
    pending: Vec<PendingCall>,
    parallel: ParallelCalls,
    code_outputs: CodeOutputs,
    /// Upstream indexes of the answer's calls.
    begun: HashSet<u32>,
    /// The upstream index under which the call of the old way is told of in the new way too.
    mirrored: Option<u32>,
    /// How many calls the answer has begun.
    begun_calls: usize,
    /// Whole calls of the answer, by their upstream indexes.
    told: HashMap<u32, Vec<WholeCall>>,
    /// Ids of the conversation's calls.
    call_ids: HashSet<Box<str>>,
    /// Calls of the answer that became items, or will.
    kept_calls: usize,
    /// Calls of the answer that are not told of: they have no name, or are too many.
    lost: usize,
    /// Probabilities of tokens whose text has not come.
    tokens: Vec<LogProb>,
    /// Whether the last answer called something that the client runs.
    client_called: bool,
    /// Whether a further answer has begun: only in the first one a custom tool may be forced.
    later_answer: bool,
}

impl Composer {
    /// An empty output.
    pub fn new(parallel: ParallelCalls, code_outputs: CodeOutputs) -> Self {
        Self {
            slots: Vec::new(),
            message: None,
            reasoning: None,
            calls: Vec::new(),
            held_text: Held::default(),
            held_reasoning: String::new(),
            summary: None,
            pending: Vec::new(),
            parallel,
            code_outputs,
            begun: HashSet::new(),
            mirrored: None,
            begun_calls: 0,
            told: HashMap::new(),
            call_ids: HashSet::new(),
            kept_calls: 0,
            lost: 0,
            tokens: Vec::new(),
            client_called: false,
            later_answer: false,
        }
    }

    /// An empty output whose one item will be a summary of the conversation.
    pub(crate) fn of_summary() -> Self {
        Self {
            summary: Some(SummaryDraft::default()),
            ..Self::new(ParallelCalls::FirstOnly, CodeOutputs::Hidden)
        }
    }

    /// Takes one thing the model did.
    pub(crate) fn apply(&mut self, event: ModelEvent<'_>, out: &mut Out<'_>) {
        if let Some(summary) = &mut self.summary {
            return summary.take(&event);
        }
        if self.is_full() {
            return;
        }
        match event {
            ModelEvent::Text(text) => return self.text(text, out),
            ModelEvent::Tokens(tokens) => return self.hold_tokens(tokens),
            ModelEvent::Refusal(text) => self.refusal(text, out),
            ModelEvent::Reasoning(text) => self.thinking(text, out),
            ModelEvent::Call(piece) => self.call(piece, out),
        }
        // They were of this.
        self.tokens.clear();
    }

    /// Whether the response has all the items that it may have.
    pub(crate) fn is_full(&self) -> bool {
        self.slots.len() >= MAX_OUTPUT
    }

    fn hold_tokens(&mut self, tokens: Vec<LogProb>) {
        if self.tokens.len() > MAX_HELD {
            self.tokens.clear();
        }
        self.tokens.extend(tokens);
    }

    /// Of the tokens that wait, those that spell this text; earlier ones were of something else.
    fn take_tokens(&mut self, text: &str) -> Vec<LogProb> {
        if self.tokens.is_empty() {
            return Vec::new();
        }
        let Some(Spelling { start, end }) = spelling(&self.tokens, text) else {
            return std::mem::take(&mut self.tokens);
        };
        let later = self.tokens.split_off(end);
        let own = self.tokens.split_off(start);
        self.tokens = later;
        own
    }

    fn text(&mut self, text: &str, out: &mut Out<'_>) {
        if let Some((name, ..)) = out.catalogue.forced()
            && !self.later_answer
        {
            return self.raw_input(name, text, out);
        }
        let logprobs = self.take_tokens(text);
        if let Some(message) = &mut self.message {
            message.text(text, logprobs, out);
            return;
        }
        self.held_text.text.push_str(text);
        self.held_text.logprobs.extend(logprobs);
        if !is_blank(text) || self.held_text.text.len() > MAX_HELD {
            self.release_text(out);
        }
    }

    /// The answer is the input of the custom tool that the model must call.
    fn raw_input(&mut self, name: &str, text: &str, out: &mut Out<'_>) {
        if !self.calls.iter().any(CallDraft::is_raw) {
            self.close_reasoning(Ending::Whole, out);
            let mut call = CallDraft::raw(name);
            self.announce_one(&mut call, out);
            self.calls.push(call);
        }
        if let Some(call) = self.calls.iter_mut().find(|call| call.is_raw()) {
            call.arguments(text, out);
        }
    }

    /// Opens a message with the text that was held back.
    fn release_text(&mut self, out: &mut Out<'_>) {
        let held = std::mem::take(&mut self.held_text);
        self.open_message(out).text(&held.text, held.logprobs, out);
    }

    fn refusal(&mut self, text: &str, out: &mut Out<'_>) {
        match &mut self.message {
            Some(message) => message.refusal(text, out),
            None => self.open_message(out).refusal(text, out),
        }
    }

    fn open_message(&mut self, out: &mut Out<'_>) -> &mut MessageDraft {
        self.close_reasoning(Ending::Whole, out);
        self.close_settled_calls(out);
        let index = self.new_slot();
        self.message.insert(MessageDraft::open(index, out))
    }

    fn thinking(&mut self, text: &str, out: &mut Out<'_>) {
        if let Some(reasoning) = &mut self.reasoning {
            reasoning.text(text, out);
            return;
        }
        self.held_reasoning.push_str(text);
        if is_blank(text) && self.held_reasoning.len() <= MAX_HELD {
            return;
        }
        let held = std::mem::take(&mut self.held_reasoning);
        self.close_message(Ending::Whole, out);
        self.close_settled_calls(out);
        let index = self.new_slot();
        self.reasoning
            .insert(ReasoningDraft::open(index, out))
            .text(&held, out);
    }

    /// Ends the answer: every open item is closed, except calls for the gateway, which wait to be
    /// run when the answer is whole.
    pub(crate) fn finish(&mut self, ending: Ending, out: &mut Out<'_>) {
        if let Some(summary) = self.summary.take_if(|_| ending == Ending::Whole)
            && let Some(item) = summary.close(self.slots.len(), out)
        {
            let index = self.new_slot();
            self.put(index, item, out);
        }
        let nothing_else = self.slots.is_empty() && self.calls.is_empty();
        if nothing_else && !self.held_text.text.is_empty() {
            self.release_text(out);
        }
        self.held_text = Held::default();
        self.held_reasoning.clear();
        self.close_reasoning(ending, out);
        self.close_message(ending, out);
        self.close_calls(ending, out);
        self.tokens.clear();
        if ending == Ending::Cut {
            for call in std::mem::take(&mut self.pending) {
                let (index, item) = call.cut();
                self.put(index, item, out);
            }
        }
    }

    /// The calls that the conversation has: none of the response gets the id of one.
    pub(crate) fn note_calls<'a>(&mut self, items: impl Iterator<Item = &'a Item>) {
        self.call_ids
            .extend(items.filter_map(Item::call_id).map(Into::into));
    }

    /// A further answer begins.
    pub(crate) fn begin_answer(&mut self) {
        self.client_called = false;
        self.later_answer = true;
    }

    /// How many calls of the last answer are left out: they had no name, or were too many.
    pub(crate) fn take_lost(&mut self) -> usize {
        std::mem::take(&mut self.lost)
    }

    /// Whether the answer called something that the client runs.
    pub(crate) fn client_called(&self) -> bool {
        self.client_called
    }

    /// The calls that wait for the gateway or are being run, in `output_index` order.
    pub(crate) fn pending(&self) -> &[PendingCall] {
        &self.pending
    }

    /// Says that a pending call runs.
    pub(crate) fn start(
        &mut self,
        output_index: usize,
        container: Option<&Container>,
        out: &mut Out<'_>,
    ) -> Option<ToolCall> {
        let mut pending = self.pending.iter_mut();
        let call = pending.find(|call| call.output_index() == output_index)?;
        call.start(container, out)
    }

    /// Tells of a list of tools.
    pub(crate) fn tell_list(&mut self, item: McpListTools, out: &mut Out<'_>) {
        let index = self.new_slot();
        mcp::tell_list(index, &item, out);
        self.put(index, Item::McpListTools(item), out);
    }

    /// Opens a call that the client has approved; it waits to be run. Gives its place.
    pub(crate) fn open_approved(
        &mut self,
        approved: &McpApprovalRequest,
        id: Box<str>,
        out: &mut Out<'_>,
    ) -> usize {
        let index = self.new_slot();
        let item = McpCall {
            id,
            status: ToolStatus::InProgress,
            server_label: approved.server_label.clone(),
            name: approved.name.clone(),
            arguments: Box::default(),
            output: None,
            images: Vec::new(),
            error: None,
            approval_request_id: Some(approved.id.clone()),
            said: approved.said.clone(),
        };
        mcp::begin(index, &item, out);
        out.emit(&Event::McpArgumentsDelta(ArgumentsDelta {
            item_id: &item.id,
            output_index: index,
            delta: &approved.arguments,
        }));
        let arguments = approved.arguments.clone();
        let call = PendingCall::mcp(index, approved.name.clone(), arguments, item, out);
        self.pending.push(call);
        index
    }

    /// Closes a pending call with its outcome.
    pub(crate) fn settle(&mut self, output_index: usize, outcome: ToolOutcome, out: &mut Out<'_>) {
        if let Some(call) = self.take_pending(output_index) {
            let (index, item) = call.settle(outcome, self.code_outputs, out);
            self.put(index, item, out);
        }
    }

    /// Closes a pending call that is not run.
    pub(crate) fn refuse(&mut self, output_index: usize, why: &str, out: &mut Out<'_>) {
        if let Some(call) = self.take_pending(output_index) {
            let (index, item) = call.refuse(why, out);
            self.put(index, item, out);
        }
    }

    fn take_pending(&mut self, output_index: usize) -> Option<PendingCall> {
        let mut pending = self.pending.iter();
        let place = pending.position(|call| call.output_index() == output_index)?;
        Some(self.pending.remove(place))
    }

    /// The closed items in order. Only whole after [`Composer::finish`].
    pub fn closed(&self) -> impl Iterator<Item = &Item> {
        self.slots.iter().flatten()
    }

    /// The same, copied.
    pub fn items(&self) -> Vec<Item> {
        self.closed().cloned().collect()
    }

    fn close_message(&mut self, ending: Ending, out: &mut Out<'_>) {
        if let Some(message) = self.message.take() {
            let (index, item) = message.close(ending, out);
            self.put(index, item, out);
        }
    }

    fn close_reasoning(&mut self, ending: Ending, out: &mut Out<'_>) {
        if let Some(reasoning) = self.reasoning.take() {
            let (index, item) = reasoning.close(ending, out);
            self.put(index, item, out);
        }
    }

    fn new_slot(&mut self) -> usize {
        new_slot(&mut self.slots)
    }

    /// Puts a closed item into its slot and says so.
    fn put(&mut self, output_index: usize, item: Item, out: &mut Out<'_>) {
        out.emit(&Event::ItemDone(ItemEvent {
            output_index,
            item: &item.shown(self.code_outputs),
        }));
        if let Some(slot) = self.slots.get_mut(output_index) {
            *slot = Some(item);
        }
    }
}

/// A place at the end of the output.
fn new_slot(slots: &mut Vec<Option<Item>>) -> usize {
    slots.push(None);
    slots.len() - 1
}
