//! D8: whatever Redis does, a look-up gives what the store has, and nobody sees an error.
//!
//! Mutations tried: no limit for operations (stopped, slow); an error of Redis passed on (refused);
//! entries without a checksum (wrong bytes); a timed-out connection used again (cut). Each failed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
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
    let plain = place.replica(None).await;
    let door = place.replica(Some(&url(free_port()))).await;
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
    let plain = place.replica(None).await;
    let door = place.using(&redis.url()).await;
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
    let plain = place.replica(None).await;
    let door = place.using(&redis.url()).await;
    exercise(&door, &plain, "before").await;
    redis.signal(Signal::SIGSTOP);
    exercise(&door, &plain, "stopped").await;
    assert!(door.facts().await.breaker_open);
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
    let plain = place.replica(None).await;
    let relay = Relay::to(redis.port());
    let door = place.using(&relay.url()).await;
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

#[actix_rt::test]
async fn d8_wrong_bytes() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let place = Place::new();
    let plain = place.replica(None).await;
    let door = place.using(&redis.url()).await;
    exercise(&door, &plain, "before").await;
    let mut connection = redis.connect();
    for round in 0..6 {
        for (n, key) in redis.keys().iter().enumerate() {
            let mut value: Vec<u8> = match redis.command::<String>(&format!("TYPE {key}")).as_str()
            {
                "string" => redis::cmd("GET").arg(key).query(&mut connection).unwrap(),
                _other => Vec::new(),
            };
            match round {
                0 => value.clear(),
                1 => value = vec![0xff; 100],
                2 => value.truncate(value.len() / 2),
                3 => {
                    let at = (n * 7) % value.len().max(1);
                    if let Some(byte) = value.get_mut(at) {
                        *byte ^= 1;
                    }
                }
                4 => value = br#"vr1{"links":[],"ancestors":["resp_before_1"]}"#.to_vec(),
                _wrong_type => {
                    redis.command::<()>(&format!("DEL {key}"));
                    redis.command::<()>(&format!("RPUSH {key} x"));
                    continue;
                }
            }
            redis::cmd("SET")
                .arg(key)
                .arg(value)
                .query::<()>(&mut connection)
                .unwrap();
        }
        for n in 1..10 {
            let (first, second) = (format!("resp_before_{n}"), format!("resp_before_{n}_b"));
            same(&door, &plain, &[&first, &second]).await;
            assert!(!door.continues("resp_before_0").await, "round {round}");
        }
    }
    assert!(door.facts().await.damaged > 0);
    exercise(&door, &plain, "after").await;
}

#[actix_rt::test]
async fn d8_flushed_evicting_and_full() {
    let place = Place::new();
    let plain = place.replica(None).await;
    for policy in ["allkeys-random", "allkeys-lru", "noeviction"] {
        let options = ["--maxmemory", "1500kb", "--maxmemory-policy", policy];
        let Some(redis) = Redis::start(&options) else {
            return;
        };
        let door = place.replica(Some(&redis.url())).await;
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
    let plain = place.replica(None).await;
    let door = place
        .replica(Some(&redis.url().replace(PASSWORD, "wrong")))
        .await;
    exercise(&door, &plain, "wrong").await;
    assert!(door.facts().await.breaker_open);
}
