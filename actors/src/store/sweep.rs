//! Removes, a little at a time, responses that have ended and that nothing live needs.
//!
//! A response has ended when it is deleted or expired. It goes when nothing continues it any more, and
//! takes the ended ancestors along that only it kept. Reading finds candidates; only removing them
//! stands in the writer's queue, in batches short enough that no other write waits long.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::backend::Readers;
use super::messages::StoreError;
use super::rows::{ApprovalRow, DeadRow};
use super::writer::{Care, Job, Purge, Removed};

/// How long an ended response stays: a turn that began before the end may still come to continue it.
/// A conversation whose ancestor is gone is an error when it is continued.
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

/// Old approvals looked at in one sweep, in pages; the next goes on where it ended.
const CLAIM_PAGES: u32 = 16;

/// A piece of maintenance has this long, its wait in the queue included.
const CARE_LIMIT: Duration = Duration::from_secs(60);

/// A clock that runs away from the machine's steady one by more than this is not believed.
const JUMP: Duration = Duration::from_secs(24 * 3600);

/// Sweeps for ever.
pub(super) async fn run(readers: Readers, writes: mpsc::Sender<Job>, interval: Duration) {
    let mut wait = interval;
    let mut ground = Live { readers, writes };
    let mut calendar = Calendar::default();
    let mut claims_at = Behind::default();
    loop {
        tokio::time::sleep(wait).await;
        wait = interval;
        let now_ms = match ground.readers.now_ms().await {
            Ok(now_ms) => now_ms,
            Err(error) => {
                log::debug!("no sweep without the time: {error}");
                continue;
            }
        };
        if !calendar.believes(now_ms, Instant::now()) {
            continue;
        }
        let mut sweep = Sweep::new(before(now_ms, GRACE), Pace::gentle());
        sweep.claims_at = claims_at;
        match sweep.all(&mut ground).await {
            Ok(()) if sweep.removed == 0 => {}
            Ok(()) => {
                let rows = sweep.removed;
                log::info!(rows; "removed responses that had expired or were deleted");
            }
            Err(error) => log::warn!("responses that have ended could not be removed: {error}"),
        }
        wait = interval.max(sweep.reading.saturating_mul(SWEEP_REST));
        claims_at = sweep.claims_at;
    }
}

