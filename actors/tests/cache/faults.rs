//! D8: whatever Redis does, a look-up gives what the store has, and nobody sees an error.
//!
//! Mutations tried: no limit for operations (stopped); entries without a checksum (wrong bytes); a
//! connection used again after an operation on it was given up (killed, slow and cut). Each failed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use vllm_responses_actors::store::messages::Extent;
use vllm_responses_protocol::record::Chain;

use crate::fixture::{Place, Replica, child, record};
use crate::redis::{PASSWORD, Redis, Relay, free_port, url};

/// Commits, continues and deletes; all must work, and look-ups must give what the store has.
async fn exercise(door: &Replica, plain: &Replica, name: &str) {
    for n in 0..10 {
        let (first, second) = (format!("resp_{name}_{n}"), format!("resp_{name}_{n}_b"));
        door.commit(record(&first)).await.unwrap();
        door.commit(child(&second, &first)).await.unwrap();
        same(door, plain, &[&first, &second]).await;
        assert_eq!(door.chain("ann", "resp_unknown").await, Ok(None));
    }
    let gone = format!("resp_{name}_0");
    assert_eq!(door.remove("ann", &gone).await, Ok(true));
    assert!(!door.continues(&gone).await);
    let descendant = door.continues(&format!("{gone}_b")).await;
    assert!(descendant, "a descendant lives on");
}

/// These are live, and look-ups give what the store has.
async fn same(door: &Replica, plain: &Replica, ids: &[&str]) {
    for id in ids {
        let expected: Option<Chain> = plain.chain("ann", id).await.unwrap();
        assert!(expected.is_some());
        assert_eq!(door.chain("ann", id).await, Ok(expected));
    }
}

/// Waits until look-ups of this response come from Redis.
async fn until_warm(door: &Replica, id: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    let hits = door.facts().await.hits;
    while door.facts().await.hits == hits {
        assert!(
            Instant::now() < until,
            "Redis is not used again: {:?}",
            door.facts().await
        );
        assert!(door.continues(id).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix_rt::test]
async fn d8_refused() {
    let place = Place::new();
    let plain = place.plain(Extent::Items).await;
    let door = place.replica(&url(free_port())).await;
    exercise(&door, &plain, "refused").await;
    let facts = door.facts().await;
    assert!(
        facts.breaker_open && facts.hits == 0 && facts.errors >= 5,
        "{facts:?}"
    );
    // Left alone: an open breaker costs no operation, but one each second.
    let operations = |latency: &[u64]| latency.iter().sum::<u64>();
    let before = operations(&facts.latency.counts);
    for _ in 0..200 {
        assert!(door.continues("resp_refused_1").await);
    }
    let after = operations(&door.facts().await.latency.counts);
    assert!(after - before < 50, "{before} {after}");
}

#[actix_rt::test]
async fn d8_killed_and_back_empty() {
    let Some(mut redis) = Redis::start(&[]) else {
        return;
    };
    let place = Place::new();
    let plain = place.plain(Extent::Items).await;
    let door = place.replica(&redis.url()).await;
    door.warm_up().await;
    exercise(&door, &plain, "before").await;
    redis.kill();
    exercise(&door, &plain, "killed").await;
    redis.restart();
    until_warm(&door, "resp_before_1").await;
    assert!(!door.facts().await.breaker_open);
    exercise(&door, &plain, "back").await;
}

#[actix_rt::test]
async fn d8_stopped_for_a_while() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let place = Place::new();
    let plain = place.plain(Extent::Items).await;
    let door = place.replica(&redis.url()).await;
    door.warm_up().await;
    exercise(&door, &plain, "before").await;
    let before = door.facts().await;
    redis.signal(Signal::SIGSTOP);
    exercise(&door, &plain, "stopped").await;
    let facts = door.facts().await;
    assert!(facts.breaker_open);
    // The limit is 50 ms; the client library's own would be 500 ms.
    let each_us = (facts.latency.sum_us - before.latency.sum_us) / (facts.errors - before.errors);
    assert!(each_us < 300_000, "{each_us}");
    redis.signal(Signal::SIGCONT);
    until_warm(&door, "resp_before_1").await;
    exercise(&door, &plain, "back").await;
}

#[actix_rt::test]
async fn d8_slow_and_cut() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let place = Place::new();
    let plain = place.plain(Extent::Items).await;
    let relay = Relay::to(redis.port());
    let door = place.replica(&relay.url()).await;
    door.warm_up().await;
    exercise(&door, &plain, "before").await;
    relay.delay(Duration::from_millis(500));
    exercise(&door, &plain, "slow").await;
    let facts = door.facts().await;
    assert!(facts.breaker_open, "{facts:?}");
    relay.delay(Duration::ZERO);
    until_warm(&door, "resp_before_1").await;
    relay.close();
    exercise(&door, &plain, "cut").await;
    relay.delay(Duration::ZERO);
    until_warm(&door, "resp_before_1").await;
}

/// What happens to every key.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Emptied,
    Random,
    Cut,
    /// One bit of one byte, from the end.
    Flipped(usize),
    Forged,
    OtherType,
}

