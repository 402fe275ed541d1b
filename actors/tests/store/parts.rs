//! Less than a whole chain: pages of it, single links, its weight; and a chain with a gap.
//!
//! A row that nothing may read is given a status that no version wrote: who reads it says `Corrupt`.

use vllm_responses_actors::store::messages::{StoreError, Weighed, Weight};
use vllm_responses_protocol::ids::ResponseId;

use crate::fixture::{Place, SETTINGS, Store, child, record};

/// A chain of so many links, r0 first.
async fn chain(store: &Store, links: usize) {
    store.commit(record("alice", "r0")).await.unwrap();
    for i in 1..links {
        let (id, previous) = (format!("r{i}"), format!("r{}", i - 1));
        store.commit(child("alice", &id, &previous)).await.unwrap();
    }
}

fn spoil(place: &Place, id: &str) {
    place.run(&format!(
        "UPDATE responses SET status = 'rotten' WHERE id = '{id}'"
    ));
}

/// Ids of a page, and whether it has the beginning.
async fn page(store: &Store, id: &str, range: (usize, usize)) -> (Vec<String>, bool) {
    let part = store.part("alice", id, range).await.unwrap().unwrap();
    let ids = part.links.iter().map(|link| link.id.to_string());
    (ids.collect(), part.is_beginning)
}

#[expect(clippy::cognitive_complexity, reason = "a plain list of assertions")]
pub(crate) async fn pages_of_a_chain_read_their_rows_only(place: Place) {
    let store = place.store().await;
    chain(&store, 6).await;
    spoil(&place, "r3");
    let ids = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        page(&store, "r5", (0, 2)).await,
        (ids(&["r5", "r4"]), false)
    );
    assert_eq!(
        page(&store, "r5", (3, 2)).await,
        (ids(&["r2", "r1"]), false)
    );
    assert_eq!(page(&store, "r5", (4, 2)).await, (ids(&["r1", "r0"]), true));
    assert_eq!(page(&store, "r5", (5, 9)).await, (ids(&["r0"]), true));
    assert_eq!(page(&store, "r5", (6, 9)).await, (ids(&[]), true));
    assert_eq!(
        store.part("alice", "r5", (2, 1)).await,
        Err(StoreError::Corrupt)
    );
    assert_eq!(store.part("bob", "r5", (0, 1)).await, Ok(None));
    assert_eq!(store.part("alice", "none", (0, 1)).await, Ok(None));
    assert_eq!(store.remove("alice", "r5").await, Ok(true));
    assert_eq!(store.part("alice", "r5", (0, 1)).await, Ok(None));
    assert_eq!(store.part("alice", "r5", (9, 1)).await, Ok(None));
}

#[expect(clippy::cognitive_complexity, reason = "a plain list of assertions")]
pub(crate) async fn references_read_the_rows_that_they_name(place: Place) {
    let store = place.store().await;
    chain(&store, 4).await;
    store.commit(record("bob", "b")).await.unwrap();
    spoil(&place, "r1");
    let found = |ids: Vec<&str>| Ok(ids.iter().map(ToString::to_string).collect::<Vec<_>>());
    let asked = ["r2", "none", "b", "nul\0", "r0", "r2"];
    assert_eq!(store.links("alice", &asked).await, found(vec!["r2", "r0"]));
    assert_eq!(store.links("alice", &[]).await, found(vec![]));
    assert_eq!(
        store.links("alice", &["r1"]).await,
        Err(StoreError::Corrupt)
    );
    assert_eq!(store.remove("alice", "r2").await, Ok(true));
    assert_eq!(store.links("alice", &["r2", "r3"]).await, found(vec!["r3"]));
    // More than one statement names.
    let many: Vec<String> = (0..1000).map(|i| format!("r{i}")).collect();
    let many: Vec<&str> = many
        .iter()
        .map(String::as_str)
        .filter(|id| *id != "r1")
        .collect();
    assert_eq!(store.links("alice", &many).await, found(vec!["r0", "r3"]));
}

