//! Locks that others hold, starts that collide, files that others could read.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use vllm_responses_actors::store::StoreStartError;
use vllm_responses_actors::store::messages::StoreError;

use crate::fixture::{Place, open, record, settings};
use crate::kept::all_readable;

#[actix_rt::test]
async fn d4_short_lock_delays_and_fails_nothing() {
    let place = Place::sqlite();
    let store = place.store().await;
    let lock = place.hold_writes(Duration::from_secs(1));
    let ids = || (0..50).map(|i| format!("r{i}"));
    let started = Instant::now();
    let answers = join_all(ids().map(|id| {
        let store = store.clone();
        async move { store.commit(record("alice", &id)).await }
    }))
    .await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let waited = started.elapsed();
    assert!(
        waited > Duration::from_millis(500),
        "met no lock: {waited:?}"
    );
    lock.join().unwrap();
    all_readable(&store, ids()).await;
}

#[actix_rt::test]
async fn d4_long_lock_is_answered_busy_while_reads_go_on() {
    let place = Place::sqlite();
    let store = place.store().await;
    store.commit(record("alice", "before")).await.unwrap();

    let lock = place.hold_writes(Duration::from_secs(7));
    let started = Instant::now();
    // The second comes while the first waits for the lock: its wait in the queue counts too.
    let first = store.commit(record("alice", "r1"));
    let second = async {
        actix_rt::time::sleep(Duration::from_millis(500)).await;
        store.commit(record("alice", "r2")).await
    };
    let reads = async {
        let mut reads = 0;
        while started.elapsed() < Duration::from_secs(4) {
            assert!(store.fetch("alice", "before").await.unwrap().is_some());
            assert_eq!(store.chain_ids("alice", "before").await, ["before"]);
            assert_eq!(store.fetch("alice", "r1").await, Ok(None));
            reads += 1;
            actix_rt::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!lock.is_finished(), "the reads were to meet the lock");
        // The first is with the writer, the second waits behind it.
        let seen = store.observe().await;
        assert_eq!((seen.facts.queued, seen.last_error), (1, None));
        reads
    };
    let ((first, second), reads) = join(join(first, second), reads).await;
    assert_eq!(
        (first, second),
        (Err(StoreError::Busy), Err(StoreError::Busy))
    );
    assert!(!lock.is_finished(), "answered before the lock went");
    let last_error = store.observe().await.last_error;
    assert_eq!(last_error.as_deref(), Some("the response store is busy"));
    assert!(reads > 5, "{reads} reads in four seconds");

    lock.join().unwrap();
    // It heals by itself, and an asker who was turned away may ask again.
    for id in ["r1", "r2", "after"] {
        store.commit(record("alice", id)).await.unwrap();
    }
    all_readable(&store, ["r1", "r2", "after"].map(str::to_owned).into_iter()).await;
}

pub(crate) async fn d15_instances_migrate_at_once(place: Place) {
    let stores = join_all((0..4).map(|_| place.open())).await;
    let stores: Vec<_> = stores.into_iter().map(Result::unwrap).collect();
    stores[0].commit(record("alice", "r1")).await.unwrap();
    for store in stores {
        assert!(store.fetch("alice", "r1").await.unwrap().is_some());
    }
    let twice = "SELECT count(*) - count(DISTINCT version) AS n FROM __diesel_schema_migrations";
    assert_eq!(place.number(twice), 0);
}

pub(crate) async fn d15_newer_schema_is_refused_and_left_alone(place: Place) {
    const COUNT: &str = "SELECT count(*) AS n FROM __diesel_schema_migrations";
    let store = place.store().await;
    store.commit(record("alice", "r1")).await.unwrap();
    place.run("INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000000')");
    let before = place.number(COUNT);

    let refused = place.open().await.map(drop);
    assert!(
        matches!(refused, Err(StoreStartError::NewerSchema)),
        "{refused:?}"
    );
    assert_eq!(place.number(COUNT), before);
    assert_eq!(place.number("SELECT count(*) AS n FROM responses"), 1);
}

#[actix_rt::test]
async fn d15_what_is_no_database_is_refused() {
    let place = Place::sqlite();
    std::fs::write(
        place.file(),
        "a text file that happens to be here ".repeat(100),
    )
    .unwrap();
    let refused = place.open().await.map(drop);
    assert!(refused.is_err(), "{refused:?}");
    let nowhere = place.file().join("no/such/folder.db");
    let refused = open(settings(nowhere.to_str().unwrap())).await.map(drop);
    assert!(
        matches!(refused, Err(StoreStartError::Open(_))),
        "{refused:?}"
    );
}

#[actix_rt::test]
async fn d16_files_are_private() {
    let place = Place::sqlite();
    let store = place.store().await;
    store.commit(record("alice", "r1")).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let mut name = place.file().into_os_string();
        name.push(suffix);
        let mode = std::fs::metadata(Path::new(&name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "mode {mode:o} of {}", name.display());
    }
}
