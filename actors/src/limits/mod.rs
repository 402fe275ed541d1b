//! How much of the gateway one key, and all together, may use.
//!
//! `Limiter` is owned by the supervisor: a request's places and rates are judged in the one message
//! that it asks anyway. Rates are buckets (`bucket`), here or, where several gateways share a Redis,
//! there (`shared`); what Redis does not answer in time is judged here, by a copy that has seen all
//! that this gateway admitted. Concurrency is counted by each gateway for itself.
//!
//! Tokens are charged when a model call has told them, so a request is let in while anything is
//! left, and what it uses beyond that is a debt that later requests wait for.

pub mod bucket;
pub mod estimate;
mod shared;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use vllm_responses_protocol::ids::Owner;

use bucket::{Bucket, Rate, Standing};
pub(crate) use shared::Shared;

/// What limits are set; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// What "a minute" is: a minute, but in tests.
    pub window: Duration,
    /// Of all callers together.
    pub all: Rates,
    /// Of each key that has none of its own.
    pub key: KeyLimits,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            window: LimitSettings::WINDOW,
            all: Rates::default(),
            key: KeyLimits::default(),
        }
    }
}

impl LimitSettings {
    /// The window of every rate.
    pub const WINDOW: Duration = Duration::from_secs(60);

    /// The limits of a key that says this of itself.
    pub fn of(&self, own: OwnLimits) -> KeyLimits {
        let pick =
            |own: Option<u64>, default| own.map_or(default, |own| Some(own).filter(|n| *n > 0));
        KeyLimits {
            concurrent: pick(own.concurrent, self.key.concurrent),
            rates: Rates {
                requests: pick(own.requests, self.key.rates.requests),
                tokens: pick(own.tokens, self.key.rates.tokens),
            },
        }
    }

    /// The limits of reads: a read costs little beside a request, and has no tokens.
    pub(crate) fn of_reads(&self) -> Self {
        Self {
            window: self.window,
            all: self.all.of_reads(),
            key: KeyLimits {
                concurrent: None,
                rates: self.key.rates.of_reads(),
            },
        }
    }

    /// Whether anything is limited for a key that says this of itself.
    pub fn apply_to(&self, own: OwnLimits) -> bool {
        let key = self.of(own);
        let none = Rates::default();
        key.concurrent.is_some() || key.rates != none || self.all != none
    }
}

/// What may happen in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Requests that run a model.
    pub requests: Option<u64>,
    /// Tokens read and written by the model.
    pub tokens: Option<u64>,
}

/// Reads that are let in for each request that is.
const READS: u64 = 10;

impl Rates {
    fn of_reads(self) -> Self {
        Self {
            requests: self.requests.map(|requests| requests.saturating_mul(READS)),
            tokens: None,
        }
    }
}

impl OwnLimits {
    /// As of [`LimitSettings::of_reads`].
    pub(crate) fn of_reads(self) -> Self {
        Self {
            requests: self.requests.map(|requests| requests.saturating_mul(READS)),
            concurrent: Some(0),
            tokens: Some(0),
        }
    }
}

/// The limits of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Responses that run at once.
    pub concurrent: Option<u64>,
    /// Of a window.
    pub rates: Rates,
}

/// What the keys file says of one key: `None` takes the default, 0 lifts the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnLimits {
    /// `concurrent=`
    pub concurrent: Option<u64>,
    /// `requests=`
    pub requests: Option<u64>,
    /// `tokens=`
    pub tokens: Option<u64>,
}

/// Who asks.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// The key's name.
    pub owner: Owner,
    /// What its line in the keys file says.
    pub own: OwnLimits,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Responses at once.
    Concurrent,
    /// Requests in a window.
    Requests,
    /// Tokens in a window.
    Tokens,
}

/// Whom a limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One key.
    Key,
    /// All callers together.
    All,
}

/// A limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Of what.
    pub what: What,
    /// Whose.
    pub scope: Scope,
    /// Who waits this long is let in, unless others are faster.
    pub wait: Duration,
    /// How the caller stands.
    pub quota: Quota,
}

/// How a caller stands, for `x-ratelimit-*`: of its key's limits where it has them, else of those of
/// all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests.
    pub requests: Option<Standing>,
    /// Tokens.
    pub tokens: Option<Standing>,
}

/// The buckets of one request, in this order everywhere.
const BUCKETS: [(Scope, What); 4] = [
    (Scope::Key, What::Requests),
    (Scope::Key, What::Tokens),
    (Scope::All, What::Requests),
    (Scope::All, What::Tokens),
];

