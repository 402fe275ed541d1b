//! What is somebody else's, deleted or expired reads as unknown.

use vllm_responses_actors::store::messages::StoreError;
use vllm_responses_protocol::record::Record;

use crate::fixture::{Place, child, record};

/// A time long gone, and one far ahead, in Unix milliseconds.
const PAST: i64 = 1_700_000_002_000;
const FAR: i64 = 4_000_000_000_000;

#[expect(clippy::cognitive_complexity, reason = "a plain list of assertions")]
pub(crate) async fn foreign_is_answered_like_unknown(place: Place) {
    let store = place.store().await;
    store.commit(record("alice", "a1")).await.unwrap();
    store.commit(child("alice", "a2", "a1")).await.unwrap();

    for stranger in ["bob", "", "Alice", "alice "] {
        for id in ["a1", "a2"] {
            let foreign = store.fetch(stranger, id).await;
            assert_eq!(foreign, store.fetch(stranger, "no such id").await);
            assert_eq!(foreign, Ok(None), "{stranger:?} fetched {id}");
            let foreign = store.chain(stranger, id).await;
            assert_eq!(foreign, store.chain(stranger, "no such id").await);
            assert_eq!(foreign, Ok(None), "{stranger:?} loaded {id}");
            let foreign = store.remove(stranger, id).await;
            assert_eq!(foreign, store.remove(stranger, "no such id").await);
            assert_eq!(foreign, Ok(false), "{stranger:?} deleted {id}");
        }
    }
    // Nothing of that touched the owner's data.
    assert!(store.fetch("alice", "a1").await.unwrap().is_some());
    assert_eq!(store.chain_ids("alice", "a2").await, ["a1", "a2"]);
}

/// The gateway refuses such a turn before it begins; should a row exist all the same, the chain does
/// not cross over.
pub(crate) async fn chain_never_crosses_to_another_owner(place: Place) {
    let store = place.store().await;
    store.commit(record("alice", "a1")).await.unwrap();
    store.commit(child("bob", "b1", "a1")).await.unwrap();
    // The gateway never stores such a link. Where one is there, its line is cut, and it says so.
    let crossing = store.chain("bob", "b1").await;
    assert_eq!(crossing, Err(StoreError::Incomplete));
}

#[expect(clippy::cognitive_complexity, reason = "a plain list of assertions")]
pub(crate) async fn deletion_is_final_but_descendants_keep_their_chain(place: Place) {
    let (store, replica) = (place.store().await, place.store().await);
    store.commit(record("alice", "r1")).await.unwrap();
    store.commit(child("alice", "r2", "r1")).await.unwrap();
    store.commit(child("alice", "r3", "r2")).await.unwrap();

    assert_eq!(store.remove("alice", "r2").await, Ok(true));
    for door in [&store, &replica] {
        assert_eq!(door.fetch("alice", "r2").await, Ok(None));
        assert_eq!(door.chain("alice", "r2").await, Ok(None));
        assert_eq!(door.chain_ids("alice", "r3").await, ["r1", "r2", "r3"]);
        assert_eq!(door.chain_ids("alice", "r1").await, ["r1"]);
        assert_eq!(door.remove("alice", "r2").await, Ok(false));
    }
}

pub(crate) async fn expired_reads_as_unknown(place: Place) {
    let store = place.store().await;
    let until = |expires_at_ms, new: Record| Record {
        expires_at_ms: Some(expires_at_ms),
        ..new
    };
    store
        .commit(until(PAST, record("alice", "old")))
        .await
        .unwrap();
    store
        .commit(until(FAR, child("alice", "new", "old")))
        .await
        .unwrap();

    assert_eq!(store.fetch("alice", "old").await, Ok(None));
    assert_eq!(store.chain("alice", "old").await, Ok(None));
    assert_eq!(store.remove("alice", "old").await, Ok(false));
    assert!(store.fetch("alice", "new").await.unwrap().is_some());
    // An expired ancestor is still there for a live descendant, as a deleted one is.
    assert_eq!(store.chain_ids("alice", "new").await, ["old", "new"]);
}
