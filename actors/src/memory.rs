//! One budget for the bytes that requests make the gateway buffer: bodies, histories, output that a
//! client has not taken, results of tools.
//!
//! Everyone who buffers holds a [`Held`] for it, counted per buffer and not per token. Above 95 % the
//! supervisor lets no new response in; above 98 % it ends those whose clients are slowest (fault B4).
//! What is counted is what was asked for, not what the allocator makes of it.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use actix::{Message, Recipient};
use tokio_util::sync::CancellationToken;

/// No new responses above this part of the budget, in per cent.
const TIGHT: usize = 95;
/// Responses are ended above this one.
const SHORT: usize = 98;

/// Accounts below this part of the budget, whose clients take what they are sent, need not be known:
/// not even as many as there are places for come to much.
const UNLISTED: usize = 20_000;

/// The budget; cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    limit: usize,
    used: AtomicUsize,
    began: Instant,
}

impl Memory {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Budget {
            limit,
            used: AtomicUsize::new(0),
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

    /// Whether nothing new should begin.
    pub fn is_tight(&self) -> bool {
        self.above(TIGHT)
    }

    /// How many bytes are to be given back now.
    pub fn excess(&self) -> usize {
        self.used().saturating_sub(self.part(SHORT))
    }

    fn above(&self, per_cent: usize) -> bool {
        self.used() > self.part(per_cent)
    }

    fn part(&self, per_cent: usize) -> usize {
        self.0.limit / 100 * per_cent
    }

    /// Holds so many bytes, whether they fit or not: they are there.
    pub fn hold(&self, bytes: usize) -> Held {
        let mut held = Held {
            memory: self.clone(),
            account: None,
            bytes: 0,
        };
        held.grow(bytes);
        held
    }

