//! `StoreActor`: responses in SQLite or PostgreSQL, durable and owned.
//!
//! It guarantees: a commit is answered after it is durable as configured; a row belongs to one owner
//! and no query crosses that line; a deleted or expired response reads as unknown.

mod backend;
pub mod copy;
pub mod desk;
pub mod facts;
mod failure;
pub mod messages;
mod migrate;
mod pending;
mod postgres;
mod postgres_door;
pub mod postgres_url;
mod pulse;
mod reads;
mod rows;
mod schema;
pub mod settings;
mod sqlite;
mod sqlite_files;
pub mod sweep;
mod tls;
mod writer;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext, Context, Handler,
    ResponseActFuture, ResponseFuture, WrapFuture,
};
use tokio::sync::{mpsc, oneshot};
use vllm_responses_protocol::ids::ResponseId;

use crate::env::{Clock as _, SystemClock};
use crate::secret::Secret;
use backend::{Engine, Readers};
use facts::{Counters, StoreFacts};
use messages::{
    BeginEpoch, Claim, Close, Commit, KeepSealKey, Observe, ReadEpoch, Remove, StoreError,
    StoreObservation,
};
use pending::{allowance, queue_allowance};
use pulse::{Pulse, Reports, Side, UnderWay};
use rows::{ApprovalRow, Prepared};
use settings::StoreSettings;
use writer::{Care, Job, What, Write};

/// Why the store cannot be opened. One line; the caller names the database and its setting.
#[derive(Debug, thiserror::Error)]
pub enum StoreStartError {
    /// No file, no permission, no database.
    #[error("the database cannot be opened ({0}): check path and permissions")]
    Open(String),
    /// A migration failed.
    #[error("the database cannot be migrated: {0}")]
    Migration(String),
    /// A newer version made it.
    #[error("the database belongs to a newer version of vllm-responses: start that version")]
    NewerSchema,
    /// The cache in front of it is set up wrongly.
    #[error("{0}")]
    Cache(String),
    /// An older version made it, and it may not be touched.
    #[error("the database has not this version's schema yet: run `vllm-responses db migrate`")]
    OlderSchema,
    /// No server, no permission, no certificate.
    #[error(
        "the PostgreSQL server cannot be used ({0}): check that it runs, and the \
         URL's host, port, database, user, password and `sslmode`"
    )]
    Server(String),
}

impl From<diesel::result::Error> for StoreStartError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Migration(error.to_string())
    }
}

/// How much longer than a small one a commit of so many bytes may take, what was queued before it
/// included.
pub(crate) fn patience(bytes: usize) -> Duration {
    allowance(bytes) + queue_allowance(usize::MAX)
}

/// See the module.
pub struct StoreActor {
    readers: Readers,
    writes: mpsc::Sender<Job>,
    /// How long a write may wait for its commit.
    write_limit: Duration,
    /// How often ended responses are removed.
    purge_interval: Option<Duration>,
    /// Moves into the writer when the actor starts.
    writer: Option<(Engine, mpsc::Receiver<Job>)>,
    shared: Rc<Shared>,
    /// Why the store does not work, as it was told last.
    told: Option<String>,
    reports: Reports,
}

/// What the work beside the actor tells it. It stays on the store's thread.
#[derive(Debug, Default)]
struct Shared {
    counters: Counters,
    pulse: RefCell<Pulse>,
    /// Bytes of the writes that are queued or under way.
    queued: Cell<usize>,
    /// What the writer is at.
    under_way: Cell<Option<UnderWay>>,
}

impl Shared {
    /// Something that began then came to this.
    fn note<R>(&self, side: Side, began: Instant, outcome: &Result<R, StoreError>) {
        let (mut pulse, now) = (self.pulse.borrow_mut(), Instant::now());
        match outcome {
            Ok(_) => pulse.worked(side, now),
            Err(error) => pulse.failed(side, began, now, error),
        }
    }
}

impl std::fmt::Debug for StoreActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreActor").finish_non_exhaustive()
    }
}

impl StoreActor {
    /// Opens and migrates the database. To be called on the arbiter the actor will live on: its
    /// connections belong to that runtime.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreStartError> {
        let (readers, engine) = backend::open(settings).await?;
        let (writes, queue) = mpsc::channel(writer::QUEUE);
        Ok(Self {
            readers,
            writes,
            write_limit: engine.write_limit(),
            purge_interval: settings.purge_interval,
            writer: Some((engine, queue)),
            shared: Rc::default(),
            told: None,
            reports: None,
        })
    }

    /// A read that runs beside the mailbox; what it comes to tells how the store is.
    fn noted<R: 'static>(
        &self,
        work: impl Future<Output = Result<R, StoreError>> + 'static,
    ) -> ResponseFuture<Result<R, StoreError>> {
        let shared = Rc::clone(&self.shared);
        Box::pin(async move {
            let began = Instant::now();
            let outcome = work.await;
            shared.note(Side::Reads, began, &outcome);
            outcome
        })
    }

    /// Queues a write and waits for its commit, longer where there are more bytes.
    ///
    /// A write that is given up may still land, if its transaction had begun; nobody is told so.
    fn write(&self, what: What) -> ResponseFuture<Result<bool, StoreError>> {
        let (reply, answer) = oneshot::channel();
        let (bytes, ahead) = (what.bytes(), self.shared.queued.get());
        let queued = self.writes.try_send(Job::Write(Write::new(what, reply)));
        let limit = self.write_limit + allowance(bytes) + queue_allowance(ahead);
        let shared = Rc::clone(&self.shared);
        let counted = Counted::new(&self.shared, bytes);
        Box::pin(async move {
            let _counted = counted;
            let began = Instant::now();
            queued.map_err(|_full| {
                shared.counters.note(|facts| facts.refused += 1);
                StoreError::Busy
            })?;
            let Ok(answer) = tokio::time::timeout(limit, answer).await else {
                shared.counters.note(|facts| facts.timed_out += 1);
                let busy = Err(StoreError::Busy);
                shared.note(Side::Writes, began, &busy);
                return busy;
            };
            let gone = |_gone| StoreError::Unavailable("its writer ended".to_owned());
            answer.map_err(gone)?
        })
    }
}

