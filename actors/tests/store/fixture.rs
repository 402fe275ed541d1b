//! Stores in places of their own, records to put in them, and the four messages as functions.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel_async::AsyncPgConnection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use tempfile::TempDir;
use tokio::sync::mpsc;
use vllm_responses_actors::ask::ask_actor;
use vllm_responses_actors::cache::{self, CacheActor};
use vllm_responses_actors::store::StoreStartError;
use vllm_responses_actors::store::messages::{
    ChainPart, Claim, Close, Commit, Extent, Fetch, FindLinks, LoadChain, LoadPart, Observe,
    ReadChunk, Remove, ReportTo, StoreError, StoreObservation, Weigh, Weighed, Weight,
};
use vllm_responses_actors::store::settings::{Database, StoreSettings, Synchronous};
use vllm_responses_actors::supervisor::messages::{Health, Report};
use vllm_responses_protocol::blob::BlobRef;
use vllm_responses_protocol::ids::{Owner, ResponseId};
use vllm_responses_protocol::record::{Chain, Record, Status, Stored};

/// Longer than anything a test waits for: a hung store fails the test instead of stalling it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Settings that the records carry unless a test says otherwise.
pub(crate) const SETTINGS: &str = r#"{"instructions":"be brief","tools":[]}"#;

/// A database of the test's own, gone with it.
pub(crate) enum Place {
    Sqlite(TempDir),
    Postgres(Server),
}

/// A fresh database on the server of `TEST_DATABASE_URL`.
pub(crate) struct Server {
    /// The server's own database, to make and drop others from.
    home: String,
    name: String,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// None, and a line that says so, where no server is named.
    pub(crate) fn postgres() -> Option<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test is told its server this way"
        )]
        let Ok(home) = std::env::var("TEST_DATABASE_URL") else {
            eprintln!("SKIPPED: TEST_DATABASE_URL names no PostgreSQL server");
            return None;
        };
        let mut bits = [0; 8];
        getrandom::fill(&mut bits).unwrap();
        let name = format!("store_{:016x}", u64::from_le_bytes(bits));
        aside(&home, |other| other.run(&format!("CREATE DATABASE {name}")));
        Some(Self::Postgres(Server { home, name }))
    }

    /// The database file.
    pub(crate) fn file(&self) -> PathBuf {
        let Self::Sqlite(folder) = self else {
            panic!("this case is about a file");
        };
        folder.path().join("responses.db")
    }

    /// What `VR_DB_PATH` would say.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(_) => self.file().to_str().unwrap().to_owned(),
            Self::Postgres(server) => server.url(),
        }
    }

    pub(crate) fn settings(&self) -> StoreSettings {
        settings(&self.url())
    }

    /// A store here, as one gateway process has it.
    pub(crate) async fn store(&self) -> Store {
        self.open().await.unwrap()
    }

    pub(crate) async fn open(&self) -> Result<Store, StoreStartError> {
        open(self.settings()).await
    }

    /// One number that a statement gives, such as a count, to look behind the store's back.
    pub(crate) fn number(&self, statement: &str) -> i64 {
        aside(&self.url(), |other| other.number(statement))
    }

    /// One text that a statement gives. PostgreSQL only.
    pub(crate) fn text(&self, statement: &str) -> String {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::Text)]
            t: String,
        }
        aside(&self.url(), |other| match other {
            Other::Sqlite(_) => panic!("PostgreSQL only"),
            Other::Postgres(connection) => {
                let row = diesel::sql_query(statement).get_result::<Row>(&mut **connection);
                row.unwrap().t
            }
        })
    }

    /// What `EXPLAIN` says. PostgreSQL only.
    pub(crate) fn lines(&self, statement: &str) -> String {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::Text, column_name = "QUERY PLAN")]
            line: String,
        }
        aside(&self.url(), |other| match other {
            Other::Sqlite(_) => panic!("PostgreSQL only"),
            Other::Postgres(connection) => {
                let rows = diesel::sql_query(statement).load::<Row>(&mut **connection);
                let lines: Vec<String> = rows.unwrap().into_iter().map(|row| row.line).collect();
                lines.join("\n")
            }
        })
    }

    /// Statements of another program.
    pub(crate) fn run(&self, statements: &str) {
        aside(&self.url(), |other| other.run(statements));
    }

    /// What the tables and their indexes take.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = match self {
            Self::Sqlite(_) => {
                self.run("PRAGMA wal_checkpoint(TRUNCATE)");
                i64::try_from(std::fs::metadata(self.file()).unwrap().len()).unwrap()
            }
            Self::Postgres(_) => self.number(
                "SELECT (pg_total_relation_size('responses') + pg_total_relation_size('settings')) AS n",
            ),
        };
        usize::try_from(bytes).unwrap()
    }

    /// Another program lets nobody write for this long. Returns when it has begun.
    pub(crate) fn hold_writes(&self, time: Duration) -> JoinHandle<()> {
        let lock = match self {
            Self::Sqlite(_) => "",
            Self::Postgres(_) => "LOCK TABLE responses IN SHARE MODE",
        };
        self.hold(lock, time)
    }

    /// Another program does this in a transaction, and commits it after this long. Returns when it has
    /// begun.
    pub(crate) fn hold(&self, statements: &str, time: Duration) -> JoinHandle<()> {
        let begin = match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN",
        };
        let (url, statements) = (self.url(), format!("{begin}; {statements};"));
        let (started, wait) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let mut other = Other::connect(&url);
            other.run(&statements);
            started.send(()).unwrap();
            thread::sleep(time);
            other.run("COMMIT");
        });
        wait.recv().unwrap();
        thread
    }
}