/// What one request is judged by; `None` where there is no limit.
type Sizes = [Option<u64>; BUCKETS.len()];
type Standings = [Option<Standing>; BUCKETS.len()];

/// What a request takes from each bucket as it begins.
const BEGINS: [u64; BUCKETS.len()] = [1, 0, 1, 0];

/// What a model call takes from each bucket.
const fn uses(tokens: u64) -> [u64; BUCKETS.len()] {
    [0, tokens, 0, tokens]
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Limiter {
    settings: LimitSettings,
    began: Instant,
    all: [Bucket; 2],
    /// As many as there are names in the keys file.
    keys: HashMap<Owner, Key>,
}

/// What is known of a key.
#[derive(Debug)]
struct Key {
    buckets: [Bucket; 2],
    places: Arc<Semaphore>,
}

/// More than any limit; what is taken from it is what runs.
const PLACES: usize = 1 << 20;

impl Default for Key {
    fn default() -> Self {
        Self {
            buckets: Default::default(),
            places: Arc::new(Semaphore::new(PLACES)),
        }
    }
}

impl Limiter {
    pub(crate) fn new(settings: LimitSettings) -> Self {
        Self {
            settings,
            began: Instant::now(),
            all: Default::default(),
            keys: HashMap::new(),
        }
    }

    pub(crate) fn settings(&self) -> LimitSettings {
        self.settings
    }

    /// Whether model calls of this caller are counted.
    pub(crate) fn counts_tokens(&self, own: OwnLimits) -> bool {
        self.settings.all.tokens.is_some() || self.settings.of(own).rates.tokens.is_some()
    }

    /// Whether this caller's requests and tokens have a rate at all.
    pub(crate) fn has_rates(&self, own: OwnLimits) -> bool {
        self.sizes(own).iter().any(Option::is_some)
    }

    fn sizes(&self, own: OwnLimits) -> Sizes {
        let (key, all) = (self.settings.of(own).rates, self.settings.all);
        [key.requests, key.tokens, all.requests, all.tokens]
    }

    /// A place among the key's running responses, where they are limited.
    pub(crate) fn place(&mut self, asker: &Asker) -> Result<Option<OwnedSemaphorePermit>, Limited> {
        let Some(limit) = self.settings.of(asker.own).concurrent else {
            return Ok(None);
        };
        let key = self.keys.entry(asker.owner.clone()).or_default();
        let places = &key.places;
        // Nobody else takes from it: what is free now is free until it is taken.
        let running = PLACES - places.available_permits();
        let free = u64::try_from(running).is_ok_and(|running| running < limit);
        let place = free
            .then(|| Arc::clone(places).try_acquire_owned().ok())
            .flatten();
        place.map(Some).ok_or(Limited {
            what: What::Concurrent,
            scope: Scope::Key,
            // Nobody knows when one ends.
            wait: Duration::from_secs(1),
            quota: Quota::default(),
        })
    }

    /// Lets a request in by what this gateway knows, and counts it.
    pub(crate) fn begin(&mut self, asker: &Asker) -> Result<Quota, Limited> {
        verdict(self.standings(asker))?;
        self.count(asker, BEGINS);
        Ok(quota(self.standings(asker)))
    }

    /// Counts a request that was let in by others.
    pub(crate) fn note_begun(&mut self, asker: &Asker) {
        self.count(asker, BEGINS);
    }

    /// Charges a model call.
    pub(crate) fn charge(&mut self, asker: &Asker, tokens: u64) {
        self.count(asker, uses(tokens));
    }

    fn standings(&mut self, asker: &Asker) -> Standings {
        let mut standings = Standings::default();
        self.each(asker, |at, bucket, rate, now| {
            if let Some(place) = standings.get_mut(at) {
                *place = Some(bucket.standing(rate, now));
            }
        });
        standings
    }

    fn count(&mut self, asker: &Asker, amounts: [u64; BUCKETS.len()]) {
        self.each(asker, |at, bucket, rate, now| {
            bucket.spend(rate, now, amounts.get(at).copied().unwrap_or(0));
        });
    }

    /// Visits every bucket that limits this caller.
    fn each(&mut self, asker: &Asker, mut visit: impl FnMut(usize, &mut Bucket, Rate, u64)) {
        let sizes = self.sizes(asker.own);
        let window = self.settings.window;
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let key = self.keys.entry(asker.owner.clone()).or_default();
        let ([key_requests, key_tokens], [requests, tokens]) = (&mut key.buckets, &mut self.all);
        let buckets = [key_requests, key_tokens, requests, tokens];
        for (at, (bucket, size)) in buckets.into_iter().zip(sizes).enumerate() {
            if let Some(amount) = size {
                visit(at, bucket, Rate { amount, window }, now);
            }
        }
    }
}

/// Lets in where something is left everywhere; else names the limit that takes longest.
fn verdict(standings: Standings) -> Result<Quota, Limited> {
    let quota = quota(standings);
    let reached = BUCKETS
        .into_iter()
        .zip(standings)
        .filter_map(|(whose, standing)| {
            let wait = standing?.wait;
            (!wait.is_zero()).then_some((whose, wait))
        });
    match reached.max_by_key(|(_, wait)| *wait) {
        None => Ok(quota),
        Some(((scope, what), wait)) => Err(Limited {
            what,
            scope,
            wait,
            quota,
        }),
    }
}

fn quota([key_requests, key_tokens, requests, tokens]: Standings) -> Quota {
    Quota {
        requests: key_requests.or(requests),
        tokens: key_tokens.or(tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(name: &str, own: OwnLimits) -> Asker {
        Asker {
            owner: Owner::new(name),
            own,
        }
    }

    fn limiter(all: Rates, key: KeyLimits) -> Limiter {
        Limiter::new(LimitSettings {
            window: LimitSettings::WINDOW,
            all,
            key,
        })
    }

    fn requests(requests: u64) -> Rates {
        Rates {
            requests: Some(requests),
            tokens: None,
        }
    }

    #[actix::test]
    async fn t6_t7_a_key_at_its_limit_is_told_and_another_is_served() {
        tokio::time::pause();
        let key = KeyLimits {
            concurrent: None,
            rates: requests(3),
        };
        let mut limiter = limiter(Rates::default(), key);
        let (ann, bob) = (
            asker("ann", OwnLimits::default()),
            asker("bob", OwnLimits::default()),
        );
        for left in [2, 1, 0] {
            let standing = limiter.begin(&ann).unwrap().requests.unwrap();
            assert_eq!((standing.limit, standing.remaining), (3, left));
        }
        let limited = limiter.begin(&ann).unwrap_err();
        assert_eq!((limited.what, limited.scope), (What::Requests, Scope::Key));
        assert!(limiter.begin(&bob).is_ok());
        tokio::time::advance(limited.wait).await;
        assert!(limiter.begin(&ann).is_ok());
    }

    #[actix::test]
    async fn a_line_of_the_keys_file_replaces_the_default_and_zero_lifts_it() {
        tokio::time::pause();
        let key = KeyLimits {
            concurrent: Some(1),
            rates: requests(1),
        };
        let mut limiter = limiter(Rates::default(), key);
        let own = |n| OwnLimits {
            concurrent: Some(n),
            requests: Some(n),
            tokens: None,
        };
        for (name, limit) in [("two", 2), ("none", 0)] {
            let asker = asker(name, own(limit));
            let mut places = Vec::new();
            for turn in 0..5 {
                let fits = limit == 0 || turn < limit;
                assert_eq!(limiter.begin(&asker).is_ok(), fits, "{name} {turn}");
                let place = limiter.place(&asker);
                assert_eq!(place.is_ok(), fits, "{name} {turn}");
                places.push(place);
            }
            drop(places);
            assert!(
                limiter.place(&asker).is_ok(),
                "a place that is left is free again"
            );
        }
    }

    #[actix::test]
    async fn t6_tokens_are_a_debt_of_the_key_and_of_all() {
        tokio::time::pause();
        let all = Rates {
            requests: None,
            tokens: Some(1000),
        };
        let mut limiter = limiter(all, KeyLimits::default());
        let (ann, bob) = (
            asker("ann", OwnLimits::default()),
            asker("bob", OwnLimits::default()),
        );
        assert!(limiter.begin(&ann).is_ok());
        limiter.charge(&ann, 2500);
        let limited = limiter.begin(&bob).unwrap_err();
        assert_eq!((limited.what, limited.scope), (What::Tokens, Scope::All));
        assert_eq!(limited.quota.tokens.unwrap().remaining, 0);
        // 2500 are paid off at 1000 a minute: two minutes later half of the third is left.
        assert_eq!(limited.wait, LimitSettings::WINDOW * 2);
        tokio::time::advance(limited.wait).await;
        let quota = limiter.begin(&ann).unwrap();
        assert_eq!(quota.tokens.unwrap().remaining, 500);
        assert!(limiter.counts_tokens(OwnLimits::default()));
    }
}
