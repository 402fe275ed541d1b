//! What the store has done so far: plain numbers, for metrics and tests.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::latency::Latency;

/// Upper bounds of the buckets of [`StoreFacts::group_sizes`]; the last bucket has none.
pub const GROUP_SIZES: [usize; 6] = [1, 4, 16, 64, 128, 256];

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
    /// Batches that this took; other writes pass between them.
    pub purges: u64,
    /// The largest of them, in responses.
    pub largest_purge: u64,
    /// How many writes each transaction had, in buckets, not cumulated.
    pub group_sizes: [u64; GROUP_SIZES.len() + 1],
    /// How long each transaction took, retries included.
    pub commits: Latency,
    /// How long each read took.
    pub read_times: Latency,
    /// Writes that wait now.
    pub queued: usize,
    /// Connections that read and are open now; another one writes.
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
            let size = GROUP_SIZES.partition_point(|bound| *bound < writes);
            if let Some(count) = facts.group_sizes.get_mut(size) {
                *count += 1;
            }
            facts.commits.record(took);
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
            facts.read_times.record(took);
        });
        answer
    }

    /// A batch removed so many responses.
    pub(super) fn note_purge(&self, rows: usize) {
        let rows = u64::try_from(rows).unwrap_or_default();
        self.note(|facts| {
            facts.purged += rows;
            facts.purges += 1;
            facts.largest_purge = facts.largest_purge.max(rows);
        });
    }

    /// The counts so far; what is measured now is the caller's to fill in.
    pub(super) fn snapshot(&self) -> StoreFacts {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_upper_bound() {
        let counters = Counters::default();
        for writes in [1, 2, 4, 256, 257] {
            counters.note_group(writes, Duration::from_secs(1));
        }
        let facts = counters.snapshot();
        assert_eq!(facts.group_sizes, [1, 2, 0, 0, 0, 1, 1]);
        assert_eq!(facts.commits.sum_us, 5_000_000);
        assert_eq!(counters.snapshot(), facts);
    }
}