/// Bytes that are queued, until it is dropped.
struct Counted {
    shared: Rc<Shared>,
    bytes: usize,
}

impl Counted {
    fn new(shared: &Rc<Shared>, bytes: usize) -> Self {
        shared.queued.set(shared.queued.get().saturating_add(bytes));
        Self {
            shared: Rc::clone(shared),
            bytes,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let queued = &self.shared.queued;
        queued.set(queued.get().saturating_sub(self.bytes));
    }
}

impl Actor for StoreActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        if let Some((engine, queue)) = self.writer.take() {
            let writer = writer::run(engine, queue, Rc::clone(&self.shared));
            ctx.spawn(writer.into_actor(self));
        }
        if let Some(interval) = self.purge_interval {
            let sweeper = sweep::run(self.readers.clone(), self.writes.clone(), interval);
            ctx.spawn(sweeper.into_actor(self));
        }
        Self::begin_pulse(ctx);
    }
}

/// Many at once, bounded by the writer's queue.
impl Handler<Commit> for StoreActor {
    type Result = ResponseFuture<Result<(), StoreError>>;

    fn handle(&mut self, Commit(record): Commit, _: &mut Self::Context) -> Self::Result {
        let written = self.write(What::Insert(Prepared::new(record)));
        Box::pin(async move { written.await.map(|_changed| ()) })
    }
}

/// Many at once, bounded by the writer's queue.
impl Handler<Remove> for StoreActor {
    type Result = ResponseFuture<Result<bool, StoreError>>;

    fn handle(&mut self, Remove { owner, id }: Remove, _: &mut Self::Context) -> Self::Result {
        if is_impossible(&id) {
            return Box::pin(std::future::ready(Ok(false)));
        }
        self.write(What::Delete {
            owner,
            id,
            now_ms: SystemClock.now_ms(),
        })
    }
}

/// Synchronous: a copy of what is known.
impl Handler<Observe> for StoreActor {
    type Result = Result<StoreObservation, StoreError>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let queue_capacity = self.writes.max_capacity();
        let (connections, idle) = self.readers.connections();
        Ok(StoreObservation {
            backend: self.readers.backend(),
            queue_capacity,
            last_error: self.shared.pulse.borrow().last_error().map(str::to_owned),
            facts: StoreFacts {
                queued: queue_capacity - self.writes.capacity(),
                connections,
                idle,
                ..self.shared.counters.snapshot()
            },
        })
    }
}

/// Many at once, bounded by the readers.
impl Handler<ReadEpoch> for StoreActor {
    type Result = ResponseFuture<Result<Option<String>, StoreError>>;

    fn handle(&mut self, ReadEpoch: ReadEpoch, _: &mut Self::Context) -> Self::Result {
        let readers = self.readers.clone();
        self.noted(async move { readers.epoch().await })
    }
}

/// Many at once, bounded by the writer's queue.
impl Handler<BeginEpoch> for StoreActor {
    type Result = ResponseFuture<Result<(), StoreError>>;

    fn handle(&mut self, BeginEpoch(word): BeginEpoch, _: &mut Self::Context) -> Self::Result {
        let written = self.write(What::BeginEpoch(word));
        Box::pin(async move { written.await.map(|_changed| ()) })
    }
}

/// Rare: once per start.
impl Handler<KeepSealKey> for StoreActor {
    type Result = ResponseFuture<Result<Secret, StoreError>>;

    fn handle(&mut self, KeepSealKey(new): KeepSealKey, _: &mut Self::Context) -> Self::Result {
        let (readers, offered) = (self.readers.clone(), self.write(What::OfferSealKey(new)));
        Box::pin(async move {
            offered.await?;
            let kept = readers.seal_key().await?;
            kept.map(|digits| Secret::new(&digits))
                .ok_or(StoreError::Corrupt)
        })
    }
}

/// Many at once, bounded by the writer's queue.
impl Handler<Claim> for StoreActor {
    type Result = ResponseFuture<Result<bool, StoreError>>;

    fn handle(&mut self, claim: Claim, _: &mut Self::Context) -> Self::Result {
        let rows = ApprovalRow::of(&claim, SystemClock.now_ms());
        self.write(What::Claim(rows))
    }
}

/// Once, at the end: the actor ends with it, and with the actor its connections.
impl Handler<Close> for StoreActor {
    type Result = ResponseActFuture<Self, Result<(), StoreError>>;

    fn handle(&mut self, Close: Close, _: &mut Self::Context) -> Self::Result {
        let (closed, wait) = oneshot::channel();
        let writes = self.writes.clone();
        let close = async move {
            let gone = || StoreError::Unavailable("its writer ended".to_owned());
            let job = Job::Care(Care::Close(closed));
            writes.send(job).await.map_err(|_gone| gone())?;
            wait.await.map_err(|_gone| gone())
        };
        Box::pin(close.into_actor(self).map(|closed, _, ctx| {
            ctx.stop();
            closed
        }))
    }
}

/// No id that was ever stored has a NUL in it, and PostgreSQL refuses to be asked for one.
fn is_impossible(id: &ResponseId) -> bool {
    id.as_str().contains('\0')
}
