//! The two databases behind one face: what reads, and what writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vllm_responses_protocol::ids::{Owner, ResponseId};

use super::failure::Failure;
use super::messages::{Backend, StoreError};
use super::rows::{ApprovalRow, DeadRow, LinkRow, StoredRow};
use super::settings::{Database, StoreSettings};
use super::writer::{Attempt, Removed, What};
use super::{StoreStartError, postgres, sqlite};
use crate::env::{Clock as _, SystemClock};

/// SQLite's own wait for a lock is as long, but a write may stand in the queue behind one that waits.
const SQLITE_LIMIT: Duration = Duration::from_secs(5);

/// How it is tried whether transactions can be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// By an empty one: nothing has failed.
    Commit,
    /// By one that writes: an earlier write failed.
    Write,
}

/// Connections that read.
#[derive(Clone)]
pub(super) enum Readers {
    Sqlite(sqlite::Readers),
    Postgres(postgres::Pool),
}

/// What the writer writes with.
pub(super) enum Engine {
    Sqlite(sqlite::Wrapped),
    Postgres(postgres::Pool),
}

/// Opens and migrates the database. Its connections belong to the runtime that this is called on.
pub(super) async fn open(settings: &StoreSettings) -> Result<(Readers, Engine), StoreStartError> {
    match &settings.database {
        Database::Sqlite(path) => {
            let (writer, readers) = sqlite::open(path, settings.synchronous).await?;
            Ok((Readers::Sqlite(readers), Engine::Sqlite(writer)))
        }
        Database::Postgres(url) => {
            let (writer, readers) = postgres::open(url, settings.pool_size).await?;
            Ok((Readers::Postgres(readers), Engine::Postgres(writer)))
        }
    }
}

/// Runs one function of `queries` or `chains` on whichever database it is.
macro_rules! read {
    ($readers:expr, $text:ident::$query:ident($($argument:expr),*)) => {
        match $readers {
            Readers::Sqlite(readers) => {
                sqlite::read(readers, move |connection| {
                    sqlite::done(sqlite::$text::$query(connection, $($argument),*))
                })
                .await
            }
            Readers::Postgres(pool) => {
                postgres::read(pool, async |connection: &mut postgres::Connection| {
                    postgres::$text::$query(connection, $($argument),*).await
                })
                .await
            }
        }
    };
}

impl Readers {
    /// Which database it is.
    pub(super) fn backend(&self) -> Backend {
        match self {
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Postgres(_) => Backend::Postgres,
        }
    }

    /// Connections of this pool, and those of them that have nothing to do.
    pub(super) fn connections(&self) -> (u32, u32) {
        match self {
            Self::Sqlite(readers) => {
                let state = readers.state();
                (state.connections, state.idle_connections)
            }
            Self::Postgres(pool) => pool.connections(),
        }
    }

    pub(super) async fn fetch(
        &self,
        owner: Owner,
        id: ResponseId,
        now_ms: i64,
    ) -> Result<Option<StoredRow>, StoreError> {
        read!(self, queries::fetch(&owner, &id, now_ms))
    }

    pub(super) async fn chain(
        &self,
        owner: Owner,
        id: ResponseId,
        now_ms: i64,
    ) -> Result<Vec<LinkRow>, StoreError> {
        read!(self, chains::chain(&owner, &id, now_ms))
    }

    pub(super) async fn part(
        &self,
        owner: Owner,
        id: ResponseId,
        now_ms: i64,
        depths: (i64, i64),
    ) -> Result<Vec<LinkRow>, StoreError> {
        read!(self, chains::part(&owner, &id, now_ms, depths))
    }

    /// Links and bytes of a chain.
    pub(super) async fn weight(
        &self,
        owner: Owner,
        id: ResponseId,
        now_ms: i64,
    ) -> Result<(i64, i64), StoreError> {
        read!(self, chains::weight(&owner, &id, now_ms))
    }

    pub(super) async fn some_links(
        &self,
        owner: Owner,
        ids: Vec<String>,
        now_ms: i64,
    ) -> Result<Vec<LinkRow>, StoreError> {
        read!(self, chains::some_links(&owner, &ids, now_ms))
    }

    /// Links and bytes of these responses.
    pub(super) async fn weight_of_some(
        &self,
        owner: Owner,
        ids: Vec<String>,
        now_ms: i64,
    ) -> Result<(i64, i64), StoreError> {
        read!(self, chains::weight_of_some(&owner, &ids, now_ms))
    }

    /// How much [`Self::fetch`] gives: one response and its bytes, or nothing.
    pub(super) async fn weight_of_resource(
        &self,
        owner: Owner,
        id: ResponseId,
        now_ms: i64,
    ) -> Result<(i64, i64), StoreError> {
        read!(self, chains::weight_of_resource(&owner, &id, now_ms))
    }

    /// The settings of a response that is there, live or not.
    pub(super) async fn settings_of(
        &self,
        owner: Owner,
        id: ResponseId,
    ) -> Result<String, StoreError> {
        read!(self, queries::settings_of(&owner, &id))
    }

    /// The word of the present generation of cache entries.
    pub(super) async fn epoch(&self) -> Result<Option<String>, StoreError> {
        read!(self, queries::epoch())
    }

