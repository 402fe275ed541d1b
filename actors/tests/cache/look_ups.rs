//! What a look-up gives is the same with and without Redis, warm and cold; and what it costs.
//!
//! Mutations tried: a look-up that does not check `expires_at_ms`; heads that name no ancestors. Each
//! made a case here fail.

use std::time::Duration;

use vllm_responses_actors::store::messages::Extent;
use vllm_responses_protocol::ids::{MAX_ID_LEN, Owner};
use vllm_responses_protocol::record::{Record, Status};

use crate::fixture::{Place, Replica, child, now_ms, record};
use crate::redis::Redis;

/// A conversation with a fork, a deleted ancestor, an expired, a failed and a foreign response.
async fn fill(door: &Replica) -> Vec<(&'static str, String)> {
    let records = [
        record("resp_1"),
        child("resp_2", "resp_1"),
        child("resp_3", "resp_2"),
        child("resp_fork", "resp_1"),
        Record {
            expires_at_ms: Some(now_ms() - 1),
            ..record("resp_expired")
        },
        Record {
            expires_at_ms: Some(now_ms() + 600_000),
            ..record("resp_expires_later")
        },
        Record {
            status: Status::Failed,
            ..record("resp_failed")
        },
        Record {
            owner: Owner::new("bob"),
            ..record("resp_bobs")
        },
        child("resp_orphan", "resp_never_stored"),
        Record {
            input_items: format!(r#"["{}"]"#, "x".repeat(2 << 20)).into(),
            ..record("resp_large")
        },
        child("resp_of_large", "resp_large"),
    ];
    let mut names: Vec<(&str, String)> = Vec::new();
    for record in records {
        names.push(("ann", record.id.to_string()));
        door.commit(record).await.unwrap();
    }
    for id in [
        "resp_unknown",
        "",
        "resp_1:x",
        "é",
        &"x".repeat(MAX_ID_LEN + 1),
    ] {
        names.push(("ann", id.to_owned()));
    }
    names.push(("bob", "resp_1".to_owned()));
    names.push(("bob", "resp_bobs".to_owned()));
    names.push(("", "resp_1".to_owned()));
    assert!(door.remove("ann", "resp_2").await.unwrap());
    names
}

#[actix_rt::test]
async fn look_ups_are_the_same_with_and_without_redis() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    for extent in [Extent::Items, Extent::WithSettings] {
        let place = Place::new();
        let plain = place.plain(extent).await;
        let cached = place.patient(&redis.url(), extent).await;
        let names = fill(&cached).await;
        for round in 0..3 {
            for (owner, id) in &names {
                let expected = plain.chain(owner, id).await;
                let found = cached.chain(owner, id).await;
                assert_eq!(found, expected, "round {round}: {owner} {id}");
            }
        }
        let facts = cached.facts().await;
        assert!(
            facts.hits > 0 && facts.errors == 0 && facts.damaged == 0,
            "{facts:?}"
        );
    }
}

#[actix_rt::test]
async fn a_turn_with_a_warm_redis_asks_the_store_nothing_before_its_commit() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let place = Place::new();
    let (one, other) = (
        place.using(&redis.url()).await,
        place.using(&redis.url()).await,
    );
    one.commit_warm(record("resp_0")).await;
    for turn in 1..=50 {
        // The turns of a conversation come to either replica.
        let door = if turn % 2 == 0 { &one } else { &other };
        let previous = format!("resp_{}", turn - 1);
        let before = door.gate().loads;
        let chain = door.chain("ann", &previous).await.unwrap().unwrap();
        assert_eq!(chain.links.len(), turn);
        assert_eq!(door.gate().loads, before, "turn {turn}");
        door.commit_warm(child(&format!("resp_{turn}"), &previous))
            .await;
    }
    assert_eq!((one.gate().loads, other.gate().loads), (0, 0));
    let (one, other) = (one.facts().await, other.facts().await);
    assert_eq!((one.hits + other.hits, one.misses + other.misses), (50, 0));
}

