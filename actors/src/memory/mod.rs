//! One budget for the bytes that requests make the process take: bodies, what is read out of them,
//! histories, answers, output that a client has not taken, results of tools.
//!
//! Everyone who takes such bytes holds a [`Held`] for them, **before** they are taken wherever their
//! number can be known: see [`Memory::reserve`] and [`Held::reserve`], which wait a bounded time for
//! room and otherwise refuse. Up to 95 % of the limit can be reserved; the rest is for what running
//! responses come to need, and above 98 % the supervisor ends those whose clients are slowest
//! (fault B4). What JSON becomes is counted by the factors of [`weight`], which are measured.

pub mod account;
#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
pub mod allocator;
mod places;
mod share;
pub mod weight;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use account::Accounts;
pub use account::{Account, Enroll};
pub use places::{CallersPlace, CallersPlaces, Places};
pub use share::{Share, Shares};

/// No more can be reserved above this part of the budget, in per cent.
const TIGHT: usize = 95;
/// Responses are ended above this one.
const SHORT: usize = 98;

/// How long a request waits for room before it is refused.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often one that waits looks again.
const LOOK: Duration = Duration::from_millis(20);
/// Requests that may wait at once; one more is refused at once.
const MAX_WAITING: usize = 256;

/// Texts of at least so many bytes are large: to read one takes longer than to change threads.
pub const LARGE: usize = 1 << 20;
/// Large texts in work at once. More would share the same cores, and each holds memory meanwhile.
const HEAVY: usize = 4;
/// How long such work waits for its turn.
const TURN: Duration = Duration::from_secs(10);

/// Why bytes were not reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Short {
    /// They would not fit if nobody else had any.
    #[error("more memory than the limit")]
    Never,
    /// Others have them.
    #[error("short of memory")]
    Now,
}

/// The budget; cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// The part of it that running responses hold.
    owned: AtomicUsize,
    /// Requests that wait for room.
    waiting: AtomicUsize,
    /// Requests that were refused for want of it.
    refused: AtomicU64,
    /// Large texts in work.
    heavy: Arc<Semaphore>,
    began: Instant,
}

