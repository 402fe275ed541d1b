//! D8, D9, D10 on the real program: two gateways over one database and one Redis.
//!
//! The interleavings are in the cache's own suite; here is what clients see. Mutations tried: DELETE
//! that leaves Redis alone; the Redis URL in the log. Each failed.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::history::History;
use crate::harness::redis::{PASSWORD, Redis, Relay};
use crate::harness::{Client, Fake, Script, TestGateway};

struct Pair {
    one: TestGateway,
    other: TestGateway,
    _fake: Fake,
    _folder: TempDir,
}

fn pair(urls: [&str; 2]) -> Pair {
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("shared.db");
    let [one, other] = urls.map(|url| {
        TestGateway::on(&fake.url())
            .db(&db)
            .env("VR_RESPONSE_STORE_CACHE", "1")
            .env("VR_REDIS_URL", url)
            .start()
    });
    Pair {
        one,
        other,
        _fake: fake,
        _folder: folder,
    }
}

fn create(client: Client, input: &str, previous: &Value) -> Value {
    let body = json!({"model": "m", "input": input, "previous_response_id": previous});
    let reply = client.create(&body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = reply.json();
    assert_eq!(told["store"], true, "{told}");
    told
}

#[track_caller]
fn assert_gone(client: Client, id: &Value) {
    let path = format!("/v1/responses/{}", id.as_str().unwrap());
    client.get(&path).error(404);
    client.get(&format!("{path}/input_items")).error(404);
    let body = json!({"model": "m", "input": "x", "previous_response_id": id});
    let error = client.create(&body).error(400);
    assert_eq!(error, "previous_response_not_found");
}

#[test]
fn d9_delete_is_final_on_every_replica() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let relay = Relay::to(redis.port());
    let pair = pair([&relay.url(), &redis.url()]);
    let (a, b) = (pair.one.client(), pair.other.client());
    let make = |n: usize| {
        let first = create(a, &format!("first {n}"), &Value::Null);
        let second = create(b, &format!("second {n}"), &first["id"]);
        create(a, &format!("third {n}"), &second["id"]);
        second["id"].clone()
    };
    let delete = |client: Client, id: &Value| {
        let path = format!("/v1/responses/{}", id.as_str().unwrap());
        assert_eq!(client.delete(&path).status, 200);
    };
    for n in 0..30 {
        let id = make(n);
        delete(if n % 2 == 0 { a } else { b }, &id);
        if n % 3 == 0 {
            redis.command::<()>("FLUSHALL");
        }
        assert_gone(a, &id);
        assert_gone(b, &id);
    }
    let id = make(30);
    relay.close();
    delete(a, &id);
    assert_gone(b, &id);
    assert_gone(a, &id);
}

#[test]
fn d10_a_response_continues_at_once_on_the_other_replica() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let pair = pair([&redis.url(), &redis.url()]);
    let (pair, count) = (
        &pair,
        if std::env::var("VR_LONG").is_ok() {
            2_500
        } else {
            100
        },
    );
    thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                let mut previous = Value::Null;
                for n in 0..count {
                    let door = if n % 2 == 0 { &pair.one } else { &pair.other };
                    let told = create(door.client(), &format!("{writer} {n}"), &previous);
                    // Short chains: it is about the next turn, not about length.
                    previous = if n % 20 == 19 {
                        Value::Null
                    } else {
                        told["id"].clone()
                    };
                }
            });
        }
    });
}

#[test]
fn d8_no_client_sees_what_happens_to_redis() {
    let Some(mut redis) = Redis::start(&[]) else {
        return;
    };
    let pair = pair([&redis.url(), &redis.url()]);
    let history = History::default();
    let until = Instant::now() + Duration::from_secs(8);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (pair, history) = (&pair, &history);
            scope.spawn(move || {
                let mut previous = Value::Null;
                let mut n = 0;
                while Instant::now() < until {
                    let door = if n % 2 == 0 { &pair.one } else { &pair.other };
                    let input = format!("writer {writer} turn {n}");
                    let told = create(door.client(), &input, &previous);
                    history.acknowledge(&told, &input);
                    previous = if n % 20 == 19 {
                        Value::Null
                    } else {
                        told["id"].clone()
                    };
                    n += 1;
                    thread::sleep(Duration::from_millis(25));
                }
            });
        }
        thread::sleep(Duration::from_millis(500));
        redis.signal(Signal::SIGSTOP);
        thread::sleep(Duration::from_millis(1_500));
        redis.signal(Signal::SIGCONT);
        thread::sleep(Duration::from_millis(1_500));
        redis.command::<()>("FLUSHALL");
        thread::sleep(Duration::from_millis(500));
        redis.kill();
        thread::sleep(Duration::from_millis(1_500));
        redis.restart();
    });
    assert!(history.len() > 50, "{} turns", history.len());
    for gateway in [&pair.one, &pair.other] {
        assert_eq!(history.violations(gateway.client()), Vec::<String>::new());
        assert!(
            gateway.log().contains("Redis is left alone"),
            "{}",
            gateway.log()
        );
        assert!(!gateway.log().contains(PASSWORD));
    }
    assert!(!redis.keys().is_empty(), "Redis is used again");
}

/// A certificate for `localhost`, which vouches for itself without being an authority: those are
/// not taken for a server's own.
fn certificate(folder: &TempDir) -> bool {
    let settings = "[req]\ndistinguished_name = n\nx509_extensions = e\n[n]\n[e]\n\
                    basicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:localhost\n";
    fs::write(folder.path().join("settings"), settings).unwrap();
    let made = Command::new("openssl")
        .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split(' '))
        .args("-config settings -keyout key.pem -out cert.pem".split(' '))
        .current_dir(folder.path())
        .output();
    made.is_ok_and(|output| output.status.success())
}

#[test]
fn redis_over_tls_with_a_password_and_a_database() {
    let folder = tempfile::tempdir().unwrap();
    if !certificate(&folder) {
        eprintln!("skipped: there is no `openssl`");
        return;
    }
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let port = crate::harness::redis::free_port();
    let options = [
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ];
    let Some(redis) = Redis::start(&options) else {
        return;
    };
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    let url = format!("rediss://:{PASSWORD}@localhost:{port}/3");
    let gateway = TestGateway::on(&fake.url())
        .env("VR_RESPONSE_STORE_CACHE", "1")
        .env("VR_REDIS_URL", &url)
        .env("SSL_CERT_FILE", &cert)
        .start();
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let told = create(gateway.client(), "a", &Value::Null);
        create(gateway.client(), "b", &told["id"]);
        let keyspace: String = redis.command("INFO keyspace");
        if keyspace.contains("db3:") {
            break;
        }
        assert!(Instant::now() < until, "nothing in database 3: {keyspace}");
    }
}
