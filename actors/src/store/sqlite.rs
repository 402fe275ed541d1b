//! SQLite: one writer that commits in groups, a few readers, write-ahead logging.
//!
//! Several processes may share the file. `busy_timeout` is set before anything else, and every write
//! is in an immediate transaction: a deferred one that reads first and writes then fails at once
//! when another process wrote in between, whatever the timeout (measured).

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::dsl::sql;
use diesel::result::Error as DieselError;
use diesel::sql_types::{BigInt, Nullable};
use diesel::sqlite::{Sqlite as Database, SqliteConnection as Connection};
use diesel::upsert::excluded;
use diesel::{
    Connection as _, ConnectionError, ExpressionMethods as _, QueryDsl as _, QueryResult,
    RunQueryDsl,
};
use diesel_async::pooled_connection::bb8::Pool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use futures_util::FutureExt as _;

use super::desk::Opening;
use super::failure::Failure;
use super::messages::StoreError;
use super::rows::{KeptRow, Prepared};
use super::schema::{blobs as blobs_table, responses, settings};
use super::settings::Synchronous;
use super::sqlite_files::create_private;
use super::writer::{Attempt, Purged, What};
use super::{StoreStartError, migrate};

#[path = "queries.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "one text of statements, compiled for every database"
)]
pub(super) mod queries;

#[path = "chains.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "one text of statements, compiled for every database"
)]
pub(super) mod chains;

#[path = "blobs.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "one text of statements, compiled for every database"
)]
pub(super) mod blobs;

#[path = "deletions.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "one text of statements, compiled for every database"
)]
pub(super) mod deletions;

#[path = "bulk.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "one text of statements, compiled for every database"
)]
pub(super) mod bulk;

/// A statement has run when it is called: there is nothing to wait for.
use std::future::ready as settled;

/// Reading is by primary key; more connections only wait for each other's processor time.
const READERS: u32 = 3;

/// Whether no response has settings. See PostgreSQL's, which asks otherwise.
const UNUSED: &str = "NOT EXISTS (SELECT 1 FROM responses \
     WHERE responses.owner = settings.owner AND responses.settings_hash = settings.hash)";

/// How long a read may wait for a free reader.
const READER_LIMIT: Duration = Duration::from_secs(5);

/// How long, and how far apart, the switch to write-ahead logging is tried while somebody else is at it.
const WAL_LIMIT: Duration = Duration::from_secs(5);
const WAL_PAUSE: Duration = Duration::from_millis(20);

impl RunQueryDsl<Connection> for chains::Links<'_> {}
impl RunQueryDsl<Connection> for chains::Part<'_> {}
impl RunQueryDsl<Connection> for chains::Weight<'_> {}

/// A connection whose work runs on the runtime's blocking threads.
pub(super) type Wrapped = SyncConnectionWrapper<Connection>;

/// The readers.
pub(super) type Readers = Pool<Wrapped>;

/// Opens the file, migrates it, and gives the writer and the readers.
pub(super) async fn open(
    path: &Path,
    synchronous: Synchronous,
) -> Result<(Wrapped, Readers), StoreStartError> {
    create_private(path)?;
    let url = utf8(path)?.to_owned();
    let file = path.to_owned();
    let open = move || -> Result<Connection, StoreStartError> {
        let mut writer = establish(utf8(&file)?, synchronous).map_err(unopened(&file))?;
        writer.immediate_transaction(migrate::migrate)?;
        Ok(writer)
    };
    let writer = tokio::task::spawn_blocking(open)
        .await
        .map_err(unopened(path))??;
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(move |url| {
        let url = url.to_owned();
        async move {
            tokio::task::spawn_blocking(move || establish(&url, synchronous))
                .await
                .map_err(|error| ConnectionError::BadConnection(error.to_string()))?
                .map(SyncConnectionWrapper::new)
        }
        .boxed()
    });
    let manager = AsyncDieselConnectionManager::new_with_config(url, config);
    let readers = Pool::builder()
        .max_size(READERS)
        .test_on_check_out(false)
        .connection_timeout(READER_LIMIT)
        .build(manager)
        .await
        .map_err(unopened(path))?;
    Ok((SyncConnectionWrapper::new(writer), readers))
}

