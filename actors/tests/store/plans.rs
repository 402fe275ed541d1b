//! How PostgreSQL runs what the sweep asks: by indexes, however many rows there are.

use std::thread;
use std::time::Duration;

use vllm_responses_actors::store::desk::{Desk, Opening};

use crate::fixture::Place;

/// A session tells what it has read at its end, and little later the server knows it.
fn settled(place: &Place, figure: &str) -> i64 {
    let (mut before, mut same) = (place.number(figure), 0);
    while same < 3 {
        thread::sleep(Duration::from_secs(1));
        let now = place.number(figure);
        same = if now == before { same + 1 } else { 0 };
        before = now;
    }
    before
}

/// Rows of many conversations under one hash, and as many old approvals.
fn fill(place: &Place, rows: u32) {
    place.run(&format!(
        "INSERT INTO settings VALUES ('alice', 'h', '{{}}'), ('bob', 'h', '{{}}'); \
         INSERT INTO responses (id, previous_response_id, owner, model, status, created_at, \
         expires_at, input_items, response, settings_hash, schema_version) \
         SELECT 'r' || i, CASE WHEN i % 10 > 0 THEN 'r' || (i - 1) END, 'alice', 'm', 'completed', i, \
         CASE WHEN i % 1000 = 0 THEN i END, '[]', '{{\"output\":[]}}', 'h', 1 \
         FROM generate_series(0, {rows}) AS i; \
         INSERT INTO approvals SELECT 'alice', 'q' || i, 'r' || i, 'r' || i, i \
         FROM generate_series(0, {rows}) AS i; ANALYZE;"
    ));
}

/// The plan, in which no table may be read from one end to the other.
fn assert_indexed(place: &Place, statement: &str) {
    let plan = place.lines(&format!("EXPLAIN {statement}"));
    for table in ["responses", "approvals"] {
        let whole = format!("Seq Scan on {table}");
        assert!(!plan.contains(&whole), "{statement}\n{plan}");
    }
    assert!(!plan.contains("Hash"), "{statement}\n{plan}");
}

async fn the_sweep_is_indexed(rows: u32) {
    let Some(place) = Place::postgres() else {
        return;
    };
    let store = place.store().await;
    fill(&place, rows);
    assert_indexed(
        &place,
        "SELECT * FROM approvals WHERE claimed_at >= 5 AND claimed_at < 100000000 \
         AND (claimed_at > 5 OR (claimed_at = 5 AND (owner > 'a' OR (owner = 'a' AND request > 'b')))) \
         ORDER BY claimed_at, owner, request LIMIT 256",
    );
    assert_indexed(
        &place,
        "SELECT id FROM responses WHERE id = ANY(ARRAY['r1', 'r2', 'r3'])",
    );
    assert_indexed(
        &place,
        "SELECT expires_at, id FROM responses WHERE expires_at < 100000000 AND (expires_at > 5 OR \
         (expires_at = 5 AND id > 'r5')) ORDER BY expires_at, id LIMIT 256",
    );
    // They are the statements of the product: it does them on the same rows.
    let links = store.chain_ids("alice", "r19").await;
    assert_eq!(links.len(), 10);
    settings_are_dropped_at_once(&place, rows).await;
}

/// Whether settings are in use is asked while nobody commits; here of an owner who has no row any more,
/// and whose settings almost everybody else has. PostgreSQL itself says how many rows it read.
async fn settings_are_dropped_at_once(place: &Place, rows: u32) {
    const READ: &str = "SELECT (sum(idx_tup_read) + (SELECT seq_tup_read FROM pg_stat_user_tables \
         WHERE relname = 'responses'))::bigint AS n FROM pg_stat_user_indexes \
         WHERE relname = 'responses'";
    // Nothing else has ended, and no approvals are old: looking after those would read rows too.
    place.run(
        "DELETE FROM approvals; UPDATE responses SET expires_at = NULL WHERE expires_at IS NOT NULL; \
         INSERT INTO responses (id, owner, model, status, created_at, expires_at, input_items, \
         response, settings_hash, schema_version) \
         VALUES ('last', 'bob', 'm', 'completed', 1, 1, '[]', '{}', 'h', 1)",
    );
    let settings = "SELECT count(*) AS n FROM settings WHERE owner = 'bob'";
    assert_eq!(place.number(settings), 1);
    let before = settled(place, READ);
    let mut desk = Desk::open(&place.settings(), Opening::AsItIs)
        .await
        .unwrap();
    desk.purge(Duration::ZERO).await.unwrap();
    drop(desk);
    assert_eq!(place.number(settings), 0, "nobody has them any more");
    let few = i64::from(rows / 4);
    let read = settled(place, READ) - before;
    eprintln!("{read} rows and entries of indexes were read");
    assert!(read < few, "{read} rows and entries were read");
}

#[actix_rt::test]
async fn the_sweep_reads_no_whole_table() {
    the_sweep_is_indexed(30_000).await;
}

#[actix_rt::test]
#[ignore = "a million rows: minutes"]
async fn full_the_sweep_reads_no_whole_table_of_a_million_rows() {
    the_sweep_is_indexed(1_000_000).await;
}

/// The version before has many rows: the index is there after the start, and was built beforehand.
#[actix_rt::test]
async fn an_index_is_built_on_a_table_that_has_rows() {
    let Some(place) = Place::postgres() else {
        return;
    };
    place.store().await;
    fill(&place, 30_000);
    place.run(
        "DROP INDEX responses_owner_settings; \
         CREATE INDEX responses_settings ON responses (settings_hash); \
         DELETE FROM __diesel_schema_migrations WHERE version = '20261129000300'",
    );
    let (one, other) = futures_util::future::join(place.open(), place.open()).await;
    let store = one.unwrap();
    other.unwrap();
    assert_eq!(store.chain_ids("alice", "r19").await.len(), 10);
    let valid = "SELECT count(*) AS n FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid \
         WHERE indisvalid AND relname IN ('responses_owner_settings', 'responses_settings')";
    assert_eq!(place.number(valid), 1);
}
