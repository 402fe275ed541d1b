//! PostgreSQL: a pool of connections, prepared statements, and patience while the server restarts.
//!
//! Connections belong to the runtime that opened them. A read or a write that meets a broken one is
//! tried again on another, within [`LIMIT`]; a server that hangs is left alone after it.

use std::collections::HashSet;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg as Database;
use diesel::result::{DatabaseErrorKind as Kind, Error as DieselError};
use diesel::upsert::excluded;
use diesel::{ConnectionError, ConnectionResult, ExpressionMethods as _, QueryResult};
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
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::desk::Opening;
use super::failure::Failure;
use super::messages::StoreError;
use super::postgres_url::{PostgresUrl, SslMode};
use super::rows::{KeptRow, Prepared};
use super::schema::{responses, settings};
use super::writer::{Attempt, Purged, What};
use super::{StoreStartError, migrate, tls};

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

#[path = "bulk.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "one text of statements, compiled for every database"
)]
pub(super) mod bulk;

/// A statement is a future already.
use std::convert::identity as settled;

/// How long a write, a read or a connection may take, retries included.
pub(super) const LIMIT: Duration = Duration::from_secs(3);
/// Between attempts of a read while the server is away.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a connection gets to notice its end after a statement failed.
const NOTICE: Duration = Duration::from_millis(10);
/// A peer that is gone without a word is noticed after this; the kernel does it.
const SILENCE: Duration = Duration::from_secs(10);

/// Set on every connection. A statement of ours takes milliseconds; one that takes seconds is stuck,
/// and an open transaction without a statement is one whose gateway is gone.
const SETUP: &str = "SET statement_timeout = '3s'; SET lock_timeout = '2s'; \
    SET idle_in_transaction_session_timeout = '10s'";
/// Migrations of a large table take their time, and wait for those of another process.
const PATIENT_SETUP: &str = "SET statement_timeout = 0; SET lock_timeout = 0";
/// The number is any that nobody else uses in this database.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(7205918340112658011)";

/// The connections of this process.
pub(super) type Pool = bb8::Pool<Connection>;

/// Connects, migrates, and gives the pool.
pub(super) async fn open(url: &PostgresUrl, connections: u32) -> Result<Pool, StoreStartError> {
    let door = Door::new(url).map_err(StoreStartError::Server)?;
    let first = door
        .clone()
        .connect()
        .await
        .map_err(|error| StoreStartError::Server(error.to_string()))?;
    prepare(first, Opening::Migrate).await?;
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
    bb8::Pool::builder()
        .max_size(connections)
        // One to read and one to write, so that the first request does not wait for a handshake.
        .min_idle(Some(2))
        .connection_timeout(LIMIT)
        .build(manager)
        .await
        .map_err(|error| StoreStartError::Server(error.to_string()))
}

/// Connects for one who works alone, without limits of time.
pub(super) async fn open_alone(
    url: &PostgresUrl,
    opening: Opening,
) -> Result<Connection, StoreStartError> {
    let door = Door::new(url).map_err(StoreStartError::Server)?;
    let connection = door
        .connect()
        .await
        .map_err(|error| StoreStartError::Server(error.to_string()))?;
    prepare(connection, opening).await
}

/// What the tables take, indexes included.
pub(super) async fn bytes(connection: &mut Connection) -> Result<u64, StoreError> {
    #[derive(diesel::QueryableByName)]
    struct Size {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        bytes: i64,
    }
    let query = diesel::sql_query(
        "SELECT pg_total_relation_size('responses') + pg_total_relation_size('settings') \
         + pg_total_relation_size('approvals') AS bytes",
    );
    let size: Size = query
        .get_result(connection)
        .await
        .map_err(|error| Failure::from(error).into_error())?;
    Ok(u64::try_from(size.bytes).unwrap_or_default())
}