/// Opens the file for one who works alone, on the thread that calls.
pub(super) fn open_alone(
    path: &Path,
    synchronous: Synchronous,
    opening: Opening,
) -> Result<Connection, StoreStartError> {
    match opening {
        Opening::Migrate => create_private(path)?,
        Opening::AsItIs if !path.exists() => {
            return Err(unopened(path)("there is no such file"));
        }
        Opening::AsItIs => {}
    }
    let mut connection = establish(utf8(path)?, synchronous).map_err(unopened(path))?;
    match opening {
        Opening::Migrate => connection.immediate_transaction(migrate::migrate)?,
        Opening::AsItIs => migrate::check(&mut connection)?,
    }
    Ok(connection)
}

/// What the database file and its log take.
pub(super) fn bytes(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    size(path) + size(Path::new(&log))
}

/// Moves the write-ahead log into the database file and empties it.
pub(super) fn empty_log(connection: &mut Connection) -> QueryResult<()> {
    connection.batch_execute("PRAGMA wal_checkpoint(TRUNCATE);")
}

/// Copies the database, as it is at one moment, to a new file that its owner alone can read. Others may
/// write meanwhile.
pub(super) fn copy_whole(connection: &mut Connection, to: &Path) -> Result<(), CopyError> {
    let failed = |error: &dyn std::error::Error| CopyError {
        to: to.to_owned(),
        why: error.to_string(),
    };
    let name = to.to_str().ok_or_else(|| CopyError {
        to: to.to_owned(),
        why: "its path is no UTF-8 text".to_owned(),
    })?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(|error| failed(&error))?;
    let copied = diesel::sql_query("VACUUM INTO ?")
        .bind::<diesel::sql_types::Text, _>(name)
        .execute(connection);
    if let Err(error) = copied {
        // What is there is no backup.
        let removed = std::fs::remove_file(to);
        log::debug!("an unfinished copy was removed: {removed:?}");
        return Err(failed(&error));
    }
    std::fs::File::open(to)
        .and_then(|file| file.sync_all())
        .map_err(|error| failed(&error))
}

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", to.display())]
pub struct CopyError {
    to: PathBuf,
    why: String,
}

fn utf8(path: &Path) -> Result<&str, StoreStartError> {
    path.to_str()
        .ok_or_else(|| unopened(path)("its path is no UTF-8 text"))
}

/// Says which file it was: a path is no secret, and a relative one is easily another than was meant.
pub(super) fn unopened<E: ToString>(path: &Path) -> impl Fn(E) -> StoreStartError {
    let place = std::path::absolute(path).unwrap_or_else(|_unknown| path.to_owned());
    move |error| StoreStartError::Open(format!("{}: {}", place.display(), error.to_string()))
}

fn establish(url: &str, synchronous: Synchronous) -> Result<Connection, ConnectionError> {
    let mut connection = Connection::establish(url)?;
    let level = match synchronous {
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
    };
    connection
        // What is deleted is overwritten, so that it cannot be found in the file (fault D13); nor may
        // temporary files have it, which stand elsewhere and are not overwritten.
        .batch_execute(
            "PRAGMA busy_timeout = 5000; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;",
        )
        .and_then(|()| use_wal(&mut connection))
        .and_then(|()| connection.batch_execute(&format!("PRAGMA synchronous = {level};")))
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(connection)
}

/// Switches to write-ahead logging. Two processes that switch a fresh file at once can stand in each
/// other's way, and `SQLite` then fails at once, whatever the timeout (fault D15, measured): one of
/// them succeeds, so the other asks again. Blocks its thread, as all of `establish` does.
fn use_wal(connection: &mut Connection) -> QueryResult<()> {
    let started = Instant::now();
    loop {
        match connection.batch_execute("PRAGMA journal_mode = WAL;") {
            Err(error) if is_locked(&error) && started.elapsed() < WAL_LIMIT => {
                std::thread::sleep(WAL_PAUSE);
            }
            done => return done,
        }
    }
}

fn is_locked(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(_, info) if info.message().contains("locked"))
}

/// Runs a read on one of the readers, in one hop to a blocking thread.
pub(super) async fn read<R: Send + 'static>(
    readers: &Readers,
    query: impl FnOnce(&mut Connection) -> QueryResult<R> + Send + 'static,
) -> Result<R, StoreError> {
    let mut reader = readers
        .get()
        .await
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    reader
        .spawn_blocking(query)
        .await
        .map_err(|error| Failure::from(error).into_error())
}

