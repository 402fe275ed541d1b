//! `StoreActor`: responses in SQLite, durable and owned.
//!
//! It guarantees: a commit is answered after it is durable as configured; a row belongs to one owner
//! and no query crosses that line; a deleted or expired response reads as unknown.

pub mod messages;
mod migrate;
mod queries;
mod rows;
mod schema;
pub mod settings;
mod sqlite;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use diesel::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use vllm_responses_protocol::record::{Chain, Link, Stored};

use crate::env::{Clock as _, SystemClock};
use messages::{BeginEpoch, Commit, Extent, Fetch, LoadChain, ReadEpoch, Remove, StoreError};
use rows::Prepared;
use settings::{Database, StoreSettings};
use sqlite::{Readers, Wrapped};
use writer::{What, Write};

/// How long a write may wait for its commit. SQLite's own wait for a lock is as long, but a write may
/// stand in the queue behind one that waits.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Why the store cannot be opened. One line, naming the setting.
#[derive(Debug, thiserror::Error)]
pub enum StoreStartError {
    /// No file, no permission, no database.
    #[error("the database of `VR_DB_PATH` cannot be opened ({0}): check path and permissions")]
    Open(String),
    /// A migration failed.
    #[error("the database of `VR_DB_PATH` cannot be migrated: {0}")]
    Migration(String),
    /// A newer version made it.
    #[error(
        "the database of `VR_DB_PATH` belongs to a newer version of vllm-responses: start that version"
    )]
    NewerSchema,
    /// The cache in front of it is set up wrongly.
    #[error("{0}")]
    Cache(String),
    /// Not built in.
    #[error("this build stores in SQLite only: set `VR_DB_PATH` to a file")]
    Unsupported,
}

impl From<diesel::result::Error> for StoreStartError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Migration(error.to_string())
    }
}

/// See the module.
pub struct StoreActor {
    readers: Readers,
    writes: mpsc::Sender<Write>,
    /// Moves into the writer when the actor starts.
    writer: Option<(Wrapped, mpsc::Receiver<Write>)>,
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
        let Database::Sqlite(path) = &settings.database else {
            return Err(StoreStartError::Unsupported);
        };
        let (connection, readers) = sqlite::open(path, settings.synchronous).await?;
        let (writes, queue) = mpsc::channel(writer::QUEUE);
        Ok(Self {
            readers,
            writes,
            writer: Some((connection, queue)),
        })
    }

    /// Queues a write and waits for its commit.
    ///
    /// A write that is given up may still land, if its transaction had begun; nobody is told so.
    fn write(&self, what: What) -> ResponseFuture<Result<bool, StoreError>> {
        let (reply, answer) = oneshot::channel();
        let queued = self.writes.try_send(Write { what, reply });
        Box::pin(async move {
            queued.map_err(|_full| StoreError::Busy)?;
            tokio::time::timeout(WRITE_LIMIT, answer)
                .await
                .map_err(|_elapsed| StoreError::Busy)?
                .map_err(|_gone| StoreError::Unavailable("its writer ended".to_owned()))?
        })
    }
}

impl Actor for StoreActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        if let Some((connection, queue)) = self.writer.take() {
            ctx.spawn(writer::run(connection, queue).into_actor(self));
        }
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
        self.write(What::Delete {
            owner,
            id,
            now_ms: SystemClock.now_ms(),
        })
    }
}

/// Many at once, bounded by the readers.
impl Handler<LoadChain> for StoreActor {
    type Result = ResponseFuture<Result<Option<Chain>, StoreError>>;

    fn handle(
        &mut self,
        LoadChain { owner, id, extent }: LoadChain,
        _: &mut Self::Context,
    ) -> Self::Result {
        let readers = self.readers.clone();
        let now_ms = SystemClock.now_ms();
        Box::pin(async move {
            let query = move |connection: &mut SqliteConnection| {
                let rows = queries::chain(connection, &owner, &id, now_ms)?;
                let settings = match extent {
                    Extent::WithSettings if !rows.is_empty() => {
                        Some(queries::settings_of(connection, &owner, &id)?.into())
                    }
                    Extent::WithSettings | Extent::Items => None,
                };
                Ok((rows, settings))
            };
            let (rows, settings) = sqlite::read(&readers, query).await?;
            if rows.len() > queries::MAX_LINKS {
                return Err(StoreError::Corrupt);
            }
            let Some(expires_at_ms) = rows.last().map(rows::LinkRow::expires_at_ms) else {
                return Ok(None);
            };
            let links: Vec<Arc<Link>> = rows
                .into_iter()
                .map(rows::LinkRow::link)
                .collect::<Result<_, _>>()?;
            Ok(Some(Chain {
                links,
                expires_at_ms,
                settings,
            }))
        })
    }
}

/// Many at once, bounded by the readers.
impl Handler<Fetch> for StoreActor {
    type Result = ResponseFuture<Result<Option<Stored>, StoreError>>;

    fn handle(&mut self, Fetch { owner, id }: Fetch, _: &mut Self::Context) -> Self::Result {
        let readers = self.readers.clone();
        let now_ms = SystemClock.now_ms();
        Box::pin(async move {
            let query = move |connection: &mut SqliteConnection| {
                queries::fetch(connection, &owner, &id, now_ms)
            };
            let row = sqlite::read(&readers, query).await?;
            Ok(row.map(Stored::from))
        })
    }
}

/// Many at once, bounded by the readers.
impl Handler<ReadEpoch> for StoreActor {
    type Result = ResponseFuture<Result<Option<String>, StoreError>>;

    fn handle(&mut self, ReadEpoch: ReadEpoch, _: &mut Self::Context) -> Self::Result {
        let readers = self.readers.clone();
        Box::pin(async move { sqlite::read(&readers, queries::epoch).await })
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
