//! Where a response's time went, and what was said: the two optional log lines of a turn.

use std::time::{Duration, Instant};

/// Longest piece of a message that is logged, in bytes.
const MAX_LOGGED: usize = 8192;

/// Moments of one turn.
#[derive(Debug)]
pub(super) struct Timings {
    begun: Instant,
    /// The history was there and the model was called, for the first time.
    pub(super) hydrated: Option<Instant>,
    /// The upstream's first status line, or its refusal.
    pub(super) answered: Option<Instant>,
    /// The first bytes of a streamed answer.
    pub(super) first_read: Option<Instant>,
    /// The first bytes for a streaming client.
    pub(super) first_byte: Option<Instant>,
    /// The record went to the store.
    pub(super) decided: Option<Instant>,
    /// The last byte was handed over.
    pub(super) ended: Option<Instant>,
    /// Spent in gateway calls, summed over calls that ran at the same time.
    pub(super) tools: Duration,
}

impl Timings {
    pub(super) fn begin(begun: Instant) -> Self {
        Self {
            begun,
            hydrated: None,
            answered: None,
            first_read: None,
            first_byte: None,
            decided: None,
            ended: None,
            tools: Duration::ZERO,
        }
    }

    /// How long the model's first words took.
    pub(super) fn first_read(&self) -> Option<Duration> {
        self.first_read.map(|first| first - self.begun)
    }

    /// One line; what did not happen is -1. Times are milliseconds since the turn began.
    pub(super) fn log(&self, request_id: &str, response_id: &str) {
        let since = |moment: Option<Instant>| -> i64 {
            moment.map_or(-1, |moment| {
                i64::try_from((moment - self.begun).as_millis()).unwrap_or(i64::MAX)
            })
        };
        log::info!(
            request_id, response_id,
            hydrated_ms = since(self.hydrated),
            answered_ms = since(self.answered),
            first_byte_ms = since(self.first_byte),
            decided_ms = since(self.decided),
            tools_ms = u64::try_from(self.tools.as_millis()).unwrap_or(u64::MAX),
            total_ms = since(self.ended.or_else(|| Some(Instant::now())));
            "timings"
        );
    }
}

/// The beginning of a message to or from the model.
pub(super) fn log_messages(request_id: &str, direction: &str, message: &[u8]) {
    let head = message.get(..MAX_LOGGED).unwrap_or(message);
    log::info!(request_id; "{direction}: {}", String::from_utf8_lossy(head));
}
