//! D2, D3: a disk that fails at every single operation, and a loss of power at every acknowledgement.
//!
//! NORMAL in FULL's place loses what was acknowledged: a case shows it. A mutation, not tried yet, that
//! should make the group fail: a commit answered before its transaction ends.

use std::fs;

use tempfile::TempDir;
use vllm_responses_actors::store::desk::{Desk, Opening};
use vllm_responses_actors::store::messages::StoreError;
use vllm_responses_actors::store::settings::{StoreSettings, Synchronous};

use crate::fixture::{Place, Store, child, open, record, settings};
use crate::vfs::{Disk, Files, Lasts, Op, temporary_files};
use vllm_responses_protocol::record::Record;

/// What the turn was told of each write, in order.
#[derive(Debug, Default)]
struct Told {
    /// Ids whose commit was acknowledged.
    kept: Vec<&'static str>,
    /// Ids whose deletion was.
    deleted: Vec<&'static str>,
}

/// A conversation of two turns, a read of it, and a deletion. Stops at nothing.
async fn scripted_turn(store: &Store) -> Told {
    let mut told = Told::default();
    for (id, previous) in [("r1", None), ("r2", Some("r1")), ("r3", Some("r2"))] {
        let new = previous.map_or_else(|| record("alice", id), |of| child("alice", id, of));
        if store.commit(new).await.is_ok() {
            told.kept.push(id);
        }
        if let Ok(Some(chain)) = store.chain("alice", id).await {
            let last = chain.links.last().expect("a link");
            assert_eq!(last.id.as_str(), id, "a chain ends with what was asked for");
        }
    }
    if let Ok(true) = store.remove("alice", "r3").await {
        told.deleted.push("r3");
    }
    told
}

/// What was acknowledged is there, and what was deleted is not.
async fn assert_kept(store: &Store, told: &Told, context: &str) {
    for id in &told.kept {
        let stored = store.fetch("alice", id).await.unwrap();
        let gone = told.deleted.contains(id);
        assert_eq!(stored.is_none(), gone, "{context}: {id}, told {told:?}");
        if let Some(stored) = stored {
            assert_eq!(stored.response, record("alice", id).response, "{context}");
        }
    }
    if told.kept.contains(&"r2") && told.kept.contains(&"r1") {
        assert_eq!(store.chain_ids("alice", "r2").await, ["r1", "r2"]);
    }
}

/// One run with this fault; says whether the turn met it.
async fn run(op: Op, nth: u64, lasts: Lasts) -> bool {
    let place = Place::sqlite();
    let disk = Disk::under(place.file().parent().unwrap());
    let context = format!("{op:?} {nth}, {lasts:?}");
    disk.fail(op, nth, lasts);
    let opened = place.open().await;
    let told = match &opened {
        Ok(store) => scripted_turn(store).await,
        Err(_refused) => Told::default(),
    };
    let met = disk.heal() > 0;
    if let Ok(store) = &opened {
        // It works again without a restart.
        let after = store.commit(record("alice", "after")).await;
        assert_eq!(after, Ok(()), "{context}");
        assert_kept(store, &told, &context).await;
    }
    drop(opened);
    let again = place.open().await.unwrap_or_else(|error| {
        panic!("{context}: cannot be opened afterwards: {error}");
    });
    assert_kept(&again, &told, &context).await;
    assert_sound(&place, &context);
    met
}

fn assert_sound(place: &Place, context: &str) {
    let sound = "SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check = 'ok'";
    assert_eq!(place.number(sound), 1, "{context}: the file is damaged");
}

/// Every n until the whole turn passes without meeting it.
async fn every_nth(op: Op) {
    for lasts in [Lasts::Once, Lasts::On] {
        let mut nth = 1;
        while run(op, nth, lasts).await {
            nth += 1;
        }
        eprintln!("{op:?}, {lasts:?}: {} places", nth - 1);
        assert!(nth > 3, "the turn has more of {op:?} than that");
    }
}

#[actix_rt::test]
async fn d2_every_open_fails_once_and_lastingly() {
    every_nth(Op::Open).await;
}

#[actix_rt::test]
async fn d2_every_read_fails_once_and_lastingly() {
    every_nth(Op::Read).await;
}

#[actix_rt::test]
async fn d2_every_write_fails_once_and_lastingly() {
    every_nth(Op::Write).await;
}

