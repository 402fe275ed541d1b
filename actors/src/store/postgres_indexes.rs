//! Indexes that are built on a large table before the migration that wants them.
//!
//! A migration builds an index in its transaction, and nobody can write the table meanwhile: on millions
//! of rows that is longer than gateways of the version before wait. So it is built beforehand,
//! concurrently, which no transaction can do, and the migration finds it there.

use std::time::Duration;

use diesel::QueryResult;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _, SimpleAsyncConnection as _};

use super::Connection;
use crate::store::StoreStartError;

/// Name and definition, as in the migration.
const INDEXES: [(&str, &str); 1] = [(
    "responses_owner_settings",
    "responses (owner, settings_hash)",
)];

/// With fewer rows a migration is faster than anybody notices.
const LARGE: i64 = 20_000;
/// How often a build is begun.
const TRIES: u32 = 10;
/// Between looks at an index that another gateway builds.
const PAUSE: Duration = Duration::from_secs(1);

/// How an index stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    There,
    Missing,
    /// A build was broken off.
    Broken,
    /// Somebody builds it now.
    Growing,
}

/// Builds what is missing, where the table is large.
pub(super) async fn build_ahead(connection: &mut Connection) -> Result<(), StoreStartError> {
    // A pooler gives another session to what is outside a transaction.
    let is_large = connection
        .transaction(async |connection| is_large(connection).await)
        .await?;
    if !is_large {
        return Ok(());
    }
    for (name, definition) in INDEXES {
        let mut tries = TRIES;
        loop {
            let standing = connection
                .transaction(async |connection| standing(connection, name).await)
                .await?;
            let statement = match standing {
                Standing::There => break,
                Standing::Growing => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Standing::Broken => format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"),
                Standing::Missing => {
                    log::info!("store: building the index {name}; others go on meanwhile");
                    format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {definition}")
                }
            };
            // Two gateways that begin at once may end each other's build; then one begins anew.
            let done = connection.batch_execute(&statement).await;
            tries -= 1;
            if tries == 0 {
                return Ok(done?);
            }
            if done.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    Ok(())
}

async fn is_large(connection: &mut Connection) -> QueryResult<bool> {
    let there = diesel::dsl::sql::<Bool>("to_regclass('responses') IS NOT NULL");
    if !diesel::select(there).get_result::<bool>(connection).await? {
        return Ok(false);
    }
    let rows = format!("(SELECT count(*) FROM (SELECT 1 FROM responses LIMIT {LARGE}) AS counted)");
    let rows = diesel::select(diesel::dsl::sql::<BigInt>(&rows));
    Ok(rows.get_result::<i64>(connection).await? >= LARGE)
}

async fn standing(connection: &mut Connection, name: &str) -> QueryResult<Standing> {
    #[derive(diesel::QueryableByName)]
    struct Index {
        #[diesel(sql_type = Bool)]
        is_valid: bool,
        #[diesel(sql_type = Bool)]
        is_growing: bool,
    }
    let query = diesel::sql_query(
        "SELECT indisvalid AS is_valid, EXISTS (SELECT 1 FROM pg_stat_progress_create_index AS p \
         WHERE p.index_relid = indexrelid) AS is_growing \
         FROM pg_index WHERE indexrelid = to_regclass($1)",
    );
    let found: Vec<Index> = query.bind::<Text, _>(name).load(connection).await?;
    Ok(match found.into_iter().next() {
        None => Standing::Missing,
        Some(index) if index.is_valid => Standing::There,
        Some(index) if index.is_growing => Standing::Growing,
        Some(_) => Standing::Broken,
    })
}
