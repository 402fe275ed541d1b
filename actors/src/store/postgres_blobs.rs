//! Locks of PostgreSQL: of who relies on large data and who removes it at the same time, and of who asks
//! whether responses can be written.

use std::collections::HashSet;

use diesel::{ExpressionMethods as _, QueryDsl as _, QueryResult};
use diesel_async::{RunQueryDsl as _, SimpleAsyncConnection as _};

use super::blobs as statements;
use super::{Connection, Failure, Pool, is_free_to_sweep, queries, transact};
use crate::store::schema::blobs;

/// Which of these blobs are there; they stay until the transaction ends. Locked in the order of their
/// keys, as those who remove them do.
pub(super) async fn present_blobs(
    connection: &mut Connection,
    owner: &str,
    hashes: &[String],
) -> QueryResult<HashSet<String>> {
    let query = blobs::table
        .filter(blobs::owner.eq(owner))
        .filter(blobs::hash.eq_any(hashes))
        .order(blobs::hash)
        .select(blobs::hash)
        .for_key_share();
    let there: Vec<String> = query.load(connection).await?;
    Ok(there.into_iter().collect())
}

/// Locks these blobs, which are in the order of their keys: who is about to rely on one waits, or has
/// done so before.
pub(super) async fn lock_blobs(
    connection: &mut Connection,
    keys: &[(String, String)],
) -> QueryResult<()> {
    for (owner, hash) in keys {
        let query = blobs::table
            .filter(blobs::owner.eq(owner))
            .filter(blobs::hash.eq(hash))
            .select(blobs::hash)
            .for_update();
        let _locked: Vec<String> = query.load(connection).await?;
    }
    Ok(())
}

/// Removes data that nothing uses; says how much was looked at. None is when another gateway sweeps.
pub(in crate::store) async fn drop_unused(pool: &Pool) -> Result<usize, Failure> {
    transact(pool, async |connection: &mut Connection| {
        if !is_free_to_sweep(connection).await? {
            return Ok(0);
        }
        statements::drop_unused(connection, queries::PURGE_BYTES).await
    })
    .await
}

/// Waits for whom a writer of responses waits for.
pub(in crate::store) async fn lock_as_writers(connection: &mut Connection) -> QueryResult<()> {
    connection
        .batch_execute("LOCK TABLE responses IN ROW EXCLUSIVE MODE")
        .await
}
