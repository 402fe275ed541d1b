//! `db copy` with a source and a target that both live on: what was deleted in either stays deleted.
//!
//! Failed before: a response that was deleted between two copies, and whose row had gone, was live in
//! the target; one that was deleted in the target was live again after the next copy.

use std::time::Duration;

use vllm_responses_actors::store::copy::Copied;
use vllm_responses_actors::store::desk::{Desk, Opening};

use crate::fixture::{Place, Store, child, record};

/// A target of the other kind, where there is one.
fn target_of(place: &Place) -> Place {
    match place {
        Place::Sqlite(_) => Place::postgres().unwrap_or_else(Place::sqlite),
        Place::Postgres(_) => Place::sqlite(),
    }
}

async fn copy(from: &Place, to: &Place) -> Copied {
    let mut source = Desk::open(&from.settings(), Opening::AsItIs).await.unwrap();
    let mut target = Desk::open(&to.settings(), Opening::Migrate).await.unwrap();
    source.copy_to(&mut target, |_| {}).await.unwrap()
}

async fn purge(place: &Place) -> usize {
    // What was deleted in the present millisecond has not ended before it.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut desk = Desk::open(&place.settings(), Opening::AsItIs)
        .await
        .unwrap();
    desk.purge(Duration::ZERO).await.unwrap()
}

async fn is_live(store: &Store, id: &str) -> bool {
    let fetched = store.fetch("ann", id).await.unwrap().is_some();
    let continued = store.chain("ann", id).await.unwrap().is_some();
    assert_eq!(fetched, continued, "{id}");
    fetched
}

async fn commit_all(store: &Store, ids: &[&str]) {
    for id in ids {
        store.commit(record("ann", id)).await.unwrap();
    }
}

async fn remove_all(store: &Store, ids: &[&str]) {
    for id in ids {
        assert!(store.remove("ann", id).await.unwrap());
    }
}

async fn remove_for_good(store: &Store, place: &Place, ids: &[&str]) {
    remove_all(store, ids).await;
    assert_eq!(purge(place).await, ids.len());
}

/// Which of these are live.
async fn live(store: &Store, ids: &[&str]) -> Vec<String> {
    let mut live = Vec::new();
    for id in ids {
        if is_live(store, id).await {
            live.push((*id).to_owned());
        }
    }
    live
}

pub(crate) async fn what_the_source_deleted_is_deleted_in_the_target(place: Place) {
    let store = place.store().await;
    commit_all(&store, &["gone", "ended", "kept"]).await;
    let target = target_of(&place);
    let there = has_all_three(&place, &target).await;

    remove_for_good(&store, &place, &["gone"]).await;
    remove_all(&store, &["ended"]).await;
    let second = copy(&place, &target).await;
    assert_eq!((second.written, second.deleted), (1, 1));
    assert_eq!((second.equal, second.missed, second.strange), (2, 0, 0));
    assert_eq!(live(&there, &["gone", "ended", "kept"]).await, ["kept"]);
    reaches_a_third(&target).await;
}

/// A first copy.
async fn has_all_three(place: &Place, target: &Place) -> Store {
    let first = copy(place, target).await;
    assert_eq!((first.written, first.equal, first.deleted), (3, 3, 0));
    let there = target.store().await;
    assert_eq!(live(&there, &["gone"]).await, ["gone"]);
    there
}

/// Also by way of a third database, which had it once.
async fn reaches_a_third(target: &Place) {
    let third = target_of(target);
    copy(target, &third).await;
    third.run("UPDATE responses SET deleted_at = NULL, expires_at = NULL");
    third.run("DELETE FROM deletions");
    copy(target, &third).await;
    assert!(!is_live(&third.store().await, "gone").await);
}

pub(crate) async fn what_the_target_deleted_stays_deleted(place: Place) {
    let store = place.store().await;
    let all = ["gone", "parent", "ended"];
    commit_all(&store, &all).await;
    let target = target_of(&place);
    copy(&place, &target).await;
    let there = target.store().await;
    remove_for_good(&there, &target, &["gone", "parent"]).await;
    remove_all(&there, &["ended"]).await;
    store.commit(child("ann", "child", "parent")).await.unwrap();

    all_four_are_found(&place, &target).await;
    all_four_are_found(&place, &target).await;
    assert!(live(&there, &all).await.is_empty());
    // What continues it has all of its conversation.
    assert_eq!(there.chain_ids("ann", "child").await, ["parent", "child"]);
}

async fn all_four_are_found(place: &Place, target: &Place) {
    let again = copy(place, target).await;
    assert_eq!((again.equal, again.missed, again.strange), (4, 0, 0));
}

pub(crate) async fn what_only_the_target_has_is_counted(place: Place) {
    let store = place.store().await;
    store.commit(record("ann", "a")).await.unwrap();
    store.commit(record("ann", "b")).await.unwrap();
    let target = target_of(&place);
    copy(&place, &target).await;
    let there = target.store().await;
    there.commit(record("ann", "own")).await.unwrap();
    // A version before this one left no note.
    place.run("DELETE FROM responses WHERE id = 'a'");
    let copied = copy(&place, &target).await;
    assert_eq!((copied.equal, copied.missed, copied.strange), (1, 0, 2));
    assert_eq!(copied.strangers, ["a", "own"]);
}

pub(crate) async fn deletions_are_forgotten_after_their_time(place: Place) {
    let store = place.store().await;
    let notes = "SELECT count(*) AS n FROM deletions";
    commit_all(&store, &["a", "b", "c"]).await;
    let mut expired = record("ann", "expired");
    expired.expires_at_ms = Some(1);
    store.commit(expired).await.unwrap();
    remove_all(&store, &["a", "b"]).await;
    assert_eq!(purge(&place).await, 3);
    assert_eq!(place.number(notes), 2, "what expires says so itself");
    place.run("UPDATE deletions SET gone_at = gone_at - 7862400000 WHERE id = 'a'");
    remove_all(&store, &["c"]).await;
    assert_eq!(purge(&place).await, 1);
    let forgotten = place.number("SELECT count(*) AS n FROM deletions WHERE id = 'a'");
    assert_eq!((place.number(notes), forgotten), (2, 0));
}