impl Damage {
    fn strike(self, redis: &Redis, key: &str) {
        let mut value: Vec<u8> = redis.command(&format!("GET {key}"));
        match self {
            Self::Emptied => value.clear(),
            Self::Random => value = vec![0xff; 100],
            Self::Cut => value.truncate(value.len() / 2),
            Self::Flipped(from_end) => {
                let at = value.len().saturating_sub(from_end);
                if let Some(byte) = value.get_mut(at) {
                    *byte ^= 1;
                }
            }
            Self::Forged => value = br#"vr1{"ancestors":["resp_before_1"]}"#.to_vec(),
            Self::OtherType => {
                redis.command::<()>(&format!("DEL {key}"));
                return redis.command(&format!("RPUSH {key} x"));
            }
        }
        let mut set = redis::cmd("SET");
        set.arg(key).arg(value);
        set.query::<()>(&mut redis.connect()).unwrap();
    }
}

#[actix_rt::test]
async fn d8_wrong_bytes() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let place = Place::new();
    let plain = place.plain(Extent::Items).await;
    let door = place.using(&redis.url()).await;
    exercise(&door, &plain, "before").await;
    let mut kinds = vec![
        Damage::Emptied,
        Damage::Random,
        Damage::Cut,
        Damage::Forged,
        Damage::OtherType,
    ];
    kinds.extend((1..60).step_by(4).map(Damage::Flipped));
    for damage in kinds {
        redis.command::<()>("FLUSHALL");
        let fills = door.facts().await.fills;
        for id in ["resp_before_1", "resp_before_1_b", "resp_before_2"] {
            assert!(door.continues(id).await);
        }
        door.wait("fills", |_, facts| facts.fills == fills + 3)
            .await;
        let damaged = door.facts().await.damaged;
        for key in redis.keys() {
            damage.strike(&redis, &key);
        }
        for _ in 0..2 {
            same(&door, &plain, &["resp_before_1", "resp_before_1_b"]).await;
            assert!(!door.continues("resp_before_0").await, "{damage:?}");
        }
        let noticed = door.facts().await.damaged > damaged;
        assert!(noticed || matches!(damage, Damage::OtherType), "{damage:?}");
    }
    exercise(&door, &plain, "after").await;
}

#[actix_rt::test]
async fn d8_flushed_evicting_and_full() {
    let place = Place::new();
    let plain = place.plain(Extent::Items).await;
    for policy in ["allkeys-random", "allkeys-lru", "noeviction"] {
        let options = ["--maxmemory", "1500kb", "--maxmemory-policy", policy];
        let Some(redis) = Redis::start(&options) else {
            return;
        };
        let door = place.replica(&redis.url()).await;
        for n in 0..10 {
            exercise(&door, &plain, &format!("{policy}_{n}")).await;
            redis.command::<()>("FLUSHALL");
        }
        let text: Box<str> = format!(r#"["{}"]"#, "x".repeat(100_000)).into();
        for n in 0..20 {
            let mut large = record(&format!("resp_{policy}_large_{n}"));
            large.input_items.clone_from(&text);
            door.commit(large).await.unwrap();
        }
        exercise(&door, &plain, &format!("{policy}_full")).await;
    }
}

#[actix_rt::test]
async fn d8_a_wrong_password_is_no_error_either() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let place = Place::new();
    let plain = place.plain(Extent::Items).await;
    let door = place.replica(&redis.url().replace(PASSWORD, "wrong")).await;
    exercise(&door, &plain, "wrong").await;
    assert!(door.facts().await.breaker_open);
}

/// It answers each command at once, with an error: no client notices, and nobody calls it ready.
#[actix_rt::test]
async fn d8_one_that_answers_and_will_not_serve_is_left_alone() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    redis.command::<String>("ACL SETUSER default -mget -set -eval -del");
    let place = Place::new();
    let plain = place.plain(Extent::Items).await;
    let door = place.replica(&redis.url()).await;
    exercise(&door, &plain, "refusing").await;
    let facts = door.facts().await;
    assert!(facts.breaker_open, "{facts:?}");
    assert!(facts.errors < 20, "it was asked again and again: {facts:?}");
    redis.command::<String>("ACL SETUSER default +@all");
    door.commit(record("resp_healed")).await.unwrap();
    until_warm(&door, "resp_healed").await;
}

/// Nothing was deleted, so nothing need be made final: it took 2.2 s, and voided the cache of all.
#[actix_rt::test]
async fn deleting_an_unknown_response_begins_no_epoch() {
    let place = Place::new();
    let door = place.replica(&url(free_port())).await;
    for _ in 0..3 {
        assert_eq!(door.remove("ann", "resp_never").await, Ok(false));
    }
    assert_eq!(door.facts().await.epochs_begun, 0);
    door.commit(record("resp_there")).await.unwrap();
    assert_eq!(door.remove("ann", "resp_there").await, Ok(true));
    assert_eq!(door.facts().await.epochs_begun, 1);
}
