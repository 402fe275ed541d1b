//! `CacheActor`: the door to stored responses. It passes everything on to the store behind it; the
//! two share one arbiter, since a hop between threads costs ten times one inside (measured).

pub mod messages;
pub mod settings;

use actix::{Actor, Addr, Context, Handler, ResponseFuture};
use actix_rt::Arbiter;
use tokio::sync::oneshot;
use vllm_responses_protocol::record::{Chain, Stored};

use crate::store::messages::{
    self as store, Commit, Fetch, LoadChain, Remove, StoreError, StoreObservation,
};
use crate::store::settings::StoreSettings;
use crate::store::{StoreActor, StoreStartError};
use messages::{CacheObservation, Observe};

/// See the module.
#[derive(Debug)]
pub struct CacheActor {
    store: Addr<StoreActor>,
}

/// Opens the store on a thread of its own and puts the cache in front of it.
pub async fn start(settings: StoreSettings) -> Result<Addr<CacheActor>, StoreStartError> {
    let (opened, outcome) = oneshot::channel();
    Arbiter::new().spawn(async move {
        let front = StoreActor::open(&settings).await.map(|store| {
            CacheActor {
                store: store.start(),
            }
            .start()
        });
        // The starter gave up: nobody wants the store any more.
        let _unheard: Result<(), _> = opened.send(front);
    });
    outcome
        .await
        .map_err(|_gone| StoreStartError::Open("its thread ended".to_owned()))?
}

impl CacheActor {
    /// Asks the store; a store that is gone is one that is unavailable.
    fn pass_on<M, R>(&self, message: M) -> ResponseFuture<Result<R, StoreError>>
    where
        M: actix::Message<Result = Result<R, StoreError>> + Send + 'static,
        R: Send + 'static,
        StoreActor: Handler<M>,
    {
        let asked = self.store.send(message);
        Box::pin(async move {
            asked
                .await
                .map_err(|_gone| StoreError::Unavailable("its actor ended".to_owned()))?
        })
    }
}

impl Actor for CacheActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
    }
}

/// Many at once, bounded by the store.
impl Handler<Commit> for CacheActor {
    type Result = ResponseFuture<Result<(), StoreError>>;

    fn handle(&mut self, message: Commit, _: &mut Self::Context) -> Self::Result {
        self.pass_on(message)
    }
}

/// Many at once, bounded by the store.
impl Handler<LoadChain> for CacheActor {
    type Result = ResponseFuture<Result<Option<Chain>, StoreError>>;

    fn handle(&mut self, message: LoadChain, _: &mut Self::Context) -> Self::Result {
        self.pass_on(message)
    }
}

/// Many at once, bounded by the store.
impl Handler<Fetch> for CacheActor {
    type Result = ResponseFuture<Result<Option<Stored>, StoreError>>;

    fn handle(&mut self, message: Fetch, _: &mut Self::Context) -> Self::Result {
        self.pass_on(message)
    }
}

/// Many at once, bounded by the store.
impl Handler<Remove> for CacheActor {
    type Result = ResponseFuture<Result<bool, StoreError>>;

    fn handle(&mut self, message: Remove, _: &mut Self::Context) -> Self::Result {
        self.pass_on(message)
    }
}

/// The store's own state.
impl Handler<store::Observe> for CacheActor {
    type Result = ResponseFuture<Result<StoreObservation, StoreError>>;

    fn handle(&mut self, message: store::Observe, _: &mut Self::Context) -> Self::Result {
        self.pass_on(message)
    }
}

/// Synchronous.
impl Handler<Observe> for CacheActor {
    type Result = CacheObservation;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> CacheObservation {
        CacheObservation { enabled: false }
    }
}
