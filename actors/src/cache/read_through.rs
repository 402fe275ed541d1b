//! The look-up, the commit and the deletion of a response, with Redis beside the store.
//!
//! The rules that they follow, and why, are on the cache's own page.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::RedisResult;
use vllm_responses_protocol::ids::IdSource as _;
use vllm_responses_protocol::record::{Chain, Link, Record};

use super::behind::{Behind, ask};
use super::entry::{self, Found, Head};
use super::fill::{Claim, Content, Queue};
use super::keys::{Names, Subject};
use super::remote::{Line, Remote};
use super::settings::CacheSettings;
use super::trust::{self, Trust};
use crate::env::{Clock as _, SystemClock, SystemIds};
use crate::store::messages::{
    BeginEpoch, Commit, Extent, LoadChain, ReadEpoch, Remove, StoreError,
};

/// How long the right to fill a head lasts: longer than the store may take to read or to commit.
const LEASE: Duration = Duration::from_secs(10);
/// How long nothing may be filled under a head whose response is being deleted: longer than the
/// store may take to delete it.
const BLOCK: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct ReadThrough {
    store: Behind,
    redis: Rc<Remote>,
    trust: RefCell<Trust>,
    fills: Queue,
    extent: Extent,
}

/// What a look-up in Redis gave.
enum Looked {
    /// The whole chain.
    Hit(Chain),
    /// Nothing to answer with; perhaps the right to put it there.
    Miss(Option<Claim>),
    /// Redis was not asked, did not answer, or may not be believed.
    Bypass,
}

impl ReadThrough {
    pub(super) fn new(
        store: Behind,
        settings: &CacheSettings,
        redis: Rc<Remote>,
        fills: Queue,
    ) -> Self {
        Self {
            store,
            redis,
            trust: RefCell::default(),
            fills,
            extent: settings.extent,
        }
    }

    fn epoch(&self) -> Option<Rc<str>> {
        self.trust.borrow().epoch(Instant::now())
    }

    /// Reads the epoch again and again. Ends never.
    pub(super) async fn keep_trust(&self) {
        loop {
            let asked = Instant::now();
            let read = ask(&self.store.epochs, ReadEpoch).await;
            match read {
                Ok(Some(epoch)) => self
                    .trust
                    .borrow_mut()
                    .learned(&epoch, asked, Instant::now()),
                Ok(None) => {
                    if let Err(error) = self.begin_epoch().await {
                        log::warn!("the cache is not used yet: {error}");
                    }
                }
                // Without the store's word Redis is not believed; the store's own faults are
                // reported where they hurt.
                Err(error) => log::debug!("the cache epoch was not read: {error}"),
            }
            tokio::time::sleep(trust::REFRESH).await;
        }
    }

    /// A chain from Redis, else from the store.
    pub(super) async fn load(&self, message: LoadChain) -> Result<Option<Chain>, StoreError> {
        let subject = Subject {
            owner: message.owner.clone(),
            id: message.id.clone(),
        };
        let claim = match self.look_up(subject, message.extent).await {
            Looked::Hit(chain) => {
                self.redis.count(|facts| facts.hits += 1);
                return Ok(Some(chain));
            }
            Looked::Miss(claim) => {
                self.redis.count(|facts| facts.misses += 1);
                claim
            }
            Looked::Bypass => {
                self.redis.count(|facts| facts.bypasses += 1);
                None
            }
        };
        let loaded = ask(&self.store.chains, message).await?;
        if let (Some(claim), Some(chain)) = (claim, &loaded)
            && chain
                .links
                .last()
                .is_some_and(|last| last.status.is_anchor())
        {
            self.fills.put(claim, Content::Chain(chain.clone()));
        }
        Ok(loaded)
    }

    async fn look_up(&self, subject: Subject, extent: Extent) -> Looked {
        let Some(epoch) = self.epoch().filter(|_| subject.fits()) else {
            return Looked::Bypass;
        };
        let read = self
            .redis
            .run(async |line| read_head(line, &epoch, &subject).await)
            .await;
        let Some((names, key, value)) = read else {
            return Looked::Bypass;
        };
        let looked = match (Found::read(&key, value.as_deref()), value) {
            (Found::Live(head), Some(value)) => {
                let claim = Claim {
                    names,
                    subject,
                    expected: value,
                };
                self.rows(&head, claim, extent).await
            }
            (Found::Nothing, _) => Looked::Miss(self.lease(names, subject).await),
            (Found::Damage, _) => {
                self.redis.count(|facts| facts.damaged += 1);
                // Whatever happens to it, this look-up does not need it.
                let _tried: Option<()> = self.redis.run(async |line| line.delete(&key).await).await;
                Looked::Miss(None)
            }
            (Found::Taken | Found::Live(_), _) => Looked::Miss(None),
        };
        if self.trust.borrow().holds(&epoch, Instant::now()) {
            looked
        } else {
            Looked::Bypass
        }
    }

