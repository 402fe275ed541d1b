//! Stores in temporary folders, records to put in them, and the four messages as functions.

use std::path::{Path, PathBuf};
use std::time::Duration;

use actix::Addr;
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use tempfile::TempDir;
use vllm_responses_actors::ask::ask_actor;
use vllm_responses_actors::cache::{self, CacheActor};
use vllm_responses_actors::store::StoreStartError;
use vllm_responses_actors::store::messages::{
    Commit, Extent, Fetch, LoadChain, Remove, StoreError,
};
use vllm_responses_actors::store::settings::{Database, StoreSettings, Synchronous};
use vllm_responses_protocol::ids::{Owner, ResponseId};
use vllm_responses_protocol::record::{Chain, Record, Status, Stored};

/// Longer than anything a test waits for: a hung store fails the test instead of stalling it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Settings that the records carry unless a test says otherwise.
pub(crate) const SETTINGS: &str = r#"{"instructions":"be brief","tools":[]}"#;

/// A folder that goes with the test, and the database file in it.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The database file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("responses.db")
    }

    /// A store on the file, as one gateway process has it.
    pub(crate) async fn store(&self) -> Store {
        open(&self.file()).await.unwrap()
    }

    /// A connection of another program to the same file. It waits for no lock.
    pub(crate) fn other_program(&self) -> SqliteConnection {
        SqliteConnection::establish(self.file().to_str().unwrap()).unwrap()
    }
}

/// Opens a store on this file.
pub(crate) async fn open(file: &Path) -> Result<Store, StoreStartError> {
    let settings = StoreSettings {
        database: Database::Sqlite(file.to_owned()),
        synchronous: Synchronous::Normal,
        retention: None,
    };
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

    /// The ids of a chain that must be there, oldest first.
    pub(crate) async fn chain_ids(&self, owner: &str, id: &str) -> Vec<String> {
        let chain = self.chain(owner, id).await.unwrap().expect("a chain");
        chain.links.iter().map(|link| link.id.to_string()).collect()
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
    }
}

/// As [`record`], continuing `previous`.
pub(crate) fn child(owner: &str, id: &str, previous: &str) -> Record {
    Record {
        previous: Some(ResponseId::new(previous)),
        ..record(owner, id)
    }
}

/// One number that a statement gives, such as a count, to look behind the store's back.
pub(crate) fn number(connection: &mut SqliteConnection, statement: &str) -> i64 {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
    }
    diesel::sql_query(statement)
        .get_result::<Row>(connection)
        .unwrap()
        .n
}

/// Moves the write-ahead log into the database file and empties it.
pub(crate) fn checkpoint(connection: &mut SqliteConnection) {
    connection
        .batch_execute("PRAGMA busy_timeout = 5000; PRAGMA wal_checkpoint(TRUNCATE);")
        .unwrap();
}