impl Server {
    fn url(&self) -> String {
        let (server, _database) = self.home.rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }
}

impl Drop for Server {
    /// The server flushes everything to its disk and has every one of its processes let go of the
    /// files, which took a minute beside other tests. It goes on when nobody waits any more.
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let home = self.home.clone();
        let (done, wait) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut other = Other::connect(&home);
            // What is written is with the server's kernel, whatever becomes of this process.
            other.run(&statement);
            // Nobody waits any more where it took long.
            let _late = done.send(());
        });
        let _late = wait.recv_timeout(GONE);
    }
}

/// How long the end of a database is waited for, in which the statement reaches the server.
const GONE: Duration = Duration::from_secs(3);

/// Gives `work` another program's connection, on a thread of its own: PostgreSQL's brings a runtime.
fn aside<R: Send>(url: &str, work: impl FnOnce(&mut Other) -> R + Send) -> R {
    thread::scope(|scope| {
        let thread = scope.spawn(|| work(&mut Other::connect(url)));
        thread.join().unwrap()
    })
}

/// A connection of another program. It waits for no lock of SQLite's but at its start.
enum Other {
    Sqlite(SqliteConnection),
    Postgres(Box<AsyncConnectionWrapper<AsyncPgConnection>>),
}

impl Other {
    fn connect(url: &str) -> Self {
        if url.contains("://") {
            return Self::Postgres(Box::new(AsyncConnectionWrapper::establish(url).unwrap()));
        }
        let mut connection = SqliteConnection::establish(url).unwrap();
        connection
            .batch_execute("PRAGMA busy_timeout = 5000;")
            .unwrap();
        Self::Sqlite(connection)
    }

    fn run(&mut self, statements: &str) {
        match self {
            Self::Sqlite(connection) => connection.batch_execute(statements).unwrap(),
            Self::Postgres(connection) => connection.batch_execute(statements).unwrap(),
        }
    }

    fn number(&mut self, statement: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            n: i64,
        }
        let query = diesel::sql_query(statement);
        match self {
            Self::Sqlite(connection) => query.get_result::<Row>(connection),
            Self::Postgres(connection) => query.get_result::<Row>(&mut **connection),
        }
        .unwrap()
        .n
    }
}

/// Settings with this `VR_DB_PATH`.
pub(crate) fn settings(url: &str) -> StoreSettings {
    StoreSettings {
        database: Database::parse(url).unwrap(),
        synchronous: Synchronous::Normal,
        pool_size: 4,
        retention: None,
        purge_interval: None,
    }
}

/// Opens a store.
pub(crate) async fn open(settings: StoreSettings) -> Result<Store, StoreStartError> {
    cache::start(settings, None).await.map(Store)
}

/// The door to one store.
#[derive(Clone)]
pub(crate) struct Store(Addr<CacheActor>);

impl Store {
    pub(crate) async fn commit(&self, record: Record) -> Result<(), StoreError> {
        ask_actor(&self.0, Commit(Box::new(record)), DEADLINE)
            .await
            .expect("an answer")
    }

    pub(crate) async fn fetch(&self, owner: &str, id: &str) -> Result<Option<Stored>, StoreError> {
        let message = Fetch {
            owner: Owner::new(owner),
            id: ResponseId::new(id),
        };
        ask_actor(&self.0, message, DEADLINE)
            .await
            .expect("an answer")
    }

    pub(crate) async fn chain(&self, owner: &str, id: &str) -> Result<Option<Chain>, StoreError> {
        let message = LoadChain {
            owner: Owner::new(owner),
            id: ResponseId::new(id),
            extent: Extent::Items,
        };
        ask_actor(&self.0, message, DEADLINE)
            .await
            .expect("an answer")
    }

