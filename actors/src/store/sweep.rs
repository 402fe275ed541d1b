//! Removes, a little at a time, responses that have ended and that nothing live needs.
//!
//! A response has ended when it is deleted or expired. It goes when nothing continues it any more, and
//! takes the ended ancestors along that only it kept. Reading finds candidates; only removing them
//! stands in the writer's queue, in batches short enough that no other write waits long.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::backend::Readers;
use super::messages::StoreError;
use super::rows::DeadRow;
use super::writer::{Job, Purge, What, Write};
use crate::env::{Clock as _, SystemClock};

/// How long an ended response stays: a turn that began before the end may still come to continue it,
/// and no turn takes this long.
pub const GRACE: Duration = Duration::from_secs(3600);

/// How long an approval is remembered at least. Of a conversation that is stored it is remembered as
/// long as the conversation; clients who keep their own may repeat one for so long.
const CLAIM_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Rows looked at in one read.
const PAGE: u16 = 256;
/// Other writes wait at most about this long for a batch.
const BATCH: Duration = Duration::from_millis(20);
/// Most and fewest rows of a batch. Fewer would not make it shorter: a transaction and its round trips
/// cost more than so many rows.
const LARGEST: usize = 256;
const SMALLEST: usize = 32;
/// The writer is left to others for this many times what a batch took.
const REST: u32 = 4;
/// The same for whole sweeps: rows that are needed although they ended are looked at each time.
const SWEEP_REST: u32 = 20;

/// Sweeps for ever.
pub(super) async fn run(readers: Readers, writes: mpsc::Sender<Job>, interval: Duration) {
    let mut wait = interval;
    let mut ground = Live { readers, writes };
    loop {
        tokio::time::sleep(wait).await;
        let grace_ms = i64::try_from(GRACE.as_millis()).unwrap_or(i64::MAX);
        let before_ms = SystemClock.now_ms().saturating_sub(grace_ms);
        let mut sweep = Sweep::new(before_ms, Pace::gentle());
        match sweep.all(&mut ground).await {
            Ok(()) if sweep.removed == 0 => {}
            Ok(()) => {
                let rows = sweep.removed;
                log::info!(rows; "removed responses that had expired or were deleted");
            }
            Err(error) => log::warn!("responses that have ended could not be removed: {error}"),
        }
        wait = interval.max(sweep.reading.saturating_mul(SWEEP_REST));
    }
}

/// What is swept.
pub(super) trait Ground {
    /// Responses that ended before `before_ms`, in the order of their end, behind `at`.
    async fn ended(
        &mut self,
        at: (i64, String),
        before_ms: i64,
        limit: i64,
    ) -> Result<Vec<DeadRow>, StoreError>;

    /// Removes those of these, and of their ancestors, that nothing continues; gives their number, and
    /// the ids that it did not come to.
    async fn remove(
        &mut self,
        ids: Vec<String>,
        before_ms: i64,
        most: usize,
    ) -> Result<(usize, Vec<String>), StoreError>;

    /// Removes some approvals from before this time that nobody can give again; says whether there were
    /// any.
    async fn forget_claims(&mut self, before_ms: i64) -> Result<bool, StoreError>;
}

/// A database in use: what is removed stands in the writer's queue.
struct Live {
    readers: Readers,
    writes: mpsc::Sender<Job>,
}

impl Ground for Live {
    async fn ended(
        &mut self,
        at: (i64, String),
        before_ms: i64,
        limit: i64,
    ) -> Result<Vec<DeadRow>, StoreError> {
        self.readers.dead(at, before_ms, limit).await
    }

    async fn remove(
        &mut self,
        ids: Vec<String>,
        before_ms: i64,
        most: usize,
    ) -> Result<(usize, Vec<String>), StoreError> {
        let ended = || StoreError::Unavailable("its writer ended".to_owned());
        let (reply, removed) = oneshot::channel();
        let job = Job::Purge(Purge {
            ids,
            before_ms,
            most,
            reply,
        });
        self.writes.send(job).await.map_err(|_gone| ended())?;
        removed.await.map_err(|_gone| ended())?
    }

