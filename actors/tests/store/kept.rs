//! What was committed comes back as it went in, once per id, at a bounded cost in bytes.

use futures_util::future::join_all;
use vllm_responses_actors::store::messages::StoreError;
use vllm_responses_protocol::blob::Marks;
use vllm_responses_protocol::record::{Link, Record, Status};
use vllm_responses_protocol::responses::item::CodeOutputs;

use crate::fixture::{Place, SETTINGS, Store, child, record};

/// Characters that text handling tends to spoil: escapes, a NUL escape, astral and combining ones.
const AWKWARD: &str =
    r#"{"id":"r1","output":[{"text":"a\u0000b \"q\" \\ é e\u0301 😀 \r\n"}],"n":1.0}"#;

pub(crate) async fn round_trip_is_byte_equal(place: Place) {
    let store = place.store().await;
    let settings = r#"{"instructions":"naïve 🦀","temperature":0.70}"#;
    let sent = Record {
        status: Status::Incomplete,
        response: AWKWARD.into(),
        input_items: r#"[{"id":"m1","text":"Ünï\tcode"}]"#.into(),
        settings: settings.into(),
        ..record("alice", "r1")
    };
    store.commit(sent.clone()).await.unwrap();

    let stored = store.fetch("alice", "r1").await.unwrap().unwrap();
    let expected = [
        AWKWARD.strip_suffix('}').unwrap(),
        ",",
        settings.strip_prefix('{').unwrap(),
    ]
    .concat();
    assert_eq!(stored.resource(CodeOutputs::Shown, Marks::new(0)), expected);

    let chain = store.chain("alice", "r1").await.unwrap().unwrap();
    let link = Link {
        id: sent.id,
        status: sent.status,
        input_items: sent.input_items,
        response: sent.response,
    };
    assert_eq!(chain.links.len(), 1);
    assert_eq!(*chain.links[0], link);

    // A second process, with no memory of the first, reads the same bytes.
    let again = place.store().await;
    assert_eq!(again.fetch("alice", "r1").await.unwrap(), Some(stored));
}

pub(crate) async fn chain_of_200_is_oldest_first(place: Place) {
    let store = place.store().await;
    store.commit(record("alice", "r0")).await.unwrap();
    for i in 1..200 {
        let (id, previous) = (format!("r{i}"), format!("r{}", i - 1));
        store.commit(child("alice", &id, &previous)).await.unwrap();
    }
    let expected: Vec<String> = (0..200).map(|i| format!("r{i}")).collect();
    assert_eq!(store.chain_ids("alice", "r199").await, expected);
    // A chain ends where it was asked to end: later turns are no part of it.
    assert_eq!(store.chain_ids("alice", "r99").await, expected[..100]);
}

