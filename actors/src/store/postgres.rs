//! PostgreSQL: a pool of connections, prepared statements, and patience while the server restarts.
//!
//! Connections belong to the runtime that opened them. A read or a write that meets a broken one is
//! tried again on another, within [`LIMIT`]; a server that hangs is left alone after it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::pg::Pg as Database;
use diesel::result::{DatabaseErrorKind as Kind, Error as DieselError};
use diesel::sql_types::{BigInt, Bool, Nullable};
use diesel::upsert::excluded;
use diesel::{ExpressionMethods as _, QueryResult};
pub(super) use diesel_async::AsyncPgConnection as Connection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolableConnection as _, RecyclingMethod, bb8,
};
use diesel_async::{
    AnsiTransactionManager, AsyncConnection as _, RunQueryDsl, SimpleAsyncConnection as _,
    TransactionManager as _,
};
use futures_util::FutureExt as _;

use super::desk::Opening;
use super::failure::Failure;
use super::messages::StoreError;
use super::pending::allowance;
use super::postgres_door::{Door, Mode};
use super::postgres_url::PostgresUrl;
use super::rows::{KeptRow, Prepared};
use super::schema::{responses, settings};
use super::writer::{Attempt, Purged, What};
use super::{StoreStartError, migrate};

#[path = "postgres_indexes.rs"]
mod indexes;
#[path = "postgres_blobs.rs"]
mod locks;

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

/// A statement is a future already.
use std::convert::identity as settled;

pub(super) use locks::{drop_unused, lock_as_writers};
use locks::{lock_blobs, present_blobs};

/// How long a write, a read or a connection may take, retries included.
pub(super) const LIMIT: Duration = Duration::from_secs(3);
/// How long a statement of a transaction may wait for others'.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// Between attempts of a read while the server is away.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a connection gets to notice its end after a statement failed.
const NOTICE: Duration = Duration::from_millis(10);
/// Migrations take their time, and wait for those of another process; the number is any that nobody else
/// uses in this database. They do not wait for a table: whoever reads or writes it would wait behind.
const MIGRATION_LOCK: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
    SELECT pg_advisory_xact_lock(7205918340112658011); SET LOCAL lock_timeout = '2s'";
/// How often a migration is tried that met a table in use, and the pause between.
const MIGRATIONS: u32 = 30;
const MIGRATION_PAUSE: Duration = Duration::from_secs(1);
/// Held while responses are removed: one gateway at a time does it.
const SWEEP_LOCK: i64 = 7_205_918_340_112_658_012;

/// Whether no response has settings: the next one in the order of the index is another's.
///
/// Asked for a response that has them, PostgreSQL reads a million of them in search of the first, for
/// almost all responses have the same settings, and it takes that for a fact about every owner.
const UNUSED: &str = "NOT EXISTS (SELECT 1 FROM (SELECT responses.owner, responses.settings_hash \
     FROM responses WHERE (responses.owner, responses.settings_hash) >= (settings.owner, settings.hash) \
     ORDER BY responses.owner, responses.settings_hash LIMIT 1) AS next \
     WHERE next.owner = settings.owner AND next.settings_hash = settings.hash)";

/// Connections of this process, and how they are to be used.
#[derive(Clone)]
pub(super) struct Pool {
    connections: bb8::Pool<Connection>,
    mode: Mode,
}

impl Pool {
    /// How many there are, and how many have nothing to do.
    pub(super) fn connections(&self) -> (u32, u32) {
        let state = self.connections.state();
        (state.connections, state.idle_connections)
    }
}

/// Connects, migrates, and gives what writes, which is one connection that no reader can take, and what
/// reads.
pub(super) async fn open(
    url: &PostgresUrl,
    connections: u32,
) -> Result<(Pool, Pool), StoreStartError> {
    let door = Door::find(url).await.map_err(StoreStartError::Server)?;
    prepare(&door, Opening::Migrate).await?;
    let writer = pool(door.clone(), 1).await?;
    let readers = pool(door, connections.saturating_sub(1).max(1)).await?;
    Ok((writer, readers))
}

