//! Approvals: each request is given to one response, whoever asks and wherever.
//!
//! Mutations, tried once: see the end of each case.

use futures_util::future::{join, join_all};
use vllm_responses_actors::store::desk::{Desk, Opening};
use vllm_responses_protocol::ids::ResponseId;

use crate::fixture::{Place, record, settings};

/// An approval request of the response `resp_` and 32 times this digit.
fn request_of(digit: &str, number: &str) -> String {
    format!("mcpr_{}{number}", digit.repeat(32))
}

pub(crate) async fn a_request_is_given_to_one_response(place: Place) {
    let store = place.store().await;
    assert!(store.claim("ann", "r1", &["a"]).await);
    assert!(!store.claim("ann", "r2", &["a"]).await);
    // Whoever has it and did not hear of it asks again.
    assert!(store.claim("ann", "r1", &["a"]).await);
    // Also after a restart, and by another gateway.
    let other = place.store().await;
    assert!(!other.claim("ann", "r3", &["a"]).await);
    assert!(other.claim("ann", "r1", &["a"]).await);
    // What no id of ours is.
    assert!(
        store
            .claim("ann", "r4", &["\0", &"x".repeat(100_000)])
            .await
    );
    assert!(!store.claim("ann", "r5", &["\0"]).await);
}

pub(crate) async fn of_many_who_ask_on_two_stores_one_gets_it(place: Place) {
    let (one, two) = (place.store().await, place.store().await);
    for round in 0..20 {
        let request = format!("a{round}");
        let ask = async |at: usize| {
            let store = if at.is_multiple_of(2) { &one } else { &two };
            let me = format!("r{round}_{at}");
            store.claim("ann", &me, &[&request]).await
        };
        let won = join_all((0..16).map(ask)).await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
    }
    assert_eq!(place.number("SELECT count(*) AS n FROM approvals"), 20);
}

/// The same two requests in opposite orders, while a lock makes groups of both stores meet.
pub(crate) async fn opposite_claims_do_not_wait_in_a_circle(place: Place) {
    let (one, two) = (place.store().await, place.store().await);
    let up = async |at: usize| {
        one.claim("ann", &format!("u{at}"), &[&format!("{at}")])
            .await
    };
    let down = async |at: usize| {
        two.claim("ann", &format!("d{at}"), &[&format!("{at}")])
            .await
    };
    let lock = place.hold_writes(std::time::Duration::from_millis(300));
    let (ups, downs) = join(join_all((0..60).map(up)), join_all((0..60).rev().map(down))).await;
    lock.join().unwrap();
    for (up, down) in ups.iter().zip(downs.iter().rev()) {
        assert_ne!(up, down, "each is given once");
    }
}

pub(crate) async fn claims_are_all_or_nothing_and_per_owner(place: Place) {
    let store = place.store().await;
    assert!(store.claim("ann", "r1", &["b"]).await);
    assert!(!store.claim("ann", "r2", &["a", "b", "c"]).await);
    assert_eq!(place.number("SELECT count(*) AS n FROM approvals"), 1);
    assert!(store.claim("ann", "r3", &["a", "c", "a"]).await);
    assert!(store.claim("bob", "r4", &["a", "b", "c"]).await);
}

pub(crate) async fn claims_last_as_long_as_their_conversation(place: Place) {
    let store = place.store().await;
    let kept = format!("resp_{}", "1".repeat(32));
    store.commit(record("ann", &kept)).await.unwrap();
    let (kept, gone) = (request_of("1", "0001"), request_of("2", "0001"));
    assert!(store.claim("ann", "r1", &[&kept]).await);
    assert!(store.claim("ann", "r2", &[&gone]).await);
    assert!(store.claim("ann", "r3", &["recent"]).await);
    place.run("UPDATE approvals SET claimed_at = 0 WHERE response <> 'r3'");
    let mut desk = Desk::open(&place.settings(), Opening::AsItIs)
        .await
        .unwrap();
    desk.purge(std::time::Duration::ZERO).await.unwrap();
    assert!(!store.claim("ann", "x", &[&kept]).await);
    assert!(!store.claim("ann", "x", &["recent"]).await);
    assert!(store.claim("ann", "x", &[&gone]).await);
}

pub(crate) async fn a_copy_and_an_adoption_take_claims_along(place: Place) {
    let store = place.store().await;
    let mut own = record("", "r");
    own.id = ResponseId::new("r");
    store.commit(own).await.unwrap();
    // More than a page of them.
    let all: Vec<String> = (0..600).map(|at| format!("a{at}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert!(store.claim("", "r1", &all).await);
    let target = Place::sqlite();
    let mut from = Desk::open(&place.settings(), Opening::AsItIs)
        .await
        .unwrap();
    let mut to = Desk::open(&settings(&target.url()), Opening::Migrate)
        .await
        .unwrap();
    let copied = from.copy_to(&mut to, |_| {}).await.unwrap();
    assert_eq!((copied.written, copied.equal, copied.missed), (1, 1, 0));
    let there = target.store().await;
    for request in [all[0], all[300], all[599]] {
        assert!(!there.claim("", "r2", &[request]).await);
    }
    to.adopt("ann").await.unwrap();
    assert!(!there.claim("ann", "r2", &[all[7]]).await);
    assert!(there.claim("", "r2", &[all[7]]).await);
}