    /// Whether responses can be read.
    pub(super) async fn try_read(&self) -> Result<bool, StoreError> {
        read!(self, queries::try_read())
    }

    /// The key that seals reasoning.
    pub(super) async fn seal_key(&self) -> Result<Option<String>, StoreError> {
        read!(self, queries::seal_key())
    }

    /// One chunk of large data, in pieces.
    pub(super) async fn chunk(
        &self,
        owner: Owner,
        hash: String,
        position: i32,
    ) -> Result<Option<Vec<Bytes>>, StoreError> {
        read!(self, blobs::pieces(&owner, &hash, position))
    }

    /// The time by the clock that all gateways share: of the server, where there is one. Unix
    /// milliseconds.
    pub(super) async fn now_ms(&self) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(_) => Ok(SystemClock.now_ms()),
            Self::Postgres(pool) => postgres::read(pool, postgres::now_ms).await,
        }
    }

    /// A page of old approvals; with each, whether its conversation is stored.
    pub(super) async fn old_claims(
        &self,
        (claimed, owner, request): (i64, String, String),
        before_ms: i64,
        limit: i64,
    ) -> Result<Vec<(ApprovalRow, bool)>, StoreError> {
        read!(
            self,
            queries::old_claims((claimed, &owner, &request), before_ms, limit)
        )
    }

    pub(super) async fn dead(
        &self,
        (ended_ms, id): (i64, String),
        before_ms: i64,
        limit: i64,
    ) -> Result<Vec<DeadRow>, StoreError> {
        read!(self, queries::dead((ended_ms, &id), before_ms, limit))
    }
}

impl Engine {
    /// How long a write without content may wait for its commit.
    pub(super) fn write_limit(&self) -> Duration {
        match self {
            Self::Sqlite(_) => SQLITE_LIMIT,
            Self::Postgres(_) => postgres::LIMIT,
        }
    }

    /// Commits these writes as one transaction; says of each whether it changed something.
    pub(super) async fn commit(
        &mut self,
        whats: Vec<Arc<What>>,
        attempt: Attempt,
    ) -> Result<Vec<bool>, Failure> {
        match self {
            Self::Sqlite(writer) => sqlite::commit(writer, whats, attempt)
                .await
                .map_err(Failure::from),
            Self::Postgres(pool) => postgres::commit(pool, &whats, attempt).await,
        }
    }

    /// Removes these responses where they ended before `before_ms` and nothing continues them, and
    /// what they alone kept: ancestors and settings. Says how many responses went, and which ids it
    /// did not come to within `most` attempts; none when another gateway is at it.
    pub(super) async fn purge(
        &mut self,
        ids: Vec<String>,
        before_ms: i64,
        most: usize,
    ) -> Result<Removed, StoreError> {
        match self {
            Self::Sqlite(writer) => sqlite::purge(writer, ids, before_ms, most)
                .await
                .map(Some)
                .map_err(Failure::from),
            Self::Postgres(pool) => postgres::purge(pool, &ids, before_ms, most).await,
        }
        .map(|purged| purged.map(|purged| (purged.rows, purged.left)))
        .map_err(Failure::into_error)
    }

    /// Removes data that nothing uses, as much as one transaction may; says how much it looked at.
    pub(super) async fn drop_unused(&mut self) -> Result<usize, StoreError> {
        match self {
            Self::Sqlite(writer) => sqlite::transact(writer, |connection| {
                let most = sqlite::queries::PURGE_BYTES;
                sqlite::done(sqlite::blobs::drop_unused(connection, most))
            })
            .await
            .map_err(Failure::from),
            Self::Postgres(pool) => postgres::drop_unused(pool).await,
        }
        .map_err(Failure::into_error)
    }

    /// Removes these approvals.
    pub(super) async fn forget(&mut self, claims: Vec<ApprovalRow>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(writer) => sqlite::transact(writer, move |connection| {
                sqlite::done(sqlite::queries::forget_claims(connection, &claims))
            })
            .await
            .map_err(Failure::from),
            Self::Postgres(pool) => {
                postgres::transact(pool, async |connection: &mut postgres::Connection| {
                    postgres::queries::forget_claims(connection, &claims).await
                })
                .await
            }
        }
        .map_err(Failure::into_error)
    }

    /// Whether a transaction can be committed; one that writes, after a fault.
    pub(super) async fn probe(&mut self, how: Probe) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(writer) => sqlite::transact(writer, move |connection| {
                if how == Probe::Write {
                    sqlite::done(sqlite::queries::try_write(connection))?;
                }
                Ok(())
            })
            .await
            .map_err(Failure::from),
            Self::Postgres(pool) => {
                postgres::transact(pool, async |connection: &mut postgres::Connection| {
                    postgres::lock_as_writers(connection).await?;
                    if how == Probe::Write {
                        postgres::queries::try_write(connection).await?;
                    }
                    Ok(())
                })
                .await
            }
        }
        .map_err(Failure::into_error)
    }

    /// Leaves the database as it may be copied: SQLite's log is moved into its file.
    pub(super) async fn close(&mut self) {
        if let Self::Sqlite(writer) = self {
            let emptied = writer.spawn_blocking(sqlite::empty_log).await;
            if let Err(error) = emptied {
                log::warn!("SQLite's log was not moved into the database file: {error}");
            }
        }
    }
}
