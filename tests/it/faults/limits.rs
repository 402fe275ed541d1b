//! T6, T7: limits of requests, tokens and responses at once, of a key and of all, alone and shared.
//!
//! Windows are seconds here, so that several pass in a test; `actors/src/limits/bucket.rs` has the
//! rules as properties on a clock of its own.
//! Mutations tried, each failed here: a `Retry-After` rounded down; Redis never asked.

use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::api::keys::{ask, new_key};
use crate::harness::redis::Redis;
use crate::harness::{Fake, Gate, Reply, Script, TestGateway};

const CREATE: (&str, &str) = ("POST", "/v1/responses");

/// A keys file with one key per line of `limits`: its name, and what stands behind the hash.
fn keys<const N: usize>(limits: [(&str, &str); N]) -> (TempDir, String, [String; N]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let made = limits.map(|(name, limits)| {
        let (key, line) = new_key(name);
        (key, format!("{line} {limits}\n"))
    });
    fs::write(&file, made.clone().map(|(_, line)| line).concat()).unwrap();
    let path = file.to_str().unwrap().to_owned();
    (folder, path, made.map(|(key, _)| key))
}

fn number(reply: &Reply, name: &str) -> u64 {
    let value = reply.header(name).unwrap_or_else(|| panic!("no {name}"));
    value.parse().unwrap_or_else(|_| panic!("{name}: {value}"))
}

#[track_caller]
fn refused(reply: &Reply) -> Duration {
    assert_eq!(reply.error(429), "rate_limit_exceeded");
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
    Duration::from_secs(number(reply, "retry-after"))
}

/// Asserts that no window has more than the limit, and that what was asked for all the time was
/// given: 5 % are for the parts in which a window is counted.
fn assert_rate(mut admitted: Vec<Instant>, limit: usize, window: Duration, asked: Duration) {
    admitted.sort();
    // The gateway's moment lies before the one at which its answer is here.
    let slack = Duration::from_millis(300);
    for pair in admitted.windows(limit + 1) {
        assert!(
            pair[limit] - pair[0] + slack > window,
            "over the limit: {:?}",
            pair[limit] - pair[0]
        );
    }
    let windows = asked.as_millis() / (window.as_millis() * 105 / 100);
    let due = limit * usize::try_from(windows).unwrap();
    assert!(
        admitted.len() >= due * 95 / 100,
        "{} of {due} in {asked:?}",
        admitted.len()
    );
}

#[test]
fn t6_t7_requests_of_a_key_and_who_waits_as_told_is_served() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let (_folder, file, [ann, bob]) = keys([("ann", ""), ("bob", "requests=0")]);
    let window = Duration::from_secs(4);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", &file)
        .env("VR_KEY_REQUESTS_PER_MINUTE", "20")
        .env("VR_LIMIT_WINDOW", "4s")
        .start();
    let body = json!({"model": "m", "input": "a"}).to_string();
    let (mut admitted, mut refusals, begin) = (Vec::new(), 0, Instant::now());
    while begin.elapsed() < window * 2 {
        let reply = ask(&gateway, Some(&ann), CREATE, &body);
        assert_eq!(number(&reply, "x-ratelimit-limit-requests"), 20);
        assert!(
            reply
                .header("x-ratelimit-reset-requests")
                .unwrap()
                .ends_with('s')
        );
        if reply.status == 200 {
            admitted.push(Instant::now());
            let left = number(&reply, "x-ratelimit-remaining-requests");
            assert!(left < 20, "{left}");
            continue;
        }
        refusals += 1;
        // The neighbour does not notice.
        assert_eq!(ask(&gateway, Some(&bob), CREATE, &body).status, 200);
        thread::sleep(refused(&reply));
        let reply = ask(&gateway, Some(&ann), CREATE, &body);
        assert_eq!(reply.status, 200, "waited as told: {}", reply.text());
        admitted.push(Instant::now());
    }
    assert!(refusals >= 2, "{refusals}");
    assert_rate(admitted, 20, window, window * 2);
    // Nothing is limited that runs no model.
    assert_eq!(
        ask(&gateway, Some(&ann), ("GET", "/v1/models"), "").status,
        200
    );
}