/// So long before now.
pub(super) fn before(now_ms: i64, age: Duration) -> i64 {
    now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// Sees clocks jump: what a wrong clock calls expired is gone for good. Pure.
#[derive(Debug, Default)]
struct Calendar {
    then: Option<(i64, Instant)>,
    /// Since when it is more than a day behind.
    behind: Option<Instant>,
    refuses: bool,
}

impl Calendar {
    /// Whether this time fits the one before.
    fn believes(&mut self, now_ms: i64, now: Instant) -> bool {
        let Some((then_ms, then)) = self.then else {
            self.then = Some((now_ms, now));
            return true;
        };
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let steady = now.saturating_duration_since(then);
        let ahead = now_ms
            .saturating_sub(then_ms)
            .saturating_sub(millis(steady));
        let jumped = ahead > millis(JUMP);
        if jumped && !self.refuses {
            log::error!(
                "the clock jumped ahead by more than a day, so nothing is removed: set it right; if it \
                 is right now, start the gateway again"
            );
        }
        self.refuses = jumped;
        let behind = (ahead < -millis(JUMP)).then(|| self.behind.unwrap_or(now));
        self.behind = behind;
        // One that is behind removes too little, which does no harm. It is the wrong one, and will be
        // right again, unless it stays so.
        let stays = behind.is_none_or(|since| now.saturating_duration_since(since) > JUMP);
        if !jumped && stays {
            self.then = Some((now_ms, now));
        }
        !jumped
    }
}

/// The approval that was looked at last: when it was given, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind(pub(super) i64, pub(super) String, pub(super) String);

impl Default for Behind {
    fn default() -> Self {
        Self(i64::MIN, String::new(), String::new())
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
    /// the ids that it did not come to; none when another gateway sweeps.
    async fn remove(
        &mut self,
        ids: Vec<String>,
        before_ms: i64,
        most: usize,
    ) -> Result<Removed, StoreError>;

    /// Removes data that nothing uses, as much as one transaction may; gives how much it looked at, 0
    /// when nothing is left to do.
    async fn drop_unused(&mut self) -> Result<usize, StoreError>;

    /// Approvals from before this time, oldest first, behind `at`; with each, whether its conversation
    /// is stored.
    async fn old_claims(
        &mut self,
        at: Behind,
        before_ms: i64,
        limit: i64,
    ) -> Result<Vec<(ApprovalRow, bool)>, StoreError>;

    /// Removes these approvals.
    async fn forget(&mut self, claims: Vec<ApprovalRow>) -> Result<(), StoreError>;
}

/// A database in use: what is removed stands in the writer's queue.
struct Live {
    readers: Readers,
    writes: mpsc::Sender<Job>,
}

impl Live {
    /// Has the writer do something. What is given up is not begun.
    async fn done<R>(
        &self,
        care: impl FnOnce(oneshot::Sender<Result<R, StoreError>>) -> Care,
    ) -> Result<R, StoreError> {
        let ended = || StoreError::Unavailable("its writer ended".to_owned());
        let (reply, answer) = oneshot::channel();
        let job = Job::Care(care(reply));
        let asked = async {
            self.writes.send(job).await.map_err(|_gone| ended())?;
            answer.await.map_err(|_gone| ended())?
        };
        tokio::time::timeout(CARE_LIMIT, asked)
            .await
            .map_err(|_elapsed| StoreError::Busy)?
    }
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
    ) -> Result<Removed, StoreError> {
        let purge = |reply| {
            Care::Purge(Purge {
                ids,
                before_ms,
                most,
                reply,
            })
        };
        self.done(purge).await
    }

    async fn drop_unused(&mut self) -> Result<usize, StoreError> {
        self.done(|reply| Care::DropUnused { reply }).await
    }

    async fn old_claims(
        &mut self,
        Behind(claimed, owner, request): Behind,
        before_ms: i64,
        limit: i64,
    ) -> Result<Vec<(ApprovalRow, bool)>, StoreError> {
        let at = (claimed, owner, request);
        self.readers.old_claims(at, before_ms, limit).await
    }

    async fn forget(&mut self, claims: Vec<ApprovalRow>) -> Result<(), StoreError> {
        self.done(|reply| Care::Forget { claims, reply }).await
    }
}

/// One walk over everything that has ended.
pub(super) struct Sweep {
    before_ms: i64,
    pace: Pace,
    removed: usize,
    /// Time spent looking.
    reading: Duration,
    /// Where the walk over approvals is; at its end it begins anew.
    claims_at: Behind,
}

impl Sweep {
    /// Of what ended before `before_ms`.
    pub(super) fn new(before_ms: i64, pace: Pace) -> Self {
        Self {
            before_ms,
            pace,
            removed: 0,
            reading: Duration::ZERO,
            claims_at: Behind::default(),
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
                self.data(ground).await?;
                return self.claims(ground).await;
            };
            at = (last.ended_ms, last.id.clone());
            let leaves = page.into_iter().filter(|row| !row.is_continued);
            let mut leaves: Vec<String> = leaves.map(|row| row.id).collect();
            while !leaves.is_empty() {
                let began = Instant::now();
                let removed = ground.remove(leaves, self.before_ms, self.pace.rows);
                let Some((rows, left)) = removed.await? else {
                    // Another gateway does the same.
                    return Ok(());
                };
                self.removed += rows;
                leaves = left;
                tokio::time::sleep(self.pace.after(began.elapsed())).await;
            }
        }
    }

    /// Removes the data that went out of use.
    async fn data(&mut self, ground: &mut impl Ground) -> Result<(), StoreError> {
        loop {
            let began = Instant::now();
            if ground.drop_unused().await? == 0 {
                return Ok(());
            }
            tokio::time::sleep(self.pace.after(began.elapsed())).await;
        }
    }

    /// Forgets approvals whose time is over, of conversations that are not stored. A bounded walk: those
    /// of conversations that are kept for ever are looked at again and again.
    async fn claims(&mut self, ground: &mut impl Ground) -> Result<(), StoreError> {
        let before_ms = before(self.before_ms, CLAIM_AGE);
        let mut pages = 0;
        while self.pace.rest == 0 || pages < CLAIM_PAGES {
            pages += 1;
            let began = Instant::now();
            let at = self.claims_at.clone();
            let page = ground.old_claims(at, before_ms, i64::from(PAGE)).await?;
            self.reading += began.elapsed();
            let Some((last, _)) = page.last() else {
                self.claims_at = Behind::default();
                return Ok(());
            };
            self.claims_at = Behind(last.claimed_at, last.owner.clone(), last.request.clone());
            let gone = page.into_iter().filter(|(_, is_kept)| !is_kept);
            let gone: Vec<ApprovalRow> = gone.map(|(row, _)| row).collect();
            if !gone.is_empty() {
                let began = Instant::now();
                ground.forget(gone).await?;
                tokio::time::sleep(self.pace.after(began.elapsed())).await;
            }
        }
        Ok(())
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
    fn a_clock_that_jumps_is_not_believed_until_it_is_back() {
        let began = Instant::now();
        let at = |seconds: i64| began + Duration::from_secs(u64::try_from(seconds).unwrap());
        let day = 24 * 3600 * 1000;
        let mut calendar = Calendar::default();
        assert!(calendar.believes(0, at(0)));
        assert!(calendar.believes(60_000, at(60)));
        assert!(!calendar.believes(60_000 + 31 * day, at(61)));
        assert!(!calendar.believes(120_000 + 31 * day, at(120)));
        assert!(calendar.believes(180_000, at(180)));
        // Back for a moment, and right again.
        assert!(calendar.believes(-31 * day, at(240)));
        assert!(calendar.believes(300_000, at(300)));
        assert!(!calendar.believes(360_000 + 2 * day, at(360)));
        // One that stays behind is followed after a day.
        assert!(calendar.believes(-31 * day, at(420)));
        let (long, later) = (2 * 24 * 3600, 2 * 24 * 3600 + 60);
        assert!(calendar.believes(-29 * day, at(long)));
        assert!(!calendar.believes(2 * day, at(later)));
    }

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
