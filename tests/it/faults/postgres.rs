//! D1, D6, D7, D9, D10 on PostgreSQL: the server goes away, hangs, or throws everybody out, and nothing
//! that was acknowledged is lost; two gateways share one database.
//!
//! Mutations that fail this group: no second attempt of a write; no look at a connection when it is
//! taken from the pool; a write that waits without a limit.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::durability::kill_9_under_writers;
use crate::harness::gateway::Builder;
use crate::harness::history::History;
use crate::harness::postgres::{FreshDatabase, OwnServer, PASSWORD, Sql};
use crate::harness::{Client, Fake, Script, TestGateway, knobs};

fn fake() -> Fake {
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    fake.on("s", [Script::says("yes")]);
    fake
}

fn on(fake: &Fake, url: &str) -> Builder {
    TestGateway::on(&fake.url()).db(Path::new(url))
}

#[test]
fn d1_kill_9_under_writers_loses_nothing_on_postgres() {
    let Some(database) = FreshDatabase::make() else {
        return;
    };
    let fake = fake();
    let gateway = kill_9_under_writers(on(&fake, &database.url()), knobs::rounds(10, 200));
    let mut sql = Sql::connect(&database.url());
    let orphans = sql.numbers(
        "SELECT count(*) AS n FROM responses LEFT JOIN settings \
         ON hash = settings_hash AND settings.owner = responses.owner WHERE hash IS NULL",
    );
    assert_eq!(orphans, [0]);
    drop(gateway);
}

/// Writers that go on whatever happens, while `fault` happens. Gives what was acknowledged, how many
/// answers were not stored, and the longest wait.
fn under_load(client: Client, fault: impl FnOnce()) -> (History, usize, Duration) {
    let (history, stop) = (History::default(), AtomicBool::new(false));
    let results = thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let (history, stop) = (&history, &stop);
                scope.spawn(move || write_until_told(client, history, stop, writer))
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        fault();
        stop.store(true, Ordering::SeqCst);
        let results = writers
            .into_iter()
            .map(|writer| writer.join().expect("writer"));
        results.collect::<Vec<_>>()
    });
    let unstored = results.iter().map(|(unstored, _)| unstored).sum();
    let longest = results.iter().map(|(_, longest)| *longest).max();
    (history, unstored, longest.expect("writers"))
}

/// Each turn is answered, stored or not. Reads may be refused while the database is away, which ends a
/// conversation and begins another.
fn write_until_told(
    client: Client,
    history: &History,
    stop: &AtomicBool,
    writer: usize,
) -> (usize, Duration) {
    let (mut unstored, mut longest, mut parent) = (0, Duration::ZERO, Value::Null);
    for turn in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let input = format!("writer {writer} turn {turn}");
        let body = json!({"model": "m", "input": input, "previous_response_id": parent});
        let began = Instant::now();
        let reply = client.create(&body);
        longest = longest.max(began.elapsed());
        if reply.status != 200 {
            assert!(matches!(reply.status, 503 | 504), "{}", reply.text());
            assert!(!reply.text().contains(PASSWORD), "{}", reply.text());
            parent = Value::Null;
            continue;
        }
        let told = reply.json();
        assert_eq!(told["status"], "completed");
        if told["store"] == true {
            history.acknowledge(&told, &input);
            parent = told["id"].clone();
        } else {
            unstored += 1;
            parent = Value::Null;
        }
        thread::sleep(Duration::from_millis(20));
    }
    (unstored, longest)
}

/// Stored again within the promised 5 s, with room for a busy machine.
fn assert_heals(client: Client) {
    let until = Instant::now() + Duration::from_secs(15);
    while client.create(&json!({"model": "m", "input": "c"})).json()["store"] != true {
        assert!(Instant::now() < until, "not stored again");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn d6_a_restart_of_postgres_under_load_loses_nothing() {
    let Some(server) = OwnServer::start() else {
        return;
    };
    let fake = fake();
    let gateway = on(&fake, &server.url()).start();
    let client = gateway.client();
    let (history, _, longest) = under_load(client, || {
        server.stop_at_once();
        server.start_again();
        thread::sleep(Duration::from_secs(2));
        // Away for longer than a write waits.
        server.stop_at_once();
        thread::sleep(Duration::from_secs(5));
        server.start_again();
        assert_heals(client);
    });
    assert!(history.len() > 50, "only {} were stored", history.len());
    assert_eq!(history.violations(client), Vec::<String>::new());
    assert!(longest < Duration::from_secs(9), "one waited {longest:?}");
    let log = gateway.log();
    // Which server it is may be said, without its password.
    assert!(!log.contains(PASSWORD), "{log}");
}

#[test]
fn d7_terminated_sessions_cost_no_client_anything() {
    let Some(database) = FreshDatabase::make() else {
        return;
    };
    let fake = fake();
    let gateway = on(&fake, &database.url()).start();
    let client = gateway.client();
    let mut sql = Sql::connect(&database.url());
    let (history, unstored, _) = under_load(client, || {
        for _ in 0..10 {
            sql.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name = 'vllm-responses'",
            );
            thread::sleep(Duration::from_millis(200));
        }
    });
    assert_eq!(unstored, 0, "a write is tried again");
    assert_eq!(history.violations(client), Vec::<String>::new());
}

#[test]
fn d7_a_server_that_hangs_delays_and_is_left_alone() {
    let Some(server) = OwnServer::start() else {
        return;
    };
    let fake = fake();
    let gateway = on(&fake, &server.url()).start();
    let client = gateway.client();
    let (history, unstored, longest) = under_load(client, || {
        let frozen = server.freeze();
        thread::sleep(Duration::from_secs(8));
        let body = json!({"model": "m", "input": "b", "store": false});
        assert_eq!(client.create(&body).json()["status"], "completed");
        drop(frozen);
        assert_heals(client);
    });
    assert!(unstored > 0, "nobody met the hang");
    assert!(longest < Duration::from_secs(9), "one waited {longest:?}");
    assert_eq!(history.violations(client), Vec::<String>::new());
}

#[test]
fn d9_d10_two_gateways_on_one_database_are_one() {
    let Some(database) = FreshDatabase::make() else {
        return;
    };
    let fake = fake();
    // Both find an empty database, and one of them migrates it (D15).
    let start = || on(&fake, &database.url()).start();
    let (one, two) = thread::scope(|scope| {
        let one = scope.spawn(start);
        (start(), one.join().expect("gateway"))
    });
    let doors = [one.client(), two.client()];
    thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                let mut parent = Value::Null;
                for turn in 0..knobs::rounds(50, 1000) {
                    let (here, there) = (doors[turn % 2], doors[(turn + 1) % 2]);
                    let body = json!({"model": "m", "input": format!("{writer} {turn}"),
                        "previous_response_id": parent});
                    let told = here.create(&body).json();
                    assert_eq!(told["store"], true, "turn {turn}: {told}");
                    let path = format!("/v1/responses/{}", told["id"].as_str().expect("id"));
                    assert_eq!(there.get(&path).json(), told);
                    parent = told["id"].clone();
                    if turn % 10 == 9 {
                        assert_eq!(there.delete(&path).status, 200);
                        here.get(&path).error(404);
                        there.get(&path).error(404);
                        parent = Value::Null;
                    }
                }
            });
        }
    });
}
