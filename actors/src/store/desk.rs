//! What an operator does with a database: look, migrate, purge, adopt, copy. Not an actor: the `db`
//! commands are alone with their one connection, and wait as long as it takes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diesel::sqlite::SqliteConnection;
use diesel_async::AsyncConnection as _;
use vllm_responses_protocol::ids::Owner;

use super::copy::{Copied, Copying};
use super::failure::Failure;
use super::messages::StoreError;
use super::rows::{
    ApprovalRow, BlobRow, DeadRow, DeletionRow, HeadRow, KeptRow, SettingsRow, UseRow,
};
use super::settings::{Database, StoreSettings};
use super::sweep::{Behind, Ground, Pace, Sweep, before};
use super::writer::Removed;
use super::{StoreStartError, postgres, sqlite};
use crate::env::{Clock as _, SystemClock};

/// What may happen to the schema when a database is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The database is made when it is not there, and brought to this version's schema.
    Migrate,
    /// It must be there, with this version's schema.
    AsItIs,
}

/// One open database.
pub struct Desk(Held);

enum Held {
    Sqlite(Box<SqliteConnection>, PathBuf),
    Postgres(Box<postgres::Connection>),
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// PostgreSQL brings its own tools.
    #[error(
        "`VR_DB_PATH` is a PostgreSQL database: back it up with `pg_dump`, which does it while the \
         gateway runs"
    )]
    Server,
    /// The file was not written.
    #[error("the backup was not made: {0}")]
    File(#[from] sqlite::CopyError),
}

/// How a database is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Responses, whatever their state.
    pub responses: u64,
    /// Those that can be read and continued.
    pub live: u64,
    /// Those that were deleted and are not yet removed.
    pub deleted: u64,
    /// Those that expired and are not yet removed.
    pub expired: u64,
    /// Large data, such as pictures, each kept once.
    pub blobs: u64,
    /// Its bytes.
    pub blob_bytes: u64,
    /// What the database takes on disk, indexes and free pages included.
    pub bytes: u64,
    /// When the oldest was made, Unix milliseconds.
    pub oldest_ms: Option<i64>,
}

/// Runs one function of `queries` or `bulk` on whichever database it is.
macro_rules! ask {
    ($desk:expr, $text:ident::$query:ident($($argument:expr),*)) => {
        match &mut $desk.0 {
            Held::Sqlite(connection, _) => {
                sqlite::done(sqlite::$text::$query(connection, $($argument),*))
            }
            // In a transaction, in case that a pooler gives each another session.
            Held::Postgres(connection) => {
                connection
                    .transaction(async |connection| {
                        postgres::$text::$query(connection, $($argument),*).await
                    })
                    .await
            }
        }
        .map_err(|error| Failure::from(error).into_error())
    };
}

/// The same in a transaction.
macro_rules! transact {
    ($desk:expr, $text:ident::$query:ident($($argument:expr),*)) => {
        match &mut $desk.0 {
            Held::Sqlite(connection, _) => connection.immediate_transaction(|connection| {
                sqlite::done(sqlite::$text::$query(connection, $($argument),*))
            }),
            Held::Postgres(connection) => {
                connection
                    .transaction(async |connection| {
                        postgres::$text::$query(connection, $($argument),*).await
                    })
                    .await
            }
        }
        .map_err(|error| Failure::from(error).into_error())
    };
}

impl Desk {
    /// Opens the database.
    pub async fn open(settings: &StoreSettings, opening: Opening) -> Result<Self, StoreStartError> {
        Ok(Self(match &settings.database {
            Database::Sqlite(path) => Held::Sqlite(
                Box::new(sqlite::open_alone(path, settings.synchronous, opening)?),
                path.clone(),
            ),
            Database::Postgres(url) => {
                Held::Postgres(Box::new(postgres::open_alone(url, opening).await?))
            }
        }))
    }

    /// Copies the database to a new file, as it is at one moment; others may write meanwhile.
    ///
    /// # Errors
    /// When it is no SQLite file, when there is such a file already, or when it cannot be written.
    pub fn back_up(&mut self, to: &Path) -> Result<(), BackupError> {
        match &mut self.0 {
            Held::Sqlite(connection, _) => Ok(sqlite::copy_whole(connection, to)?),
            Held::Postgres(_) => Err(BackupError::Server),
        }
    }

    /// Counts.
    pub async fn census(&mut self) -> Result<Census, StoreError> {
        let now_ms = SystemClock.now_ms();
        let (responses, live, deleted, oldest_ms) = ask!(self, bulk::census(now_ms))?;
        let (blobs, blob_bytes) = ask!(self, blobs::census())?;
        let bytes = match &mut self.0 {
            Held::Sqlite(_, path) => sqlite::bytes(path),
            Held::Postgres(connection) => postgres::bytes(connection).await?,
        };
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        Ok(Census {
            responses: count(responses),
            live: count(live),
            deleted: count(deleted),
            expired: count(responses - live - deleted),
            blobs: count(blobs),
            blob_bytes: count(blob_bytes),
            bytes,
            oldest_ms,
        })
    }

    /// Removes what ended longer ago than `grace` and is not needed; says how many responses went. What
    /// they left in files of SQLite's is overwritten.
    pub async fn purge(&mut self, grace: Duration) -> Result<usize, StoreError> {
        let now_ms = match &mut self.0 {
            Held::Sqlite(..) => SystemClock.now_ms(),
            Held::Postgres(connection) => connection
                .transaction(async |connection| postgres::now_ms(connection).await)
                .await
                .map_err(|error| Failure::from(error).into_error())?,
        };
        transact!(self, blobs::find_unused())?;
        let mut sweep = Sweep::new(before(now_ms, grace), Pace::eager());
        sweep.all(self).await?;
        if let Held::Sqlite(connection, _) = &mut self.0 {
            sqlite::empty_log(connection).map_err(|error| Failure::from(error).into_error())?;
        }
        Ok(sweep.removed())
    }

