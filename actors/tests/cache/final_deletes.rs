//! D9: once DELETE is acknowledged no replica continues the response, whatever happens to Redis and
//! whatever was under way. One case for each numbered reason on the cache's page.
//!
//! Mutations tried, each of which made the cases named fail: a fill that does not look at the lease
//! (2, 3); a lease got after the commit (2); keys without the run (4); no wait after a new epoch, or
//! no new epoch (5); no wait for an unsettled epoch (6); no block before the store's deletion (7).

use std::time::Duration;

use futures_util::future::join;
use nix::sys::signal::Signal;
use vllm_responses_actors::store::messages::Extent;

use crate::fixture::{Held, Place, Replica, record};
use crate::redis::{Redis, Relay};

/// The cases on both databases.
macro_rules! on {
    ($($database:ident)*: $cases:tt) => {
        $(on! { @ $database $cases })*
    };
    (@ $database:ident { $($case:ident)* }) => {
        mod $database {
            use crate::fixture::Place;

            $(#[actix_rt::test]
            async fn $case() {
                let place: Option<Place> = Place::$database().into();
                if let Some(place) = place {
                    super::$case(place).await;
                }
            })*
        }
    };
}

on! { sqlite postgres: {
    d9_1_a_warm_head_is_gone_on_every_replica
    d9_2_a_fill_after_a_miss_comes_too_late
    d9_2_a_fill_after_a_commit_comes_too_late
    d9_4_a_redis_that_comes_back_with_an_old_snapshot_is_not_believed
    d9_5_a_deletion_that_cannot_reach_redis_reaches_every_replica
    d9_5_what_a_stopped_redis_does_later_makes_nothing_live
    d9_6_a_replica_with_an_older_epoch_is_waited_for
    d9_7_a_gateway_that_dies_within_a_deletion_leaves_no_live_head
} }

async fn d9_1_a_warm_head_is_gone_on_every_replica(place: Place) {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let (a, b) = join(place.using(&redis.url()), place.using(&redis.url())).await;
    for n in 0..50 {
        let id = format!("resp_{n}");
        a.commit_warm(record(&id)).await;
        assert!(b.continues(&id).await);
        assert!(a.remove("ann", &id).await.unwrap());
        assert!(!b.continues(&id).await && !a.continues(&id).await);
    }
    assert_eq!((a.facts().await.epochs_begun, b.gate().removals), (0, 0));
}

async fn d9_2_a_fill_after_a_miss_comes_too_late(place: Place) {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let plain = place.plain(Extent::Items).await;
    let (a, b) = join(place.using(&redis.url()), place.using(&redis.url())).await;
    for flush in [false, true] {
        let id = format!("resp_{flush}");
        plain.commit(record(&id)).await.unwrap();
        let before = b.gate().loads;
        b.hold(Some(Held::Loads));
        let reading = b.continues(&id);
        let deleting = async {
            b.wait("read row", |gate, _| gate.loads > before).await;
            assert!(a.remove("ann", &id).await.unwrap());
            if flush {
                // Reason 3: the block is lost, and so is the lease.
                redis.command::<()>("FLUSHALL");
            }
            b.hold(None);
        };
        let (read, ()) = join(reading, deleting).await;
        assert!(read, "it was read before it was deleted");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(
            !a.continues(&id).await && !b.continues(&id).await,
            "{flush}"
        );
    }
}

async fn d9_2_a_fill_after_a_commit_comes_too_late(place: Place) {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let (a, b) = join(place.using(&redis.url()), place.using(&redis.url())).await;
    for flush in [false, true] {
        let id = format!("resp_{flush}");
        let before = b.gate().commits;
        b.hold(Some(Held::Commits));
        let deleting = async {
            b.wait("commit", |gate, _| gate.commits > before).await;
            assert!(a.remove("ann", &id).await.unwrap());
            if flush {
                redis.command::<()>("FLUSHALL");
            }
            b.hold(None);
        };
        let (committed, ()) = join(b.commit(record(&id)), deleting).await;
        committed.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(
            !a.continues(&id).await && !b.continues(&id).await,
            "{flush}"
        );
    }
}

