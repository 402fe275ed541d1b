//! Parts of the budget that one caller, or one kind of work, may have at most.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Callers are told apart by this many counters. Two that meet in one have one share together, which
/// costs them room and nothing else.
const COUNTERS: usize = 256;

/// A share for each caller; cheap to clone.
#[derive(Clone, Debug)]
pub struct Shares {
    used: Arc<[AtomicUsize]>,
    limit: usize,
}

impl Shares {
    /// Shares of so many bytes each.
    pub fn new(limit: usize) -> Self {
        let counters = std::iter::repeat_with(|| AtomicUsize::new(0)).take(COUNTERS);
        Self {
            used: counters.collect(),
            limit,
        }
    }

    /// The share of this caller.
    pub fn of(&self, whose: &impl Hash) -> Share {
        let mut hasher = DefaultHasher::new();
        whose.hash(&mut hasher);
        let count = u64::try_from(self.used.len()).unwrap_or(1).max(1);
        Share {
            used: Arc::clone(&self.used),
            at: usize::try_from(hasher.finish() % count).unwrap_or(0),
            limit: self.limit,
        }
    }
}

/// A part of the budget; cheap to clone.
#[derive(Clone, Debug)]
pub struct Share {
    used: Arc<[AtomicUsize]>,
    at: usize,
    limit: usize,
}

impl Share {
    /// Adds so many for one who has `own` already. Who is alone in it may have more than the share:
    /// otherwise a large request could never be served.
    pub(super) fn try_add(&self, bytes: usize, own: usize) -> bool {
        let sum = |used: usize| {
            let sum = used.checked_add(bytes)?;
            (sum <= self.limit || used <= own).then_some(sum)
        };
        let order = Ordering::Relaxed;
        self.counter()
            .is_none_or(|used| used.fetch_update(order, order, sum).is_ok())
    }

    pub(super) fn add(&self, bytes: usize) {
        if let Some(used) = self.counter() {
            used.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn remove(&self, bytes: usize) {
        if let Some(used) = self.counter() {
            used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn counter(&self) -> Option<&AtomicUsize> {
        self.used.get(self.at)
    }
}
