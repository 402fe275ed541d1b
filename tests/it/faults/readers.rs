//! Reads of stored responses: at a rate of their own, page by page, and at nobody else's cost.
//!
//! Mutation to try: one pool of connections for reads and the writer (turns are not stored).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::keys::{ask, new_key};
use crate::harness::history::user_texts;
use crate::harness::postgres::FreshDatabase;
use crate::harness::{Client, Fake, Script, TestGateway};

const MIB: usize = 1 << 20;

#[test]
fn t6_reads_of_a_key_have_a_rate_of_their_own() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let ((ann, first), (bob, second)) = (new_key("ann"), new_key("bob"));
    std::fs::write(&file, format!("{first}\n{second}\n")).unwrap();
    let gateway = TestGateway::on(&fake.url())
        .env("VR_API_KEYS_FILE", file.to_str().unwrap())
        .env("VR_KEY_REQUESTS_PER_MINUTE", "2")
        .start();
    let body = json!({"model": "m", "input": "a"}).to_string();
    let create = |key: &String| ask(&gateway, Some(key), ("POST", "/v1/responses"), &body).json();
    let told = create(&ann);
    let path = format!("/v1/responses/{}", told["id"].as_str().unwrap());
    let items = format!("{path}/input_items");
    let statuses: Vec<u16> = (0..30)
        .map(|n| {
            let path = if n % 2 == 0 { &path } else { &items };
            ask(&gateway, Some(&ann), ("GET", path), "").status
        })
        .collect();
    let read = statuses.iter().filter(|status| **status == 200).count();
    // Ten times the requests of a minute; what comes back meanwhile is let in too.
    assert!((20..25).contains(&read), "{statuses:?}");
    let refused = ask(&gateway, Some(&ann), ("GET", &path), "");
    assert_eq!(refused.error(429), "rate_limit_exceeded");
    assert!(refused.header("retry-after").is_some());
    // They are counted apart from requests, and for each key.
    assert_eq!(create(&ann)["status"], "completed");
    let told = create(&bob);
    let path = format!("/v1/responses/{}", told["id"].as_str().unwrap());
    assert_eq!(ask(&gateway, Some(&bob), ("GET", &path), "").status, 200);
}

/// A conversation of so many turns, whose n-th input is `n` and a text of so many bytes.
fn talk(client: Client, turns: usize, bytes: usize) -> String {
    let mut previous = Value::Null;
    for turn in 0..turns {
        let input = format!("{turn} {}", "z".repeat(bytes));
        let body = json!({"model": "m", "input": input, "previous_response_id": previous});
        let told = client.create(&body).json();
        assert_eq!(told["store"], true, "{told}");
        previous = told["id"].clone();
    }
    previous.as_str().unwrap().to_owned()
}

/// All pages, following `last_id`.
fn pages(client: Client, path: &str, order: &str, limit: usize) -> Vec<String> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{path}?order={order}&limit={limit}{after}"));
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        let data = page["data"].as_array().unwrap();
        items.extend(
            data.iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        if page["has_more"] == false {
            return items;
        }
        after = format!("&after={}", page["last_id"].as_str().unwrap());
    }
}

/// A small conversation is read whole, one of some megabytes in parts: the pages are the same.
#[test]
fn pages_of_input_items_have_every_item_once_in_both_orders() {
    let fake = Fake::start();
    fake.on("m", [Script::completion("ok")]);
    let gateway = TestGateway::on(&fake.url()).start();
    let client = gateway.client();
    for bytes in [10, MIB / 5] {
        let turns = 12;
        let path = format!("/v1/responses/{}/input_items", talk(client, turns, bytes));
        let up = pages(client, &path, "asc", 5);
        let mut down = pages(client, &path, "desc", 5);
        down.reverse();
        assert_eq!((up.len(), &up), (2 * turns - 1, &down), "{bytes}");
        let page = |query: &str| client.get(&format!("{path}?{query}"));
        let first = user_texts(&page("order=asc&limit=1").json());
        assert!(first[0].starts_with("0 "), "the oldest comes first");
        for order in ["asc", "desc"] {
            let (from, to) = if order == "asc" { (2, 6) } else { (6, 2) };
            let between = page(&format!(
                "order={order}&after={}&before={}",
                up[from], up[to]
            ));
            let between = between.json();
            let ids: Vec<&str> = (between["data"].as_array().unwrap().iter())
                .map(|item| item["id"].as_str().unwrap())
                .collect();
            let mut expected = vec![&*up[3], &*up[4], &*up[5]];
            if order == "desc" {
                expected.reverse();
            }
            assert_eq!((ids, &between["has_more"]), (expected, &json!(false)));
            for cursor in ["after", "before"] {
                let unknown = page(&format!("order={order}&limit=100&{cursor}=msg_unknown"));
                unknown.error(400);
                assert_eq!(unknown.json()["error"]["param"], cursor);
            }
        }
    }
}

/// S4 of the findings: reads took all connections, and turns of others were not stored.
#[test]
fn d7_many_readers_cost_nobody_a_turn_on_postgres() {
    let Some(database) = FreshDatabase::make() else {
        return;
    };
    let fake = Fake::start();
    fake.on("m", [Script::completion("yes")]);
    let gateway = TestGateway::on(&fake.url())
        .db(Path::new(&database.url()))
        .start();
    let client = gateway.client();
    let path = format!(
        "/v1/responses/{}/input_items?limit=100",
        talk(client, 8, MIB)
    );
    let (over, read) = (AtomicBool::new(false), AtomicUsize::new(0));
    let waits = thread::scope(|scope| {
        for _ in 0..48 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // Refused, or read.
                    let status = client.get(&path).status;
                    assert!(matches!(status, 200 | 503), "{status}");
                    read.fetch_add(usize::from(status == 200), Ordering::Relaxed);
                }
            });
        }
        let began = Instant::now();
        let mut waits = Vec::new();
        while began.elapsed() < Duration::from_secs(12) {
            let asked = Instant::now();
            let told = client.create(&json!({"model": "m", "input": "x"})).json();
            assert_eq!(told["store"], true, "{told}");
            waits.push(asked.elapsed());
        }
        over.store(true, Ordering::Relaxed);
        waits
    });
    let longest = waits.iter().max().unwrap();
    eprintln!(
        "{} turns, all stored, {longest:?} at most; {read:?} reads",
        waits.len()
    );
    assert!(read.into_inner() > 0 && waits.len() > 3);
}