    fn now_ms(&self) -> u64 {
        // Never zero, which means "does not wait".
        u64::try_from(self.0.began.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

/// Bytes that somebody buffers; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    memory: Memory,
    /// Of the response that it belongs to.
    account: Option<Arc<Account>>,
    bytes: usize,
}

impl Held {
    /// Holds more.
    pub fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.memory.0.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(account) = &self.account {
            let before = account.held.fetch_add(bytes, Ordering::Relaxed);
            if before + bytes > account.memory.0.limit / UNLISTED {
                account.enroll();
            }
        }
    }

    fn shrink(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.memory.0.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(account) = &self.account {
            account.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Holds so many instead.
    pub fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => self.shrink(self.bytes - bytes),
        }
    }

    /// Says whose they are, when that is known only after they came.
    #[must_use]
    pub fn of(mut self, account: &Arc<Account>) -> Self {
        let bytes = self.bytes;
        self.shrink(bytes);
        self.account = Some(Arc::clone(account));
        self.grow(bytes);
        self
    }

    /// Whether nothing large should be added now.
    pub fn is_tight(&self) -> bool {
        self.memory.is_tight()
    }

    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

/// An account that is worth looking at when memory is short. Sender: itself, at most once.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Enroll(pub Weak<Account>);

/// What the supervisor knows of one running response.
#[derive(Debug)]
pub struct Account {
    memory: Memory,
    /// The account itself, and the supervisor, which does not know it yet.
    unlisted: Option<(Weak<Account>, Recipient<Enroll>)>,
    listed: AtomicBool,
    held: AtomicUsize,
    /// Since when its client takes nothing, in milliseconds of the budget's clock; 0 while it does.
    waits_since: AtomicU64,
    /// Cancelled when it is to end so that others can go on.
    shed: CancellationToken,
}

impl Account {
    fn new(memory: Memory, unlisted: Option<(Weak<Self>, Recipient<Enroll>)>) -> Self {
        Self {
            memory,
            unlisted,
            listed: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            waits_since: AtomicU64::new(0),
            shed: CancellationToken::new(),
        }
    }

    /// An account that the supervisor need not know before it is large or slow.
    pub(crate) fn unlisted(memory: Memory, supervisor: Recipient<Enroll>) -> Arc<Self> {
        Arc::new_cyclic(|own| Self::new(memory, Some((Weak::clone(own), supervisor))))
    }

    fn enroll(&self) {
        if let Some((own, supervisor)) = &self.unlisted
            && !self.listed.swap(true, Ordering::Relaxed)
        {
            supervisor.do_send(Enroll(Weak::clone(own)));
        }
    }

    /// The budget.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Holds bytes of this response.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.memory.hold(bytes).of(self)
    }

    /// Its client has room for nothing more.
    pub fn note_waiting(&self) {
        let now = self.memory.now_ms();
        let order = Ordering::Relaxed;
        // One that waits already waits longer; the response is its only writer.
        if self.waits_since.load(order) == 0 {
            self.waits_since.store(now, order);
            self.enroll();
        }
    }

    /// Its client took something.
    pub fn note_taken(&self) {
        self.waits_since.store(0, Ordering::Relaxed);
    }

    /// Cancelled when the response is to end.
    pub fn shed(&self) -> CancellationToken {
        self.shed.clone()
    }
}

/// Everything that runs, so that the slowest can be found. Owned by the supervisor.
#[derive(Debug)]
pub(crate) struct Accounts {
    memory: Memory,
    /// Those that ended are removed when there are twice as many as were left the last time.
    open: Vec<Weak<Account>>,
    prune_at: usize,
}

impl Accounts {
    pub(crate) fn new(memory: Memory) -> Self {
        Self {
            memory,
            open: Vec::new(),
            prune_at: 64,
        }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// An account of a response that begins.
    pub(crate) fn open(&mut self) -> Arc<Account> {
        let account = Arc::new(Account::new(self.memory.clone(), None));
        self.enroll(Arc::downgrade(&account));
        account
    }

    /// Takes an account that was opened elsewhere.
    pub(crate) fn enroll(&mut self, account: Weak<Account>) {
        if self.open.len() >= self.prune_at {
            self.open.retain(|account| account.strong_count() > 0);
            self.prune_at = (self.open.len() * 2).max(64);
        }
        self.open.push(account);
    }

    /// Ends the slowest until what they hold makes up for the excess: those whose clients take
    /// nothing, longest first, then those that hold most. Says how many.
    pub(crate) fn shed(&mut self) -> usize {
        let mut excess = self.memory.excess();
        if excess == 0 {
            return 0;
        }
        let mut running: Vec<Arc<Account>> = self.open.iter().filter_map(Weak::upgrade).collect();
        running.sort_by_cached_key(|account| {
            let since = match account.waits_since.load(Ordering::Relaxed) {
                0 => u64::MAX,
                since => since,
            };
            (since, Reverse(account.held.load(Ordering::Relaxed)))
        });
        let mut ended = 0;
        for account in running {
            if excess == 0 {
                break;
            }
            let held = account.held.load(Ordering::Relaxed);
            // One that was told already gives its bytes back soon.
            if !account.shed.is_cancelled() && held > 0 {
                account.shed.cancel();
                ended += 1;
            }
            excess = excess.saturating_sub(held);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(accounts: &mut Accounts, bytes: usize) -> (Arc<Account>, Held) {
        let account = accounts.open();
        let held = account.hold(bytes);
        (account, held)
    }

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
            (981, 1, 981)
        );
        drop(held);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn b4_the_slowest_are_ended_and_no_more_than_needed() {
        let mut accounts = Accounts::new(Memory::new(1000));
        let (big, _big) = account(&mut accounts, 500);
        let (slow, slow_held) = account(&mut accounts, 100);
        let (slower, _slower) = account(&mut accounts, 300);
        slower.note_waiting();
        std::thread::sleep(std::time::Duration::from_millis(5));
        slow.note_waiting();
        assert_eq!(accounts.shed(), 0, "90 % is no reason");
        let (late, late_held) = account(&mut accounts, 100);
        assert_eq!(accounts.shed(), 1);
        let told = [&big, &slow, &slower, &late].map(|account| account.shed().is_cancelled());
        assert_eq!(told, [false, false, true, false]);
        assert_eq!(accounts.shed(), 0, "it has not given its bytes back yet");
        drop((slow_held, late_held));
        slower.note_taken();
        assert_eq!(accounts.shed(), 0);
    }

    #[test]
    fn those_that_ended_are_forgotten() {
        let mut accounts = Accounts::new(Memory::new(1000));
        for _ in 0..10_000 {
            drop(accounts.open());
        }
        assert!(accounts.open.len() <= 64);
    }

    /// Counts who enrolls.
    #[derive(Default)]
    struct Roll(usize);

    impl actix::Actor for Roll {
        type Context = actix::Context<Self>;
    }

    impl actix::Handler<Enroll> for Roll {
        type Result = ();

        fn handle(&mut self, Enroll(account): Enroll, _: &mut Self::Context) {
            assert!(account.upgrade().is_some());
            self.0 += 1;
        }
    }

    #[derive(Message)]
    #[rtype(result = "usize")]
    struct Enrolled;

    impl actix::Handler<Enrolled> for Roll {
        type Result = usize;

        fn handle(&mut self, _: Enrolled, _: &mut Self::Context) -> usize {
            self.0
        }
    }

    #[actix_rt::test]
    async fn b4_an_account_enrolls_once_when_it_is_large_or_slow() {
        use actix::Actor as _;
        let roll = Roll::default().start();
        let memory = Memory::new(UNLISTED * 100);
        let open = || Account::unlisted(memory.clone(), roll.clone().recipient());
        let (small, large, slow) = (open(), open(), open());
        let _held = [small.hold(100), large.hold(60), large.hold(41)];
        slow.note_waiting();
        slow.note_taken();
        slow.note_waiting();
        assert_eq!(roll.send(Enrolled).await, Ok(2));
    }
}
