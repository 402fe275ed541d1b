//! Micro-benchmarks of the store in SQLite, through its messages: a commit, and a chain read back.
//!
//! `cargo bench -p vllm-responses-actors`. The asker lives on the store's own thread, so changes of
//! threads between them are not in these figures; `bench/run` has them.

#![expect(clippy::unwrap_used, reason = "a program for people at a terminal")]

use actix::{Actor as _, Addr};
use actix_rt::{System, SystemRunner};
use divan::Bencher;
use divan::counter::ItemsCount;
use futures_util::future::join_all;
use tempfile::TempDir;
use vllm_responses_actors::store::StoreActor;
use vllm_responses_actors::store::messages::{Commit, Extent, LoadChain};
use vllm_responses_actors::store::settings::{Database, StoreSettings, Synchronous};
use vllm_responses_protocol::ids::{Owner, ResponseId};
use vllm_responses_protocol::record::{Record, Status};

fn main() {
    divan::main();
}

/// A store, its thread, and the folder that goes with them.
struct Store {
    system: SystemRunner,
    address: Addr<StoreActor>,
    next: u64,
    _folder: TempDir,
}

impl Store {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = StoreSettings {
            database: Database::Sqlite(folder.path().join("responses.db")),
            synchronous: Synchronous::Normal,
            pool_size: 2,
            retention: None,
            purge_interval: None,
        };
        let system = System::new();
        let address = system.block_on(async {
            let store = StoreActor::open(&settings).await;
            store.unwrap().start()
        });
        Self {
            system,
            address,
            next: 0,
            _folder: folder,
        }
    }

    /// Commits so many responses that are asked for at the same time; gives the last one's id.
    fn commit(&mut self, count: usize, previous: Option<&ResponseId>) -> ResponseId {
        let records: Vec<Record> = (0..count).map(|_| self.record(previous)).collect();
        let last = records.last().unwrap().id.clone();
        let commits = records
            .into_iter()
            .map(|record| self.address.send(Commit(Box::new(record))));
        for committed in self.system.block_on(join_all(commits)) {
            committed.unwrap().unwrap();
        }
        last
    }

    fn record(&mut self, previous: Option<&ResponseId>) -> Record {
        self.next += 1;
        let item = |role: &str, kind: &str| {
            format!(
                r#"{{"type":"message","id":"msg_1","status":"completed","role":"{role}","content":[{{"type":"{kind}","text":"{}"}}]}}"#,
                " word".repeat(64)
            )
        };
        Record {
            id: ResponseId::new(&format!("resp_{:032x}", self.next)),
            previous: previous.cloned(),
            owner: Owner::default(),
            model: "m".into(),
            status: Status::Completed,
            created_at_ms: 1,
            completed_at_ms: Some(2),
            expires_at_ms: None,
            input_items: format!("[{}]", item("user", "input_text")).into(),
            response: format!(r#"{{"output":[{}]}}"#, item("assistant", "output_text")).into(),
            settings: r#"{"tools":[]}"#.into(),
            blobs: Vec::new(),
        }
    }
}

#[divan::bench(args = [1, 64])]
fn commit(bencher: Bencher<'_, '_>, at_once: usize) {
    let mut store = Store::open();
    bencher
        .counter(ItemsCount::new(at_once))
        .bench_local(|| store.commit(at_once, None));
}

#[divan::bench(args = [20, 200])]
fn load_chain(bencher: Bencher<'_, '_>, turns: usize) {
    let mut store = Store::open();
    let mut last = None;
    for _ in 0..turns {
        last = Some(store.commit(1, last.as_ref()));
    }
    let asked = LoadChain {
        owner: Owner::default(),
        id: last.unwrap(),
        extent: Extent::Items,
    };
    bencher.counter(ItemsCount::new(turns)).bench_local(|| {
        let loaded = store.system.block_on(store.address.send(asked.clone()));
        loaded.unwrap().unwrap().unwrap()
    });
}
