//! `truncation: auto`: a prompt that is too long goes again without its oldest turns.
//!
//! Nothing is counted before the upstream has refused a prompt, so that ordinary requests cost
//! nothing. Then its own count, where it tells one, says how many turns must go; otherwise half of
//! those that are left go each time.

use serde::Serialize;

use super::effect::{Action, Effects};
use super::fault::Explained;
use super::{Purpose, Turn};
use crate::chat::tokenize::TokenCount;
use crate::error::ApiErrorCode;
use crate::responses::settings::Truncation;
use crate::translate::{self, Ask, ChoiceMode, Efforts, Pictures};

/// Most further attempts of one model call.
const MAX_ATTEMPTS: u32 = 8;

/// The part of the model's window that is kept free for the answer.
const FREE: u64 = 16;

/// Tokens of a summary, thinking included, where the client sets no bound.
const SUMMARY_TOKENS: u64 = 16_384;

/// With fewer tokens there is no summary to be had.
const LEAST_SUMMARY: u64 = 256;

/// The answer of `POST /v1/responses/input_tokens`.
#[derive(Serialize)]
struct InputTokens {
    object: &'static str,
    input_tokens: u64,
}

/// What a model call is made with, beside the conversation, and what was left out of it.
#[derive(Debug)]
pub(super) struct Shortening {
    pub(super) choice: ChoiceMode,
    pub(super) efforts: Efforts,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) left_out: usize,
    pub(super) pictures: Pictures,
    attempts: u32,
    /// The refusal, while the upstream counts.
    refused: Option<Explained>,
}

impl Shortening {
    pub(super) fn new(choice: ChoiceMode) -> Self {
        Self {
            choice,
            efforts: Efforts::AsAsked,
            max_output_tokens: None,
            left_out: 0,
            pictures: Pictures::Shown,
            attempts: 0,
            refused: None,
        }
    }

    /// Whether the model call is over and the prompt is being counted.
    pub(super) fn is_counting(&self) -> bool {
        self.refused.is_some()
    }
}

impl Turn {
    /// Whether the client lets turns be left out.
    pub(super) fn may_leave_out(&self) -> bool {
        self.request.settings.truncation == Some(Truncation::Auto)
    }

    /// A model call was refused or failed: it is made again if that can help, else this is the end.
    pub(super) fn shorten_or(&mut self, now_ms: i64, fault: Explained, effects: &mut Effects) {
        if self.is_own_bound_too_large(&fault) {
            return self.count_first(now_ms, fault, effects);
        }
        let most = self.turns_to_leave_out();
        let too_long = fault.error.code == ApiErrorCode::ContextLengthExceeded;
        let again = too_long
            && self.may_leave_out()
            && self.call.left_out < most
            && self.call.attempts < MAX_ATTEMPTS;
        if !again {
            return self.conclude_or(now_ms, fault, effects);
        }
        self.call.attempts += 1;
        if self.call.attempts > 1 {
            let left = most - self.call.left_out;
            return self.call_without(self.call.left_out + left.div_ceil(2), effects);
        }
        self.count_first(now_ms, fault, effects);
    }

    /// Has the refused prompt counted.
    fn count_first(&mut self, now_ms: i64, fault: Explained, effects: &mut Effects) {
        match self.with_ask(self.call.left_out, translate::tokenize_body) {
            Ok(body) => {
                self.call.refused = Some(fault);
                effects.actions.push(Action::CountTokens(body));
            }
            Err(_) => self.conclude_or(now_ms, fault, effects),
        }
    }

    /// The bound of a summary that the client did not bound, so that no model writes to the end of its
    /// window.
    pub(super) fn own_bound(&self) -> Option<u64> {
        (self.compacts() && self.purpose != Purpose::Count).then_some(SUMMARY_TOKENS)
    }

    /// Whether a call was refused for a bound of ours that has not been fitted to the window.
    fn is_own_bound_too_large(&self, fault: &Explained) -> bool {
        let is_about_room = fault.error.code == ApiErrorCode::ContextLengthExceeded
            || fault.error.param.as_deref() == Some("max_output_tokens");
        is_about_room
            && self.request.settings.max_output_tokens.is_none()
            && self.call.max_output_tokens == Some(SUMMARY_TOKENS)
    }

