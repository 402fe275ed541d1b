//! `CacheActor`: the door to stored responses, with Redis (if there is one) and the store behind it.
//!
//! Without Redis it passes everything on to the store. With Redis, a turn that continues a response
//! reads the chain from there. Cache and store share one arbiter, since a hop between threads costs
//! ten times one inside (measured).
//!
//! # What stands in Redis
//!
//! For each response a **head**, which says that the response is live and names its ancestors, and a
//! **row**, what its own turn added (and its settings, when look-ups want them). A chain is one GET
//! of the head and one MGET of the rows. Rows never change and prove nothing: a deleted response's
//! row may be needed by a live descendant. Only a head makes a response continuable, and everything
//! below is about heads. `GET /v1/responses/{id}` always asks the store.
//!
//! # Why a deletion is final
//!
//! A turn with a warm Redis asks the store nothing before its commit, so a head in Redis must never
//! outlive its response's deletion. DELETE is acknowledged only when that is certain:
//!
//! 1. *The head is there.* DELETE deletes in the store, then overwrites the head with a block that
//!    cannot be filled, and waits for Redis to say so.
//! 2. *A fill is under way* (somebody read the row before it was deleted and writes the head after
//!    the block). Who wants to fill a head first puts a **lease** there, then reads or commits, and
//!    writes the head only if his lease is still there, in one script. The lease came before the
//!    reading, the block after the deletion: either the block has overwritten the lease, or the
//!    reading came after the deletion and found nothing.
//! 3. *Redis was flushed, evicted the block, or let it expire.* Then the lease is gone too, or came
//!    after the deletion. A missing head makes nobody live.
//! 4. *Redis restarted with an old snapshot.* Every key has the server's run id in it: what an earlier
//!    run wrote is not found. (One server must stand behind the address: a proxy over several, or a
//!    failover that keeps two masters writable, breaks this.)
//! 5. *DELETE cannot reach Redis*, but other replicas perhaps can, or what was sent may arrive later.
//!    Every key also has the **epoch** in it, a random word that the store keeps. DELETE then writes a
//!    new word into the store, and waits until every replica must have stopped using the old one: a
//!    replica uses a word for 2 s after it asked for it, and asks more often than that (`trust`). No
//!    clocks are compared. Everything under the old word is lost to all, which costs misses only. So a
//!    DELETE takes 2.2 s longer while Redis is away; turns do not.
//! 6. *Replicas use different epochs* because another DELETE just began a new one. DELETE reads the
//!    word from the store after its deletion and blocks the head under that one. A word begun even
//!    later is followed by readings of the store that come after the deletion. And while the
//!    deleting replica has known the word for less than 2.2 s, others may still use the one before,
//!    so DELETE waits for the rest of that time (which it also does just after start-up).
//! 7. *The gateway dies in the middle of a DELETE.* The head is blocked before the store deletes, too.
//!
//! The word is random, so that two databases behind one Redis never meet.
//! Gateways over one database must agree on having a cache: one without it does not know of heads.
//!
//! # What Redis can do to a client
//!
//! Nothing. Every operation that takes more than 50 ms counts as failed and the store answers; five
//! failures in a row open a breaker, which tries again each second. Entries carry a checksum over key
//! and content; damage reads as missing.

mod behind;
mod breaker;
mod entry;
pub mod facts;
mod fill;
mod keys;
pub mod messages;
mod read_through;
pub(crate) mod remote;
pub mod settings;
mod trust;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext as _, Context, Handler, ResponseFuture, WrapFuture as _};
use actix_rt::Arbiter;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use vllm_responses_protocol::record::{Chain, Link, Stored};

use crate::secret::Secret;
use crate::store::messages::{
    self as store, ChainPart, Claim, Commit, Fetch, FindLinks, KeepSealKey, LoadChain, LoadPart,
    ReadChunk, Remove, StoreError, StoreObservation, Weigh, Weight,
};
use crate::store::settings::StoreSettings;
use crate::store::{StoreActor, StoreStartError};
pub use behind::Behind;
use behind::ask;
use fill::Fill;
use messages::{CacheObservation, Observe};
use read_through::ReadThrough;
use remote::Remote;
use settings::CacheSettings;

