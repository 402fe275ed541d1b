//! Replicas: caches as several gateway processes have them, over one database and one Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Context, Handler, Message, ResponseFuture};
use bytes::Bytes;
use tokio::sync::watch;
use vllm_responses_actors::ask::ask_actor;
use vllm_responses_actors::cache::facts::CacheFacts;
use vllm_responses_actors::cache::messages as cache;
use vllm_responses_actors::cache::settings::CacheSettings;
use vllm_responses_actors::cache::{Behind, CacheActor};
use vllm_responses_actors::secret::Secret;
use vllm_responses_actors::store::StoreActor;
use vllm_responses_actors::store::messages::{
    BeginEpoch, ChainPart, Claim, Close, Commit, Extent, Fetch, FindLinks, KeepSealKey, LoadChain,
    LoadPart, Observe, ReadChunk, ReadEpoch, Remove, ReportTo, StoreError, StoreObservation, Weigh,
    Weight,
};
use vllm_responses_protocol::ids::{Owner, ResponseId};
use vllm_responses_protocol::record::{Chain, Link, Record, Status};

use crate::store_fixture;

/// Longer than anything a test waits for.
const DEADLINE: Duration = Duration::from_secs(60);

/// A database of the test's own, gone with it.
pub(crate) struct Place(store_fixture::Place);

impl Place {
    pub(crate) fn new() -> Self {
        Self::sqlite()
    }

    pub(crate) fn sqlite() -> Self {
        Self(store_fixture::Place::sqlite())
    }

    /// None, with a word about it, where there is no PostgreSQL.
    pub(crate) fn postgres() -> Option<Self> {
        store_fixture::Place::postgres().map(Self)
    }

    /// A replica without Redis.
    pub(crate) async fn plain(&self, extent: Extent) -> Replica {
        self.open(None, extent).await
    }

    /// A replica that reaches Redis by this URL, with the limits of the product.
    pub(crate) async fn replica(&self, url: &str) -> Replica {
        let settings = settings(url, Extent::Items, CacheSettings::LIMIT);
        self.open(Some(settings), Extent::Items).await
    }

    /// A replica that waits longer for Redis than a busy machine makes it wait: for counting.
    pub(crate) async fn patient(&self, url: &str, extent: Extent) -> Replica {
        let settings = settings(url, extent, Duration::from_secs(10));
        self.open(Some(settings), extent).await
    }

    async fn open(&self, cache: Option<CacheSettings>, extent: Extent) -> Replica {
        let store = StoreActor::open(&self.0.settings()).await.unwrap().start();
        let gate = watch::Sender::new(Gate::default());
        let behind = Counting {
            store,
            gate: gate.clone(),
        }
        .start();
        let front = CacheActor::new(behind_of(&behind), cache.as_ref()).unwrap();
        let replica = Replica {
            cache: front.start(),
            gate,
            extent,
        };
        if cache.is_some() {
            replica.wait("the epoch", |gate, _| gate.epochs > 0).await;
        }
        replica
    }

    /// A patient replica with a Redis that works and is used.
    pub(crate) async fn using(&self, url: &str) -> Replica {
        let replica = self.patient(url, Extent::Items).await;
        replica.warm_up().await;
        replica
    }
}

fn settings(url: &str, extent: Extent, limit: Duration) -> CacheSettings {
    CacheSettings {
        url: Secret::new(url),
        ttl: Duration::from_secs(600),
        extent,
        limit,
    }
}

/// What passed between a cache and its store, and which answers are held back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    pub(crate) loads: usize,
    pub(crate) commits: usize,
    pub(crate) removals: usize,
    pub(crate) epochs: usize,
    pub(crate) held: Option<Held>,
}

/// Whose answers are held back until the gate is opened. The store has done the work by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Loads,
    Commits,
    Removals,
    Epochs,
}

/// Passes everything on to the real store.
struct Counting {
    store: Addr<StoreActor>,
    gate: watch::Sender<Gate>,
}

impl Actor for Counting {
    type Context = Context<Self>;
}

fn behind_of(counting: &Addr<Counting>) -> Behind {
    Behind {
        commits: counting.clone().recipient(),
        chains: counting.clone().recipient(),
        parts: counting.clone().recipient(),
        links: counting.clone().recipient(),
        weights: counting.clone().recipient(),
        fetches: counting.clone().recipient(),
        chunks: counting.clone().recipient(),
        removals: counting.clone().recipient(),
        claims: counting.clone().recipient(),
        epochs: counting.clone().recipient(),
        beginnings: counting.clone().recipient(),
        seal_keys: counting.clone().recipient(),
        observe: counting.clone().recipient(),
        reports: counting.clone().recipient(),
        closing: counting.clone().recipient(),
    }
}

