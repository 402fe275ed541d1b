//! Many writers at once, in one process and in two.

use std::collections::HashSet;

use futures_util::future::{join, join_all};
use vllm_responses_protocol::record::Record;

use crate::fixture::{Place, Store, child, record};
use crate::kept::all_readable;

pub(crate) async fn concurrent_commits_are_all_kept(place: Place) {
    let store = place.store().await;
    let ids = || (0..200).map(|i| format!("r{i}"));
    // Each is read back at once after its answer: that is when the client may continue it.
    let commit_and_read = async |id: String| {
        store.commit(record("alice", &id)).await.unwrap();
        let stored = store.fetch("alice", &id).await.unwrap();
        assert!(stored.is_some(), "{id} was acknowledged and is missing");
    };
    join_all(ids().map(commit_and_read)).await;
    // They are in the file, not only in the process.
    all_readable(&place.store().await, ids()).await;
}

pub(crate) async fn two_stores_on_one_database_are_never_busy(place: Place) {
    const EACH: usize = 500;
    const AT_ONCE: usize = 25;
    let (one, two) = (place.store().await, place.store().await);
    // In portions, so that the two take turns at the lock many times.
    let fill = async |store: &Store, name: &str| {
        for portion in 0..EACH / AT_ONCE {
            let new = |i: usize| record("alice", &format!("{name}{}", portion * AT_ONCE + i));
            let answers = join_all((0..AT_ONCE).map(|i| store.commit(new(i)))).await;
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        }
    };
    join(fill(&one, "one"), fill(&two, "two")).await;

    assert_eq!(place.number("SELECT count(*) AS n FROM responses"), 1000);
    // Each sees what the other wrote.
    all_readable(&one, (0..EACH).map(|i| format!("two{i}"))).await;
    all_readable(&two, (0..EACH).map(|i| format!("one{i}"))).await;
}

pub(crate) async fn d11_children_of_one_parent_do_not_see_each_other(place: Place) {
    let store = place.store().await;
    store.commit(record("alice", "parent")).await.unwrap();
    let continue_parent = async |i: usize| {
        let id = format!("child{i}");
        let before = store.chain_ids("alice", "parent").await;
        assert_eq!(before, ["parent"]);
        store.commit(child("alice", &id, "parent")).await.unwrap();
        assert_eq!(store.chain_ids("alice", &id).await, ["parent", id.as_str()]);
        id
    };
    let ids: HashSet<String> = join_all((0..100).map(continue_parent))
        .await
        .into_iter()
        .collect();
    assert_eq!(ids.len(), 100);
    // No child was overwritten by a later one.
    for id in &ids {
        let expected: Record = record("alice", id);
        let stored = store.fetch("alice", id).await.unwrap().unwrap();
        assert_eq!(stored.response, expected.response);
    }
}

/// The same new settings, in opposite orders, in two transactions at once.
pub(crate) async fn two_stores_do_not_wait_in_a_circle(place: Place) {
    let (one, two) = (place.store().await, place.store().await);
    let new = |name: &str, i: usize| Record {
        settings: format!(r#"{{"instructions":"{i}"}}"#).into(),
        ..record("alice", &format!("{name}{i}"))
    };
    let lock = place.hold_writes(std::time::Duration::from_millis(500));
    let up = join_all((0..60).map(|i| one.commit(new("up", i))));
    let down = join_all((0..60).rev().map(|i| two.commit(new("down", i))));
    let (up, down) = join(up, down).await;
    lock.join().unwrap();
    let failed = up.iter().chain(&down).find(|answer| answer.is_err());
    assert_eq!(failed, None);
    assert_eq!(place.number("SELECT count(*) AS n FROM settings"), 60);
}

/// Two different responses under one id, in one group: one of them is kept and told so.
pub(crate) async fn an_id_that_comes_twice_is_kept_once(place: Place) {
    let store = place.store().await;
    let new = |answer: &str| Record {
        response: format!(r#"{{"id":"r","output":["{answer}"]}}"#).into(),
        ..record("alice", "r")
    };
    let lock = place.hold_writes(std::time::Duration::from_millis(300));
    let answers = join_all(["a", "b", "c"].map(|answer| store.commit(new(answer)))).await;
    lock.join().unwrap();
    let kept: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(kept, [true, false, false], "{answers:?}");
    let stored = store.fetch("alice", "r").await.unwrap().unwrap();
    assert_eq!(stored.response, new("a").response);
}