/// See the module.
pub struct CacheActor {
    store: Behind,
    cached: Option<Cached>,
}

/// What there is when Redis is on.
struct Cached {
    through: Rc<ReadThrough>,
    redis: Rc<Remote>,
    ttl: Duration,
    /// Move into their writer when the actor starts.
    fills: Option<mpsc::Receiver<Fill>>,
}

impl fmt::Debug for CacheActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheActor").finish_non_exhaustive()
    }
}

/// The cache cannot be used at all. Never quotes the URL, which may hold a password.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`VR_REDIS_URL` is no URL that the Redis client takes ({0})")]
pub struct BadRedisUrl(String);

/// Opens the store on a thread of its own and puts the cache in front of it.
pub async fn start(
    settings: StoreSettings,
    cache: Option<CacheSettings>,
) -> Result<Addr<CacheActor>, StoreStartError> {
    let (opened, outcome) = oneshot::channel();
    Arbiter::new().spawn(async move {
        let front = match StoreActor::open(&settings).await {
            Ok(store) => CacheActor::new(store.start().into(), cache.as_ref())
                .map(Actor::start)
                .map_err(|error| StoreStartError::Cache(error.to_string())),
            Err(error) => Err(error),
        };
        // The starter gave up: nobody wants the store any more.
        let _unheard: Result<(), _> = opened.send(front);
    });
    outcome
        .await
        .map_err(|_gone| StoreStartError::Open("its thread ended".to_owned()))?
}

impl CacheActor {
    /// A cache in front of this store; `None` makes it a mere door. To be called on the arbiter that
    /// it will live on.
    ///
    /// # Errors
    /// When the Redis client does not take the URL.
    pub fn new(store: Behind, settings: Option<&CacheSettings>) -> Result<Self, BadRedisUrl> {
        let cached = match settings {
            None => None,
            Some(settings) => {
                let redis = Remote::new(settings)
                    .map_err(|error| BadRedisUrl(error.category().to_owned()))?;
                let redis = Rc::new(redis);
                let (queue, fills) = fill::queue();
                let through = ReadThrough::new(store.clone(), settings, Rc::clone(&redis), queue);
                Some(Cached {
                    through: Rc::new(through),
                    redis,
                    ttl: settings.ttl,
                    fills: Some(fills),
                })
            }
        };
        Ok(Self { store, cached })
    }

    fn through(&self) -> Option<Rc<ReadThrough>> {
        let cached = self.cached.as_ref()?;
        Some(Rc::clone(&cached.through))
    }
}

impl Actor for CacheActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        let Some(cached) = &mut self.cached else {
            return;
        };
        let (through, redis, ttl) = (
            Rc::clone(&cached.through),
            Rc::clone(&cached.redis),
            cached.ttl,
        );
        let fills = cached.fills.take();
        ctx.spawn(async move { through.keep_trust().await }.into_actor(self));
        if let Some(fills) = fills {
            ctx.spawn(fill::run(redis, ttl, fills).into_actor(self));
        }
    }
}

/// Many at once, bounded by the store.
impl Handler<Commit> for CacheActor {
    type Result = ResponseFuture<Result<(), StoreError>>;

    fn handle(&mut self, message: Commit, _: &mut Self::Context) -> Self::Result {
        match self.through() {
            Some(through) => Box::pin(async move { through.commit(message.0).await }),
            None => pass_on(&self.store.commits, message),
        }
    }
}

/// Many at once, bounded by the store.
impl Handler<LoadChain> for CacheActor {
    type Result = ResponseFuture<Result<Option<Chain>, StoreError>>;

    fn handle(&mut self, message: LoadChain, _: &mut Self::Context) -> Self::Result {
        match self.through() {
            Some(through) => Box::pin(async move { through.load(message).await }),
            None => pass_on(&self.store.chains, message),
        }
    }
}