impl Counting {
    /// Asks the store, counts the answer, and keeps it while answers of this kind are held back.
    fn pass<M, R>(
        &self,
        message: M,
        kind: Option<Held>,
        count: fn(&mut Gate) -> Option<&mut usize>,
    ) -> ResponseFuture<Result<R, StoreError>>
    where
        M: Message<Result = Result<R, StoreError>> + Send + 'static,
        R: Send + 'static,
        StoreActor: Handler<M>,
    {
        let (asked, gate) = (self.store.send(message), self.gate.clone());
        Box::pin(async move {
            let answer = asked.await.unwrap();
            gate.send_modify(|gate| {
                if let Some(count) = count(gate) {
                    *count += 1;
                }
            });
            let mut seen = gate.subscribe();
            let open = |gate: &Gate| gate.held.is_none() || gate.held != kind;
            seen.wait_for(open).await.unwrap();
            answer
        })
    }
}

impl Handler<LoadPart> for Counting {
    type Result = ResponseFuture<Result<Option<ChainPart>, StoreError>>;
    fn handle(&mut self, message: LoadPart, _: &mut Self::Context) -> Self::Result {
        self.pass(message, None, |_| None)
    }
}

impl Handler<ReadChunk> for Counting {
    type Result = ResponseFuture<Result<Option<Vec<Bytes>>, StoreError>>;
    fn handle(&mut self, message: ReadChunk, _: &mut Self::Context) -> Self::Result {
        self.pass(message, None, |_| None)
    }
}

impl Handler<FindLinks> for Counting {
    type Result = ResponseFuture<Result<Vec<Arc<Link>>, StoreError>>;
    fn handle(&mut self, message: FindLinks, _: &mut Self::Context) -> Self::Result {
        self.pass(message, None, |_| None)
    }
}

impl Handler<Weigh> for Counting {
    type Result = ResponseFuture<Result<Option<Weight>, StoreError>>;
    fn handle(&mut self, message: Weigh, _: &mut Self::Context) -> Self::Result {
        self.pass(message, None, |_| None)
    }
}

impl Handler<ReportTo> for Counting {
    type Result = ();
    fn handle(&mut self, message: ReportTo, _: &mut Self::Context) {
        self.store.do_send(message);
    }
}

impl Handler<Close> for Counting {
    type Result = ResponseFuture<Result<(), StoreError>>;
    fn handle(&mut self, message: Close, _: &mut Self::Context) -> Self::Result {
        self.pass(message, None, |_| None)
    }
}

impl Handler<Observe> for Counting {
    type Result = ResponseFuture<Result<StoreObservation, StoreError>>;
    fn handle(&mut self, message: Observe, _: &mut Self::Context) -> Self::Result {
        self.pass(message, None, |_| None)
    }
}

impl Handler<Commit> for Counting {
    type Result = ResponseFuture<Result<(), StoreError>>;
    fn handle(&mut self, message: Commit, _: &mut Self::Context) -> Self::Result {
        self.pass(message, Some(Held::Commits), |gate| Some(&mut gate.commits))
    }
}

impl Handler<LoadChain> for Counting {
    type Result = ResponseFuture<Result<Option<Chain>, StoreError>>;
    fn handle(&mut self, message: LoadChain, _: &mut Self::Context) -> Self::Result {
        self.pass(message, Some(Held::Loads), |gate| Some(&mut gate.loads))
    }
}

impl Handler<Fetch> for Counting {
    type Result =
        ResponseFuture<Result<Option<vllm_responses_protocol::record::Stored>, StoreError>>;
    fn handle(&mut self, message: Fetch, _: &mut Self::Context) -> Self::Result {
        self.pass(message, None, |_| None)
    }
}

impl Handler<Remove> for Counting {
    type Result = ResponseFuture<Result<bool, StoreError>>;
    fn handle(&mut self, message: Remove, _: &mut Self::Context) -> Self::Result {
        self.pass(message, Some(Held::Removals), |gate| {
            Some(&mut gate.removals)
        })
    }
}

impl Handler<Claim> for Counting {
    type Result = ResponseFuture<Result<bool, StoreError>>;
    fn handle(&mut self, message: Claim, _: &mut Self::Context) -> Self::Result {
        self.pass(message, None, |_| None)
    }
}

