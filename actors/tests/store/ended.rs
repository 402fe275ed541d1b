//! What has ended goes, what a live response needs stays, and nothing is left over.
//!
//! Mutations that fail this group: purge without looking for children; no walk up to ancestors; drop
//! settings without looking for users; no lock round dropping them (PostgreSQL).

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
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
