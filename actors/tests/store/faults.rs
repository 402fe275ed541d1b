//! Locks that others hold, starts that collide, files that others could read.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use vllm_responses_actors::store::StoreStartError;
use vllm_responses_actors::store::desk::{Desk, Opening};
use vllm_responses_actors::store::messages::StoreError;
use vllm_responses_actors::store::settings::StoreSettings;
use vllm_responses_actors::supervisor::messages::Health;

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

/// Less than a migration takes that waits for tables which others have, once for each limit of a lock;
/// much more than four migrations of nothing take on a busy machine.
const STARTS: Duration = Duration::from_secs(30);

pub(crate) async fn d15_instances_migrate_at_once(place: Place) {
    let began = Instant::now();
    let stores = join_all((0..4).map(|_| place.open())).await;
    let stores: Vec<_> = stores.into_iter().map(Result::unwrap).collect();
    let opened = began.elapsed();
    eprintln!("opened within {opened:?}");
    assert!(opened < STARTS, "they waited for each other: {opened:?}");
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

/// What holds a row that a deletion wants must not hold what others store (findings: one lock timeout
/// failed its whole group).
#[actix_rt::test]
async fn a_row_that_is_held_fails_its_own_write_only() {
    let Some(place) = Place::postgres() else {
        return;
    };
    let store = place.store().await;
    store.commit(record("alice", "held")).await.unwrap();
    let hold = "SELECT 1 FROM responses WHERE id = 'held' FOR UPDATE";
    let lock = place.hold(hold, Duration::from_secs(8));
    let ids = || (0..20).map(|i| format!("r{i}"));
    let commits = join_all(ids().map(|id| {
        let store = store.clone();
        async move { store.commit(record("alice", &id)).await }
    }));
    let (removed, commits) = join(store.remove("alice", "held"), commits).await;
    assert!(removed.is_err(), "{removed:?}");
    let kept = commits.iter().filter(|answer| answer.is_ok()).count();
    assert!(kept >= 19, "{kept} of 20: {commits:?}");
    lock.join().unwrap();
}

/// Findings 1 and 2: groups were bounded by count, and had three seconds whatever they held.
pub(crate) async fn many_megabytes_at_once_are_stored_and_small_ones_pass(place: Place) {
    let store = place.store().await;
    let megabytes = format!(r#"[{{"id":"m","text":"{}"}}]"#, "x".repeat(6 << 20));
    let large = join_all((0..10).map(|i| {
        let mut new = record("alice", &format!("large{i}"));
        new.input_items = megabytes.as_str().into();
        store.commit(new)
    }));
    let small = async {
        actix_rt::time::sleep(Duration::from_millis(20)).await;
        join_all((0..20).map(|i| {
            let store = store.clone();
            async move { store.commit(record("alice", &format!("small{i}"))).await }
        }))
        .await
    };
    let (large, small) = join(large, small).await;
    assert!(large.iter().all(Result::is_ok), "{large:?}");
    assert!(small.iter().all(Result::is_ok), "{small:?}");
    let groups = store.observe().await.facts.group_sizes;
    assert!(groups.iter().sum::<u64>() >= 10, "{groups:?}");
}

/// Findings 1: a sweep that takes too long locked the writer up for ever.
#[actix_rt::test]
async fn maintenance_that_is_stuck_costs_no_write() {
    let Some(place) = Place::postgres() else {
        return;
    };
    let store = place.store().await;
    let mut old = record("alice", "old");
    old.expires_at_ms = Some(1_700_000_002_000);
    store.commit(old).await.unwrap();
    assert!(store.claim("alice", "old", &["mcpr_x"]).await);
    place.run("UPDATE approvals SET claimed_at = 1");
    let hold = "LOCK TABLE approvals IN ACCESS EXCLUSIVE MODE; \
         SELECT 1 FROM responses WHERE id = 'old' FOR UPDATE";
    let lock = place.hold(hold, Duration::from_secs(9));
    let sweeping = StoreSettings {
        purge_interval: Some(Duration::from_millis(20)),
        ..place.settings()
    };
    let store = open(sweeping).await.unwrap();
    let started = Instant::now();
    let mut kept = 0;
    for i in 0.. {
        if started.elapsed() > Duration::from_secs(7) {
            break;
        }
        let answer = store.commit(record("alice", &format!("r{i}"))).await;
        kept += usize::from(answer.is_ok());
        assert!(i < 10 || kept * 10 > i * 8, "{kept} of {i} were stored");
        actix_rt::time::sleep(Duration::from_millis(50)).await;
    }
    lock.join().unwrap();
    let after = store.commit(record("alice", "after")).await;
    assert_eq!(after, Ok(()));
}

/// Finding 7: a store that does not work was reported ready for ever.
#[actix_rt::test]
async fn a_store_that_cannot_write_says_so_and_heals() {
    let place = Place::sqlite();
    let store = place.store().await;
    let mut heard = store.listen();
    let mut next = async || {
        let long = Duration::from_secs(40);
        actix_rt::time::timeout(long, heard.recv()).await.unwrap()
    };
    assert_eq!(next().await, Some(Health::Ready));
    // Nobody writes meanwhile: it finds out by itself.
    let lock = place.hold_writes(Duration::from_secs(13));
    let down = next().await.unwrap();
    assert!(matches!(down, Health::Down { .. }), "{down:?}");
    assert!(store.observe().await.last_error.is_some());
    lock.join().unwrap();
    assert_eq!(next().await, Some(Health::Ready));
    assert_eq!(store.observe().await.last_error, None);
}

/// A commit of 20 MiB may take 5.5 s. When it took more than 3, the store was told to be down, and then
/// stored it.
#[actix_rt::test]
async fn a_large_commit_within_its_time_is_no_fault() {
    let Some(place) = Place::postgres() else {
        return;
    };
    let store = place.store().await;
    let mut heard = store.listen();
    assert_eq!(heard.recv().await, Some(Health::Ready));
    place.run(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM pg_sleep(3.8); RETURN new; END $$; \
         CREATE TRIGGER slow BEFORE INSERT ON responses FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let mut new = record("alice", "large");
    new.input_items = format!(r#"[{{"text":"{}"}}]"#, "x".repeat(20 << 20)).into();
    assert_eq!(store.commit(new).await, Ok(()));
    actix_rt::time::sleep(Duration::from_secs(1)).await;
    assert!(heard.try_recv().is_err(), "it was told to be down");
}

/// Neither probe looked at the table of responses.
#[actix_rt::test]
async fn a_table_that_nobody_can_use_is_told() {
    for lock in ["ACCESS EXCLUSIVE", "SHARE"] {
        let Some(place) = Place::postgres() else {
            return;
        };
        let store = place.store().await;
        let mut heard = store.listen();
        assert_eq!(heard.recv().await, Some(Health::Ready));
        let hold = format!("LOCK TABLE responses IN {lock} MODE");
        let held = place.hold(&hold, Duration::from_secs(9));
        let limit = Duration::from_secs(8);
        let down = actix_rt::time::timeout(limit, heard.recv()).await;
        assert!(matches!(down, Ok(Some(Health::Down { .. }))), "{lock}");
        held.join().unwrap();
        assert_eq!(heard.recv().await, Some(Health::Ready));
    }
}

/// Newcomers 4.1: a copy of the file of a stopped gateway had nothing in it.
#[actix_rt::test]
async fn a_closed_database_is_whole_in_its_file() {
    let place = Place::sqlite();
    let store = place.store().await;
    for id in ["r1", "r2"] {
        store.commit(record("alice", id)).await.unwrap();
    }
    store.close().await;
    let wal = place.file().with_extension("db-wal");
    let left = std::fs::metadata(&wal).map_or(0, |log| log.len());
    assert_eq!(left, 0);
    let copy = place.file().with_file_name("copy.db");
    std::fs::copy(place.file(), &copy).unwrap();
    let copied = open(settings(copy.to_str().unwrap())).await.unwrap();
    all_readable(&copied, ["r1", "r2"].map(str::to_owned).into_iter()).await;
    let refused = store.commit(record("alice", "late")).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[actix_rt::test]
async fn a_backup_is_whole_private_and_overwrites_nothing() {
    let place = Place::sqlite();
    let store = place.store().await;
    store.commit(record("alice", "r1")).await.unwrap();
    let backup = place.file().with_file_name("backup.db");
    let mut desk = Desk::open(&place.settings(), Opening::AsItIs)
        .await
        .unwrap();
    desk.back_up(&backup).unwrap();
    // The gateway writes on.
    store.commit(record("alice", "r2")).await.unwrap();
    let mode = std::fs::metadata(&backup).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    let again = desk.back_up(&backup).unwrap_err().to_string();
    assert!(
        again.contains("backup.db") && again.contains("exists"),
        "{again}"
    );
    let copied = open(settings(backup.to_str().unwrap())).await.unwrap();
    all_readable(&copied, std::iter::once("r1".to_owned())).await;
    assert_eq!(copied.fetch("alice", "r2").await, Ok(None));
}

/// More 10: the error did not say which file was tried.
#[actix_rt::test]
async fn errors_name_the_file() {
    let place = Place::sqlite();
    let nowhere = place.file().join("no/such/folder.db");
    for opening in [Opening::Migrate, Opening::AsItIs] {
        let refused = Desk::open(&settings(nowhere.to_str().unwrap()), opening).await;
        let words = refused.map(drop).unwrap_err().to_string();
        assert!(words.contains("no/such/folder.db"), "{words}");
    }
}