    pub(crate) async fn remove(&self, owner: &str, id: &str) -> Result<bool, StoreError> {
        let message = Remove {
            owner: Owner::new(owner),
            id: ResponseId::new(id),
        };
        ask_actor(&self.0, message, DEADLINE)
            .await
            .expect("an answer")
    }

    pub(crate) async fn part(
        &self,
        owner: &str,
        id: &str,
        (skip, most): (usize, usize),
    ) -> Result<Option<ChainPart>, StoreError> {
        let message = LoadPart {
            owner: Owner::new(owner),
            id: ResponseId::new(id),
            skip,
            most,
        };
        ask_actor(&self.0, message, DEADLINE)
            .await
            .expect("an answer")
    }

    pub(crate) async fn chunk(
        &self,
        owner: &str,
        blob: BlobRef,
        position: usize,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let message = ReadChunk {
            owner: Owner::new(owner),
            blob,
            position,
        };
        let pieces = ask_actor(&self.0, message, DEADLINE)
            .await
            .expect("an answer")?;
        Ok(pieces.map(|pieces| pieces.concat()))
    }

    pub(crate) async fn links(&self, owner: &str, ids: &[&str]) -> Result<Vec<String>, StoreError> {
        let message = FindLinks {
            owner: Owner::new(owner),
            ids: ids.iter().map(|id| ResponseId::new(id)).collect(),
        };
        let found = ask_actor(&self.0, message, DEADLINE)
            .await
            .expect("an answer");
        found.map(|links| links.iter().map(|link| link.id.to_string()).collect())
    }

    pub(crate) async fn weight(&self, owner: &str, what: Weighed) -> Option<Weight> {
        let owner = Owner::new(owner);
        ask_actor(&self.0, Weigh { owner, what }, DEADLINE)
            .await
            .expect("an answer")
            .unwrap()
    }

    /// Whether this response may make the calls of these approval requests.
    pub(crate) async fn claim(&self, owner: &str, response: &str, requests: &[&str]) -> bool {
        let message = Claim {
            owner: Owner::new(owner),
            response: ResponseId::new(response),
            requests: requests.iter().map(|request| (*request).into()).collect(),
        };
        ask_actor(&self.0, message, DEADLINE)
            .await
            .expect("an answer")
            .unwrap()
    }

    /// What it reports of its health from now on.
    pub(crate) fn listen(&self) -> mpsc::Receiver<Health> {
        let (heard, reports) = mpsc::channel(64);
        self.0
            .do_send(ReportTo(Listener(heard).start().recipient()));
        reports
    }

    /// Ends the store, as a gateway does that stops.
    pub(crate) async fn close(&self) {
        ask_actor(&self.0, Close, DEADLINE)
            .await
            .expect("an answer")
            .unwrap();
    }

    /// How the store is.
    pub(crate) async fn observe(&self) -> StoreObservation {
        ask_actor(&self.0, Observe, DEADLINE)
            .await
            .expect("an answer")
            .unwrap()
    }

    /// The ids of a chain that must be there, oldest first.
    pub(crate) async fn chain_ids(&self, owner: &str, id: &str) -> Vec<String> {
        let chain = self.chain(owner, id).await.unwrap().expect("a chain");
        chain.links.iter().map(|link| link.id.to_string()).collect()
    }
}

/// Writes down what a store says of its health.
struct Listener(mpsc::Sender<Health>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Report> for Listener {
    type Result = ();
    fn handle(&mut self, report: Report, _: &mut Self::Context) {
        // The test may have heard enough.
        let _unheard: Result<(), _> = self.0.try_send(report.health);
    }
}

/// A finished response of `owner` that expires never and continues nothing.
pub(crate) fn record(owner: &str, id: &str) -> Record {
    Record {
        id: ResponseId::new(id),
        previous: None,
        owner: Owner::new(owner),
        model: "a-model".into(),
        status: Status::Completed,
        created_at_ms: 1_700_000_000_000,
        completed_at_ms: Some(1_700_000_001_000),
        expires_at_ms: None,
        input_items: format!(r#"[{{"id":"msg_in_{id}","text":"question"}}]"#).into(),
        response: format!(r#"{{"id":"{id}","output":[{{"text":"answer"}}]}}"#).into(),
        settings: SETTINGS.into(),
        blobs: Vec::new(),
    }
}

/// As [`record`], continuing `previous`.
pub(crate) fn child(owner: &str, id: &str, previous: &str) -> Record {
    Record {
        previous: Some(ResponseId::new(previous)),
        ..record(owner, id)
    }
}
