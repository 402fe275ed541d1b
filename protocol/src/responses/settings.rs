//! The settings of a request, as its response echoes them.
//!
//! They are stored once per distinct content and owner, hence what differs from response to
//! response (model, metadata, ids, flags) is not among them; nor are credentials.

use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::tool::{Tool, ToolChoice};
use super::words::words;
use crate::json_text;

words! {
    /// What happens when the prompt is too long.
    Truncation {
        /// Oldest items may be dropped.
        Auto = "auto",
        /// The request fails.
        Disabled = "disabled",
    }
}

words! {
    /// `text.verbosity`, echoed only.
    Verbosity {
        /// Terse.
        Low = "low",
        /// As usual.
        Medium = "medium",
        /// Long.
        High = "high",
    }
}

words! {
    /// `reasoning.effort`.
    Effort {
        /// No thinking at all.
        None = "none",
        /// Hardly any.
        Minimal = "minimal",
        /// Little.
        Low = "low",
        /// As usual.
        Medium = "medium",
        /// Much.
        High = "high",
        /// Very much.
        Xhigh = "xhigh",
        /// As much as there is.
        Max = "max",
    }
}

words! {
    /// `reasoning.summary`.
    SummaryMode {
        /// The model decides.
        Auto = "auto",
        /// Short.
        Concise = "concise",
        /// Long.
        Detailed = "detailed",
    }
}

words! {
    /// `reasoning.context`: which thinking of a conversation the model sees again.
    ReasoningContext {
        /// As the chat template has it: all is given to it.
        Auto = "auto",
        /// That of the turn that is being answered.
        CurrentTurn = "current_turn",
        /// All.
        AllTurns = "all_turns",
    }
}

words! {
    /// `prompt_cache_retention`, echoed only.
    CacheRetention {
        /// For minutes.
        InMemory = "in_memory",
        /// For a day.
        Day = "24h",
    }
}

/// `text.format`: the shape that the answer's text must have.
#[derive(Clone, Debug, Default)]
pub enum TextFormat {
    /// Any text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON of a schema.
    JsonSchema(JsonSchema),
}

/// A schema for the answer's text.
#[derive(Clone, Debug)]
pub struct JsonSchema {
    /// Its name.
    pub name: Box<str>,
    /// What it is for, for the model.
    pub description: Option<Box<str>>,
    /// The schema, untouched.
    pub schema: Box<RawValue>,
    /// Whether it must be followed; sent exactly as asked.
    pub strict: Option<bool>,
}

impl Serialize for TextFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Text => map.serialize_entry("type", "text")?,
            Self::JsonObject => map.serialize_entry("type", "json_object")?,
            Self::JsonSchema(schema) => {
                map.serialize_entry("type", "json_schema")?;
                map.serialize_entry("name", &schema.name)?;
                map.serialize_entry("description", &schema.description)?;
                map.serialize_entry("schema", &schema.schema)?;
                map.serialize_entry("strict", &schema.strict)?;
            }
        }
        map.end()
    }
}

/// The settings. `None` is "the client did not say": the echo then shows the default, and the
/// upstream is not told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// System message of this turn.
    pub instructions: Option<Box<str>>,
    /// Tools, served or not.
    pub tools: Vec<Tool>,
    /// Which of them the model may or must call.
    pub tool_choice: Option<ToolChoice>,
    /// Whether the model may call several at once.
    pub parallel_tool_calls: Option<bool>,
    /// What happens when the prompt is too long.
    pub truncation: Option<Truncation>,
    /// Shape of the answer's text.
    pub format: TextFormat,
    /// Length of the answer's text.
    pub verbosity: Option<Verbosity>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// 0 to 20: how many likeliest tokens are told of each place.
    pub top_logprobs: Option<u8>,
    /// How much the model thinks.
    pub effort: Option<Effort>,
    /// Whether its thinking is summarised.
    pub summary: Option<SummaryMode>,
    /// Which thinking the model sees again.
    pub reasoning_context: Option<ReasoningContext>,
    /// Bound of the generated tokens, reasoning included.
    pub max_output_tokens: Option<u64>,
    /// Bound of the calls of gateway tools.
    pub max_tool_calls: Option<u64>,
    /// End user, echoed only.
    pub safety_identifier: Option<Box<str>>,
    /// Cache routing hint.
    pub prompt_cache_key: Option<Box<str>>,
    /// Echoed only.
    pub prompt_cache_retention: Option<CacheRetention>,
    /// End user, echoed only.
    pub user: Option<Box<str>>,
}

/// The echo; field order is wire order.
#[derive(Serialize)]
struct Echo<'a> {
    instructions: Option<&'a str>,
    max_output_tokens: Option<u64>,
    max_tool_calls: Option<u64>,
    parallel_tool_calls: bool,
    temperature: f64,
    top_p: f64,
    presence_penalty: f64,
    frequency_penalty: f64,
    top_logprobs: u8,
    reasoning: EchoReasoning,
    text: EchoText<'a>,
    truncation: Truncation,
    tool_choice: &'a ToolChoice,
    tools: &'a [Tool],
    service_tier: &'static str,
    safety_identifier: Option<&'a str>,
    prompt_cache_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_retention: Option<CacheRetention>,
    user: Option<&'a str>,
}

#[derive(Serialize)]
struct EchoReasoning {
    effort: Option<Effort>,
    summary: Option<SummaryMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<ReasoningContext>,
}

#[derive(Serialize)]
struct EchoText<'a> {
    format: &'a TextFormat,
    verbosity: Verbosity,
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let echo = Echo {
            instructions: self.instructions.as_deref(),
            max_output_tokens: self.max_output_tokens,
            max_tool_calls: self.max_tool_calls,
            parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            top_logprobs: self.top_logprobs.unwrap_or(0),
            reasoning: EchoReasoning {
                effort: self.effort,
                summary: self.summary,
                context: self.reasoning_context,
            },
            text: EchoText {
                format: &self.format,
                verbosity: self.verbosity.unwrap_or(Verbosity::Medium),
            },
            truncation: self.truncation.unwrap_or(Truncation::Disabled),
            tool_choice: self.tool_choice.as_ref().unwrap_or(&ToolChoice::Auto),
            tools: &self.tools,
            service_tier: "default",
            safety_identifier: self.safety_identifier.as_deref(),
            prompt_cache_key: self.prompt_cache_key.as_deref(),
            prompt_cache_retention: self.prompt_cache_retention,
            user: self.user.as_deref(),
        };
        echo.serialize(serializer)
    }
}

impl Settings {
    /// The echo as the JSON object that responses end with and the store keeps.
    pub fn echo(&self) -> Arc<str> {
        // String keys and finite numbers: nothing here can fail to be written.
        let written = json_text::written(self).unwrap_or_default();
        String::from_utf8(written).unwrap_or_default().into()
    }
}
