//! Content parts: what messages and tool outputs are made of.
//!
//! The same types serve both directions, since clients send back what they were sent.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::chat::lenient::{Count, Kept, List, object};

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

object! {
    /// Probability of one token, as chat completions and Responses both write it.
    #[derive(Clone, PartialEq, Serialize)]
    pub struct LogProb {
        /// The token as text.
        "token" token: Kept,
        /// Its UTF-8 bytes; a token may end inside a character.
        "bytes" bytes: Option<TokenBytes>,
        /// Natural logarithm of its probability.
        "logprob" logprob: Decimal,
        /// The likeliest tokens at this place.
        "top_logprobs" top_logprobs: List<TopLogProb>,
    }
}

object! {
    /// One of the likeliest tokens at a place.
    #[derive(Clone, PartialEq, Serialize)]
    pub struct TopLogProb {
        /// The token as text.
        "token" token: Kept,
        /// Its UTF-8 bytes.
        "bytes" bytes: Option<TokenBytes>,
        /// Natural logarithm of its probability.
        "logprob" logprob: Decimal,
    }
}

/// Bytes of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TokenBytes(pub Vec<u8>);

impl<'de> Deserialize<'de> for TokenBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = List::<Count>::deserialize(deserializer)?.0.into_iter();
        let bytes = bytes.filter_map(|byte| u8::try_from(byte.0?).ok());
        Ok(Self(bytes.collect()))
    }
}

impl LogProb {
    /// About how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        let bytes = self.bytes.as_ref().map_or(0, |bytes| bytes.0.len());
        let own = size_of::<Self>() + self.token.0.len() + bytes;
        own + self.top_logprobs.0.len() * 2 * size_of::<TopLogProb>()
    }

    /// Says the bytes of tokens where the server did not: clients' types want them.
    pub fn spell_out(&mut self) {
        let spell = |bytes: &mut Option<TokenBytes>, token: &Kept| {
            bytes.get_or_insert_with(|| TokenBytes(token.0.as_bytes().to_vec()));
        };
        spell(&mut self.bytes, &self.token);
        for likely in &mut self.top_logprobs.0 {
            spell(&mut likely.bytes, &likely.token);
        }
    }

    /// The bytes that the token adds to the text.
    pub fn spelt(&self) -> &[u8] {
        let bytes = self.bytes.as_ref().map(|bytes| &*bytes.0);
        bytes.unwrap_or(self.token.0.as_bytes())
    }
}

/// A number as it was written: read as a float and written again its last digit may change.
#[derive(Clone, Debug)]
pub struct Decimal(Box<RawValue>);

impl Decimal {
    fn of(text: &str) -> Self {
        // A number is JSON.
        Self(RawValue::from_string(text.to_owned()).unwrap_or_default())
    }
}

/// The number that stands for "very unlikely" where a server has none that JSON can write.
impl Default for Decimal {
    fn default() -> Self {
        Self::of("-9999.0")
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        // Beyond what a float holds no strict reader could read it.
        let number: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
        Ok(number.map_or_else(Self::default, |_| Self::of(text)))
    }
}