    /// Bounds a summary by what is left of the window; where that is not known, by nothing. Says
    /// whether it may be asked for now.
    fn fit_own_bound(&mut self, count: Option<TokenCount>) -> bool {
        let left = count.map(|count| count.max_model_len.saturating_sub(count.count));
        self.call.max_output_tokens = left.map(|left| left.min(SUMMARY_TOKENS - 1));
        left.is_none_or(|left| left >= LEAST_SUMMARY)
    }

    /// The upstream has counted, or cannot.
    pub(super) fn counted(&mut self, count: Option<TokenCount>, effects: &mut Effects) {
        let Some(fault) = self.call.refused.take() else {
            return;
        };
        if self.is_own_bound_too_large(&fault) {
            if self.fit_own_bound(count) {
                return self.call_again(effects);
            }
            if !self.may_leave_out() {
                return self.fail(fault, effects);
            }
            let quarter = count.map_or(0, |count| count.max_model_len / 4);
            self.call.max_output_tokens = Some(quarter.clamp(LEAST_SUMMARY, SUMMARY_TOKENS - 1));
        }
        let most = self.turns_to_leave_out();
        let half = self.call.left_out + (most - self.call.left_out).div_ceil(2);
        let enough = count.and_then(|count| self.enough(count, most));
        self.call_without(enough.unwrap_or(half), effects);
    }

    /// Ends a turn that is there to count.
    pub(super) fn tell_count(&mut self, count: Option<TokenCount>, effects: &mut Effects) {
        let Some(count) = count else {
            let message = "the upstream model server does not count tokens: it has no `/tokenize` \
                           as vLLM has, or does not know the model";
            let fault = Explained::new(ApiErrorCode::UpstreamBadResponse, message);
            return self.fail(fault, effects);
        };
        let told = InputTokens {
            object: "response.input_tokens",
            input_tokens: count.count,
        };
        crate::json_text::append(&mut effects.bytes, &told);
        effects.actions.push(Action::Answer);
        self.end(effects);
    }

    /// How many turns must go, by this count of the whole prompt: a share of its bytes is taken for
    /// the same share of its tokens.
    fn enough(&self, count: TokenCount, most: usize) -> Option<usize> {
        let wanted = self.call.max_output_tokens.unwrap_or(0);
        let room = count.max_model_len / FREE;
        let room = count.max_model_len.saturating_sub(wanted.max(room));
        let length = |left_out| {
            let body = self.with_ask(left_out, translate::tokenize_body);
            body.ok()
                .and_then(|body| u64::try_from(self.marks.whole_length(&body)).ok())
        };
        let whole = length(self.call.left_out)?.max(1);
        let (mut least, mut enough) = (self.call.left_out + 1, most);
        while least < enough {
            let middle = least.midpoint(enough);
            let tokens = length(middle)?.saturating_mul(count.count) / whole;
            if tokens <= room {
                enough = middle;
            } else {
                least = middle + 1;
            }
        }
        Some(enough)
    }

    fn call_without(&mut self, left_out: usize, effects: &mut Effects) {
        self.call.left_out = left_out;
        effects.actions.push(Action::LeftOut(left_out));
        self.call_again(effects);
    }

    fn call_again(&mut self, effects: &mut Effects) {
        match self.with_ask(self.call.left_out, translate::chat_body) {
            Ok(body) => {
                self.begin_call();
                effects.actions.push(Action::CallModel(body));
            }
            Err(error) => self.fail(Explained::of(error), effects),
        }
    }

    fn turns_to_leave_out(&self) -> usize {
        self.with_ask(0, translate::turns_to_leave_out)
    }

    /// Calls `write` with what the running model call was made with.
    pub(super) fn with_ask<T>(&self, left_out: usize, write: impl FnOnce(Ask<'_>) -> T) -> T {
        let produced = self.composer.items();
        write(Ask {
            request: &self.request,
            catalogue: &self.catalogue,
            history: &self.history,
            produced: &produced,
            mode: self.mode(),
            choice: self.call.choice,
            efforts: self.call.efforts,
            max_output_tokens: self.call.max_output_tokens,
            left_out,
            pictures: self.call.pictures,
        })
    }
}
