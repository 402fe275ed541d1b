//! Why an answer ended: one table from the words of servers to what they mean.

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// By itself, or a word of a later server.
    Stop,
    /// By a limit on tokens.
    Length,
    /// By a filter.
    ContentFilter,
    /// The model server gave the request up.
    Aborted,
}

/// What the words mean that mean anything but [`FinishReason::Stop`], in small letters.
///
/// `stop`, `tool_calls`, `function_call`, `eos_token` (TGI), `stop_sequence` (TGI, Anthropic),
/// `end_turn`, `tool_use` (Anthropic behind a proxy) and words that are not known mean a whole answer.
const WORDS: &[(&str, FinishReason)] = &[
    // OpenAI, vLLM, and whoever speaks as they do.
    ("length", FinishReason::Length),
    ("content_filter", FinishReason::ContentFilter),
    // vLLM and SGLang, when a request is given up.
    ("abort", FinishReason::Aborted),
    ("error", FinishReason::Aborted),
    // Mistral: the window of the model is full.
    ("model_length", FinishReason::Length),
    // Gemini's API (`MAX_TOKENS`), Cohere, Anthropic behind proxies.
    ("max_tokens", FinishReason::Length),
    ("max_output_tokens", FinishReason::Length),
    ("model_context_window_exceeded", FinishReason::Length),
    // DeepSeek: interrupted for want of resources.
    ("insufficient_system_resource", FinishReason::Aborted),
    // Zhipu (GLM).
    ("network_error", FinishReason::Aborted),
    ("sensitive", FinishReason::ContentFilter),
    // Gemini's API.
    ("safety", FinishReason::ContentFilter),
    ("recitation", FinishReason::ContentFilter),
    ("blocklist", FinishReason::ContentFilter),
    ("prohibited_content", FinishReason::ContentFilter),
    ("spii", FinishReason::ContentFilter),
    ("image_safety", FinishReason::ContentFilter),
    ("malformed_function_call", FinishReason::Aborted),
    // Bedrock and Anthropic behind proxies.
    ("guardrail_intervened", FinishReason::ContentFilter),
    ("refusal", FinishReason::ContentFilter),
    // Others that give up.
    ("cancelled", FinishReason::Aborted),
    ("failed", FinishReason::Aborted),
    ("incomplete", FinishReason::Length),
    ("timeout", FinishReason::Aborted),
];

/// What some servers write on chunks that end nothing.
const GOES_ON: [&str; 9] = [
    "",
    "null",
    "none",
    "in_progress",
    "0",
    "unfinished",
    "false",
    "pending",
    "finish_reason_unspecified",
];

impl FinishReason {
    /// What this word means; an empty one is none.
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.trim();
        if GOES_ON.iter().any(|none| none.eq_ignore_ascii_case(word)) {
            return None;
        }
        // Gemini puts `function_call_filter: ` before some.
        let word = word.rsplit(": ").next().unwrap_or(word);
        let mut words = WORDS.iter();
        let known = words.find(|(known, _)| known.eq_ignore_ascii_case(word));
        Some(known.map_or(Self::Stop, |(_, reason)| *reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s2_9_words_of_all_servers_are_known() {
        for (word, reason) in [
            ("", None),
            ("null", None),
            (" ", None),
            ("false", None),
            ("pending", None),
            ("FINISH_REASON_UNSPECIFIED", None),
            ("None", None),
            ("in_progress", None),
            ("failed", Some(FinishReason::Aborted)),
            ("incomplete", Some(FinishReason::Length)),
            ("stop", Some(FinishReason::Stop)),
            ("tool_calls", Some(FinishReason::Stop)),
            ("function_call", Some(FinishReason::Stop)),
            ("eos_token", Some(FinishReason::Stop)),
            ("STOP", Some(FinishReason::Stop)),
            ("length", Some(FinishReason::Length)),
            ("model_length", Some(FinishReason::Length)),
            ("MAX_TOKENS", Some(FinishReason::Length)),
            ("SAFETY", Some(FinishReason::ContentFilter)),
            ("content_filter", Some(FinishReason::ContentFilter)),
            ("insufficient_system_resource", Some(FinishReason::Aborted)),
            (
                "function_call_filter: MALFORMED_FUNCTION_CALL",
                Some(FinishReason::Aborted),
            ),
        ] {
            assert_eq!(FinishReason::parse(word), reason, "{word}");
        }
    }
}
