//! Buckets that several gateways share, in Redis: one script, one round trip.
//!
//! Whoever uses the same Redis database counts together. Redis never costs a client an error, nor
//! more than the limit of one operation: without its answer the caller judges by itself.

use redis::RedisError;
use vllm_responses_protocol::ids::Owner;

use super::bucket::{LONGEST_DEBT, Rate, Standing};
use super::{
    Asker, BEGINS, BUCKETS, LimitSettings, Limited, Limiter, Quota, Scope, Sizes, Standings, What,
};
use crate::cache::remote::Remote;
use crate::cache::settings::CacheSettings;

const SCRIPT: &str = include_str!("shared.lua");

/// See the module.
pub(crate) struct Shared {
    redis: Remote,
}

/// What is asked of Redis, detached from the limiter.
#[derive(Debug)]
pub(crate) struct Order {
    keys: Vec<String>,
    arguments: Vec<u64>,
    /// Which buckets `keys` are, and their sizes.
    sizes: Sizes,
}

impl Limiter {
    /// Asks to let a request in.
    pub(crate) fn order_begin(&self, asker: &Asker) -> Order {
        self.order(asker, 1, BEGINS)
    }

    /// Charges a model call.
    pub(crate) fn order_charge(&self, asker: &Asker, tokens: u64) -> Order {
        self.order(asker, 0, super::uses(tokens))
    }

    fn order(&self, asker: &Asker, takes: u64, amounts: [u64; BUCKETS.len()]) -> Order {
        let LimitSettings { window, .. } = self.settings;
        let shape = Rate { amount: 1, window };
        let sizes = self.sizes(asker.own);
        let mut order = Order {
            keys: Vec::with_capacity(sizes.len()),
            arguments: vec![shape.window_ms(), shape.part_ms(), LONGEST_DEBT, takes],
            sizes,
        };
        for ((place, size), amount) in BUCKETS.into_iter().zip(sizes).zip(amounts) {
            if let Some(size) = size {
                order
                    .keys
                    .push(name(place, &asker.owner, shape.window_ms()));
                order.arguments.extend([size, amount]);
            }
        }
        order
    }
}

/// Buckets of another window are others. A key's name has no colon in it.
fn name((scope, what): (Scope, What), owner: &Owner, window_ms: u64) -> String {
    let what = match what {
        What::Concurrent => "concurrent",
        What::Requests => "requests",
        What::Tokens => "tokens",
    };
    match scope {
        Scope::Key => format!(
            "vllm-responses:limit:{window_ms}:{what}:key:{}",
            owner.as_str()
        ),
        Scope::All => format!("vllm-responses:limit:{window_ms}:{what}:all"),
    }
}

impl Shared {
    /// # Errors
    /// When the URL is none that the client understands.
    pub(crate) fn new(settings: &CacheSettings) -> Result<Self, RedisError> {
        Ok(Self {
            redis: Remote::new(settings)?,
        })
    }

    /// Lets a request in; `None` when Redis does not say.
    pub(crate) async fn begin(&self, order: Order) -> Option<Result<Quota, Limited>> {
        let (spent, standings) = self.run(&order).await?;
        Some(match super::verdict(standings) {
            Err(limited) if !spent => Err(limited),
            Ok(quota) | Err(Limited { quota, .. }) => Ok(quota),
        })
    }

    /// Charges; what Redis does not hear is lost to the others.
    pub(crate) async fn charge(&self, order: Order) {
        self.run(&order).await;
    }

    async fn run(&self, order: &Order) -> Option<(bool, Standings)> {
        let answer = self
            .redis
            .run(async |line| line.evaluate(SCRIPT, &order.keys, &order.arguments).await)
            .await?;
        read(order, &answer)
    }
}

