//! Approvals: each request is given to one response, whoever asks and wherever.
//!
//! Mutation tried, and it failed: a request that another response has is given away. Not tried yet: a
//! claim that is refused keeps what it took; a copy or an adoption without claims.

use futures_util::future::{join, join_all};
use vllm_responses_actors::store::desk::{Desk, Opening};

use crate::fixture::{Place, record, settings};

/// An approval request of the response `resp_` and 32 times this digit.
fn request_of(digit: &str, number: &str) -> String {
    format!("mcpr_{}{number}", digit.repeat(32))
}

pub(crate) async fn a_request_is_given_to_one_response(place: Place) {
    let store = place.store().await;
    let first = store.claim("ann", "r1", &["a"]).await;
    let second = store.claim("ann", "r2", &["a"]).await;
    // Whoever has it and did not hear of it asks again.
    let again = store.claim("ann", "r1", &["a"]).await;
    // Also after a restart, and by another gateway.
    let other = place.store().await;
    let elsewhere = other.claim("ann", "r3", &["a"]).await;
    let again_elsewhere = other.claim("ann", "r1", &["a"]).await;
    // What no id of ours is.
    let strange = ["\0", &"x".repeat(100_000)];
    let odd = store.claim("ann", "r4", &strange).await;
    let odd_again = store.claim("ann", "r5", &strange[..1]).await;
    assert_eq!((first, second, again), (true, false, true));
    assert_eq!((elsewhere, again_elsewhere), (false, true));
    assert_eq!((odd, odd_again), (true, false));
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
    for (response, request) in [("r1", &*kept), ("r2", &*gone), ("r3", "recent")] {
        assert!(store.claim("ann", response, &[request]).await);
    }
    place.run("UPDATE approvals SET claimed_at = 0 WHERE response <> 'r3'");
    let mut desk = Desk::open(&place.settings(), Opening::AsItIs)
        .await
        .unwrap();
    desk.purge(std::time::Duration::ZERO).await.unwrap();
    for (request, free) in [(&*kept, false), ("recent", false), (&*gone, true)] {
        assert_eq!(store.claim("ann", "x", &[request]).await, free, "{request}");
    }
}

/// More than a page of requests.
fn many() -> Vec<String> {
    (0..600).map(|at| format!("a{at}")).collect()
}

pub(crate) async fn a_copy_takes_claims_along(place: Place) {
    let store = place.store().await;
    store.commit(record("ann", "r")).await.unwrap();
    let all = many();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert!(store.claim("ann", "r1", &all).await);
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
        assert!(!there.claim("ann", "r2", &[request]).await);
    }
}

pub(crate) async fn an_adoption_takes_claims_along(place: Place) {
    let store = place.store().await;
    assert!(store.claim("", "r1", &["a", "b"]).await);
    assert!(store.claim("ann", "r2", &["b"]).await);
    let mut desk = Desk::open(&place.settings(), Opening::AsItIs)
        .await
        .unwrap();
    desk.adopt("ann").await.unwrap();
    for (owner, request, free) in [("ann", "a", false), ("ann", "b", false), ("", "a", true)] {
        assert_eq!(
            store.claim(owner, "r3", &[request]).await,
            free,
            "{owner} {request}"
        );
    }
}
