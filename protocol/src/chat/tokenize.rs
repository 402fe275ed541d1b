//! vLLM's `/tokenize` in its chat form: how long a prompt is.

use serde::{Deserialize, Serialize};

use super::request::{ChatMessage, ChatTool, PassedOn, TemplateSwitches};

/// The body: what of a chat request makes the prompt.
#[derive(Debug, Serialize)]
pub struct TokenizeRequest<'a> {
    /// The model.
    pub model: &'a str,
    /// The conversation.
    pub messages: Vec<ChatMessage<'a>>,
    /// Functions the model may call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ChatTool<'a>>,
    /// Switches of the chat template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template_kwargs: Option<TemplateSwitches>,
    /// The client's own switches.
    #[serde(flatten)]
    pub passed_on: PassedOn<'a>,
}

/// What is read of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct TokenCount {
    /// Tokens of the prompt.
    pub count: u64,
    /// Most tokens of prompt and answer together.
    pub max_model_len: u64,
}
