//! D1, D4, D5, D10, D11: what was acknowledged is there, and what is not says so.
//!
//! Mutation that fails this group: write the terminal event before the commit returns.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::Text;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _};
use serde_json::{Value, json};

use crate::harness::gateway::Builder;
use crate::harness::history::History;
use crate::harness::{Client, Fake, Script, TestGateway, check_resource, check_stream, knobs};

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    integrity_check: String,
}

fn connect(path: &Path) -> SqliteConnection {
    SqliteConnection::establish(path.to_str().expect("path")).expect("database")
}

#[track_caller]
fn assert_integrity(path: &Path) {
    let lines: Vec<Line> = diesel::sql_query("PRAGMA integrity_check")
        .load(&mut connect(path))
        .expect("check");
    let lines: Vec<_> = lines.into_iter().map(|l| l.integrity_check).collect();
    assert_eq!(lines, ["ok"]);
}

/// Creates a chain until the gateway is gone; a streamed response counts once its terminal event
/// is there, whether or not the connection then ends well.
fn write_until_gone(client: Client, history: &History, writer: usize, name: &str) {
    let stream = writer.is_multiple_of(2);
    let mut parent = Value::Null;
    for turn in 0.. {
        let input = format!("{name} turn {turn}");
        let body = json!({"model": if stream { "s" } else { "m" }, "input": input, "stream": stream,
            "previous_response_id": parent});
        let json = [("content-type", "application/json")];
        let bytes = body.to_string().into_bytes();
        let Ok(reply) = client.try_send("POST", "/v1/responses", &json, &bytes) else {
            return;
        };
        assert_eq!(reply.status, 200, "{}", reply.text());
        let told = if stream {
            check_stream(&reply.text()).pop().expect("events")["response"].take()
        } else {
            reply.json()
        };
        history.acknowledge(&told, &input);
        parent = told["id"].clone();
    }
}

/// Kills and restarts a gateway under 50 writers, this many times; everything that it acknowledged is
/// then read back.
pub(super) fn kill_9_under_writers(settings: Builder, rounds: usize) -> TestGateway {
    let mut gateway = settings.start();
    let history = History::default();
    for round in 0..rounds {
        let (client, before) = (gateway.client(), history.len());
        thread::scope(|scope| {
            for writer in 0..50 {
                let history = &history;
                let name = format!("round {round} writer {writer}");
                scope.spawn(move || write_until_gone(client, history, writer, &name));
            }
            // In the middle of things, on a slow machine too.
            let until = Instant::now() + Duration::from_secs(20);
            while history.len() == before && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
            thread::sleep(Duration::from_millis(13 * (round as u64 % 20)));
            gateway.kill();
        });
        gateway.restart();
    }
    assert!(history.len() > 0, "nothing was acknowledged");
    assert_eq!(history.violations(gateway.client()), Vec::<String>::new());
    gateway
}

#[test]
fn d1_kill_9_under_writers_loses_nothing() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    fake.on("s", [Script::says("yes")]);
    let settings = TestGateway::on(&fake.url());
    let gateway = kill_9_under_writers(settings, knobs::rounds(20, 200));
    assert_integrity(&gateway.db());
}

/// Several processes, several threads each, one file: nobody ever hears of a lock.
#[test]
fn d4_gateways_that_share_a_file_are_never_locked_out() {
    let folder = tempfile::TempDir::new().expect("folder");
    let file = folder.path().join("it.db");
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    let settings = || {
        TestGateway::on(&fake.url())
            .db(&file)
            .flag("--gateway-workers=2")
    };
    let gateways: Vec<_> = thread::scope(|scope| {
        // All find no file, and one of them makes it (D15).
        let starts: Vec<_> = (0..3).map(|_| scope.spawn(|| settings().start())).collect();
        let started = starts.into_iter().map(|start| start.join().expect("start"));
        started.collect()
    });
    let clients: Vec<_> = gateways.iter().map(TestGateway::client).collect();
    let history = History::default();
    thread::scope(|scope| {
        for writer in 0..12 {
            let (history, clients) = (&history, &clients);
            scope.spawn(move || {
                let mut parent = Value::Null;
                for turn in 0..knobs::rounds(30, 500) {
                    if turn % 30 == 0 {
                        // A new conversation: each look at a response reads all before it.
                        parent = Value::Null;
                    }
                    let input = format!("writer {writer} turn {turn}");
                    let body =
                        json!({"model": "m", "input": input, "previous_response_id": parent});
                    let told = clients[(writer + turn) % 3].create(&body).json();
                    assert_eq!(told["store"], true, "{told}");
                    history.acknowledge(&told, &input);
                    parent = told["id"].clone();
                }
            });
        }
    });
    assert_eq!(history.violations(clients[0]), Vec::<String>::new());
    for gateway in &gateways {
        assert!(!gateway.log().contains("locked"), "{}", gateway.log());
    }
}

