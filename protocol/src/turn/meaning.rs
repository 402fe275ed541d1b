//! What a model server's refusal means, known by its code or by words of it.

use std::borrow::Cow;

use crate::chat::complaint::Complaint;

/// Codes and kinds of a prompt that does not fit the model's window.
const OVERFLOW_CODES: &[&str] = &[
    // OpenAI, Azure, OpenRouter, Groq.
    "context_length_exceeded",
    // llama.cpp.
    "exceed_context_size_error",
    // LiteLLM, from any provider.
    "ContextWindowExceededError",
    "model_context_window_exceeded",
];

/// Phrases of the same, in small letters.
const OVERFLOW_PHRASES: &[&str] = &[
    // OpenAI and vLLM; Mistral's API.
    "maximum context length",
    // vLLM's engine, for a prompt that just fills the window.
    "longer than the maximum model length",
    // SGLang.
    "longer than the model's context length",
    // llama.cpp.
    "exceeds the available context size",
    // Ollama.
    "exceeds context length",
    "exceeds the context length",
    // LM Studio.
    "when context the overflows",
    "model is loaded with context length of only",
    // Gemini.
    "exceeds the maximum number of tokens allowed",
    // Anthropic behind a proxy.
    "prompt is too long",
    // TGI.
    "`inputs` must have less than",
    "`inputs` tokens + `max_new_tokens` must be",
    // Moonshot.
    "exceeded model token limit",
    // Groq.
    "reduce the length of the messages",
];

/// Names that servers have for the limit of the answer.
const LIMITS: &[&str] = &["max_completion_tokens", "max_new_tokens", "max_tokens"];

/// Kinds of errors that name a status, for errors without one.
const KINDS: &[(&str, u16)] = &[
    ("invalid_request_error", 400),
    ("badrequesterror", 400),
    ("invalid_argument", 400),
    ("exceed_context_size_error", 400),
    ("context_length_exceeded", 400),
    ("content_filter", 400),
    ("notfounderror", 404),
    ("model_not_found", 404),
    ("authentication_error", 401),
    ("permission_error", 403),
    ("rate_limit_error", 429),
    ("rate_limit_exceeded", 429),
    ("resource_exhausted", 429),
    ("overloaded_error", 503),
    ("overloaded", 503),
    ("service_unavailable", 503),
    ("unavailable", 503),
    ("unavailable_error", 503),
];

/// The status that a kind of error stands for.
pub(super) fn status_of(kind: &str) -> Option<u16> {
    let mut kinds = KINDS.iter();
    let known = kinds.find(|(known, _)| known.eq_ignore_ascii_case(kind))?;
    Some(known.1)
}

/// Whether the prompt does not fit the model's window.
pub(super) fn is_overflow(complaint: &Complaint<'_>, words: &str) -> bool {
    let mut codes = complaint.codes.iter();
    let code = codes.any(|code| OVERFLOW_CODES.contains(&&**code));
    let words = words.to_ascii_lowercase();
    code || OVERFLOW_PHRASES.iter().any(|phrase| words.contains(phrase))
}

/// Whether the limit of the answer alone is more than the model can do. A limit within the window
/// that has no room beside the prompt is a prompt that is too long.
pub(super) fn asks_too_much(words: &str) -> bool {
    let small = words.to_ascii_lowercase();
    let named = LIMITS.iter().any(|name| small.contains(name));
    let refused = [
        "too large",
        "cannot be greater than",
        "must be less than or equal to",
        "at most",
    ];
    if !named || !refused.iter().any(|phrase| small.contains(phrase)) {
        return false;
    }
    let asked = number_behind(&small, "too large: ");
    let window = number_behind(&small, "maximum context length is ");
    match (asked, window) {
        (Some(asked), Some(window)) => asked > window,
        (_, _) => true,
    }
}

fn number_behind(words: &str, phrase: &str) -> Option<u64> {
    let (_, rest) = words.split_once(phrase)?;
    let digits = rest.find(|character: char| !character.is_ascii_digit());
    rest.get(..digits.unwrap_or(rest.len()))?.parse().ok()
}

/// The words with the client's name of the limit in place of the model server's.
pub(super) fn in_our_terms(words: &str) -> String {
    let both = "'max_tokens' or 'max_completion_tokens'";
    let mut words = Cow::Borrowed(words);
    for name in [&[both][..], LIMITS].concat() {
        let ours = if name == both {
            "`max_output_tokens`"
        } else {
            "max_output_tokens"
        };
        if words.contains(name) {
            words = Cow::Owned(words.replace(name, ours));
        }
    }
    words.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overflow(code: &str, words: &str) -> bool {
        let complaint = Complaint {
            codes: [Cow::Borrowed(code), Cow::Borrowed("")],
            ..Complaint::default()
        };
        is_overflow(&complaint, words)
    }

    #[test]
    fn s2_2_a_prompt_that_is_too_long_is_known_from_every_server() {
        for words in [
            "This model's maximum context length is 100 tokens.",
            "The decoder prompt (length 90) is longer than the maximum model length of 64.",
            "The prompt (total length 9) is longer than the maximum model length plus the number of \
             requested output tokens (at least 1) is longer than the maximum model length of 8",
            "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
            "the request exceeds the available context size, try increasing it",
            "The input token count (12) exceeds the maximum number of tokens allowed (10).",
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048.",
            "Invalid request: Your request exceeded model token limit: 8192",
        ] {
            assert!(overflow("", words), "{words}");
            assert!(!asks_too_much(words), "{words}");
        }
        for code in ["context_length_exceeded", "exceed_context_size_error"] {
            assert!(overflow(code, "no"), "{code}");
        }
        assert!(!overflow(
            "invalid_request_error",
            "the picture is too large"
        ));
    }

    #[test]
    fn a_limit_that_is_too_large_is_no_long_prompt() {
        for (words, told) in [
            (
                "max_tokens=5000 cannot be greater than max_model_len=2048.",
                "max_output_tokens=5000 cannot be greater than max_model_len=2048.",
            ),
            (
                "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum \
                 context length is 2048 tokens and your request has 9 input tokens",
                "`max_output_tokens` is too large: 5000. This model's maximum \
                 context length is 2048 tokens and your request has 9 input tokens",
            ),
            (
                "max_tokens is too large: 5000. This model supports at most 4096 completion tokens",
                "max_output_tokens is too large: 5000. This model supports at most 4096 completion tokens",
            ),
        ] {
            assert!(asks_too_much(words), "{words}");
            assert_eq!(in_our_terms(words), told);
        }
        // The prompt leaves no room for what is asked for: a shorter one would.
        let room = "'max_tokens' or 'max_completion_tokens' is too large: 600. This model's maximum \
                    context length is 2048 tokens and your request has 1500 input tokens";
        assert!(!asks_too_much(room) && overflow("", room));
    }
}