#[expect(clippy::cognitive_complexity, reason = "a plain list of assertions")]
pub(crate) async fn a_chain_is_weighed_without_being_read(place: Place) {
    let store = place.store().await;
    chain(&store, 3).await;
    // Bytes, not characters.
    let mut wide = child("alice", "r3", "r2");
    wide.input_items = "é😀".repeat(10_000).into();
    store.commit(wide).await.unwrap();
    let of = |id: &str| Weighed::Chain(ResponseId::new(id));
    let chain = store.chain("alice", "r3").await.unwrap().unwrap();
    let weight = Weight {
        links: 4,
        bytes: chain.size(),
    };
    assert!(weight.bytes > 60_000);
    assert_eq!(store.weight("alice", of("r3")).await, Some(weight));
    spoil(&place, "r1");
    assert_eq!(store.weight("alice", of("r3")).await, Some(weight));
    assert_eq!(store.weight("bob", of("r3")).await, None);
    assert_eq!(store.weight("alice", of("none\0")).await, None);

    let some = |ids: &[&str]| Weighed::Links(ids.iter().map(|id| ResponseId::new(id)).collect());
    let own = chain.links[3].input_items.len() + chain.links[3].response.len();
    let weight = Weight {
        links: 1,
        bytes: own,
    };
    let asked = some(&["r3", "none"]);
    assert_eq!(store.weight("alice", asked).await, Some(weight));
    assert_eq!(store.weight("bob", some(&["r3"])).await, None);
    assert_eq!(store.weight("alice", some(&[])).await, None);

    let resource = |id: &str| Weighed::Resource(ResponseId::new(id));
    let weight = Weight {
        links: 1,
        bytes: chain.links[3].response.len() + SETTINGS.len(),
    };
    assert_eq!(store.weight("alice", resource("r3")).await, Some(weight));
    assert_eq!(store.weight("bob", resource("r3")).await, None);
    assert_eq!(store.weight("alice", resource("none\0")).await, None);
}

pub(crate) async fn a_missing_ancestor_is_an_error(place: Place) {
    let store = place.store().await;
    chain(&store, 4).await;
    place.run("DELETE FROM responses WHERE id = 'r1'");
    for id in ["r2", "r3"] {
        let gap = store.chain("alice", id).await;
        assert_eq!(gap, Err(StoreError::Incomplete), "{id}");
    }
    assert_eq!(store.chain_ids("alice", "r0").await, ["r0"]);
    assert_eq!(page(&store, "r3", (0, 2)).await.0, ["r3", "r2"]);
    let behind = store.part("alice", "r3", (0, 3)).await;
    assert_eq!(behind, Err(StoreError::Incomplete));
    // Each response is still there by itself.
    assert!(store.fetch("alice", "r3").await.unwrap().is_some());
}

pub(crate) async fn a_chain_of_too_many_links_is_an_error_of_its_own(place: Place) {
    let store = place.store().await;
    store.commit(record("alice", "r0")).await.unwrap();
    place.run(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10001) \
         INSERT INTO responses (id, previous_response_id, owner, model, status, created_at, \
         input_items, response, settings_hash, schema_version) \
         SELECT 'r' || i, 'r' || (i - 1), owner, model, status, created_at, '[]', \
         '{\"output\":[]}', settings_hash, schema_version FROM n, responses WHERE id = 'r0'",
    );
    let longest = store.chain("alice", "r9999").await.unwrap().unwrap();
    assert_eq!(longest.links.len(), 10_000);
    for id in ["r10000", "r10001"] {
        let chain = store.chain("alice", id).await.map(drop_links);
        assert_eq!(chain, Err(StoreError::TooLong), "{id}");
    }
}

/// Keeps a failed assertion short.
fn drop_links(chain: Option<vllm_responses_protocol::record::Chain>) -> Option<usize> {
    chain.map(|chain| chain.links.len())
}
