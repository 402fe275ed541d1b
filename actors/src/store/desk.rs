//! What an operator does with a database: look, migrate, purge, adopt, copy. Not an actor: the `db`
//! commands are alone with their one connection, and wait as long as it takes.

use std::path::PathBuf;
use std::time::Duration;

use diesel::sqlite::SqliteConnection;
use diesel_async::AsyncConnection as _;

use super::copy::{Copied, Copying};
use super::failure::Failure;
use super::messages::StoreError;
use super::rows::{ApprovalRow, DeadRow, KeptRow, SettingsRow};
use super::settings::{Database, StoreSettings};
use super::sweep::{Ground, Pace, Sweep};
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
            Held::Postgres(connection) => postgres::$text::$query(connection, $($argument),*).await,
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

    /// Counts.
    pub async fn census(&mut self) -> Result<Census, StoreError> {
        let now_ms = SystemClock.now_ms();
        let (responses, live, deleted, oldest_ms) = ask!(self, bulk::census(now_ms))?;
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
            bytes,
            oldest_ms,
        })
    }

    /// Removes what ended longer ago than `grace` and is not needed; says how many responses went. What
    /// they left in files of SQLite's is overwritten.
    pub async fn purge(&mut self, grace: Duration) -> Result<usize, StoreError> {
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let before_ms = SystemClock.now_ms().saturating_sub(grace_ms);
        let mut sweep = Sweep::new(before_ms, Pace::eager());
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

    /// Copies every response that is not there yet, or that has changed since, to `target`, then reads
    /// both and compares them. An interrupted copy is taken up by another one.
    pub async fn copy_to(
        &mut self,
        target: &mut Self,
        progress: impl FnMut(Copying),
    ) -> Result<Copied, StoreError> {
        super::copy::run(self, target, progress).await
    }

    pub(super) async fn page(
        &mut self,
        after: &str,
        limit: i64,
    ) -> Result<Vec<KeptRow>, StoreError> {
        ask!(self, bulk::page(after, limit))
    }

    pub(super) async fn some(&mut self, ids: &[String]) -> Result<Vec<KeptRow>, StoreError> {
        ask!(self, bulk::some(ids))
    }

    pub(super) async fn some_settings(
        &mut self,
        hashes: &[String],
    ) -> Result<Vec<SettingsRow>, StoreError> {
        ask!(self, bulk::some_settings(hashes))
    }

    pub(super) async fn put(
        &mut self,
        rows: &[KeptRow],
        settings: &[SettingsRow],
    ) -> Result<(), StoreError> {
        transact!(self, bulk::put(rows, settings))
    }
}

impl Desk {
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
    ) -> Result<(usize, Vec<String>), StoreError> {
        match &mut self.0 {
            Held::Sqlite(connection, _) => sqlite::purge_on(connection, ids, before_ms, most),
            Held::Postgres(connection) => {
                postgres::purge_on(connection, &ids, before_ms, most).await
            }
        }
        .map(|purged| (purged.rows, purged.left))
        .map_err(|error| Failure::from(error).into_error())
    }

    async fn forget_claims(&mut self, before_ms: i64) -> Result<bool, StoreError> {
        transact!(self, queries::forget_claims(before_ms))
    }
}