impl Memory {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Budget {
            limit,
            used: AtomicUsize::new(0),
            owned: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            heavy: Arc::new(Semaphore::new(HEAVY)),
            began: Instant::now(),
        }))
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be held.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// The most that one request can reserve.
    pub fn most(&self) -> usize {
        self.part(TIGHT)
    }

    /// Whether nothing new should begin.
    pub fn is_tight(&self) -> bool {
        self.used() > self.part(TIGHT)
    }

    /// Whether running responses hold more than there is.
    pub fn is_over(&self) -> bool {
        self.used() > self.0.limit
    }

    /// How many bytes running responses are to give back now; 0 where they cannot help, since others
    /// hold too much.
    pub fn excess(&self) -> usize {
        let (used, owned) = (self.used(), self.0.owned.load(Ordering::Relaxed));
        let excess = used.saturating_sub(self.part(SHORT));
        if excess > owned { 0 } else { excess }
    }

    /// Requests refused for want of memory, other than by the supervisor.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Counts a request that was refused for want of memory.
    pub fn note_refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn part(&self, per_cent: usize) -> usize {
        self.0.limit / 100 * per_cent
    }

    /// Holds so many bytes, whether they fit or not: they are there.
    pub fn hold(&self, bytes: usize) -> Held {
        let mut held = Held {
            memory: self.clone(),
            account: None,
            share: None,
            bytes: 0,
        };
        held.grow(bytes);
        held
    }

    /// Holds nothing yet, and will never hold more than this share has room for.
    pub fn hold_in(&self, share: Share) -> Held {
        let mut held = self.hold(0);
        held.share = Some(share);
        held
    }

    /// Holds so many bytes before they are taken; waits a bounded time until they fit.
    ///
    /// # Errors
    /// They do not fit.
    pub async fn reserve(&self, bytes: usize) -> Result<Held, Short> {
        let mut held = self.hold(0);
        held.reserve(bytes).await?;
        Ok(held)
    }

    /// Does this work on a large text where blocking is allowed, beside only a few others: the thread
    /// that asks serves streams (fault B5). It goes on when nobody waits for it any more, so whatever
    /// it uses is to belong to it, and what it holds too.
    ///
    /// # Errors
    /// Its turn does not come.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Short> {
        let Ok(Some(place)) = tokio::time::timeout(TURN, self.place()).await else {
            self.note_refused();
            return Err(Short::Now);
        };
        place.work(work).await
    }

    /// Waits for a place among the few who work on large texts, as long as it takes: for one that has
    /// begun, holds what it needs and is not refused any more. `None` is never seen.
    pub(crate) async fn place(&self) -> Option<Place> {
        let permit = Arc::clone(&self.0.heavy).acquire_owned().await.ok()?;
        Some(Place { _permit: permit })
    }

    /// Adds to what is used if the sum is no more than can be reserved.
    fn try_take(&self, bytes: usize) -> bool {
        let most = self.most();
        let sum = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= most);
        let order = Ordering::Relaxed;
        self.0.used.fetch_update(order, order, sum).is_ok()
    }

    fn now_ms(&self) -> u64 {
        // Never zero, which means "does not wait".
        u64::try_from(self.0.began.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

/// A place among those who work on large texts.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// See [`Memory::work`].
    pub(crate) async fn work<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Short> {
        // A thread of its own, that ends: what it made is freed by others, and the allocator keeps
        // that for the thread which made it. Threads that wait for more work held hundreds of
        // megabytes of nothing.
        let (told, done) = tokio::sync::oneshot::channel();
        let run = move || {
            let done = work();
            drop(self);
            // Nobody waits any more: the client has left.
            let _left = told.send(done);
        };
        let thread = std::thread::Builder::new().name("large-text".to_owned());
        let _runs = thread.spawn(run).map_err(|_no_thread| Short::Now)?;
        done.await.map_err(|_panicked| Short::Now)
    }
}

/// One of those that wait for room.
struct Waiting<'a>(&'a Budget);

