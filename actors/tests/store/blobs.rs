//! Large data of conversations: kept once, there as long as a response refers to it, gone afterwards.
//!
//! Mutations to try: data without its owner in the key; a sweep that looks for uses in the statement that
//! locks (PostgreSQL); no lock for who relies on data (PostgreSQL); uses that outlive their response.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use vllm_responses_actors::store::messages::{CHUNK, StoreError};
use vllm_responses_actors::store::settings::StoreSettings;
use vllm_responses_protocol::blob::{Blob, BlobRef, Marks, Piece};
use vllm_responses_protocol::record::Record;
use vllm_responses_protocol::responses::item::CodeOutputs;

use crate::fixture::{Place, Store, open, record};

const MARKS: Marks = Marks::new(0x00c0_ffee);
/// Ended long ago, in Unix milliseconds.
const PAST: i64 = 1_700_000_002_000;
const BLOBS: &str = "SELECT count(*) AS n FROM blobs";
const CHUNKS: &str = "SELECT count(*) AS n FROM blob_chunks";
const USES: &str = "SELECT count(*) AS n FROM blob_uses";

/// Data of so many bytes, another for each letter.
fn data(letter: char, bytes: usize) -> String {
    letter.to_string().repeat(bytes)
}

/// A response whose input has this data, as it is whole.
fn with(owner: &str, id: &str, data: &str) -> Record {
    Record {
        input_items: format!(r#"[{{"id":"msg_{id}","image_url":"data:image/png;base64,{data}"}}]"#)
            .into(),
        ..record(owner, id)
    }
}

fn stored(whole: Record) -> Record {
    *MARKS.store(Box::new(whole))
}

/// A marked text with its data, as the store has it.
async fn whole(store: &Store, owner: &str, marked: &str) -> Option<String> {
    let mut whole = String::new();
    for piece in MARKS.cut(marked.as_bytes()) {
        match piece {
            Piece::Text(range) => whole.push_str(marked.get(range).unwrap_or_default()),
            Piece::Blob(blob) => whole.push_str(&read(store, owner, blob).await?),
        }
    }
    Some(whole)
}

async fn read(store: &Store, owner: &str, blob: BlobRef) -> Option<String> {
    let mut data = String::new();
    let mut position = 0;
    while data.len() < blob.bytes() {
        let chunk = store.chunk(owner, blob, position).await.unwrap()?;
        assert!(!chunk.is_empty() && chunk.len() <= CHUNK);
        data.push_str(std::str::from_utf8(&chunk).unwrap());
        position += 1;
    }
    assert_eq!(store.chunk(owner, blob, position).await.unwrap(), None);
    Some(data)
}

/// The input of a response, whole.
async fn input(store: &Store, owner: &str, id: &str) -> Option<String> {
    let chain = store.chain(owner, id).await.unwrap()?;
    let last = chain.links.last()?;
    whole(store, owner, &MARKS.read(&last.input_items)).await
}

pub(crate) async fn data_is_kept_once_and_comes_back(place: Place) {
    let store = place.store().await;
    let picture = data('A', 3 * CHUNK + 17);
    let sent = with("alice", "r0", &picture);
    let again = with("alice", "r1", &picture);
    let theirs = with("bob", "r2", &picture);
    for record in [&sent, &again, &theirs] {
        store.commit(stored(record.clone())).await.unwrap();
        // An asker who got no answer asks again.
        store.commit(stored(record.clone())).await.unwrap();
        let (owner, id) = (record.owner.as_str(), record.id.as_str());
        let input = input(&store, owner, id).await;
        assert_eq!(input.as_deref(), Some(&*record.input_items));
    }
    assert_eq!(
        (
            place.number(BLOBS),
            place.number(CHUNKS),
            place.number(USES)
        ),
        (2, 8, 3)
    );
    assert_eq!(
        place.number("SELECT count(*) AS n FROM responses WHERE octet_length(input_items) > 500"),
        0
    );
    let blob = BlobRef::of(&picture);
    assert_eq!(store.chunk("carol", blob, 0).await.unwrap(), None);
    assert_eq!(store.chunk("alice", blob, 4).await.unwrap(), None);
}

pub(crate) async fn data_of_answers_comes_back_too(place: Place) {
    let store = place.store().await;
    let url = format!("data:image/png;base64,{}", data('B', 100_000));
    let response = format!(r#"{{"id":"r0","output":[{{"images":["{url}","{url}"]}}]}}"#);
    let sent = Record {
        response: response.clone().into(),
        ..record("alice", "r0")
    };
    store.commit(stored(sent)).await.unwrap();
    let kept = store.fetch("alice", "r0").await.unwrap().unwrap();
    assert!(kept.response.len() < 500);
    let shown = kept.resource(CodeOutputs::Shown, MARKS);
    let shown = whole(&store, "alice", &shown).await.unwrap();
    assert!(shown.starts_with(response.strip_suffix('}').unwrap()));
    assert_eq!(place.number(BLOBS), 1);
}

/// A store that sweeps all the time.
async fn sweeping(place: &Place) -> Store {
    let settings = StoreSettings {
        purge_interval: Some(Duration::from_millis(20)),
        ..place.settings()
    };
    open(settings).await.unwrap()
}

async fn settles_at(place: &Place, what: &str, left: i64) {
    let started = Instant::now();
    while place.number(what) != left {
        let late = started.elapsed() > Duration::from_secs(30);
        assert!(!late, "{} of {left}: {what}", place.number(what));
        actix_rt::time::sleep(Duration::from_millis(50)).await;
    }
}

fn ended(new: Record) -> Record {
    Record {
        expires_at_ms: Some(PAST),
        ..new
    }
}

pub(crate) async fn data_goes_with_its_last_response(place: Place) {
    let store = place.store().await;
    let (shared, own) = (data('A', 100_000), data('B', 12 * CHUNK));
    for record in [
        ended(with("alice", "gone", &shared)),
        with("alice", "kept", &shared),
        ended(with("bob", "theirs", &shared)),
        ended(with("alice", "large", &own)),
    ] {
        store.commit(stored(record)).await.unwrap();
    }
    let _sweeping = sweeping(&place).await;
    settles_at(&place, BLOBS, 1).await;
    assert_eq!((place.number(CHUNKS), place.number(USES)), (1, 1));
    assert!(input(&store, "alice", "kept").await.is_some());
    if let Place::Sqlite(_) = place {
        store.close().await;
        let file = std::fs::read(place.file()).unwrap();
        let holds = |text: &str| file.windows(64).any(|part| part == &text.as_bytes()[..64]);
        assert!(holds(&shared) && !holds(&own), "what went is overwritten");
    }
}

pub(crate) async fn a_response_whose_data_is_gone_fails_alone(place: Place) {
    let store = place.store().await;
    let lost = Record {
        blobs: vec![Blob {
            at: BlobRef::of("never stored"),
            data: None,
        }],
        ..record("alice", "lost")
    };
    let others = (0..20).map(|i| record("alice", &format!("r{i}")));
    let writes = others.chain([lost]).map(|record| store.commit(record));
    let mut outcomes = join_all(writes).await;
    let failed = outcomes.pop();
    assert!(
        matches!(&failed, Some(Err(StoreError::Unavailable(words))) if words.contains("not stored any more")),
        "{failed:?}"
    );
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(store.fetch("alice", "lost").await.unwrap().is_none());
}

/// Each picture of the round is there; two responses of three are deleted, so that the next round finds
/// it in use, or just removed.
async fn look_and_delete((first, second): (&Store, &Store), pictures: &[String], round: usize) {
    for (i, picture) in pictures.iter().enumerate() {
        for kind in ["a", "b"] {
            let id = format!("{kind}_{round}_{i}");
            let there = input(first, "alice", &id).await.unwrap();
            assert!(there.contains(picture), "{id}");
            if !(round + i).is_multiple_of(3) {
                assert!(second.remove("alice", &id).await.unwrap());
            }
        }
    }
}

/// Two gateways store the same pictures again and again while a third removes those that went.
pub(crate) async fn stored_and_swept_at_once_nothing_is_lost(place: Place) {
    let (first, second) = (place.store().await, place.store().await);
    let _sweeping = sweeping(&place).await;
    let pictures: Vec<String> = ('A'..'E').map(|letter| data(letter, 70_000)).collect();
    for round in 0..12 {
        let writes = pictures.iter().enumerate().flat_map(|(i, picture)| {
            let id = |kind: &str| format!("{kind}_{round}_{i}");
            [
                (&first, ended(with("alice", &id("gone"), picture))),
                (&second, ended(with("alice", &id("went"), picture))),
                (&first, with("alice", &id("a"), picture)),
                (&second, with("alice", &id("b"), picture)),
            ]
        });
        let writes = writes.map(|(store, record)| store.commit(stored(record)));
        let outcomes = join_all(writes).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        look_and_delete((&first, &second), &pictures, round).await;
        place.run("UPDATE responses SET expires_at = 1700000002000 WHERE deleted_at IS NOT NULL");
        actix_rt::time::sleep(Duration::from_millis(20)).await;
    }
    let dangling = "SELECT count(*) AS n FROM blob_uses WHERE NOT EXISTS \
         (SELECT 1 FROM blobs WHERE blobs.owner = blob_uses.owner AND blobs.hash = blob_uses.hash)";
    assert_eq!(place.number(dangling), 0);
    place.run("UPDATE responses SET expires_at = 1700000002000");
    for table in ["responses", "blob_uses", "blobs", "blob_chunks"] {
        settles_at(&place, &format!("SELECT count(*) AS n FROM {table}"), 0).await;
    }
}