/// At most so many connections, of which one is made at once, so that the first request does not wait
/// for a handshake.
async fn pool(door: Door, connections: u32) -> Result<Pool, StoreStartError> {
    let mode = door.mode;
    let mut config = ManagerConfig::default();
    config.recycling_method =
        RecyclingMethod::CustomFunction(Box::new(|connection: &mut Connection| {
            let broken = connection.is_broken();
            async move {
                if broken {
                    Err(diesel::result::Error::BrokenTransactionManager)
                } else {
                    Ok(())
                }
            }
            .boxed()
        }));
    config.custom_setup = Box::new(move |_| door.clone().connect().boxed());
    let manager = AsyncDieselConnectionManager::new_with_config(String::new(), config);
    let connections = bb8::Pool::builder()
        .max_size(connections)
        .min_idle(Some(1))
        .connection_timeout(LIMIT)
        .build(manager)
        .await
        .map_err(|error| StoreStartError::Server(error.to_string()))?;
    Ok(Pool { connections, mode })
}

/// Connects for one who works alone, without limits of time.
pub(super) async fn open_alone(
    url: &PostgresUrl,
    opening: Opening,
) -> Result<Connection, StoreStartError> {
    let door = Door::find(url).await.map_err(StoreStartError::Server)?;
    prepare(&door, opening).await
}

/// What the tables take, indexes included.
pub(super) async fn bytes(connection: &mut Connection) -> Result<u64, StoreError> {
    #[derive(diesel::QueryableByName)]
    struct Size {
        #[diesel(sql_type = BigInt)]
        bytes: i64,
    }
    let query = diesel::sql_query(
        "SELECT pg_total_relation_size('responses') + pg_total_relation_size('settings') \
         + pg_total_relation_size('approvals') + pg_total_relation_size('blobs') \
         + pg_total_relation_size('blob_chunks') + pg_total_relation_size('blob_uses') \
         + pg_total_relation_size('deletions') AS bytes",
    );
    let size: Size = query
        .get_result(connection)
        .await
        .map_err(|error| Failure::from(error).into_error())?;
    Ok(u64::try_from(size.bytes).unwrap_or_default())
}

/// Brings the schema up to date, under an advisory lock: of several processes, one migrates. Gives a
/// connection without limits of time.
async fn prepare(door: &Door, opening: Opening) -> Result<Connection, StoreStartError> {
    if opening == Opening::Migrate {
        indexes::build_ahead(&mut patient(door).await?).await?;
    }
    let mut tries = MIGRATIONS;
    loop {
        tries -= 1;
        match migrate_once(patient(door).await?, opening).await {
            Err(StoreStartError::Migration(words))
                if words.contains("lock timeout") && tries > 0 =>
            {
                log::info!("the migration waits for a table that is in use");
                tokio::time::sleep(MIGRATION_PAUSE).await;
            }
            done => return done,
        }
    }
}

async fn patient(door: &Door) -> Result<Connection, StoreStartError> {
    let connection = door.clone().connect_patient().await;
    connection.map_err(|error| StoreStartError::Server(error.to_string()))
}

async fn migrate_once(
    connection: Connection,
    opening: Opening,
) -> Result<Connection, StoreStartError> {
    // Diesel's migrations block their thread.
    let run = move || -> Result<Connection, StoreStartError> {
        let mut connection = AsyncConnectionWrapper::<Connection>::from(connection);
        diesel::Connection::transaction(&mut connection, |connection| match opening {
            Opening::AsItIs => migrate::check(connection),
            Opening::Migrate => {
                SimpleConnection::batch_execute(connection, MIGRATION_LOCK)?;
                migrate::migrate(connection)
            }
        })?;
        Ok(connection.into_inner())
    };
    tokio::task::spawn_blocking(run)
        .await
        .map_err(|error| StoreStartError::Migration(error.to_string()))?
}

