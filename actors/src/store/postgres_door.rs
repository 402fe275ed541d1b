//! How a connection to PostgreSQL is made, and whether a pooler stands before the server.
//!
//! A pooler such as PgBouncer, in transaction mode, gives each transaction another session of the server.
//! Then a session keeps nothing: no prepared statement, no setting. Everything must be in a
//! transaction, which each statement is sent with its preparation in.

use std::time::Duration;

use diesel::connection::CacheSize;
use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{
    AsyncConnection as _, AsyncPgConnection as Connection, SimpleAsyncConnection as _,
};
use futures_util::FutureExt as _;
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::postgres::LIMIT;
use super::postgres_url::{PostgresUrl, SslMode};
use super::tls;

/// A peer that is gone without a word is noticed after this; the kernel does it.
const SILENCE: Duration = Duration::from_secs(10);

/// Set on every connection of the gateway's. A statement of ours takes milliseconds; one that takes
/// seconds is stuck, and an open transaction without a statement is one whose gateway is gone.
const SETUP: &str = "SET statement_timeout = '3s'; SET lock_timeout = '2s'; \
    SET idle_in_transaction_session_timeout = '10s'";

/// A parameter that a server takes with the connection, whatever its name, and that a pooler refuses or
/// drops: it cannot know what it means for other sessions.
const PROBE: &str = "-c vllm_responses.direct=1";

/// What stands at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The server: a connection is a session.
    Direct,
    /// A pooler: a session lasts as long as a transaction.
    Pooled,
}

/// How a connection is made.
#[derive(Clone)]
pub(super) struct Door {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    pub(super) mode: Mode,
}

impl Door {
    /// Reads the URL, and sees who answers there.
    pub(super) async fn find(url: &PostgresUrl) -> Result<Self, String> {
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
        let mut door = Self {
            config,
            tls,
            mode: Mode::Direct,
        };
        door.mode = door.look().await.map_err(|error| error.to_string())?;
        if door.mode == Mode::Pooled {
            log::info!("store: a connection pooler answers; nothing is kept in sessions");
        }
        Ok(door)
    }

    /// Who answers.
    async fn look(&self) -> ConnectionResult<Mode> {
        let mut probing = self.clone();
        // As it must be done where it is a pooler.
        probing.mode = Mode::Pooled;
        let options = match probing.config.get_options() {
            Some(given) => format!("{given} {PROBE}"),
            None => PROBE.to_owned(),
        };
        probing.config.options(options);
        let mut session = match probing.connect_patient().await {
            Ok(session) => session,
            Err(ConnectionError::BadConnection(words)) if words.contains("startup parameter") => {
                return Ok(Mode::Pooled);
            }
            Err(error) => return Err(error),
        };
        let kept = session.batch_execute("SHOW vllm_responses.direct").await;
        Ok(if kept.is_ok() {
            Mode::Direct
        } else {
            Mode::Pooled
        })
    }

    /// One with the limits of a gateway.
    pub(super) async fn connect(self) -> ConnectionResult<Connection> {
        let mode = self.mode;
        let mut connection = self.connect_patient().await?;
        match mode {
            Mode::Direct => connection
                .batch_execute(SETUP)
                .await
                .map_err(ConnectionError::CouldntSetupConfiguration)?,
            // Each transaction brings its own.
            Mode::Pooled => {}
        }
        Ok(connection)
    }

    /// One without limits on statements.
    pub(super) async fn connect_patient(self) -> ConnectionResult<Connection> {
        tokio::time::timeout(LIMIT, self.connect_unbounded())
            .await
            .map_err(|_elapsed| {
                ConnectionError::BadConnection("the server does not answer".to_owned())
            })?
    }

    async fn connect_unbounded(self) -> ConnectionResult<Connection> {
        match self.tls {
            None => {
                let (client, io) = self.config.connect(NoTls).await.map_err(|e| refused(&e))?;
                set_up(client, io, self.mode).await
            }
            Some(tls) => {
                let (client, io) = self.config.connect(tls).await.map_err(|e| refused(&e))?;
                set_up(client, io, self.mode).await
            }
        }
    }
}

/// Gives a client to diesel, which sets what it relies on with prepared statements.
async fn set_up<S>(
    client: Client,
    io: tokio_postgres::Connection<Socket, S>,
    mode: Mode,
) -> ConnectionResult<Connection>
where
    S: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
{
    if mode == Mode::Direct {
        return Connection::try_from_client_and_connection(client, io).await;
    }
    // These statements must meet one session. The request is sent with the first poll, and its answer
    // is not needed: without it the end below is a warning of the server's.
    let begun = client.batch_execute("BEGIN").now_or_never();
    debug_assert!(begun.is_none(), "nobody reads answers yet");
    let mut connection = Connection::try_from_client_and_connection(client, io).await?;
    connection
        .batch_execute("COMMIT")
        .await
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    connection.set_prepared_statement_cache_size(CacheSize::Disabled);
    Ok(connection)
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
