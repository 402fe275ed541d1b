//! Where a response's time went, and what was said: the two optional log lines of a turn.

use std::time::{Duration, Instant};

use vllm_responses_protocol::blob::Marks;
use vllm_responses_protocol::responses::response::Usage;
use vllm_responses_protocol::turn::effect::Complained;

use crate::origin::Origin;
use crate::supervisor::messages::TurnLog;

/// Longest piece of a message that is logged, in bytes.
const MAX_LOGGED: usize = 8192;

/// Moments of one turn.
#[derive(Debug)]
pub(super) struct Timings {
    begun: Instant,
    /// From the request's arrival to the permit.
    queued: Duration,
    /// The history was there and the model was called, for the first time.
    pub(super) hydrated: Option<Instant>,
    /// The first bytes of the model's first answer.
    pub(super) first_token: Option<Instant>,
    /// Spent in gateway calls, summed over calls that ran at the same time.
    pub(super) tools: Duration,
    /// The record went to the store.
    pub(super) decided: Option<Instant>,
    /// The store acknowledged it, or did not.
    pub(super) stored: Option<Instant>,
    /// The last byte was handed over.
    pub(super) ended: Option<Instant>,
}

impl Timings {
    pub(super) fn begin(begun: Instant, queued: Duration) -> Self {
        Self {
            begun,
            queued,
            hydrated: None,
            first_token: None,
            tools: Duration::ZERO,
            decided: None,
            stored: None,
            ended: None,
        }
    }

    /// How long the model's first words took.
    pub(super) fn first_token(&self) -> Option<Duration> {
        self.first_token.map(|first| first - self.begun)
    }

    /// One line; what did not happen is -1. `hydrate`, `first_token` and `total` count from where the
    /// turn began, which is where `queue` ended.
    pub(super) fn log(&self, origin: &Origin, usage: Option<Usage>) {
        let since = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => millis(to.saturating_duration_since(from)),
            _ => -1,
        };
        let begun = Some(self.begun);
        log::info!(
            request_id = &*origin.request_id, response_id = &*origin.response_id,
            queue_ms = millis(self.queued),
            hydrate_ms = since(begun, self.hydrated),
            first_token_ms = since(begun, self.first_token),
            input_tokens = count(usage.map(Usage::input_tokens)),
            output_tokens = count(usage.map(Usage::output_tokens)),
            tools_ms = millis(self.tools),
            store_ms = since(self.decided, self.stored),
            total_ms = since(begun, self.ended.or_else(|| Some(Instant::now())));
            "timings"
        );
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn count(tokens: Option<u64>) -> i64 {
    tokens.map_or(-1, |tokens| i64::try_from(tokens).unwrap_or(i64::MAX))
}

/// The beginning of a message to or from the model.
pub(super) fn log_messages(origin: &Origin, direction: &str, message: &[u8], marks: Marks) {
    let head = marks.shown(message, MAX_LOGGED);
    log::info!(
        request_id = &*origin.request_id, response_id = &*origin.response_id, bytes = marks.whole_length(message);
        "{direction}: {}", String::from_utf8_lossy(&head)
    );
}

/// What a model server said in place of an answer, or inside one. Its words may quote the prompt: they
/// are for those who have what is said in their log anyway.
pub(super) fn log_complaint(origin: &Origin, told: &Complained, log: TurnLog) {
    log::warn!(
        request_id = &*origin.request_id, response_id = &*origin.response_id,
        upstream_status = told.status.unwrap_or_default(), code = told.code.wire().unwrap_or_default(),
        bytes = told.words.len();
        "the model server told of a fault inside its answer"
    );
    if log.model_messages {
        log::debug!(request_id = &*origin.request_id, response_id = &*origin.response_id;
            "the model server's words: {}", told.words);
    }
}
