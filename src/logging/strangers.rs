//! Lines about clients that do not speak HTTP: one a minute, with how many there were in between.
//!
//! Anybody who reaches the port can send such bytes, a port scanner or a client that speaks TLS to a plain
//! port, as often as it likes: no reason to wake an operator, nor to fill a log.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use log::{Level, Log, Record};

/// Milliseconds between two such lines.
const EVERY: u64 = 60_000;
/// The HTTP server's own target; at these levels it speaks of single connections only.
const SERVER: &str = "actix_http";

/// What has been told, and how much has not.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// When the last line was written, in milliseconds; 0 for never.
    told: AtomicU64,
    untold: AtomicU64,
}

impl Strangers {
    pub(super) const fn new() -> Self {
        Self {
            told: AtomicU64::new(0),
            untold: AtomicU64::new(0),
        }
    }

    /// Whether the record is about a stranger; then this has seen to it.
    pub(super) fn take(&self, record: &Record<'_>, now: u64, logger: &dyn Log) -> bool {
        if record.level() > Level::Warn || !record.target().starts_with(SERVER) {
            return false;
        }
        if let Some(before) = self.admit(now) {
            let text = record.args().to_string();
            let why = text.strip_prefix("stream error: ").unwrap_or(&text);
            let mut line = Record::builder();
            line.level(Level::Warn).target(module_path!());
            logger.log(
                &line
                    .args(format_args!(
                        "a client sent what is no HTTP/1.1 request, or does not take its answer \
                         ({why}); {before} more since the last such line"
                    ))
                    .build(),
            );
        }
        true
    }

    /// How many were passed over since the last line, if it is time for another.
    fn admit(&self, now: u64) -> Option<u64> {
        let told = self.told.load(Relaxed);
        // A clock that was set back does not silence the log.
        let is_due = told == 0 || now.abs_diff(told) >= EVERY;
        // Of several threads one writes.
        if is_due
            && self
                .told
                .compare_exchange(told, now.max(1), Relaxed, Relaxed)
                .is_ok()
        {
            return Some(self.untold.swap(0, Relaxed));
        }
        self.untold.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_counts_the_rest() {
        let strangers = Strangers::new();
        assert_eq!(strangers.admit(1000), Some(0));
        for at in 1000..1100 {
            assert_eq!(strangers.admit(at), None);
        }
        assert_eq!(strangers.admit(61_000), Some(100));
        assert_eq!(strangers.admit(61_001), None);
        assert_eq!(strangers.admit(10), Some(1), "the clock was set back");
    }
}