/// Many at once, bounded by the store.
impl Handler<LoadPart> for CacheActor {
    type Result = ResponseFuture<Result<Option<ChainPart>, StoreError>>;

    fn handle(&mut self, message: LoadPart, _: &mut Self::Context) -> Self::Result {
        pass_on(&self.store.parts, message)
    }
}

/// Many at once, bounded by the store.
impl Handler<FindLinks> for CacheActor {
    type Result = ResponseFuture<Result<Vec<Arc<Link>>, StoreError>>;

    fn handle(&mut self, message: FindLinks, _: &mut Self::Context) -> Self::Result {
        pass_on(&self.store.links, message)
    }
}

/// Many at once, bounded by the store.
impl Handler<Weigh> for CacheActor {
    type Result = ResponseFuture<Result<Option<Weight>, StoreError>>;

    fn handle(&mut self, message: Weigh, _: &mut Self::Context) -> Self::Result {
        pass_on(&self.store.weights, message)
    }
}

/// Many at once, bounded by the store.
impl Handler<Fetch> for CacheActor {
    type Result = ResponseFuture<Result<Option<Stored>, StoreError>>;

    fn handle(&mut self, message: Fetch, _: &mut Self::Context) -> Self::Result {
        pass_on(&self.store.fetches, message)
    }
}

/// Many at once, bounded by the store. Never in Redis.
impl Handler<ReadChunk> for CacheActor {
    type Result = ResponseFuture<Result<Option<Vec<Bytes>>, StoreError>>;

    fn handle(&mut self, message: ReadChunk, _: &mut Self::Context) -> Self::Result {
        pass_on(&self.store.chunks, message)
    }
}

/// Many at once, bounded by the store.
impl Handler<Remove> for CacheActor {
    type Result = ResponseFuture<Result<bool, StoreError>>;

    fn handle(&mut self, message: Remove, _: &mut Self::Context) -> Self::Result {
        match self.through() {
            Some(through) => Box::pin(async move { through.remove(message).await }),
            None => pass_on(&self.store.removals, message),
        }
    }
}

/// The store's own.
impl Handler<KeepSealKey> for CacheActor {
    type Result = ResponseFuture<Result<Secret, StoreError>>;

    fn handle(&mut self, message: KeepSealKey, _: &mut Self::Context) -> Self::Result {
        pass_on(&self.store.seal_keys, message)
    }
}

/// Many at once, bounded by the store. Never cached: there is one truth about it.
impl Handler<Claim> for CacheActor {
    type Result = ResponseFuture<Result<bool, StoreError>>;

    fn handle(&mut self, message: Claim, _: &mut Self::Context) -> Self::Result {
        pass_on(&self.store.claims, message)
    }
}

/// The store's own state.
impl Handler<store::Observe> for CacheActor {
    type Result = ResponseFuture<Result<StoreObservation, StoreError>>;

    fn handle(&mut self, message: store::Observe, _: &mut Self::Context) -> Self::Result {
        pass_on(&self.store.observe, message)
    }
}

/// The store's own.
impl Handler<store::ReportTo> for CacheActor {
    type Result = ();

    fn handle(&mut self, message: store::ReportTo, _: &mut Self::Context) {
        self.store.reports.do_send(message);
    }
}

/// The store's own; the last message of a gateway.
impl Handler<store::Close> for CacheActor {
    type Result = ResponseFuture<Result<(), StoreError>>;

    fn handle(&mut self, message: store::Close, _: &mut Self::Context) -> Self::Result {
        pass_on(&self.store.closing, message)
    }
}

/// Synchronous.
impl Handler<Observe> for CacheActor {
    type Result = CacheObservation;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> CacheObservation {
        CacheObservation {
            redis: self.cached.as_ref().map(|cached| cached.redis.facts()),
        }
    }
}

fn pass_on<M, R>(to: &actix::Recipient<M>, message: M) -> ResponseFuture<Result<R, StoreError>>
where
    M: actix::Message<Result = Result<R, StoreError>> + Send + 'static,
    R: Send + 'static,
{
    let to = to.clone();
    Box::pin(async move { ask(&to, message).await })
}