/// Another process's transaction holds the write lock for this long while answers are made.
fn create_while_locked(time: Duration) -> (TestGateway, Fake, Value, Duration) {
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    let first = client.create(&json!({"model": "m", "input": "a"})).json();
    let mut other = connect(&gateway.db());
    other.batch_execute("BEGIN IMMEDIATE").expect("lock");
    let told = thread::scope(|scope| {
        let start = Instant::now();
        let create = scope.spawn(move || {
            let told = client.create(&json!({"model": "m", "input": "b"})).json();
            (told, start.elapsed())
        });
        let path = format!("/v1/responses/{}", first["id"].as_str().unwrap());
        assert_eq!(client.get(&path).json(), first, "reads are not blocked");
        thread::sleep(time);
        other.batch_execute("ROLLBACK").expect("unlock");
        create.join().expect("create")
    });
    (gateway, fake, told.0, told.1)
}

#[test]
fn d4_a_lock_of_3_s_is_waited_for() {
    let (gateway, _fake, told, _) = create_while_locked(Duration::from_secs(3));
    check_resource(&told);
    assert_eq!(
        (&told["status"], &told["store"]),
        (&json!("completed"), &json!(true))
    );
    let path = format!("/v1/responses/{}", told["id"].as_str().unwrap());
    assert_eq!(gateway.client().get(&path).json(), told);
}

#[test]
fn d4_a_lock_of_10_s_is_answered_unstored() {
    let (gateway, _fake, told, took) = create_while_locked(Duration::from_secs(10));
    eprintln!("answered after {took:?}");
    check_resource(&told);
    assert_eq!(
        (&told["status"], &told["store"]),
        (&json!("completed"), &json!(false))
    );
    let client = gateway.client();
    client
        .get(&format!("/v1/responses/{}", told["id"].as_str().unwrap()))
        .error(404);
    let next = client.create(&json!({"model": "m", "input": "c"})).json();
    assert_eq!(next["store"], true, "works again once the lock is gone");
}

/// A small file system, unmounted at the end. None where this user may not mount.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Option<Self> {
        let folder = tempfile::TempDir::new().expect("folder");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
            .arg(folder.path())
            .output()
            .ok()?;
        done.status.success().then_some(Self(folder))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _done = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn d5_a_full_disk_is_told_and_survived() {
    let Some(disk) = Tmpfs::mount() else {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    };
    let fake = Fake::start();
    fake.on("m", [Script::completion(&"x".repeat(256 * 1024))]);
    let gateway = TestGateway::on(&fake.url())
        .db(&disk.0.path().join("it.db"))
        .start();
    let client = gateway.client();
    let first = client.create(&json!({"model": "m", "input": "a"})).json();
    let filler = disk.0.path().join("filler");
    let full = std::fs::write(&filler, vec![1; 16 * 1024 * 1024]);
    assert!(full.is_err(), "the disk is full");
    // The write-ahead log may still have room inside its own pages for a few.
    let told = (0..20)
        .map(|_| client.create(&json!({"model": "m", "input": "b"})).json())
        .inspect(|told| assert_eq!(told["status"], "completed"))
        .find(|told| told["store"] == false)
        .expect("an answer says that it was not stored");
    client
        .get(&format!("/v1/responses/{}", told["id"].as_str().unwrap()))
        .error(404);
    let path = format!("/v1/responses/{}", first["id"].as_str().unwrap());
    assert_eq!(client.get(&path).json(), first, "reads work");
    let body = json!({"model": "m", "input": "b", "store": false});
    assert_eq!(client.create(&body).json()["status"], "completed");
    std::fs::remove_file(&filler).expect("room again");
    let until = Instant::now() + Duration::from_secs(15);
    while client.create(&json!({"model": "m", "input": "c"})).json()["store"] != true {
        assert!(Instant::now() < until, "not stored again");
        thread::sleep(Duration::from_millis(200));
    }
    let path = gateway.db();
    drop(gateway);
    assert_integrity(&path);
}

#[test]
fn d10_every_response_can_be_continued_at_once() {
    let fake = Fake::start();
    fake.on("m", [Script::says("yes")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || {
                let mut parent = Value::Null;
                for turn in 0..knobs::rounds(250, 1250) {
                    // Short chains: what is tried is the moment after the terminal event.
                    if turn % 10 == 0 {
                        parent = Value::Null;
                    }
                    let mut open = client.open(&json!({"model": "m", "input": "x",
                        "stream": true, "previous_response_id": parent}));
                    let reply = open.reply().expect("answer");
                    assert_eq!(reply.status, 200, "turn {turn}: {}", reply.text());
                    let last = check_stream(&reply.text()).pop().expect("events");
                    assert_eq!(last["type"], "response.completed");
                    parent = last["response"]["id"].clone();
                }
            });
        }
    });
}

#[test]
fn d11_a_hundred_continuations_of_one_parent_do_not_see_each_other() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let (client, history) = (gateway.client(), History::default());
    let root = client
        .create(&json!({"model": "m", "input": "root"}))
        .json();
    history.acknowledge(&root, "root");
    thread::scope(|scope| {
        for child in 0..100 {
            let (history, root) = (&history, &root);
            scope.spawn(move || {
                let input = format!("child {child}");
                let told = client.create(&json!({"model": "m", "input": input,
                    "previous_response_id": root["id"]}));
                history.acknowledge(&told.json(), &input);
            });
        }
    });
    assert_eq!(history.len(), 101);
    assert_eq!(history.violations(client), Vec::<String>::new());
    for seen in &fake.seen("m")[1..] {
        assert_eq!(seen.body["messages"].as_array().map(Vec::len), Some(3));
    }
}