impl Handler<ReadEpoch> for Counting {
    type Result = ResponseFuture<Result<Option<String>, StoreError>>;
    fn handle(&mut self, message: ReadEpoch, _: &mut Self::Context) -> Self::Result {
        self.pass(message, Some(Held::Epochs), |gate| Some(&mut gate.epochs))
    }
}

impl Handler<BeginEpoch> for Counting {
    type Result = ResponseFuture<Result<(), StoreError>>;
    fn handle(&mut self, message: BeginEpoch, _: &mut Self::Context) -> Self::Result {
        self.pass(message, None, |_| None)
    }
}

impl Handler<KeepSealKey> for Counting {
    type Result = ResponseFuture<Result<Secret, StoreError>>;
    fn handle(&mut self, message: KeepSealKey, _: &mut Self::Context) -> Self::Result {
        self.pass(message, None, |_| None)
    }
}

/// One gateway process's cache.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) cache: Addr<CacheActor>,
    gate: watch::Sender<Gate>,
    extent: Extent,
}

impl Replica {
    pub(crate) async fn commit(&self, record: Record) -> Result<(), StoreError> {
        ask_actor(&self.cache, Commit(Box::new(record)), DEADLINE)
            .await
            .expect("an answer")
    }

    pub(crate) async fn chain(&self, owner: &str, id: &str) -> Result<Option<Chain>, StoreError> {
        let message = LoadChain {
            owner: Owner::new(owner),
            id: ResponseId::new(id),
            extent: self.extent,
        };
        ask_actor(&self.cache, message, DEADLINE)
            .await
            .expect("an answer")
    }

    /// Whether a turn could continue this response of the owner `ann`.
    pub(crate) async fn continues(&self, id: &str) -> bool {
        self.chain("ann", id).await.unwrap().is_some()
    }

    pub(crate) async fn remove(&self, owner: &str, id: &str) -> Result<bool, StoreError> {
        let message = Remove {
            owner: Owner::new(owner),
            id: ResponseId::new(id),
        };
        ask_actor(&self.cache, message, DEADLINE)
            .await
            .expect("an answer")
    }

    pub(crate) async fn facts(&self) -> CacheFacts {
        let seen = ask_actor(&self.cache, cache::Observe, DEADLINE).await;
        seen.expect("an answer").redis.unwrap_or_default()
    }

    pub(crate) fn gate(&self) -> Gate {
        self.gate.borrow().clone()
    }

    /// Holds answers of this kind back from now on, or lets all go.
    pub(crate) fn hold(&self, held: Option<Held>) {
        self.gate.send_modify(|gate| gate.held = held);
    }

    /// Waits until the gate or the facts are so.
    pub(crate) async fn wait(&self, what: &str, done: impl Fn(&Gate, &CacheFacts) -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let (gate, facts) = (self.gate(), self.facts().await);
            if done(&gate, &facts) {
                return;
            }
            assert!(Instant::now() < until, "no {what}: {gate:?} {facts:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Commits, and waits until Redis has it.
    pub(crate) async fn commit_warm(&self, record: Record) {
        let fills = self.facts().await.fills;
        self.commit(record).await.unwrap();
        self.wait("fill", |_, facts| facts.fills > fills).await;
    }

    /// Waits until Redis is used.
    pub(crate) async fn warm_up(&self) {
        for round in 0.. {
            let id = format!("resp_warm_up_{round}");
            self.commit(record(&id)).await.unwrap();
            if self.facts().await.fills > 0 {
                break;
            }
            assert!(round < 1_000, "Redis is not used: {:?}", self.facts().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A finished response of `ann` that continues nothing.
pub(crate) fn record(id: &str) -> Record {
    Record {
        id: ResponseId::new(id),
        previous: None,
        owner: Owner::new("ann"),
        model: "a-model".into(),
        status: Status::Completed,
        created_at_ms: 1_700_000_000_000,
        completed_at_ms: Some(1_700_000_001_000),
        expires_at_ms: None,
        input_items: format!(r#"[{{"id":"msg_in_{id}","text":"question \u00e9"}}]"#).into(),
        response: format!(r#"{{"id":"{id}","output":[{{"text":"answer"}}]}}"#).into(),
        settings: format!(r#"{{"instructions":"of {id}","tools":[]}}"#).into(),
        blobs: Vec::new(),
    }
}

/// As [`record`], continuing `previous`.
pub(crate) fn child(id: &str, previous: &str) -> Record {
    Record {
        previous: Some(ResponseId::new(previous)),
        ..record(id)
    }
}

/// The Unix time, as the store has it.
pub(crate) fn now_ms() -> i64 {
    use vllm_responses_actors::env::{Clock as _, SystemClock};
    SystemClock.now_ms()
}