    /// The rows of a chain whose head is live.
    async fn rows(&self, head: &Head, claim: Claim, extent: Extent) -> Looked {
        let expired = |at| at <= SystemClock.now_ms();
        // Larger ones were kept by the version before.
        if head.expires_at_ms.is_some_and(expired) || head.chain_bytes > entry::MAX_CHAIN {
            return Looked::Miss(None);
        }
        let Claim { names, subject, .. } = &claim;
        let ids = head.ancestors.iter().chain([&subject.id]);
        let mut keys: Vec<String> = ids.map(|id| names.row(&subject.owner, id)).collect();
        let rows = keys.len();
        if extent == Extent::WithSettings {
            keys.push(names.settings(subject));
        }
        let read = self
            .redis
            .run_for(head.chain_bytes, async |line| line.get(&keys).await)
            .await;
        let Some(values) = read else {
            return Looked::Bypass;
        };
        let mut entries: Vec<_> = keys.into_iter().zip(values).collect();
        let settings = entries.split_off(rows).pop();
        let settings = settings.map(|(key, entry)| entry::open::<Arc<str>>(&key, &entry?));
        let chain = entry::chain(head, &entries);
        match (chain, settings) {
            (Some(chain), None) => Looked::Hit(chain),
            (Some(chain), Some(Some(settings))) => Looked::Hit(Chain {
                settings: Some(settings),
                ..chain
            }),
            (None, _) | (_, Some(None)) => Looked::Miss(Some(claim)),
        }
    }

    /// The right to fill a head that is not there.
    async fn lease(&self, names: Names, subject: Subject) -> Option<Claim> {
        let expected = entry::lease(SystemIds.next_bits());
        let key = names.head(&subject);
        let placed = self
            .redis
            .run(async |line| line.place(&key, &expected, LEASE).await)
            .await?;
        placed.then_some(Claim {
            names,
            subject,
            expected,
        })
    }

    /// Commits, and puts what was committed into Redis afterwards.
    pub(super) async fn commit(&self, record: Box<Record>) -> Result<(), StoreError> {
        let planned = self.plan(&record).await;
        ask(&self.store.commits, Commit(record)).await?;
        if let Some((claim, content)) = planned {
            self.fills.put(claim, content);
        }
        Ok(())
    }

    /// What will be put into Redis after the commit. The right to do so is got before it: afterwards
    /// the response can already have been deleted.
    async fn plan(&self, record: &Record) -> Option<(Claim, Content)> {
        if !record.status.is_anchor() {
            return None;
        }
        let epoch = self.epoch()?;
        let of = |id| Subject {
            owner: record.owner.clone(),
            id,
        };
        let subject = of(record.id.clone());
        let expected = entry::lease(SystemIds.next_bits());
        let placed = self.redis.run(async |line| {
            let mut previous = None;
            if let Some(id) = &record.previous {
                let (_, key, value) = read_head(line, &epoch, &of(id.clone())).await?;
                // Without the ancestors there is nothing to write; a look-up finds them.
                let Found::Live(head) = Found::read(&key, value.as_deref()) else {
                    return Ok(None);
                };
                previous = Some((id.clone(), head));
            }
            let names = Names::new(&epoch, line.run());
            let placed = line.place(&names.head(&subject), &expected, LEASE).await?;
            Ok(placed.then_some((names, previous)))
        });
        let (names, previous) = placed.await??;
        let claim = Claim {
            names,
            subject,
            expected,
        };
        let link = Arc::new(Link {
            id: record.id.clone(),
            status: record.status,
            input_items: record.input_items.clone(),
            response: record.response.clone(),
        });
        let settings = Arc::clone(&record.settings);
        let content = Content::Latest {
            link,
            expires_at_ms: record.expires_at_ms,
            settings: (self.extent == Extent::WithSettings).then_some(settings),
            previous,
        };
        Some((claim, content))
    }

    /// Deletes; from the answer on no replica takes the response for live.
    pub(super) async fn remove(&self, message: Remove) -> Result<bool, StoreError> {
        let subject = Subject {
            owner: message.owner.clone(),
            id: message.id.clone(),
        };
        if !subject.fits() {
            return ask(&self.store.removals, message).await;
        }
        // So that a gateway that dies between the store's deletion and the block below leaves no
        // live head behind. When it fails, the block below still counts.
        if let Some(epoch) = self.epoch() {
            self.block(&epoch, &subject).await;
        }
        let removed = ask(&self.store.removals, message).await?;
        let asked = Instant::now();
        let Some(epoch) = ask(&self.store.epochs, ReadEpoch).await? else {
            return Ok(removed);
        };
        self.trust
            .borrow_mut()
            .learned(&epoch, asked, Instant::now());
        let blocked = self.block(&epoch, &subject).await;
        if !removed {
            // Nothing was deleted, so that nothing need be final: others read what they read before.
            return Ok(false);
        }
        if blocked.is_none() {
            self.redis.count(|facts| facts.epochs_begun += 1);
            self.begin_epoch().await?;
            tokio::time::sleep(trust::WAIT).await;
            return Ok(removed);
        }
        let unsettled = self.trust.borrow().unsettled(&epoch, Instant::now());
        tokio::time::sleep(unsettled).await;
        Ok(removed)
    }

    async fn block(&self, epoch: &str, subject: &Subject) -> Option<()> {
        self.redis
            .run(async |line| {
                let names = Names::new(epoch, line.run());
                let others = [
                    names.row(&subject.owner, &subject.id),
                    names.settings(subject),
                ];
                line.block(&names.head(subject), &others, BLOCK).await
            })
            .await
    }

    async fn begin_epoch(&self) -> Result<(), StoreError> {
        let epoch = format!("{:032x}", SystemIds.next_bits());
        let asked = Instant::now();
        ask(&self.store.beginnings, BeginEpoch(epoch.clone())).await?;
        self.trust
            .borrow_mut()
            .learned(&epoch, asked, Instant::now());
        Ok(())
    }
}

/// The head of a response, as this run of the server has it.
async fn read_head(
    line: &mut Line,
    epoch: &str,
    subject: &Subject,
) -> RedisResult<(Names, String, Option<Vec<u8>>)> {
    let names = Names::new(epoch, line.run());
    let key = names.head(subject);
    let value = line.get(std::slice::from_ref(&key)).await?.pop().flatten();
    Ok((names, key, value))
}