    async fn forget_claims(&mut self, before_ms: i64) -> Result<bool, StoreError> {
        let ended = || StoreError::Unavailable("its writer ended".to_owned());
        let (reply, forgotten) = oneshot::channel();
        let what = What::ForgetClaims { before_ms };
        let job = Job::Write(Write { what, reply });
        self.writes.send(job).await.map_err(|_gone| ended())?;
        forgotten.await.map_err(|_gone| ended())?
    }
}

/// One walk over everything that has ended.
pub(super) struct Sweep {
    before_ms: i64,
    pace: Pace,
    removed: usize,
    /// Time spent looking.
    reading: Duration,
}

impl Sweep {
    /// Of what ended before `before_ms`.
    pub(super) fn new(before_ms: i64, pace: Pace) -> Self {
        Self {
            before_ms,
            pace,
            removed: 0,
            reading: Duration::ZERO,
        }
    }

    /// Rows that went.
    pub(super) fn removed(&self) -> usize {
        self.removed
    }

    /// Removes everything that ended and is not needed.
    pub(super) async fn all(&mut self, ground: &mut impl Ground) -> Result<(), StoreError> {
        let mut at = (i64::MIN, String::new());
        loop {
            let began = Instant::now();
            let page = ground.ended(at, self.before_ms, i64::from(PAGE)).await?;
            self.reading += began.elapsed();
            let Some(last) = page.last() else {
                return self.claims(ground).await;
            };
            at = (last.ended_ms, last.id.clone());
            let leaves = page.into_iter().filter(|row| !row.is_continued);
            let mut leaves: Vec<String> = leaves.map(|row| row.id).collect();
            while !leaves.is_empty() {
                let began = Instant::now();
                let (rows, left) = ground
                    .remove(leaves, self.before_ms, self.pace.rows)
                    .await?;
                self.removed += rows;
                leaves = left;
                tokio::time::sleep(self.pace.after(began.elapsed())).await;
            }
        }
    }

    /// Forgets approvals whose time is over.
    async fn claims(&mut self, ground: &mut impl Ground) -> Result<(), StoreError> {
        let age_ms = i64::try_from(CLAIM_AGE.as_millis()).unwrap_or(i64::MAX);
        let before_ms = self.before_ms.saturating_sub(age_ms);
        loop {
            let began = Instant::now();
            if !ground.forget_claims(before_ms).await? {
                return Ok(());
            }
            tokio::time::sleep(self.pace.after(began.elapsed())).await;
        }
    }
}

/// How large the next batch is and how long the pause before it. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    rows: usize,
    rest: u32,
}

impl Pace {
    /// Beside others that write.
    pub(super) fn gentle() -> Self {
        Self {
            rows: SMALLEST,
            rest: REST,
        }
    }

    /// As fast as it goes.
    pub(super) fn eager() -> Self {
        Self {
            rows: LARGEST,
            rest: 0,
        }
    }

    /// Learns what the last batch took; gives the pause.
    fn after(&mut self, took: Duration) -> Duration {
        if took > BATCH {
            self.rows = (self.rows / 2).max(SMALLEST);
        } else if took < BATCH / 2 {
            self.rows = (self.rows * 2).min(LARGEST);
        }
        took.saturating_mul(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_batches_shrink_and_fast_ones_grow_within_bounds() {
        let mut pace = Pace::gentle();
        for _ in 0..20 {
            assert_eq!(pace.after(BATCH / 4), BATCH);
        }
        assert_eq!(pace.rows, LARGEST);
        assert_eq!(pace.after(BATCH * 2), BATCH * 8);
        assert_eq!(pace.rows, LARGEST / 2);
        for _ in 0..20 {
            pace.after(BATCH * 2);
        }
        assert_eq!(pace.rows, SMALLEST);
        assert_eq!(Pace::eager().after(BATCH), Duration::ZERO);
    }
}