fn read(order: &Order, answer: &[i64]) -> Option<(bool, Standings)> {
    let unsigned = |number: &i64| u64::try_from(*number).unwrap_or(0);
    let (spent, rest) = answer.split_first()?;
    let mut told = rest.chunks_exact(3);
    let mut standings = Standings::default();
    for (place, size) in standings.iter_mut().zip(order.sizes) {
        let Some(limit) = size else { continue };
        let [used, wait, full] = told.next()? else {
            return None;
        };
        *place = Some(Standing {
            limit,
            remaining: limit.saturating_sub(unsigned(used)),
            wait: std::time::Duration::from_millis(unsigned(wait)),
            full_after: std::time::Duration::from_millis(unsigned(full)),
        });
    }
    Some((*spent == 1, standings))
}

#[cfg(test)]
#[path = "../../tests/cache/redis.rs"]
#[expect(dead_code, reason = "the cache's own suite uses the rest")]
mod server;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{KeyLimits, OwnLimits, Rates};
    use super::server::Redis;
    use super::*;
    use crate::secret::Secret;
    use crate::store::messages::Extent;

    /// So long that nothing comes back during the test, whose two clocks cannot be compared.
    const WINDOW: Duration = Duration::from_secs(36_000);

    fn settings(redis: &Redis) -> CacheSettings {
        CacheSettings {
            url: Secret::new(&redis.url()),
            ttl: Duration::from_secs(60),
            extent: Extent::Items,
            // A busy machine is no reason for another outcome.
            limit: Duration::from_secs(20),
        }
    }

    /// Numbers without a pattern, the same in every run.
    fn noise(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *state >> 33
    }

    #[actix::test]
    async fn t6_the_script_and_the_bucket_agree() {
        let Some(redis) = Redis::start(&[]) else {
            return;
        };
        let shared = Shared::new(&settings(&redis)).unwrap();
        let part = WINDOW / u32::try_from(super::super::bucket::PARTS).unwrap();
        let near = |a: Duration, b: Duration| a.abs_diff(b) <= part * 2;
        let mut state = 7;
        for round in 0..60 {
            let mut size = || Some(noise(&mut state) % 40 + 1).filter(|size| size % 5 > 0);
            let mut rates = || Rates {
                requests: size(),
                tokens: size(),
            };
            let settings = LimitSettings {
                window: WINDOW,
                all: Rates::default(),
                key: KeyLimits {
                    concurrent: None,
                    rates: rates(),
                },
            };
            let mut limiter = Limiter::new(settings);
            let asker = Asker {
                owner: Owner::new(&format!("round-{round}")),
                own: OwnLimits::default(),
            };
            for step in 0..30 {
                if noise(&mut state).is_multiple_of(3) {
                    let tokens = noise(&mut state) % 100;
                    shared.charge(limiter.order_charge(&asker, tokens)).await;
                    limiter.charge(&asker, tokens);
                    continue;
                }
                let order = limiter.order_begin(&asker);
                if order.keys.is_empty() {
                    continue;
                }
                let there = shared.begin(order).await.expect("Redis answers");
                let here = limiter.begin(&asker);
                let (told, known) = match (there, here) {
                    (Ok(told), Ok(known)) => (told, known),
                    (Err(told), Err(known)) => {
                        assert_eq!((told.what, told.scope), (known.what, known.scope));
                        assert!(near(told.wait, known.wait), "{told:?} {known:?}");
                        (told.quota, known.quota)
                    }
                    (told, known) => panic!("{round} {step}: {told:?} {known:?}"),
                };
                for (told, known) in [(told.requests, known.requests), (told.tokens, known.tokens)]
                {
                    let remaining = |standing: Option<Standing>| standing.map(|s| s.remaining);
                    assert_eq!(remaining(told), remaining(known), "{round} {step}");
                    let full = |standing: Option<Standing>| standing.unwrap_or_default().full_after;
                    assert!(near(full(told), full(known)), "{told:?} {known:?}");
                }
            }
        }
        assert!(!redis.keys().is_empty());
    }
}