#[test]
fn t6_tokens_are_charged_after_the_call_on_both_paths() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    fake.on("s", [Script::says("ok")]);
    let (_folder, file, [ann, bob]) = keys([("ann", "tokens=25"), ("bob", "")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", &file)
        .env("VR_TOKENS_PER_MINUTE", "55")
        .start();
    let responses = json!({"model": "s", "input": "a", "stream": true}).to_string();
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "a"}]}).to_string();
    // Each uses ten.
    for (path, body, left) in [
        ("/v1/responses", &responses, 25),
        ("/v1/chat/completions", &chat, 15),
        ("/v1/responses", &responses, 5),
    ] {
        let reply = ask(&gateway, Some(&ann), ("POST", path), body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(number(&reply, "x-ratelimit-remaining-tokens"), left);
        // The charge is a notice that passes the answer.
        thread::sleep(Duration::from_millis(100));
    }
    let reply = ask(
        &gateway,
        Some(&ann),
        ("POST", "/v1/chat/completions"),
        &chat,
    );
    assert!(refused(&reply) > Duration::from_secs(50));
    assert!(reply.text().contains("tokens"), "{}", reply.text());
    // All together have 55, of which 30 are used.
    for left in [25, 15, 5] {
        let reply = ask(&gateway, Some(&bob), CREATE, &responses);
        assert_eq!(number(&reply, "x-ratelimit-remaining-tokens"), left);
        thread::sleep(Duration::from_millis(100));
    }
    let reply = ask(&gateway, Some(&bob), CREATE, &responses);
    refused(&reply);
    assert!(reply.text().contains("all users"), "{}", reply.text());
}

#[test]
fn t6_responses_at_once_and_a_limit_that_is_read_again() {
    let (fake, gate) = (Fake::start(), Gate::default());
    fake.on("m", [Script::stream().wait(&gate).end("stop")]);
    let (folder, file, [ann, bob]) = keys([("ann", "concurrent=2"), ("bob", "")]);
    let gateway = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", &file)
        .env("VR_KEY_CONCURRENT", "1")
        .env("VR_HOLD_STATUS", "0s")
        .start();
    let body = json!({"model": "m", "input": "a", "stream": true}).to_string();
    let gateway = &gateway;
    thread::scope(|scope| {
        for key in [&ann, &ann, &bob] {
            let body = &body;
            scope.spawn(move || assert_eq!(ask(gateway, Some(key), CREATE, body).status, 200));
        }
        fake.wait_seen("m", 3);
        for key in [&ann, &bob] {
            assert_eq!(
                refused(&ask(gateway, Some(key), CREATE, &body)),
                Duration::from_secs(1)
            );
        }
        let lines = fs::read_to_string(&file)
            .unwrap()
            .replace("concurrent=2", "concurrent=3");
        fs::write(&file, lines).unwrap();
        gateway.signal(Signal::SIGHUP);
        scope.spawn(|| {
            while ask(gateway, Some(&ann), CREATE, &body).status != 200 {
                thread::sleep(Duration::from_millis(20));
            }
        });
        fake.wait_seen("m", 4);
        gate.open();
    });
    for _ in 0..3 {
        assert_eq!(
            ask(gateway, Some(&bob), CREATE, &body).status,
            200,
            "the place is free again"
        );
    }
    drop(folder);
}

#[test]
fn t6_two_gateways_share_one_limit_and_do_without_redis() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let window = Duration::from_secs(3);
    let pair = [(); 2].map(|()| {
        TestGateway::on(&fake.url())
            .env("VR_RESPONSE_STORE_CACHE", "1")
            .env("VR_REDIS_URL", &redis.url())
            .env("VR_KEY_REQUESTS_PER_MINUTE", "40")
            .env("VR_REQUESTS_PER_MINUTE", "100000")
            .env("VR_TOKENS_PER_MINUTE", "100000")
            .env("VR_LIMIT_WINDOW", "3s")
            .start()
    });
    let body = json!({"model": "m", "input": "a", "store": false}).to_string();
    let admitted = Mutex::new(Vec::new());
    let begin = Instant::now();
    thread::scope(|scope| {
        for gateway in [&pair[0], &pair[0], &pair[1], &pair[1]] {
            let (body, admitted) = (&body, &admitted);
            scope.spawn(move || {
                while begin.elapsed() < window * 7 / 2 {
                    let reply = ask(gateway, None, CREATE, body);
                    if reply.status == 200 {
                        admitted.lock().unwrap().push(Instant::now());
                    } else {
                        refused(&reply);
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
    });
    assert_rate(admitted.into_inner().unwrap(), 40, window, window * 7 / 2);
    let names = redis.keys();
    assert!(
        names
            .iter()
            .any(|name| name.contains(":limit:3000:tokens:all")),
        "{names:?}"
    );
    // Without Redis each gateway judges by itself, and nobody gets an error.
    redis.signal(Signal::SIGSTOP);
    thread::sleep(window + window / 10);
    for gateway in &pair {
        for turn in 0..40 {
            let reply = ask(gateway, None, CREATE, &body);
            assert_eq!(reply.status, 200, "{turn}: {}", reply.text());
        }
    }
    redis.signal(Signal::SIGCONT);
}
