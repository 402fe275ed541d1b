//! What the cache tells about itself, as numbers since the start.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// See the module. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheFacts {
    /// Chains answered from Redis.
    pub hits: u64,
    /// Chains that Redis did not have, or not whole.
    pub misses: u64,
    /// Chains for which Redis was not asked, or not believed: see the cache's page.
    pub bypasses: u64,
    /// Entries found damaged.
    pub damaged: u64,
    /// Operations that Redis did not answer, answered too late, or answered with an error.
    pub errors: u64,
    /// Chains written to Redis.
    pub fills: u64,
    /// Deletions that had to begin a new epoch because Redis could not be reached.
    pub epochs_begun: u64,
    /// Whether Redis is being left alone after failures.
    pub breaker_open: bool,
    /// How long operations took, those that failed too.
    pub latency: Latency,
}

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many fell into each class of [`Latency::BOUNDS_US`], and above all of them.
    pub counts: [u64; Latency::BOUNDS_US.len() + 1],
    /// All durations together, in microseconds.
    pub sum_us: u64,
}

impl Latency {
    /// Upper bounds of the classes, in microseconds.
    pub const BOUNDS_US: [u64; 7] = [250, 500, 1_000, 5_000, 10_000, 25_000, 50_000];

    pub(super) fn record(&mut self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = Self::BOUNDS_US.partition_point(|bound| *bound < took_us);
        if let Some(count) = self.counts.get_mut(class) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(took_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_classes() {
        let mut latency = Latency::default();
        for took_us in [1, 250, 251, 50_000, 50_001, 9_000_000] {
            latency.record(Duration::from_micros(took_us));
        }
        assert_eq!(latency.counts, [2, 1, 0, 0, 0, 0, 1, 2]);
        assert_eq!(latency.sum_us, 9_100_503);
    }
}
