//! The response resource: what is returned, streamed in lifecycle events, and stored.
//!
//! It is written in two parts. The *core* has what belongs to one response; the *settings* echo the
//! request (tools, instructions, sampling) and are stored once per distinct content. The settings
//! are always written last, so that joining the two texts gives the resource byte for byte.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::item::Item;
use crate::chat::usage::ChatUsage;
use crate::ids::ResponseId;
use crate::record::Status;

/// What stays the same through a response's life.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The response's id.
    pub id: ResponseId,
    /// Model name as the client asked for it.
    pub model: Box<str>,
    /// The response it continues.
    pub previous: Option<ResponseId>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// The client's metadata, an object.
    pub metadata: Box<RawValue>,
    /// The echoed settings: a JSON object.
    pub settings: Arc<str>,
    /// What of the input the model is not shown; known once the input is read.
    pub input_transformations: Vec<InputTransformation>,
}

/// An item of the input that the model is not shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputTransformation {
    id: Box<str>,
    action: &'static str,
    r#type: &'static str,
    reason: TransformationReason,
}

/// Why sealed reasoning is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransformationReason {
    /// Its seal is not one that opens here, for this caller, at this time.
    OrganizationMismatch,
    /// Another model thought it.
    ModelMismatch,
}

impl InputTransformation {
    /// The reasoning item of this id is left out.
    pub fn of(id: Box<str>, reason: TransformationReason) -> Self {
        Self {
            id,
            action: "removed",
            r#type: "reasoning",
            reason,
        }
    }
}

/// What changes: a response's state at one moment.
#[derive(Debug)]
pub struct State<'a> {
    /// Status.
    pub status: Status,
    /// Unix milliseconds; only when completed.
    pub completed_at_ms: Option<i64>,
    /// Why it failed.
    pub error: Option<ResponseError<'a>>,
    /// Why it is incomplete.
    pub incomplete: Option<IncompleteReason>,
    /// The items, in `output_index` order.
    pub output: &'a [Item],
    /// Token counts; `None` while running or when the upstream gave none.
    pub usage: Option<Usage>,
    /// Whether the response is, or will be, kept.
    pub store: bool,
}

/// `error` of a failed response.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ResponseError<'a> {
    /// One of the codes of the SDK's type, or a named exception (decision 3).
    pub code: &'a str,
    /// A sentence.
    pub message: &'a str,
}

/// `incomplete_details.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IncompleteReason {
    /// The token limit.
    MaxOutputTokens,
    /// The content filter.
    ContentFilter,
}

/// Token counts, summed over all model calls of the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct InputDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct OutputDetails {
    reasoning_tokens: u64,
}

impl Usage {
    /// Tokens of the prompts.
    pub fn input_tokens(self) -> u64 {
        self.input_tokens
    }

    /// Those of them that the model server had read before.
    pub fn cached_tokens(self) -> u64 {
        self.input_tokens_details.cached_tokens
    }

    /// Tokens of thinking, a part of the output.
    pub fn reasoning_tokens(self) -> u64 {
        self.output_tokens_details.reasoning_tokens
    }

    /// Tokens that the model wrote, thinking included.
    pub fn output_tokens(self) -> u64 {
        self.output_tokens
    }

    /// Adds one model call.
    #[must_use]
    pub fn plus(self, call: ChatUsage) -> Self {
        let input_tokens = self.input_tokens.saturating_add(call.prompt_tokens());
        let output_tokens = self.output_tokens.saturating_add(call.completion_tokens());
        let (input, output) = (self.input_tokens_details, self.output_tokens_details);
        Self {
            input_tokens,
            input_tokens_details: InputDetails {
                cached_tokens: input.cached_tokens.saturating_add(call.cached_tokens()),
                cache_write_tokens: input
                    .cache_write_tokens
                    .saturating_add(call.cache_write_tokens()),
            },
            output_tokens,
            output_tokens_details: OutputDetails {
                reasoning_tokens: output
                    .reasoning_tokens
                    .saturating_add(call.reasoning_tokens()),
            },
            total_tokens: input_tokens.saturating_add(output_tokens),
        }
    }
}

/// The core as it is written; field order is wire order.
#[derive(Serialize)]
struct Core<'a> {
    id: &'a ResponseId,
    object: &'static str,
    created_at: i64,
    completed_at: Option<i64>,
    status: Status,
    background: bool,
    error: Option<ResponseError<'a>>,
    incomplete_details: Option<IncompleteDetails>,
    model: &'a str,
    previous_response_id: Option<&'a ResponseId>,
    metadata: &'a RawValue,
    store: bool,
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    input_transformations: &'a [InputTransformation],
    output: &'a [Item],
}

#[derive(Serialize)]
struct IncompleteDetails {
    reason: IncompleteReason,
}

/// Settings of at least so many bytes are worth a thought for the buffer that they are written to.
const LARGE: usize = 64 << 10;

impl Identity {
    /// Appends the core, a JSON object, to `buffer`.
    pub fn write_core(&self, state: &State<'_>, buffer: &mut Vec<u8>) {
        let core = Core {
            id: &self.id,
            object: "response",
            created_at: self.created_at_ms.div_euclid(1000),
            completed_at: state.completed_at_ms.map(|at| at.div_euclid(1000)),
            status: state.status,
            background: false,
            error: state.error,
            incomplete_details: state.incomplete.map(|reason| IncompleteDetails { reason }),
            model: &self.model,
            previous_response_id: self.previous.as_ref(),
            metadata: &self.metadata,
            store: state.store,
            usage: state.usage,
            input_transformations: &self.input_transformations,
            output: state.output,
        };
        crate::json_text::append(buffer, &core);
    }

    /// Appends the whole resource to `buffer`.
    pub fn write_resource(&self, state: &State<'_>, buffer: &mut Vec<u8>) {
        if state.status == Status::InProgress && self.settings.len() > LARGE {
            // Two events begin a stream.
            buffer.reserve_exact(2 * (self.settings.len() + LARGE));
        }
        self.write_core(state, buffer);
        self.append_settings(buffer);
    }

    /// Turns the core at the end of `buffer` into the whole resource.
    pub fn append_settings(&self, buffer: &mut Vec<u8>) {
        let members = self.settings.strip_prefix('{').unwrap_or("}");
        buffer.pop();
        if members.len() > LARGE {
            // A buffer that doubles is there twice while it is copied.
            buffer.reserve_exact(members.len() + 1);
        }
        if members.len() > 1 {
            buffer.push(b',');
        }
        buffer.extend_from_slice(members.as_bytes());
    }
}