async fn d9_4_a_redis_that_comes_back_with_an_old_snapshot_is_not_believed(place: Place) {
    let Some(mut redis) = Redis::start(&["--dbfilename", "dump.rdb"]) else {
        return;
    };
    let (a, b) = join(place.using(&redis.url()), place.using(&redis.url())).await;
    a.commit_warm(record("resp_1")).await;
    redis.command::<()>("SAVE");
    assert!(a.remove("ann", "resp_1").await.unwrap());
    redis.kill();
    redis.restart();
    assert!(!redis.keys().is_empty(), "the snapshot was read");
    for _ in 0..20 {
        assert!(!a.continues("resp_1").await && !b.continues("resp_1").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    a.commit_warm(record("resp_2")).await;
    let loads = b.gate().loads;
    assert!(b.continues("resp_2").await);
    assert_eq!(b.gate().loads, loads, "the new run is used");
}

async fn d9_5_a_deletion_that_cannot_reach_redis_reaches_every_replica(place: Place) {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let relay = Relay::to(redis.port());
    let (a, b) = join(place.using(&relay.url()), place.using(&redis.url())).await;
    b.commit_warm(record("resp_1")).await;
    assert!(a.continues("resp_1").await);
    relay.close();
    continues_from_redis(&b, "resp_1").await;
    assert!(a.remove("ann", "resp_1").await.unwrap());
    assert!(!b.continues("resp_1").await && !a.continues("resp_1").await);
    assert_eq!(a.facts().await.epochs_begun, 1);
    // The new epoch is used.
    b.commit_warm(record("resp_2")).await;
    continues_from_redis(&b, "resp_2").await;
}

/// The replica has the chain without asking its store.
async fn continues_from_redis(replica: &Replica, id: &str) {
    let loads = replica.gate().loads;
    assert!(replica.continues(id).await);
    assert_eq!(replica.gate().loads, loads, "the store was asked for {id}");
}

async fn d9_5_what_a_stopped_redis_does_later_makes_nothing_live(place: Place) {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let (a, b) = join(place.using(&redis.url()), place.using(&redis.url())).await;
    b.hold(Some(Held::Commits));
    let stopping = async {
        b.wait("commit", |gate, _| gate.commits > 1).await;
        redis.signal(Signal::SIGSTOP);
        b.hold(None);
    };
    let (committed, ()) = join(b.commit(record("resp_1")), stopping).await;
    committed.unwrap();
    // The fill stands in Redis' own socket now, unread.
    b.wait("lost fill", |_, facts| facts.errors > 0).await;
    assert!(a.remove("ann", "resp_1").await.unwrap());
    redis.signal(Signal::SIGCONT);
    for _ in 0..30 {
        assert!(!a.continues("resp_1").await && !b.continues("resp_1").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn d9_6_a_replica_with_an_older_epoch_is_waited_for(place: Place) {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let relay = Relay::to(redis.port());
    let (a, b) = join(place.using(&relay.url()), place.using(&redis.url())).await;
    let c = place.using(&redis.url()).await;
    b.commit_warm(record("resp_x")).await;
    b.commit_warm(record("resp_y")).await;
    relay.close();
    // B learns of no new epoch; C deletes under one that A has just begun.
    b.hold(Some(Held::Epochs));
    let begun = a.gate().removals;
    let away = a.remove("ann", "resp_y");
    let near = async {
        a.wait("deletion", |gate, facts| {
            gate.removals > begun && facts.epochs_begun > 0
        })
        .await;
        let epochs = c.gate().epochs;
        c.wait("new epoch", |gate, _| gate.epochs > epochs + 1)
            .await;
        assert!(c.remove("ann", "resp_x").await.unwrap());
        assert!(!b.continues("resp_x").await);
    };
    let (removed, ()) = join(away, near).await;
    assert!(removed.unwrap());
    assert!(!b.continues("resp_y").await);
}

async fn d9_7_a_gateway_that_dies_within_a_deletion_leaves_no_live_head(place: Place) {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let (a, b) = join(place.using(&redis.url()), place.using(&redis.url())).await;
    a.commit_warm(record("resp_1")).await;
    let before = a.gate().removals;
    // The store's answer never comes: as if A had died after the store's deletion.
    a.hold(Some(Held::Removals));
    let dying = tokio::time::timeout(Duration::from_secs(1), a.remove("ann", "resp_1"));
    assert!(dying.await.is_err());
    assert_eq!(a.gate().removals, before + 1);
    assert!(!b.continues("resp_1").await);
}
