//! Token counts of one model call, under all the names that servers give them.

use super::lenient::{Count, object};

object! {
    /// `usage`.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct ChatUsage {
        /// Tokens of the prompt.
        "prompt_tokens" prompt: Count,
        /// Tokens made, thinking included.
        "completion_tokens" completion: Count,
        /// The same two, in newer words.
        "input_tokens" input: Count,
        /// See `input`.
        "output_tokens" output: Count,
        /// What the prompt cache saved, and took.
        "prompt_tokens_details" prompt_details: PromptDetails,
        /// How much was thinking.
        "completion_tokens_details" completion_details: CompletionDetails,
        /// Moonshot's place for what the cache saved.
        "cached_tokens" cached: Count,
        /// `DeepSeek`'s.
        "prompt_cache_hit_tokens" cache_hit: Count,
        /// `SGLang`'s place for thinking.
        "reasoning_tokens" reasoning: Count,
    }
}

object! {
    /// `prompt_tokens_details`.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct PromptDetails {
        /// Prompt tokens found in the cache.
        "cached_tokens" cached: Count,
        /// Prompt tokens written to the cache.
        "cache_write_tokens" cache_write: Count,
    }
}

object! {
    /// `completion_tokens_details`.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct CompletionDetails {
        /// Tokens of thinking.
        "reasoning_tokens" reasoning: Count,
    }
}

impl ChatUsage {
    /// These counts, with earlier ones where they say nothing: some servers tell half of them in one
    /// chunk and half in another, or zeros in the last.
    #[must_use]
    pub fn over(self, before: Self) -> Self {
        let or = |later: Count, before: Count| if later.or_zero() > 0 { later } else { before };
        Self {
            prompt: or(self.prompt, before.prompt),
            completion: or(self.completion, before.completion),
            input: or(self.input, before.input),
            output: or(self.output, before.output),
            prompt_details: PromptDetails {
                cached: or(self.prompt_details.cached, before.prompt_details.cached),
                cache_write: or(
                    self.prompt_details.cache_write,
                    before.prompt_details.cache_write,
                ),
            },
            completion_details: CompletionDetails {
                reasoning: or(
                    self.completion_details.reasoning,
                    before.completion_details.reasoning,
                ),
            },
            cached: or(self.cached, before.cached),
            cache_hit: or(self.cache_hit, before.cache_hit),
            reasoning: or(self.reasoning, before.reasoning),
        }
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(self) -> u64 {
        first([self.prompt, self.input, Count(None)])
    }

    /// Tokens made, thinking included.
    pub fn completion_tokens(self) -> u64 {
        first([self.completion, self.output, Count(None)])
    }

    /// Prompt tokens found in the cache.
    pub fn cached_tokens(self) -> u64 {
        first([self.prompt_details.cached, self.cached, self.cache_hit])
    }

    /// Prompt tokens written to the cache.
    pub fn cache_write_tokens(self) -> u64 {
        first([self.prompt_details.cache_write, Count(None), Count(None)])
    }

    /// Tokens of thinking, a part of those made.
    pub fn reasoning_tokens(self) -> u64 {
        let details = self.completion_details.reasoning;
        first([details, self.reasoning, Count(None)])
    }
}

/// No model call has so many tokens: a count above it is an error of the server's, which would close a
/// limit of tokens for a long time, and above 2^63 clients could not read it.
const MOST: u64 = 1_000_000_000;

fn first(counts: [Count; 3]) -> u64 {
    let counts = counts.iter().filter_map(|count| count.0);
    let mut sound = counts.filter(|count| *count <= MOST);
    sound.next().unwrap_or(0)
}