/// Runs a read, again on another connection when one breaks.
pub(super) async fn read<R>(
    pool: &Pool,
    query: impl AsyncFn(&mut Connection) -> QueryResult<R>,
) -> Result<R, StoreError> {
    let attempt = async || match pool.mode {
        Mode::Direct => run(pool, &query).await,
        // Outside a transaction each statement may meet another session.
        Mode::Pooled => {
            run(pool, async |connection: &mut Connection| {
                in_transaction(connection, (LIMIT, LOCK_LIMIT), &query).await
            })
            .await
        }
    };
    let tries = async {
        loop {
            match attempt().await {
                Err(Failure::Passing(_)) => tokio::time::sleep(PAUSE).await,
                Err(failure) => return Err(failure.into_error()),
                Ok(result) => return Ok(result),
            }
        }
    };
    tokio::time::timeout(LIMIT, tries)
        .await
        .map_err(|_elapsed| StoreError::Busy)?
}

/// Commits these writes as one transaction.
pub(super) async fn commit(
    pool: &Pool,
    whats: &[Arc<What>],
    attempt: Attempt,
) -> Result<Vec<bool>, Failure> {
    let bytes = whats.iter().map(|what| what.bytes()).sum();
    let limit = LIMIT.saturating_add(allowance(bytes));
    // A new row waits for nobody but who inserts the same settings; a deletion for who has its row,
    // and everybody behind it waits too.
    let lock = if whats.iter().any(|what| what.wants_a_row()) {
        LOCK_LIMIT / 2
    } else {
        LOCK_LIMIT
    };
    let group = run(pool, async |connection: &mut Connection| {
        in_transaction(
            connection,
            (limit, lock),
            async |connection: &mut Connection| {
                queries::write_all(connection, whats, attempt).await
            },
        )
        .await
    });
    within(limit, group).await
}

/// Does this as one transaction.
pub(super) async fn transact<R>(
    pool: &Pool,
    work: impl AsyncFn(&mut Connection) -> QueryResult<R>,
) -> Result<R, Failure> {
    let whole = run(pool, async |connection: &mut Connection| {
        in_transaction(connection, (LIMIT, LOCK_LIMIT), &work).await
    });
    within(LIMIT, whole).await
}

/// Runs this between `BEGIN` and `COMMIT`, with limits that are the transaction's own: a pooler gives
/// each transaction another session.
async fn in_transaction<R>(
    connection: &mut Connection,
    (limit, lock): (Duration, Duration),
    work: impl AsyncFnOnce(&mut Connection) -> QueryResult<R>,
) -> QueryResult<R> {
    let begin = format!(
        "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; \
         SET LOCAL idle_in_transaction_session_timeout = '10s'",
        limit.as_millis(),
        lock.as_millis()
    );
    AnsiTransactionManager::begin_transaction_sql(connection, &begin).await?;
    match work(connection).await {
        Ok(result) => {
            AnsiTransactionManager::commit_transaction(connection).await?;
            Ok(result)
        }
        Err(error) => {
            // One that cannot be rolled back is broken, and the pool sees it.
            let rolled_back = AnsiTransactionManager::rollback_transaction(connection).await;
            log::trace!("rolled back: {rolled_back:?}");
            Err(error)
        }
    }
}

/// The server's time, Unix milliseconds.
pub(super) async fn now_ms(connection: &mut Connection) -> QueryResult<i64> {
    let now = sql::<BigInt>("CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)");
    diesel::select(now).get_result(connection).await
}

/// Removes these responses, then what goes with them; none when another gateway is at it.
pub(super) async fn purge(
    pool: &Pool,
    ids: &[String],
    before_ms: i64,
    most: usize,
) -> Result<Option<Purged>, Failure> {
    let purged = transact(pool, async |connection: &mut Connection| {
        if !is_free_to_sweep(connection).await? {
            return Ok(None);
        }
        let purged = queries::purge(connection, ids.to_vec(), before_ms, most).await?;
        Ok(Some(purged))
    })
    .await?;
    if let Some(Purged { settings, .. }) = &purged
        && !settings.is_empty()
    {
        transact(pool, async |connection: &mut Connection| {
            drop_settings(connection, settings).await
        })
        .await?;
    }
    Ok(purged)
}

/// Removes settings that nothing has any more. A writer that is about to rely on them has begun, and is
/// waited for, or has not, and waits.
async fn drop_settings(
    connection: &mut Connection,
    settings: &HashSet<(String, String)>,
) -> QueryResult<()> {
    connection
        .batch_execute("LOCK TABLE settings IN SHARE ROW EXCLUSIVE MODE")
        .await?;
    queries::drop_settings(connection, settings).await
}