/// Commits these writes as one transaction, in one hop to a blocking thread.
pub(super) async fn commit(
    writer: &mut Wrapped,
    whats: Vec<Arc<What>>,
    attempt: Attempt,
) -> QueryResult<Vec<bool>> {
    transact(writer, move |connection| {
        done(queries::write_all(connection, &whats, attempt))
    })
    .await
}

/// Does this as one transaction, in one hop to a blocking thread.
pub(super) async fn transact<R: Send + 'static>(
    writer: &mut Wrapped,
    work: impl FnOnce(&mut Connection) -> QueryResult<R> + Send + 'static,
) -> QueryResult<R> {
    writer
        .spawn_blocking(move |connection| connection.immediate_transaction(work))
        .await
}

/// Removes these responses and what goes with them, as one transaction.
pub(super) async fn purge(
    writer: &mut Wrapped,
    ids: Vec<String>,
    before_ms: i64,
    most: usize,
) -> QueryResult<Purged> {
    writer
        .spawn_blocking(move |connection| purge_on(connection, ids, before_ms, most))
        .await
}

/// As [`purge`], on the thread that calls.
pub(super) fn purge_on(
    connection: &mut Connection,
    ids: Vec<String>,
    before_ms: i64,
    most: usize,
) -> QueryResult<Purged> {
    connection.immediate_transaction(|connection| {
        let purged = done(queries::purge(connection, ids, before_ms, most))?;
        done(queries::drop_settings(connection, &purged.settings))?;
        Ok(purged)
    })
}

/// Inserts these responses where their ids are free; gives the ids. Here one by one: nothing travels.
/// PostgreSQL's, which takes all at once, stands beside it, as it does for the next two.
async fn insert_responses(
    connection: &mut Connection,
    new: &[&Prepared],
) -> QueryResult<HashSet<String>> {
    let mut inserted = HashSet::new();
    for one in new {
        let statement = diesel::insert_into(responses::table)
            .values(one.response())
            .on_conflict_do_nothing();
        if settled(statement.execute(connection)).await? > 0 {
            inserted.insert(one.parts().0.id.to_string());
        }
    }
    Ok(inserted)
}

/// Inserts these settings where they are not there.
async fn insert_settings(connection: &mut Connection, new: &[&Prepared]) -> QueryResult<()> {
    for one in new {
        let statement = diesel::insert_into(settings::table)
            .values(one.settings())
            .on_conflict_do_nothing();
        settled(statement.execute(connection)).await?;
    }
    Ok(())
}

/// Inserts these rows; of those that are there, brings up to date what changes in a row's life.
async fn put_rows(connection: &mut Connection, rows: &[KeptRow]) -> QueryResult<()> {
    for row in rows {
        let statement = diesel::insert_into(responses::table)
            .values(row)
            .on_conflict(responses::id)
            .do_update()
            .set((
                responses::owner.eq(excluded(responses::owner)),
                responses::expires_at.eq(sql::<Nullable<BigInt>>(deletions::EXPIRES_AT)),
                responses::deleted_at.eq(sql::<Nullable<BigInt>>(deletions::DELETED_AT)),
            ));
        settled(statement.execute(connection)).await?;
    }
    Ok(())
}

/// Which of these blobs are there.
async fn present_blobs(
    connection: &mut Connection,
    owner: &str,
    hashes: &[String],
) -> QueryResult<HashSet<String>> {
    let query = blobs_table::table
        .filter(blobs_table::owner.eq(owner))
        .filter(blobs_table::hash.eq_any(hashes))
        .select(blobs_table::hash);
    let there: Vec<String> = settled(query.load(connection)).await?;
    Ok(there.into_iter().collect())
}

/// Nobody else can write while one transaction does.
async fn lock_blobs(_: &mut Connection, _: &[(String, String)]) -> QueryResult<()> {
    Ok(())
}

/// What a function of [`queries`] gives: nothing in it waits, so that it is there when asked.
pub(super) fn done<R>(query: impl Future<Output = QueryResult<R>>) -> QueryResult<R> {
    query
        .now_or_never()
        .unwrap_or(Err(DieselError::RollbackTransaction))
}