impl<'a> Waiting<'a> {
    fn begin(budget: &'a Budget) -> Option<Self> {
        let before = budget.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(budget);
        (before < MAX_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that somebody takes; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    memory: Memory,
    /// Of the response that it belongs to.
    account: Option<Arc<Account>>,
    /// Of a kind of bytes that may not have the whole budget.
    share: Option<Share>,
    bytes: usize,
}

impl Held {
    /// Holds more, whether it fits or not.
    pub fn grow(&mut self, bytes: usize) {
        self.memory.0.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(share) = &self.share {
            share.add(bytes);
        }
        self.note_grown(bytes);
    }

    /// Holds more if it fits.
    #[must_use]
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        if let Some(share) = &self.share
            && !share.try_add(bytes, self.bytes)
        {
            return false;
        }
        if !self.memory.try_take(bytes) {
            if let Some(share) = &self.share {
                share.remove(bytes);
            }
            return false;
        }
        self.note_grown(bytes);
        true
    }

    /// Holds more as soon as it fits; waits a bounded time for that. A refusal is counted.
    ///
    /// # Errors
    /// It does not fit.
    pub async fn reserve(&mut self, bytes: usize) -> Result<(), Short> {
        if self.try_grow(bytes) {
            return Ok(());
        }
        let most = self.memory.most();
        if self.bytes.saturating_add(bytes) > most {
            return Err(Short::Never);
        }
        let memory = self.memory.clone();
        let until = tokio::time::Instant::now() + PATIENCE;
        if let Some(_waiting) = Waiting::begin(&memory.0) {
            while tokio::time::Instant::now() < until {
                tokio::time::sleep(LOOK).await;
                if self.try_grow(bytes) {
                    return Ok(());
                }
            }
        }
        memory.note_refused();
        Err(Short::Now)
    }

    fn note_grown(&mut self, bytes: usize) {
        self.bytes += bytes;
        if let Some(account) = &self.account {
            self.memory.0.owned.fetch_add(bytes, Ordering::Relaxed);
            account.add(bytes);
        }
    }

    fn shrink(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.memory.0.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(share) = &self.share {
            share.remove(bytes);
        }
        if let Some(account) = &self.account {
            self.memory.0.owned.fetch_sub(bytes, Ordering::Relaxed);
            account.remove(bytes);
        }
    }

    /// Holds so many instead.
    pub fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => self.shrink(self.bytes - bytes),
        }
    }

    /// Holds so many instead if they fit.
    #[must_use]
    pub fn try_set(&mut self, bytes: usize) -> bool {
        if let Some(more) = bytes.checked_sub(self.bytes) {
            self.try_grow(more)
        } else {
            self.cut(bytes);
            true
        }
    }

    /// Takes over what another holds.
    pub fn absorb(&mut self, mut other: Self) {
        let bytes = std::mem::take(&mut other.bytes);
        if let Some(account) = &other.account {
            self.memory.0.owned.fetch_sub(bytes, Ordering::Relaxed);
            account.remove(bytes);
        }
        if let Some(share) = &other.share {
            share.remove(bytes);
        }
        if let Some(share) = &self.share {
            share.add(bytes);
        }
        self.note_grown(bytes);
    }

    /// Holds no more than so many.
    pub fn cut(&mut self, bytes: usize) {
        self.shrink(self.bytes.saturating_sub(bytes));
    }

    /// Says whose they are, when that is known only after they came.
    #[must_use]
    pub fn of(mut self, account: &Arc<Account>) -> Self {
        if let Some(share) = self.share.take() {
            share.remove(self.bytes);
        }
        self.memory.0.owned.fetch_add(self.bytes, Ordering::Relaxed);
        account.add(self.bytes);
        if let Some(before) = self.account.replace(Arc::clone(account)) {
            self.memory.0.owned.fetch_sub(self.bytes, Ordering::Relaxed);
            before.remove(self.bytes);
        }
        self
    }

    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The budget.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b4_what_is_held_is_given_back() {
        let memory = Memory::new(1000);
        let mut held = memory.hold(900);
        held.grow(60);
        assert!(memory.is_tight());
        held.set(950);
        assert!(!memory.is_tight());
        held.set(981);
        assert_eq!(
            (memory.used(), memory.excess(), held.bytes()),
            (981, 0, 981)
        );
        drop(held);
        assert_eq!(memory.used(), 0);
    }

    #[actix_rt::test]
    async fn b4_who_does_not_fit_waits_and_is_refused_in_the_end() {
        let memory = Memory::new(1000);
        let first = memory.reserve(900).await.expect("fits");
        assert_eq!(memory.reserve(951).await.unwrap_err(), Short::Never);
        let waits = memory.reserve(100);
        let frees = async {
            tokio::time::sleep(3 * LOOK).await;
            drop(first);
        };
        let (second, ()) = futures_util::future::join(waits, frees).await;
        let second = second.expect("there is room now");
        assert_eq!(
            (second.bytes(), memory.used(), memory.refused()),
            (100, 100, 0)
        );
        assert_eq!(memory.reserve(900).await.unwrap_err(), Short::Now);
        assert_eq!((memory.used(), memory.refused()), (100, 1));
    }

    #[test]
    fn c4_a_caller_has_no_more_than_a_share_unless_it_is_alone_in_it() {
        let memory = Memory::new(1000);
        let shares = Shares::new(300);
        let mut first = memory.hold_in(shares.of(&"a"));
        assert!(first.try_grow(400) && first.try_grow(100), "alone");
        let mut second = memory.hold_in(shares.of(&"a"));
        assert!(!second.try_grow(1));
        let mut other = memory.hold_in(shares.of(&"b"));
        assert!(other.try_grow(300), "another caller");
        // What was let in is not counted with what still comes.
        let account = Accounts::new(memory.clone()).open();
        let first = first.of(&account);
        assert!(
            second.try_grow(150) && !second.try_grow(1),
            "only 950 of 1000"
        );
        drop((first, second, other));
        assert_eq!(memory.used(), 0);
    }
}