/// Brings the schema up to date, under an advisory lock: of several processes, one migrates.
async fn prepare(
    mut connection: Connection,
    opening: Opening,
) -> Result<Connection, StoreStartError> {
    connection.batch_execute(PATIENT_SETUP).await?;
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

/// How a connection is made.
#[derive(Clone)]
struct Door {
    config: Config,
    tls: Option<MakeRustlsConnect>,
}

impl Door {
    fn new(url: &PostgresUrl) -> Result<Self, String> {
        let mut config = url.config()?;
        config.keepalives_idle(SILENCE).tcp_user_timeout(SILENCE);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(LIMIT);
        }
        if config.get_application_name().is_none() {
            config.application_name("vllm-responses");
        }
        let tls = match url.ssl {
            SslMode::Disable => None,
            SslMode::Prefer | SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                Some(tls::connector(url)?)
            }
        };
        Ok(Self { config, tls })
    }

    async fn connect(self) -> ConnectionResult<Connection> {
        tokio::time::timeout(LIMIT, self.connect_unbounded())
            .await
            .map_err(|_elapsed| {
                ConnectionError::BadConnection("the server does not answer".to_owned())
            })?
    }

    async fn connect_unbounded(self) -> ConnectionResult<Connection> {
        let mut connection = match self.tls {
            None => {
                let (client, io) = self.config.connect(NoTls).await.map_err(|e| refused(&e))?;
                Connection::try_from_client_and_connection(client, io).await?
            }
            Some(tls) => {
                let (client, io) = self.config.connect(tls).await.map_err(|e| refused(&e))?;
                Connection::try_from_client_and_connection(client, io).await?
            }
        };
        connection
            .batch_execute(SETUP)
            .await
            .map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(connection)
    }
}

/// The client's error with the server's words; neither has the URL or the password in it.
fn refused(error: &tokio_postgres::Error) -> ConnectionError {
    let words = if let Some(said) = error.as_db_error() {
        said.message().to_owned()
    } else {
        let cause = std::error::Error::source(error);
        cause.map_or_else(|| error.to_string(), ToString::to_string)
    };
    ConnectionError::BadConnection(words)
}

/// Runs a read, again on another connection when one breaks.
pub(super) async fn read<R>(
    pool: &Pool,
    query: impl AsyncFn(&mut Connection) -> QueryResult<R>,
) -> Result<R, StoreError> {
    let tries = async {
        loop {
            match run(pool, &query).await {
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
    whats: &[What],
    attempt: Attempt,
) -> Result<Vec<bool>, Failure> {
    let group = run(pool, async |connection: &mut Connection| {
        connection
            .transaction(async |connection| queries::write_all(connection, whats, attempt).await)
            .await
    });
    within(group).await
}

/// Removes these responses, then what goes with them.
pub(super) async fn purge(
    pool: &Pool,
    ids: &[String],
    before_ms: i64,
    most: usize,
) -> Result<Purged, Failure> {
    let work = run(pool, async |connection: &mut Connection| {
        purge_on(connection, ids, before_ms, most).await
    });
    within(work).await
}

/// As [`purge`], on this connection.
pub(super) async fn purge_on(
    connection: &mut Connection,
    ids: &[String],
    before_ms: i64,
    most: usize,
) -> QueryResult<Purged> {
    let purged = connection
        .transaction(async |connection| {
            queries::purge(connection, ids.to_vec(), before_ms, most).await
        })
        .await?;
    if !purged.settings.is_empty() {
        connection
            .transaction(async |connection| {
                // A writer that is about to rely on such settings has begun, and is waited for, or
                // has not, and waits.
                connection
                    .batch_execute("LOCK TABLE settings IN SHARE ROW EXCLUSIVE MODE")
                    .await?;
                queries::drop_settings(connection, &purged.settings).await
            })
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

/// Inserts these rows at once; of those that are there, brings up to date what changes in a row's life.
async fn put_rows(connection: &mut Connection, rows: &[KeptRow]) -> QueryResult<()> {
    let statement = diesel::insert_into(responses::table)
        .values(rows)
        .on_conflict(responses::id)
        .do_update()
        .set((
            responses::owner.eq(excluded(responses::owner)),
            responses::expires_at.eq(excluded(responses::expires_at)),
            responses::deleted_at.eq(excluded(responses::deleted_at)),
        ));
    statement.execute(connection).await.map(drop)
}

/// A connection that a transaction is given up on is not used again: the pool sees it open.
async fn within<R>(work: impl Future<Output = Result<R, Failure>>) -> Result<R, Failure> {
    tokio::time::timeout(LIMIT, work)
        .await
        .map_err(|_elapsed| Failure::Passing(StoreError::Busy))?
}

/// Runs something on a connection of the pool, and tells a broken connection from a bad statement.
async fn run<R>(
    pool: &Pool,
    work: impl AsyncFn(&mut Connection) -> QueryResult<R>,
) -> Result<R, Failure> {
    let mut connection = pool
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
