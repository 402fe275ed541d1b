//! Content parts: what messages and tool outputs are made of.
//!
//! The same types serve both directions, since clients send back what they were sent.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One part of a message or of a function's output.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text from the client.
    InputText {
        /// The text.
        text: Box<str>,
    },
    /// A picture from the client.
    InputImage(InputImage),
    /// Text from the model.
    OutputText(OutputText),
    /// The model's refusal.
    Refusal {
        /// Its words.
        refusal: Box<str>,
    },
}

/// A picture, by URL or data URL.
#[derive(Clone, Debug, Serialize)]
pub struct InputImage {
    /// `https:` or `data:` URL; handed to the upstream as it is.
    pub image_url: Box<str>,
    /// How closely the model looks.
    pub detail: ImageDetail,
}

/// `detail` of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageDetail {
    /// The model decides.
    #[default]
    Auto,
    /// Cheap.
    Low,
    /// Fine.
    High,
    /// As it is.
    Original,
}

/// Text from the model.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OutputText {
    /// The text.
    pub text: Box<str>,
    /// Citations, kept as they came; a vLLM makes none itself.
    pub annotations: Vec<Box<RawValue>>,
    /// Per-token probabilities; empty unless `include` asked for them.
    pub logprobs: Vec<LogProb>,
}

/// Probability of one token, as chat completions and Responses both write it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogProb {
    /// The token as text.
    pub token: Box<str>,
    /// Its UTF-8 bytes; a token may end inside a character.
    #[serde(default)]
    pub bytes: Option<Vec<u8>>,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// The likeliest tokens at this place.
    #[serde(default)]
    pub top_logprobs: Vec<TopLogProb>,
}

impl LogProb {
    /// About how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        let bytes = self.bytes.as_ref().map_or(0, Vec::len);
        let own = size_of::<Self>() + self.token.len() + bytes;
        own + self.top_logprobs.len() * 2 * size_of::<TopLogProb>()
    }
}

/// One of the likeliest tokens at a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopLogProb {
    /// The token as text.
    pub token: Box<str>,
    /// Its UTF-8 bytes.
    #[serde(default)]
    pub bytes: Option<Vec<u8>>,
    /// Natural logarithm of its probability.
    pub logprob: f64,
}