#[actix_rt::test]
async fn a_miss_costs_one_query_and_fills_the_chain() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let place = Place::new();
    let door = place.using(&redis.url()).await;
    door.commit(record("resp_0")).await.unwrap();
    for turn in 1..200 {
        let previous = format!("resp_{}", turn - 1);
        door.commit(child(&format!("resp_{turn}"), &previous))
            .await
            .unwrap();
    }
    redis.command::<()>("FLUSHALL");
    let fills = door.facts().await.fills;
    let expected = door.chain("ann", "resp_199").await.unwrap().unwrap();
    assert_eq!((expected.links.len(), door.gate().loads), (200, 1));
    door.wait("fill", |_, facts| facts.fills > fills).await;
    assert_eq!(
        door.chain("ann", "resp_199").await.unwrap().unwrap(),
        expected
    );
    assert_eq!(door.gate().loads, 1);
    // One row is gone: one query again, and it is put back.
    let row = redis
        .keys()
        .into_iter()
        .find(|key| key.contains(":row:") && key.ends_with("resp_7"));
    redis.command::<()>(&format!("DEL {}", row.unwrap()));
    let fills = door.facts().await.fills;
    assert_eq!(
        door.chain("ann", "resp_199").await.unwrap().unwrap(),
        expected
    );
    assert_eq!(door.gate().loads, 2);
    door.wait("fill", |_, facts| facts.fills > fills).await;
    assert_eq!(
        door.chain("ann", "resp_199").await.unwrap().unwrap(),
        expected
    );
    assert_eq!(door.gate().loads, 2);
}

#[actix_rt::test]
async fn entries_have_a_life_and_owners_have_keys_of_their_own() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let place = Place::new();
    let door = place.using(&redis.url()).await;
    door.commit_warm(record("resp_1")).await;
    door.commit_warm(Record {
        expires_at_ms: Some(now_ms() + 5_000),
        ..record("resp_soon")
    })
    .await;
    for key in redis.keys() {
        let life: i64 = redis.command(&format!("PTTL {key}"));
        let longest = if key.ends_with("resp_soon") {
            5_000
        } else {
            600_000
        };
        assert!((1..=longest).contains(&life), "{key} {life}");
        assert!(key.contains(":ann:"), "{key}");
    }
    // A head that expires is no head any more, whatever Redis still has.
    for key in redis.keys() {
        redis.command::<()>(&format!("PERSIST {key}"));
    }
    assert!(door.continues("resp_soon").await);
    tokio::time::sleep(Duration::from_millis(5_100)).await;
    assert!(!door.continues("resp_soon").await);
}

#[actix_rt::test]
async fn d13_what_was_deleted_is_not_in_redis() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let place = Place::new();
    let door = place.using(&redis.url()).await;
    let canary = Record {
        input_items: r#"["canary-text"]"#.into(),
        ..record("resp_1")
    };
    door.commit_warm(canary).await;
    let holds_canary = || {
        let values: Vec<Vec<u8>> = redis
            .keys()
            .iter()
            .map(|key| redis.command(&format!("GET {key}")))
            .collect();
        values
            .concat()
            .windows(11)
            .any(|bytes| bytes == b"canary-text")
    };
    assert!(holds_canary());
    assert!(door.remove("ann", "resp_1").await.unwrap());
    assert!(!holds_canary());
    assert!(!door.remove("ann", "resp_1").await.unwrap());
    assert_eq!(door.chain("ann", "resp_1").await, Ok(None));
}

#[actix_rt::test]
async fn two_databases_behind_one_redis_never_meet() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let (here, there) = (Place::new(), Place::new());
    let one = here.using(&redis.url()).await;
    let other = there.using(&redis.url()).await;
    one.commit_warm(record("resp_1")).await;
    assert!(one.continues("resp_1").await);
    assert!(!other.continues("resp_1").await);
}
