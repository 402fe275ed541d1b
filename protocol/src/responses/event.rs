//! Stream events, and the writer that numbers and frames them.
//!
//! A frame is `event: TYPE`, `data: {"type":TYPE,"sequence_number":N,...}` and a blank line. The
//! writer appends straight into the caller's buffer: no event is built in memory first, and for a
//! client that does not stream nothing is written at all.

use serde::Serialize;

use super::content::{Decimal, LogProb, Part};
use super::delta::DeltaFrame;
use super::item::{Item, ReasoningPart, SummaryPart};
use crate::json_text;

/// Names of the raw reasoning events, where `OpenAI` and Open Responses differ (decision 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReasoningEvents {
    /// `response.reasoning_text.*`
    #[default]
    OpenAi,
    /// `response.reasoning.*`
    OpenResponses,
}

/// One event about an item. Lifecycle events are written by `Writer::lifecycle`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Event<'a> {
    /// `response.output_item.added`
    ItemAdded(ItemEvent<'a>),
    /// `response.output_item.done`
    ItemDone(ItemEvent<'a>),
    /// `response.content_part.added`
    PartAdded(PartEvent<'a>),
    /// `response.content_part.done`
    PartDone(PartEvent<'a>),
    /// `response.output_text.delta`
    TextDelta(TextDelta<'a>),
    /// `response.output_text.done`
    TextDone(TextDone<'a>),
    /// `response.refusal.delta`
    RefusalDelta(ContentDelta<'a>),
    /// `response.refusal.done`
    RefusalDone(RefusalDone<'a>),
    /// `response.reasoning_text.delta`
    ReasoningDelta(ContentDelta<'a>),
    /// `response.reasoning_text.done`
    ReasoningDone(ContentDone<'a>),
    /// `response.reasoning_summary_part.added`
    SummaryPartAdded(SummaryPartEvent<'a>),
    /// `response.reasoning_summary_part.done`
    SummaryPartDone(SummaryPartEvent<'a>),
    /// `response.reasoning_summary_text.delta`
    SummaryDelta(SummaryDelta<'a>),
    /// `response.reasoning_summary_text.done`
    SummaryDone(SummaryDone<'a>),
    /// `response.function_call_arguments.delta`
    ArgumentsDelta(ArgumentsDelta<'a>),
    /// `response.function_call_arguments.done`
    ArgumentsDone(ArgumentsDone<'a>),
    /// `response.custom_tool_call_input.delta`
    InputDelta(ArgumentsDelta<'a>),
    /// `response.custom_tool_call_input.done`
    InputDone(InputDone<'a>),
    /// `response.code_interpreter_call.in_progress`
    CodeInProgress(ItemPlace<'a>),
    /// `response.code_interpreter_call_code.delta`
    CodeDelta(ArgumentsDelta<'a>),
    /// `response.code_interpreter_call_code.done`
    CodeDone(CodeDone<'a>),
    /// `response.code_interpreter_call.interpreting`
    CodeInterpreting(ItemPlace<'a>),
    /// `response.code_interpreter_call.completed`
    CodeCompleted(ItemPlace<'a>),
    /// `response.compaction.compacting`
    Compacting(ItemPlace<'a>),
    /// `response.mcp_list_tools.in_progress`
    McpListing(ItemPlace<'a>),
    /// `response.mcp_list_tools.completed`
    McpListed(ItemPlace<'a>),
    /// `response.mcp_list_tools.failed`
    McpListFailed(ItemPlace<'a>),
    /// `response.mcp_call.in_progress`
    McpInProgress(ItemPlace<'a>),
    /// `response.mcp_call_arguments.delta`
    McpArgumentsDelta(ArgumentsDelta<'a>),
    /// `response.mcp_call_arguments.done`
    McpArgumentsDone(McpArgumentsDone<'a>),
    /// `response.mcp_call.completed`
    McpCompleted(ItemPlace<'a>),
    /// `response.mcp_call.failed`
    McpFailed(ItemPlace<'a>),
    /// `error`
    Error(ErrorEvent<'a>),
}

/// An item and its place.
#[derive(Debug, Serialize)]
pub struct ItemEvent<'a> {
    /// Index into the final `output`.
    pub output_index: usize,
    /// The item as it is now.
    pub item: &'a Item,
}

/// A part and its place.
#[derive(Debug, Serialize)]
pub struct PartEvent<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// The part's index.
    pub content_index: usize,
    /// The part as it is now.
    pub part: PartView<'a>,
}

/// A part of any kind.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum PartView<'a> {
    /// Text or refusal.
    Content(&'a Part),
    /// Thinking.
    Reasoning(&'a ReasoningPart),
}

/// More text.
#[derive(Debug, Serialize)]
pub struct TextDelta<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// The part's index.
    pub content_index: usize,
    /// What is new.
    pub delta: &'a str,
    /// Probabilities of the new tokens, `[]` if none: the SDK requires the key.
    pub logprobs: &'a [DeltaLogProb<'a>],
}

/// Probability of a token on a delta event; unlike on the part it has no `bytes`.
#[derive(Debug, Serialize)]
pub struct DeltaLogProb<'a> {
    token: &'a str,
    logprob: &'a Decimal,
    top_logprobs: Vec<DeltaTopLogProb<'a>>,
}

#[derive(Debug, Serialize)]
struct DeltaTopLogProb<'a> {
    token: &'a str,
    logprob: &'a Decimal,
}

/// The same probabilities as the part has, without the bytes.
pub fn delta_logprobs(logprobs: &[LogProb]) -> Vec<DeltaLogProb<'_>> {
    logprobs
        .iter()
        .map(|entry| DeltaLogProb {
            token: &entry.token.0,
            logprob: &entry.logprob,
            top_logprobs: entry
                .top_logprobs
                .0
                .iter()
                .map(|top| DeltaTopLogProb {
                    token: &top.token.0,
                    logprob: &top.logprob,
                })
                .collect(),
        })
        .collect()
}

/// The whole text of a part.
#[derive(Debug, Serialize)]
pub struct TextDone<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// The part's index.
    pub content_index: usize,
    /// All of it.
    pub text: &'a str,
    /// Probabilities of all its tokens.
    pub logprobs: Vec<DeltaLogProb<'a>>,
}

/// More refusal or thinking.
#[derive(Debug, Serialize)]
pub struct ContentDelta<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// The part's index.
    pub content_index: usize,
    /// What is new.
    pub delta: &'a str,
}

/// All thinking of a part.
#[derive(Debug, Serialize)]
pub struct ContentDone<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// The part's index.
    pub content_index: usize,
    /// All of it.
    pub text: &'a str,
}

/// A part of the summary and its place.
#[derive(Debug, Serialize)]
pub struct SummaryPartEvent<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// The part's index.
    pub summary_index: usize,
    /// The part as it is now.
    pub part: &'a SummaryPart,
}

/// More summary.
#[derive(Debug, Serialize)]
pub struct SummaryDelta<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// The part's index.
    pub summary_index: usize,
    /// What is new.
    pub delta: &'a str,
}

/// All of a summary's part.
#[derive(Debug, Serialize)]
pub struct SummaryDone<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// The part's index.
    pub summary_index: usize,
    /// All of it.
    pub text: &'a str,
}

/// The whole refusal.
#[derive(Debug, Serialize)]
pub struct RefusalDone<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// The part's index.
    pub content_index: usize,
    /// All of it.
    pub refusal: &'a str,
}

/// More of a call's arguments, or of its code.
#[derive(Debug, Serialize)]
pub struct ArgumentsDelta<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// What is new.
    pub delta: &'a str,
}

/// All arguments of a call.
#[derive(Debug, Serialize)]
pub struct ArgumentsDone<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// The function; older SDKs typed it.
    pub name: &'a str,
    /// All of them.
    pub arguments: &'a str,
}

/// All arguments of a call of an MCP tool.
#[derive(Debug, Serialize)]
pub struct McpArgumentsDone<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// All of them.
    pub arguments: &'a str,
}

/// All input of a custom tool.
#[derive(Debug, Serialize)]
pub struct InputDone<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// All of it.
    pub input: &'a str,
}

/// An item's place, in events that say only that it has come so far.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ItemPlace<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
}

/// All code of a call.
#[derive(Debug, Serialize)]
pub struct CodeDone<'a> {
    /// The item.
    pub item_id: &'a str,
    /// Its index.
    pub output_index: usize,
    /// All of it.
    pub code: &'a str,
}

/// The `error` event in the form that all clients read: flat keys and the nested object.
#[derive(Debug, Serialize)]
pub struct ErrorEvent<'a> {
    /// What happened, in the gateway's words.
    pub code: &'a str,
    /// A sentence.
    pub message: &'a str,
    /// The request parameter at fault.
    pub param: Option<&'a str>,
    /// The same once more, with the error's type.
    pub error: NestedError<'a>,
}

/// The nested half of [`ErrorEvent`].
#[derive(Debug, Serialize)]
pub struct NestedError<'a> {
    /// As in HTTP error bodies.
    pub r#type: &'a str,
    /// As in the flat half.
    pub code: &'a str,
    /// As in the flat half.
    pub message: &'a str,
    /// As in the flat half.
    pub param: Option<&'a str>,
}

impl Event<'_> {
    fn name(&self, reasoning: ReasoningEvents) -> &'static str {
        match (self, reasoning) {
            (Self::ItemAdded(_), _) => "response.output_item.added",
            (Self::ItemDone(_), _) => "response.output_item.done",
            (Self::PartAdded(_), _) => "response.content_part.added",
            (Self::PartDone(_), _) => "response.content_part.done",
            (Self::TextDelta(_), _) => "response.output_text.delta",
            (Self::TextDone(_), _) => "response.output_text.done",
            (Self::RefusalDelta(_), _) => "response.refusal.delta",
            (Self::RefusalDone(_), _) => "response.refusal.done",
            (Self::ReasoningDelta(_), ReasoningEvents::OpenAi) => "response.reasoning_text.delta",
            (Self::ReasoningDone(_), ReasoningEvents::OpenAi) => "response.reasoning_text.done",
            (Self::ReasoningDelta(_), ReasoningEvents::OpenResponses) => "response.reasoning.delta",
            (Self::ReasoningDone(_), ReasoningEvents::OpenResponses) => "response.reasoning.done",
            (Self::SummaryPartAdded(_), _) => "response.reasoning_summary_part.added",
            (Self::SummaryPartDone(_), _) => "response.reasoning_summary_part.done",
            (Self::SummaryDelta(_), _) => "response.reasoning_summary_text.delta",
            (Self::SummaryDone(_), _) => "response.reasoning_summary_text.done",
            (Self::ArgumentsDelta(_), _) => "response.function_call_arguments.delta",
            (Self::ArgumentsDone(_), _) => "response.function_call_arguments.done",
            (Self::InputDelta(_), _) => "response.custom_tool_call_input.delta",
            (Self::InputDone(_), _) => "response.custom_tool_call_input.done",
            (Self::CodeInProgress(_), _) => "response.code_interpreter_call.in_progress",
            (Self::CodeDelta(_), _) => "response.code_interpreter_call_code.delta",
            (Self::CodeDone(_), _) => "response.code_interpreter_call_code.done",
            (Self::CodeInterpreting(_), _) => "response.code_interpreter_call.interpreting",
            (Self::CodeCompleted(_), _) => "response.code_interpreter_call.completed",
            (Self::Compacting(_), _) => "response.compaction.compacting",
            (Self::McpListing(_), _) => "response.mcp_list_tools.in_progress",
            (Self::McpListed(_), _) => "response.mcp_list_tools.completed",
            (Self::McpListFailed(_), _) => "response.mcp_list_tools.failed",
            (Self::McpInProgress(_), _) => "response.mcp_call.in_progress",
            (Self::McpArgumentsDelta(_), _) => "response.mcp_call_arguments.delta",
            (Self::McpArgumentsDone(_), _) => "response.mcp_call_arguments.done",
            (Self::McpCompleted(_), _) => "response.mcp_call.completed",
            (Self::McpFailed(_), _) => "response.mcp_call.failed",
            (Self::Error(_), _) => "error",
        }
    }
}

/// Whether the client gets events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// `stream: true`.
    Events,
    /// The final resource alone.
    Whole,
}

/// Numbers and frames the events of one response.
#[derive(Debug)]
pub struct Writer {
    delivery: Delivery,
    reasoning: ReasoningEvents,
    sequence: u64,
}

impl Writer {
    /// A writer at sequence number 0.
    pub fn new(delivery: Delivery, reasoning: ReasoningEvents) -> Self {
        Self {
            delivery,
            reasoning,
            sequence: 0,
        }
    }

    /// Appends one frame to `buffer`, or nothing when the client does not stream.
    pub fn event(&mut self, buffer: &mut Vec<u8>, event: &Event<'_>) {
        if self.delivery == Delivery::Whole {
            return;
        }
        self.open(buffer, event.name(self.reasoning));
        let body = buffer.len();
        json_text::append(buffer, event);
        if let Some(brace) = buffer.get_mut(body) {
            *brace = b',';
        }
        buffer.extend_from_slice(b"\n\n");
    }

    /// Appends a frame that differs from the item's other deltas in its number and its delta alone.
    /// `event` is the event with an empty delta; it is asked for once per `frame`.
    pub(crate) fn delta<'e>(
        &mut self,
        buffer: &mut Vec<u8>,
        frame: &mut DeltaFrame,
        delta: &str,
        event: impl FnOnce() -> Event<'e>,
    ) {
        if self.delivery == Delivery::Whole {
            return;
        }
        if frame.is_empty() {
            let event = event();
            *frame = DeltaFrame::of(event.name(self.reasoning), &event);
        }
        frame.write(buffer, self.sequence, delta);
        self.sequence += 1;
    }

    /// Appends a lifecycle frame whose `response` is what `resource` appends.
    pub fn lifecycle(
        &mut self,
        buffer: &mut Vec<u8>,
        name: &'static str,
        resource: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.delivery == Delivery::Whole {
            return;
        }
        self.open(buffer, name);
        buffer.extend_from_slice(b",\"response\":");
        resource(buffer);
        buffer.extend_from_slice(b"}\n\n");
    }

    /// Everything of a frame up to its own members.
    fn open(&mut self, buffer: &mut Vec<u8>, name: &'static str) {
        append_head(buffer, name);
        json_text::append(buffer, &self.sequence);
        self.sequence += 1;
    }
}

/// Everything of a frame up to its number.
pub(super) fn append_head(buffer: &mut Vec<u8>, name: &'static str) {
    for piece in [
        "event: ",
        name,
        "\ndata: {\"type\":\"",
        name,
        "\",\"sequence_number\":",
    ] {
        buffer.extend_from_slice(piece.as_bytes());
    }
}
