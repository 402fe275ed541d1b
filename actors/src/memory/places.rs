//! Places for work that many ask for and few do at once, fair to callers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Callers are told apart by this many queues. Two that meet in one wait for each other.
const QUEUES: usize = 256;

/// Places of which no caller has more than a part: who asks for many at once waits behind himself, not
/// in front of others. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    queues: Arc<[Arc<Semaphore>]>,
}

impl Places {
    /// So many, and at most so many of them for each caller.
    pub fn new(all: usize, each: usize) -> Self {
        let queues = std::iter::repeat_with(|| Arc::new(Semaphore::new(each))).take(QUEUES);
        Self {
            all: Arc::new(Semaphore::new(all)),
            queues: queues.collect(),
        }
    }

    /// Those that this caller may have.
    pub fn of(&self, whose: &impl Hash) -> CallersPlaces {
        let mut hasher = DefaultHasher::new();
        whose.hash(&mut hasher);
        let count = u64::try_from(self.queues.len()).unwrap_or(1).max(1);
        let at = usize::try_from(hasher.finish() % count).unwrap_or(0);
        CallersPlaces {
            all: Arc::clone(&self.all),
            own: self.queues.get(at).map(Arc::clone),
        }
    }
}

/// The places of one caller. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CallersPlaces {
    all: Arc<Semaphore>,
    own: Option<Arc<Semaphore>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct CallersPlace {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

impl CallersPlaces {
    /// Waits for a place of the caller's, then for one of all; `None` never comes, since nobody closes
    /// them.
    pub async fn take(&self) -> Option<CallersPlace> {
        let own = match &self.own {
            Some(own) => Some(Arc::clone(own).acquire_owned().await.ok()?),
            None => None,
        };
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(CallersPlace {
            _all: all,
            _own: own,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_asks_for_many_waits_behind_himself() {
        let places = Places::new(4, 2);
        let (flood, small) = (places.of(&"flood"), places.of(&"small"));
        let [first, second] = [flood.take().await, flood.take().await];
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(flood.take())).collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        let mine = small.take().now_or_never().flatten();
        assert!(mine.is_some(), "a hundred of another's stand before it");
        drop(first);
        assert!(waiting.remove(0).now_or_never().flatten().is_some());
        drop((second, mine));
    }

    #[tokio::test]
    async fn there_are_no_more_than_all() {
        let places = Places::new(2, 2);
        let taken = [places.of(&1).take().await, places.of(&2).take().await];
        assert!(places.of(&3).take().now_or_never().is_none());
        drop(taken);
        assert!(places.of(&3).take().now_or_never().is_some());
    }
}
