//! How long things took: what components that count for themselves keep of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A histogram of durations, from a read of the database to the wait for an interpreter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many fell into each class of [`Latency::BOUNDS`], and above all of them; not cumulated.
    pub counts: [u64; Latency::BOUNDS.len() + 1],
    /// All durations together, in microseconds.
    pub sum_us: u64,
}

impl Latency {
    /// Upper bounds of the classes; each belongs to its class.
    pub const BOUNDS: [Duration; 14] = [
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_secs(1),
        Duration::from_secs(4),
        Duration::from_secs(15),
        Duration::from_secs(60),
    ];

    /// Counts one.
    pub(crate) fn record(&mut self, took: Duration) {
        let class = Self::BOUNDS.partition_point(|bound| *bound < took);
        if let Some(count) = self.counts.get_mut(class) {
            *count += 1;
        }
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_us = self.sum_us.saturating_add(took_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_classes() {
        let mut latency = Latency::default();
        for took_us in [1, 250, 251, 50_000, 50_001, 90_000_000] {
            latency.record(Duration::from_micros(took_us));
        }
        let counts = [2, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1];
        assert_eq!(latency.counts, counts);
        assert_eq!(latency.sum_us, 90_100_503);
        assert!(Latency::BOUNDS.is_sorted());
    }
}