    /// Gives the responses that have no owner to this one; says how many.
    pub async fn adopt(&mut self, name: &str) -> Result<usize, StoreError> {
        transact!(self, bulk::adopt(name))
    }

    /// Copies every response that is not there yet, or that has changed since, to `target`, deletes there
    /// what was deleted here, then reads both and compares them. An interrupted copy is taken up by
    /// another one.
    pub async fn copy_to(
        &mut self,
        target: &mut Self,
        progress: impl FnMut(Copying),
    ) -> Result<Copied, StoreError> {
        super::copy::run(self, target, progress).await
    }

    pub(super) async fn heads(
        &mut self,
        after: &str,
        limit: i64,
    ) -> Result<Vec<HeadRow>, StoreError> {
        ask!(self, bulk::heads(after, limit))
    }

    pub(super) async fn weights(
        &mut self,
        ids: &[String],
    ) -> Result<Vec<(String, i32, i32)>, StoreError> {
        ask!(self, bulk::weights(ids))
    }

    pub(super) async fn living(
        &mut self,
        after: &str,
        now_ms: i64,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        ask!(self, bulk::living(after, now_ms, limit))
    }

    pub(super) async fn some(&mut self, ids: &[String]) -> Result<Vec<KeptRow>, StoreError> {
        ask!(self, bulk::some(ids))
    }

    pub(super) async fn some_settings(
        &mut self,
        owner: &str,
        hashes: &[&str],
    ) -> Result<Vec<SettingsRow>, StoreError> {
        ask!(self, bulk::some_settings(owner, hashes))
    }

    pub(super) async fn put(
        &mut self,
        rows: &[KeptRow],
        settings: &[SettingsRow],
        uses: &[UseRow],
    ) -> Result<(), StoreError> {
        transact!(self, bulk::put(rows, settings, uses))
    }
}

impl Desk {
    pub(super) async fn uses_of(
        &mut self,
        responses: &[String],
    ) -> Result<Vec<UseRow>, StoreError> {
        ask!(self, blobs::uses_of(responses))
    }

    pub(super) async fn blob(
        &mut self,
        owner: &str,
        hash: &str,
    ) -> Result<Option<BlobRow>, StoreError> {
        ask!(self, blobs::find_blob(owner, hash))
    }

    pub(super) async fn chunk(
        &mut self,
        owner: &str,
        hash: &str,
        position: i32,
    ) -> Result<Option<String>, StoreError> {
        let owner = Owner::new(owner);
        ask!(self, blobs::chunk(&owner, hash, position))
    }

    pub(super) async fn put_whole(
        &mut self,
        blob: &BlobRow,
        chunks: &[String],
    ) -> Result<(), StoreError> {
        transact!(self, blobs::put_whole(blob, chunks))
    }

    pub(super) async fn find_unused(&mut self) -> Result<(), StoreError> {
        transact!(self, blobs::find_unused())
    }

    pub(super) async fn deletions(
        &mut self,
        after: &str,
        limit: i64,
    ) -> Result<Vec<DeletionRow>, StoreError> {
        ask!(self, deletions::page(after, limit))
    }

    pub(super) async fn deleted_of(
        &mut self,
        ids: &[String],
    ) -> Result<HashSet<String>, StoreError> {
        ask!(self, deletions::of(ids))
    }

    pub(super) async fn take_over(&mut self, notes: &[DeletionRow]) -> Result<usize, StoreError> {
        transact!(self, deletions::take_over(notes))
    }

    pub(super) async fn approvals(
        &mut self,
        after: (&str, &str),
        limit: i64,
    ) -> Result<Vec<ApprovalRow>, StoreError> {
        ask!(self, bulk::approvals(after, limit))
    }

    pub(super) async fn put_approvals(
        &mut self,
        rows: &[ApprovalRow],
    ) -> Result<usize, StoreError> {
        transact!(self, bulk::put_approvals(rows))
    }
}

impl Ground for Desk {
    async fn ended(
        &mut self,
        (ended_ms, id): (i64, String),
        before_ms: i64,
        limit: i64,
    ) -> Result<Vec<DeadRow>, StoreError> {
        ask!(self, queries::dead((ended_ms, &id), before_ms, limit))
    }

    async fn remove(
        &mut self,
        ids: Vec<String>,
        before_ms: i64,
        most: usize,
    ) -> Result<Removed, StoreError> {
        match &mut self.0 {
            Held::Sqlite(connection, _) => sqlite::purge_on(connection, ids, before_ms, most),
            Held::Postgres(connection) => {
                postgres::purge_on(connection, &ids, before_ms, most).await
            }
        }
        .map(|purged| Some((purged.rows, purged.left)))
        .map_err(|error| Failure::from(error).into_error())
    }

    async fn drop_unused(&mut self) -> Result<usize, StoreError> {
        transact!(self, blobs::drop_unused(sqlite::queries::PURGE_BYTES))
    }

    async fn old_claims(
        &mut self,
        Behind(claimed, owner, request): Behind,
        before_ms: i64,
        limit: i64,
    ) -> Result<Vec<(ApprovalRow, bool)>, StoreError> {
        let at = (claimed, owner.as_str(), request.as_str());
        ask!(self, queries::old_claims(at, before_ms, limit))
    }

    async fn forget(&mut self, claims: Vec<ApprovalRow>) -> Result<(), StoreError> {
        transact!(self, queries::forget_claims(&claims))
    }
}
