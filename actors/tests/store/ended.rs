//! What has ended goes, what a live response needs stays, and nothing is left over.
//!
//! Mutations that fail this group: purge without looking for children; no walk up to ancestors; drop
//! settings without looking for users; no lock round dropping them (PostgreSQL); one batch for everything;
//! the seal key overwritten instead of left.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use actix::Actor as _;
use futures_util::future::{join, join_all};
use vllm_responses_actors::secret::Secret;
use vllm_responses_actors::store::StoreActor;
use vllm_responses_actors::store::messages::{Commit, KeepSealKey, Observe};
use vllm_responses_actors::store::settings::StoreSettings;
use vllm_responses_protocol::record::Record;

use crate::fixture::{Place, SETTINGS, Store, child, open, record};

/// Ended long ago, in Unix milliseconds.
const PAST: i64 = 1_700_000_002_000;
const COUNT: &str = "SELECT count(*) AS n FROM responses";
const SETTINGS_COUNT: &str = "SELECT count(*) AS n FROM settings";

fn ended(new: Record) -> Record {
    Record {
        expires_at_ms: Some(PAST),
        ..new
    }
}

async fn all_committed(store: &Store, new: impl Iterator<Item = Record>) {
    let answers = join_all(new.map(|record| store.commit(record))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

/// A store that sweeps all the time.
async fn sweeping(place: &Place) -> Store {
    let settings = StoreSettings {
        purge_interval: Some(Duration::from_millis(20)),
        ..place.settings()
    };
    open(settings).await.unwrap()
}

/// Waits until so many responses are left, and makes sure that it stays so.
async fn settles_at(place: &Place, left: i64) {
    let started = Instant::now();
    while place.number(COUNT) != left {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{} of {left} are left",
            place.number(COUNT)
        );
        actix_rt::time::sleep(Duration::from_millis(50)).await;
    }
    actix_rt::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(place.number(COUNT), left);
}

pub(crate) async fn ended_responses_go_with_their_settings(place: Place) {
    let store = place.store().await;
    let old = |i| Record {
        settings: format!(r#"{{"instructions":"{}"}}"#, i % 7).into(),
        ..ended(record("alice", &format!("e{i}")))
    };
    all_committed(&store, (0..300).map(old)).await;
    store.commit(record("alice", "kept")).await.unwrap();
    store.commit(ended(record("alice", "other"))).await.unwrap();
    assert_eq!(place.number(SETTINGS_COUNT), 8);

    let _sweeping = sweeping(&place).await;
    settles_at(&place, 1).await;
    assert_eq!(place.number(SETTINGS_COUNT), 1);
    let stored = store.fetch("alice", "kept").await.unwrap().unwrap();
    assert_eq!(&*stored.settings, SETTINGS);
}

pub(crate) async fn ended_ancestors_stay_while_a_descendant_lives(place: Place) {
    let store = place.store().await;
    store.commit(ended(record("alice", "r0"))).await.unwrap();
    let link = |i| child("alice", &format!("r{i}"), &format!("r{}", i - 1));
    all_committed(&store, (1..100).map(|i| ended(link(i)))).await;
    // One branch lives; another has ended.
    store.commit(child("alice", "live", "r50")).await.unwrap();
    store
        .commit(ended(child("alice", "dead", "r20")))
        .await
        .unwrap();

    let sweeping = sweeping(&place).await;
    settles_at(&place, 52).await;
    let mut expected: Vec<String> = (0..=50).map(|i| format!("r{i}")).collect();
    expected.push("live".to_owned());
    assert_eq!(sweeping.chain_ids("alice", "live").await, expected);

    // Deleted, it stays for a while: a turn that continues it may be under way.
    assert_eq!(store.remove("alice", "live").await, Ok(true));
    settles_at(&place, 52).await;
    place.run("UPDATE responses SET expires_at = 1, deleted_at = 1 WHERE id = 'live'");
    settles_at(&place, 0).await;
    assert_eq!(place.number(SETTINGS_COUNT), 0);
}

/// The settings of a purged response are those of responses that are being written.
pub(crate) async fn settings_in_use_are_never_dropped(place: Place) {
    let (writing, sweeping) = (place.store().await, sweeping(&place).await);
    let fill = async {
        for round in 0..40 {
            let new = |i: usize| record("alice", &format!("n{round}_{i}"));
            all_committed(&writing, (0..3).map(new)).await;
            place.run("UPDATE responses SET expires_at = 1 WHERE id <> 'last'");
        }
    };
    let watch = async {
        actix_rt::time::sleep(Duration::from_millis(50)).await;
        sweeping.commit(record("alice", "last")).await.unwrap();
    };
    join(fill, watch).await;
    settles_at(&place, 1).await;
    let stored = writing.fetch("alice", "last").await.unwrap();
    assert!(stored.is_some(), "its settings are gone");
}

/// A gateway that writes relies on settings that it finds there, while another purges the last response
/// that had them.
pub(crate) async fn settings_that_a_writer_relies_on_stay(place: Place) {
    let store = place.store().await;
    store.commit(ended(record("alice", "old"))).await.unwrap();
    let young = "INSERT INTO settings SELECT owner, hash, json FROM settings WHERE owner = 'alice' \
         ON CONFLICT DO NOTHING; \
         INSERT INTO responses SELECT 'young', NULL, owner, model, status, created_at, completed_at, \
         NULL, NULL, input_items, response, settings_hash, schema_version \
         FROM responses WHERE id = 'old'";
    let writer = place.hold(young, Duration::from_secs(1));
    let _sweeping = sweeping(&place).await;
    actix_rt::time::sleep(Duration::from_secs(1)).await;
    writer.join().unwrap();
    settles_at(&place, 1).await;
    let stored = store.fetch("alice", "young").await.unwrap();
    assert!(stored.is_some(), "its settings are gone");
}

/// Expired responses, put there behind the store's back: one owner for each ten, settings for each three.
fn expire_many(place: &Place, rows: usize) {
    let numbers = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
    );
    let owner = "'o' || (i % 10)";
    place.run(&format!(
        "INSERT INTO settings (owner, hash, json) {numbers} \
         SELECT DISTINCT {owner}, 'h' || (i / 3), '{{}}' FROM n; \
         INSERT INTO responses (id, previous_response_id, owner, model, status, created_at, \
         completed_at, expires_at, deleted_at, input_items, response, settings_hash, schema_version) \
         {numbers} SELECT 'e' || i, CASE WHEN i % 5 = 0 THEN NULL ELSE 'e' || (i - i % 5) END, \
         {owner}, 'm', 'completed', 1, 1, 2, NULL, '[]', '{{}}', 'h' || (i / 3), 1 FROM n"
    ));
}

/// Foreground writes go on while so many rows are swept; counts say that they pass between batches.
async fn sweep_many(place: Place, rows: usize) {
    let settings = StoreSettings {
        purge_interval: Some(Duration::from_millis(20)),
        ..place.settings()
    };
    drop(place.store().await);
    expire_many(&place, rows);
    let store = StoreActor::open(&settings).await.unwrap().start();
    let facts = async || store.send(Observe).await.unwrap().unwrap().facts;
    let wanted = u64::try_from(rows).unwrap();
    let (mut written, mut most_between) = (0_u64, 0);
    let mut seen = facts().await;
    while seen.purged < wanted {
        let new = record("alice", &format!("n{written}"));
        let answer = store.send(Commit(Box::new(new))).await.unwrap();
        assert_eq!(answer, Ok(()), "after {} of {wanted} rows", seen.purged);
        written += 1;
        let now = facts().await;
        most_between = most_between.max(now.purges - seen.purges);
        seen = now;
    }
    eprintln!(
        "{rows} rows in {} batches of at most {}, {written} writes between",
        seen.purges, seen.largest_purge
    );
    assert!(seen.largest_purge <= 256, "{seen:?}");
    assert!(seen.purges >= wanted / 256, "{seen:?}");
    // A write that is queued waits for the batch under way, and never for a second one.
    assert!(
        most_between <= 2,
        "{most_between} batches between two writes"
    );
    assert!(written >= seen.purges / 2, "{written} writes, {seen:?}");
    assert_eq!(place.number(COUNT), i64::try_from(written).unwrap());
    assert_eq!(
        place.number(SETTINGS_COUNT),
        1,
        "settings of nobody are left"
    );
}

pub(crate) async fn d12_many_expired_rows_go_in_small_batches(place: Place) {
    // A transaction on PostgreSQL takes longer, whatever it removes, and so does the rest after it.
    let rows = match place {
        Place::Sqlite(_) => 5_000,
        Place::Postgres(_) => 600,
    };
    sweep_many(place, rows).await;
}

#[actix_rt::test]
#[ignore = "a quarter of an hour"]
async fn full_d12_a_million_expired_rows() {
    sweep_many(Place::sqlite(), 1_000_000).await;
}

#[actix_rt::test]
#[ignore = "a quarter of an hour"]
async fn full_d12_a_million_expired_rows_on_postgres() {
    let Some(place) = Place::postgres() else {
        return;
    };
    sweep_many(place, 1_000_000).await;
}

pub(crate) async fn gateways_that_start_at_once_seal_with_one_key(place: Place) {
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(StoreActor::open(&place.settings()).await.unwrap().start());
    }
    let offers = (0..20).map(|n| {
        let digits = format!("{n:064x}");
        stores[n % 4].send(KeepSealKey(Secret::new(&digits)))
    });
    let kept: Vec<_> = join_all(offers).await;
    let kept: HashSet<String> = kept
        .into_iter()
        .map(|answer| answer.unwrap().unwrap().expose().to_owned())
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let again = StoreActor::open(&place.settings()).await.unwrap().start();
    let late = KeepSealKey(Secret::new("late"));
    let late = again.send(late).await.unwrap().unwrap();
    assert!(kept.contains(late.expose()));
}
