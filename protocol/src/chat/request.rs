//! The chat-completions request, as vLLM takes it: borrowed from the items it is made of.
//!
//! What the client did not set is left out, so that the server's own defaults hold.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::Serializer;
use serde_json::value::RawValue;

use crate::responses::content::ImageDetail;

/// The body.
#[derive(Debug, Serialize)]
pub struct ChatRequest<'a> {
    /// The model.
    pub model: &'a str,
    /// The conversation.
    pub messages: Vec<ChatMessage<'a>>,
    /// Functions the model may call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ChatTool<'a>>,
    /// Which of them it may or must call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ChatToolChoice<'a>>,
    /// Whether it may call several at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// Sampling temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Penalty on tokens that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// Penalty on tokens by how often they are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// Bound of the generated tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u64>,
    /// Whether token probabilities are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// How many likeliest tokens are told of each place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u8>,
    /// Shape of the answer's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat<'a>>,
    /// How much the model thinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<&'a str>,
    /// Switches of the chat template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template_kwargs: Option<TemplateSwitches>,
    /// What the text must be, beside a response format; never together with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structured_outputs: Option<StructuredOutputs<'a>>,
    /// vLLM's own parameters.
    #[serde(flatten)]
    pub passed_on: PassedOn<'a>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// What the stream has; only with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
}

/// A language that the text must be of.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StructuredOutputs<'a> {
    /// A grammar, Lark or EBNF.
    Grammar(&'a str),
    /// A regular expression.
    Regex(&'a str),
}

/// vLLM's own parameters, as the client wrote them, but for those that are left out.
#[derive(Debug)]
pub struct PassedOn<'a> {
    /// All of them.
    pub all: &'a [(&'static str, Box<RawValue>)],
    /// Names of those that are left out.
    pub but: &'static [&'static str],
}

/// The parameter that goes to the chat template.
pub(crate) const TEMPLATE_SWITCHES: &str = "chat_template_kwargs";

impl Serialize for PassedOn<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let passed_on = self.all.iter().filter(|(name, _)| !self.but.contains(name));
        serializer.collect_map(passed_on.map(|(name, value)| (name, value)))
    }
}

/// Switches of the chat template.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TemplateSwitches {
    /// Whether the model thinks; the name that Qwen and most others use.
    pub enable_thinking: bool,
}

/// What a stream has.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StreamOptions {
    /// A last chunk with token counts.
    pub include_usage: bool,
}

/// One message.
#[derive(Debug, Serialize)]
pub struct ChatMessage<'a> {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: &'static str,
    /// What is said; null in an assistant message that only calls.
    pub content: Option<ChatContent<'a>>,
    /// The thinking before it, under the name that all servers read: vLLM takes `reasoning` too,
    /// `SGLang`, llama.cpp and `DeepSeek` do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<Cow<'a, str>>,
    /// Calls, in an assistant message.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ChatCall<'a>>,
    /// The call answered, in a tool message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<&'a str>,
}

/// What is said.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ChatContent<'a> {
    /// Plain text.
    Text(Cow<'a, str>),
    /// Text and pictures.
    Parts(Vec<ChatPart<'a>>),
}

/// A piece of what is said.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ChatPart<'a> {
    /// Text.
    Text {
        /// The text.
        text: &'a str,
    },
    /// A picture.
    ImageUrl {
        /// Where it is.
        image_url: ImageUrl<'a>,
    },
}

/// Where a picture is.
#[derive(Debug, Serialize)]
pub struct ImageUrl<'a> {
    /// `https:` or `data:` URL.
    pub url: Cow<'a, str>,
    /// How closely the model looks.
    pub detail: ImageDetail,
}

/// A call in an assistant message.
#[derive(Debug, Serialize)]
pub struct ChatCall<'a> {
    /// Joins it with its output.
    pub id: &'a str,
    /// Always `function`.
    pub r#type: &'static str,
    /// What is called.
    pub function: ChatCallFunction<'a>,
    /// What the model server said beside it, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<&'a RawValue>,
}

/// What is called.
#[derive(Debug, Serialize)]
pub struct ChatCallFunction<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// JSON text of an object: chat templates parse it.
    pub arguments: Cow<'a, str>,
}

/// A function the model may call.
#[derive(Debug, Serialize)]
pub struct ChatTool<'a> {
    /// Always `function`.
    pub r#type: &'static str,
    /// The function.
    pub function: ChatFunction<'a>,
}

/// A function.
#[derive(Debug, Serialize)]
pub struct ChatFunction<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<Cow<'a, str>>,
    /// JSON schema of its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<&'a RawValue>,
    /// vLLM holds arguments to the schema only with true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// Which functions the model may or must call.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum ChatToolChoice<'a> {
    /// `none`, `auto` or `required`.
    Word(&'static str),
    /// One function.
    Named {
        /// Always `function`.
        r#type: &'static str,
        /// The function.
        function: ChatName<'a>,
    },
}

/// A function by name.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ChatName<'a> {
    /// Its name.
    pub name: &'a str,
}

/// Shape of the answer's text: what Responses writes flat, chat completions nest.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat<'a> {
    /// Any JSON object.
    JsonObject,
    /// JSON of a schema.
    JsonSchema {
        /// The schema.
        json_schema: ChatSchema<'a>,
    },
}

/// A schema.
#[derive(Debug, Serialize)]
pub struct ChatSchema<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'a str>,
    /// The schema.
    pub schema: &'a RawValue,
    /// Whether it must be followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}