#[actix_rt::test]
async fn d2_every_sync_fails_once_and_lastingly() {
    every_nth(Op::Sync).await;
}

/// While the disk takes nothing, writes fail and say so, and reads go on.
#[actix_rt::test]
async fn d2_a_disk_that_takes_nothing_is_told() {
    let place = Place::sqlite();
    let disk = Disk::under(place.file().parent().unwrap());
    let store = place.store().await;
    store.commit(record("alice", "before")).await.unwrap();
    disk.fail(Op::Write, 1, Lasts::On);
    for id in ["r1", "r2", "r3"] {
        let answer = store.commit(record("alice", id)).await;
        assert!(
            matches!(answer, Err(StoreError::Unavailable(_))),
            "{answer:?}"
        );
        assert!(store.fetch("alice", "before").await.unwrap().is_some());
        assert_eq!(store.fetch("alice", id).await, Ok(None));
    }
    assert!(disk.heal() > 0);
    store.commit(record("alice", "r1")).await.unwrap();
}

fn durable(synchronous: Synchronous, url: &str) -> StoreSettings {
    StoreSettings {
        synchronous,
        ..settings(url)
    }
}

/// A disk with these files, in a folder of its own.
fn written(files: &Files) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let file = folder.path().join("responses.db");
    let url = file.to_str().unwrap().to_owned();
    (folder, url)
}

/// Commits so many responses; at each acknowledgement the power goes, twice: once nothing unsynced is
/// left, once half of it. Gives how many acknowledged responses were lost.
async fn lost_at_power_cuts(synchronous: Synchronous, commits: usize) -> usize {
    let place = Place::sqlite();
    let disk = Disk::under(place.file().parent().unwrap());
    let store = open(durable(synchronous, &place.url())).await.unwrap();
    let mut cuts = Vec::new();
    for n in 0..commits {
        let id = format!("r{n}");
        store.commit(record("alice", &id)).await.unwrap();
        cuts.extend([(n, disk.synced()), (n, disk.torn())]);
    }
    let mut lost = 0;
    for (last, files) in cuts {
        let (folder, url) = written(&files);
        let after = open(durable(synchronous, &url)).await.unwrap();
        for n in 0..=last {
            let stored = after.fetch("alice", &format!("r{n}")).await.unwrap();
            lost += usize::from(stored.is_none());
        }
        drop(after);
        drop(folder);
    }
    lost
}

#[actix_rt::test]
async fn d3_full_loses_nothing_acknowledged_at_a_power_cut() {
    assert_eq!(lost_at_power_cuts(Synchronous::Full, 25).await, 0);
}

/// The default gives up the last moments, as its description says, and nothing else: every file that a
/// cut leaves can be opened. That something is lost shows that the case above can fail.
#[actix_rt::test]
async fn d3_normal_loses_only_the_last_moments_at_a_power_cut() {
    assert!(lost_at_power_cuts(Synchronous::Normal, 10).await > 0);
}

/// Temporary files stand outside the database's folder, and nobody overwrites what was in them.
#[actix_rt::test]
async fn d13_no_conversation_is_copied_to_a_temporary_file() {
    let place = Place::sqlite();
    let _disk = Disk::under(place.file().parent().unwrap());
    let store = place.store().await;
    // More than a sorter, or a statement's journal, keeps in memory.
    let megabytes = format!(r#"[{{"id":"m","text":"{}"}}]"#, "x".repeat(3 << 20));
    let large = |mut new: Record| {
        new.input_items = megabytes.as_str().into();
        new
    };
    store.commit(large(record("alice", "r0"))).await.unwrap();
    for (id, previous) in [("r1", "r0"), ("r2", "r1"), ("r3", "r2")] {
        store
            .commit(large(child("alice", id, previous)))
            .await
            .unwrap();
    }
    let chain = store.chain("alice", "r3").await.unwrap().unwrap();
    assert!(chain.size() > 12 << 20);
    for id in ["r0", "r1", "r2", "r3"] {
        assert_eq!(store.remove("alice", id).await, Ok(true));
    }
    let mut desk = Desk::open(&place.settings(), Opening::AsItIs)
        .await
        .unwrap();
    actix_rt::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(desk.purge(std::time::Duration::ZERO).await, Ok(4));
    assert_eq!(temporary_files(), 0);
}