/// As [`purge`], on this connection; waits for another that is at it.
pub(super) async fn purge_on(
    connection: &mut Connection,
    ids: &[String],
    before_ms: i64,
    most: usize,
) -> QueryResult<Purged> {
    let purged = connection
        .transaction(async |connection| {
            let lead = format!("SELECT pg_advisory_xact_lock({SWEEP_LOCK})");
            connection.batch_execute(&lead).await?;
            queries::purge(connection, ids.to_vec(), before_ms, most).await
        })
        .await?;
    if !purged.settings.is_empty() {
        connection
            .transaction(async |connection| drop_settings(connection, &purged.settings).await)
            .await?;
    }
    Ok(purged)
}

/// Inserts these responses where their ids are free, in one round trip; gives the ids.
async fn insert_responses(
    connection: &mut Connection,
    new: &[&Prepared],
) -> QueryResult<HashSet<String>> {
    let rows: Vec<_> = new.iter().map(|one| one.response()).collect();
    let statement = diesel::insert_into(responses::table)
        .values(&rows)
        .on_conflict_do_nothing()
        .returning(responses::id);
    let ids: Vec<String> = statement.get_results(connection).await?;
    Ok(ids.into_iter().collect())
}

/// Inserts these settings where they are not there.
async fn insert_settings(connection: &mut Connection, new: &[&Prepared]) -> QueryResult<()> {
    let rows: Vec<_> = new.iter().map(|one| one.settings()).collect();
    let statement = diesel::insert_into(settings::table)
        .values(&rows)
        .on_conflict_do_nothing();
    statement.execute(connection).await.map(drop)
}

async fn is_free_to_sweep(connection: &mut Connection) -> QueryResult<bool> {
    let free = format!("pg_try_advisory_xact_lock({SWEEP_LOCK})");
    let free = diesel::select(sql::<Bool>(&free));
    free.get_result::<bool>(connection).await
}

/// Inserts these rows at once; of those that are there, brings up to date what changes in a row's life.
async fn put_rows(connection: &mut Connection, rows: &[KeptRow]) -> QueryResult<()> {
    let statement = diesel::insert_into(responses::table)
        .values(rows)
        .on_conflict(responses::id)
        .do_update()
        .set((
            responses::owner.eq(excluded(responses::owner)),
            responses::expires_at.eq(sql::<Nullable<BigInt>>(deletions::EXPIRES_AT)),
            responses::deleted_at.eq(sql::<Nullable<BigInt>>(deletions::DELETED_AT)),
        ));
    statement.execute(connection).await.map(drop)
}

/// A connection that a transaction is given up on is not used again: the pool sees it open.
async fn within<R>(
    limit: Duration,
    work: impl Future<Output = Result<R, Failure>>,
) -> Result<R, Failure> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_elapsed| Failure::Slow(StoreError::Busy))?
}

/// Runs something on a connection of the pool, and tells a broken connection from a bad statement.
async fn run<R>(
    pool: &Pool,
    work: impl AsyncFn(&mut Connection) -> QueryResult<R>,
) -> Result<R, Failure> {
    let mut connection = pool
        .connections
        .get()
        .await
        .map_err(|_timed_out| Failure::unreachable())?;
    let error = match work(&mut connection).await {
        Ok(result) => return Ok(result),
        Err(error) => error,
    };
    if matches!(
        error,
        DieselError::DatabaseError(Kind::ReadOnlyTransaction, _)
    ) {
        // The session may stay so although the server does not: the pool throws it away.
        let session: &mut Connection = &mut connection;
        AnsiTransactionManager::transaction_manager_status_mut(session).set_in_error();
    }
    let error = Failure::from(error);
    let Failure::Lasting(cause) = error else {
        return Err(error);
    };
    // The server says farewell in an error of its own, and the end of the connection follows.
    tokio::time::sleep(NOTICE).await;
    Err(if connection.is_broken() {
        Failure::Passing(cause)
    } else {
        Failure::Lasting(cause)
    })
}