/// 200 turns of one conversation, 4 KiB of tools throughout: stored in each response they alone would
/// be 0.8 MiB. The text is random, so that no compression flatters the result.
pub(crate) async fn storage_is_at_most_twice_the_content(place: Place) {
    const TURNS: usize = 200;
    /// What an empty database of this schema takes already grows in steps of pages.
    const OVERHEAD: usize = 64 * 1024;
    let store = place.store().await;
    let empty = place.bytes();
    let tools = format!(r#"{{"tools":["{}"]}}"#, noise(4096));
    let mut items = 0;
    for i in 0..TURNS {
        let id = format!("resp_{i:032x}");
        let previous = (i > 0).then(|| format!("resp_{:032x}", i - 1));
        let mut new = match &previous {
            Some(previous) => child("alice", &id, previous),
            None => record("alice", &id),
        };
        new.input_items = format!(r#"[{{"id":"m{i}","text":"{}"}}]"#, noise(300)).into();
        new.response = format!(r#"{{"id":"{id}","output":["{}"]}}"#, noise(700)).into();
        new.settings = tools.as_str().into();
        items += new.input_items.len() + new.response.len();
        store.commit(new).await.unwrap();
    }
    assert_eq!(
        place.number("SELECT count(*) AS n FROM responses"),
        i64::try_from(TURNS).unwrap()
    );
    assert_eq!(place.number("SELECT count(*) AS n FROM settings"), 1);
    let bytes = place.bytes() - empty;
    let limit = 2 * (items + tools.len()) + OVERHEAD;
    eprintln!("{bytes} bytes for {} of content", items + tools.len());
    assert!(bytes <= limit, "{bytes} bytes of at most {limit}");
}

/// Text that does not compress well.
fn noise(length: usize) -> String {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes
        .iter()
        .map(|byte| char::from(b'!' + byte % 90))
        .map(|c| if matches!(c, '"' | '\\') { 'x' } else { c })
        .collect()
}

pub(crate) async fn settings_are_kept_once_per_content_and_owner(place: Place) {
    let store = place.store().await;
    let other = r#"{"instructions":"be long"}"#;
    for (owner, id, settings) in [
        ("alice", "a1", SETTINGS),
        ("alice", "a2", SETTINGS),
        ("alice", "a3", other),
        ("bob", "b1", SETTINGS),
    ] {
        let mut new = record(owner, id);
        new.settings = settings.into();
        store.commit(new).await.unwrap();
    }
    assert_eq!(place.number("SELECT count(*) AS n FROM settings"), 3);
    let settings_of = async |owner: &str, id: &str| {
        let stored = store.fetch(owner, id).await.unwrap().unwrap();
        stored.settings.to_string()
    };
    assert_eq!(settings_of("alice", "a2").await, SETTINGS);
    assert_eq!(settings_of("alice", "a3").await, other);
    assert_eq!(settings_of("bob", "b1").await, SETTINGS);
}

pub(crate) async fn identical_retry_of_a_commit_succeeds(place: Place) {
    let store = place.store().await;
    let sent = record("alice", "r1");
    store.commit(sent.clone()).await.unwrap();
    store.commit(sent.clone()).await.unwrap();
    // Also through another process, and twice within what may be one group.
    let other = place.store().await;
    let twice = join_all([other.commit(sent.clone()), other.commit(sent.clone())]).await;
    assert_eq!(twice, [Ok(()), Ok(())]);
    assert_eq!(place.number("SELECT count(*) AS n FROM responses"), 1);

    // A retry that comes late does not bring back what was deleted.
    assert_eq!(store.remove("alice", "r1").await, Ok(true));
    store.commit(sent).await.unwrap();
    assert_eq!(store.fetch("alice", "r1").await, Ok(None));
}

pub(crate) async fn taken_id_is_refused_and_the_first_stays(place: Place) {
    let store = place.store().await;
    let first = record("alice", "r1");
    store.commit(first.clone()).await.unwrap();
    let refused = |result| {
        let is_error = matches!(result, Err(StoreError::Unavailable(_)));
        assert!(is_error, "{result:?}");
    };

    let mut other_answer = first.clone();
    other_answer.response = r#"{"id":"r1","output":["other"]}"#.into();
    refused(store.commit(other_answer).await);
    let mut other_input = first.clone();
    other_input.input_items = "[]".into();
    refused(store.commit(other_input).await);
    let mut other_settings = first.clone();
    other_settings.settings = r#"{"instructions":"other"}"#.into();
    refused(store.commit(other_settings).await);
    refused(store.commit(record("bob", "r1")).await);

    let stored = store.fetch("alice", "r1").await.unwrap().unwrap();
    assert_eq!(stored.response, first.response);
    assert_eq!(store.fetch("bob", "r1").await, Ok(None));
    // What was refused left nothing behind, settings included.
    assert_eq!(place.number("SELECT count(*) AS n FROM settings"), 1);
}

/// The lock of another program makes the writes queue up; when it goes they are one group.
pub(crate) async fn duplicate_spoils_no_other_write_of_its_group(place: Place) {
    let store = place.store().await;
    store.commit(record("alice", "taken")).await.unwrap();

    let lock = place.hold_writes(std::time::Duration::from_millis(500));
    let mut clash = record("alice", "taken");
    clash.response = r#"{"id":"taken","output":["other"]}"#.into();
    let good = |i: usize| record("alice", &format!("g{i}"));
    let mut group: Vec<Record> = (0..20).map(good).collect();
    group.insert(10, clash);
    let answers = join_all(group.into_iter().map(|new| store.commit(new))).await;
    lock.join().unwrap();

    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_ok(), i != 10, "write {i}: {answer:?}");
    }
    all_readable(&store, (0..20).map(|i| format!("g{i}"))).await;
}

/// PostgreSQL has no NUL in text, and clients send any.
pub(crate) async fn nul_in_an_id_or_a_model_is_no_fault(place: Place) {
    let store = place.store().await;
    assert_eq!(store.fetch("alice", "a\0b").await, Ok(None));
    assert_eq!(store.chain("alice", "a\0b").await, Ok(None));
    assert_eq!(store.remove("alice", "a\0b").await, Ok(false));
    let mut new = record("alice", "r1");
    new.model = "a\0model".into();
    store.commit(new).await.unwrap();
    assert!(store.fetch("alice", "r1").await.unwrap().is_some());
}

/// Every one of these ids can be fetched by alice.
pub(crate) async fn all_readable(store: &Store, ids: impl Iterator<Item = String>) {
    for id in ids {
        let stored = store.fetch("alice", &id).await.unwrap();
        assert!(stored.is_some(), "{id} is missing");
    }
}
