//! What the store has done so far: plain numbers, for metrics and tests.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Upper bounds of the buckets of [`StoreFacts::group_sizes`]; the last bucket has none.
pub const GROUP_SIZES: [usize; 6] = [1, 4, 16, 64, 128, 256];

/// Upper bounds of the buckets of [`StoreFacts::commit_times`] and [`StoreFacts::read_times`]; the
/// last bucket has none.
pub const TIMES: [Duration; 8] = [
    Duration::from_micros(250),
    Duration::from_millis(1),
    Duration::from_millis(4),
    Duration::from_millis(16),
    Duration::from_millis(64),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// A snapshot. Counts are since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// Writes that were committed.
    pub committed: u64,
    /// Writes that the database refused or that could not be tried.
    pub failed: u64,
    /// Writes that were turned away because too many wait.
    pub refused: u64,
    /// Writes whose asker waited too long.
    pub timed_out: u64,
    /// Attempts after the first, because a connection broke.
    pub retries: u64,
    /// Reads that succeeded.
    pub reads: u64,
    /// Reads that failed.
    pub failed_reads: u64,
    /// Ended responses that were removed for good.
    pub purged: u64,
    /// How many writes each transaction had, in buckets, not cumulated.
    pub group_sizes: [u64; GROUP_SIZES.len() + 1],
    /// How long each transaction took, retries included, in buckets, not cumulated.
    pub commit_times: [u64; TIMES.len() + 1],
    /// All transactions together.
    pub commit_time: Duration,
    /// How long each read took, in buckets, not cumulated.
    pub read_times: [u64; TIMES.len() + 1],
    /// All reads together.
    pub read_time: Duration,
    /// Writes that wait now.
    pub queued: usize,
    /// Connections of the pool that are open now; of SQLite the readers only.
    pub connections: u32,
    /// Those of them that have nothing to do.
    pub idle: u32,
}

/// The numbers while they grow. They stay on the store's thread.
#[derive(Debug, Default)]
pub(super) struct Counters(Cell<StoreFacts>);

impl Counters {
    /// Changes the facts.
    pub(super) fn note(&self, change: impl FnOnce(&mut StoreFacts)) {
        let mut facts = self.0.get();
        change(&mut facts);
        self.0.set(facts);
    }

    /// A transaction with so many writes took so long.
    pub(super) fn note_group(&self, writes: usize, took: Duration) {
        self.note(|facts| {
            let size = GROUP_SIZES.iter().position(|bound| writes <= *bound);
            count(&mut facts.group_sizes, size);
            count(&mut facts.commit_times, time_bucket(took));
            facts.commit_time += took;
        });
    }

    /// Counts a read, and how long it takes.
    pub(super) async fn timed<T, E>(
        &self,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let answer = read.await;
        let took = began.elapsed();
        self.note(|facts| {
            match answer {
                Ok(_) => facts.reads += 1,
                Err(_) => facts.failed_reads += 1,
            }
            count(&mut facts.read_times, time_bucket(took));
            facts.read_time += took;
        });
        answer
    }

    /// The counts so far; what is measured now is the caller's to fill in.
    pub(super) fn snapshot(&self) -> StoreFacts {
        self.0.get()
    }
}

fn time_bucket(took: Duration) -> Option<usize> {
    TIMES.iter().position(|bound| took <= *bound)
}

/// Counts in this bucket, or in the last.
fn count(buckets: &mut [u64], bucket: Option<usize>) {
    let last = buckets.len().saturating_sub(1);
    if let Some(count) = buckets.get_mut(bucket.unwrap_or(last)) {
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_upper_bound() {
        let counters = Counters::default();
        for (writes, millis) in [(1, 0), (2, 1), (4, 2), (256, 4000), (257, 4001)] {
            counters.note_group(writes, Duration::from_millis(millis));
        }
        let facts = counters.snapshot();
        assert_eq!(facts.group_sizes, [1, 2, 0, 0, 0, 1, 1]);
        assert_eq!(facts.commit_times, [1, 1, 1, 0, 0, 0, 0, 1, 1]);
        assert_eq!(counters.snapshot(), facts);
    }
}
