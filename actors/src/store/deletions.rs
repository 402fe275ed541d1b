//! The statements about responses that were deleted and are gone. Compiled twice, as `queries` is.
//!
//! A copy that was made before a response was deleted has it, and its row went since. The notes here
//! tell the next copy, which deletes it there too.

use std::collections::HashSet;

use diesel::prelude::{ExpressionMethods, IntoSql, QueryDsl};
use diesel::sql_types::BigInt;
use diesel::{Insertable, QueryResult};

use super::{Connection, RunQueryDsl, settled};
use crate::store::rows::DeletionRow;
use crate::store::schema::{cache_epoch, deletions, responses};

/// How long a note is kept: as long as the two steps of a copy may lie apart. Milliseconds.
pub(in crate::store) const REMEMBERED_MS: i64 = 90 * 24 * 3600 * 1000;
/// Notes forgotten with each removal: more than it makes, so that they do not add up.
const FORGOTTEN: i64 = 1024;

/// A row that is deleted in the target stays so, whatever the copy knows of it.
pub(in crate::store) const DELETED_AT: &str = "COALESCE(responses.deleted_at, excluded.deleted_at)";
/// See [`DELETED_AT`].
pub(in crate::store) const EXPIRES_AT: &str = "CASE WHEN responses.deleted_at IS NULL \
     THEN excluded.expires_at ELSE responses.expires_at END";

/// Notes that those of these responses that are deleted go. To be called in the transaction that
/// removes them, before it does.
pub(in crate::store) async fn note(
    connection: &mut Connection,
    ids: &[String],
    now_ms: i64,
) -> QueryResult<()> {
    let statement = responses::table
        .filter(responses::id.eq_any(ids))
        .filter(responses::deleted_at.is_not_null())
        .select((responses::id, now_ms.into_sql::<BigInt>()))
        .insert_into(deletions::table)
        .into_columns((deletions::id, deletions::gone_at))
        .on_conflict(deletions::id)
        .do_update()
        .set(deletions::gone_at.eq(now_ms));
    settled(statement.execute(connection)).await.map(drop)
}

/// Forgets some notes whose time is over.
pub(in crate::store) async fn forget(connection: &mut Connection, now_ms: i64) -> QueryResult<()> {
    let statement = diesel::sql_query(
        "DELETE FROM deletions WHERE id IN \
         (SELECT id FROM deletions WHERE gone_at < $1 ORDER BY gone_at LIMIT $2)",
    )
    .bind::<BigInt, _>(now_ms.saturating_sub(REMEMBERED_MS))
    .bind::<BigInt, _>(FORGOTTEN);
    settled(statement.execute(connection)).await.map(drop)
}

/// Notes behind `after`, in the order of their ids.
pub(in crate::store) async fn page(
    connection: &mut Connection,
    after: &str,
    limit: i64,
) -> QueryResult<Vec<DeletionRow>> {
    let query = deletions::table
        .filter(deletions::id.gt(after))
        .order(deletions::id)
        .limit(limit);
    settled(query.load(connection)).await
}

/// Those of these responses that a note is about.
pub(in crate::store) async fn of(
    connection: &mut Connection,
    ids: &[String],
) -> QueryResult<HashSet<String>> {
    let query = deletions::table
        .filter(deletions::id.eq_any(ids))
        .select(deletions::id);
    let ids: Vec<String> = settled(query.load(connection)).await?;
    Ok(ids.into_iter().collect())
}

/// Takes these notes over from another database, and deletes the responses that they are about; says
/// how many were not deleted yet. To be called in a transaction.
pub(in crate::store) async fn take_over(
    connection: &mut Connection,
    notes: &[DeletionRow],
) -> QueryResult<usize> {
    let mut deleted = 0;
    for note in notes {
        let statement = diesel::insert_into(deletions::table)
            .values(note)
            .on_conflict_do_nothing();
        settled(statement.execute(connection)).await?;
        let there = responses::table
            .filter(responses::id.eq(&note.id))
            .filter(responses::deleted_at.is_null());
        let mark = (
            responses::deleted_at.eq(note.gone_at),
            responses::expires_at.eq(note.gone_at),
        );
        let statement = diesel::update(there).set(mark);
        deleted += settled(statement.execute(connection)).await?;
    }
    if deleted > 0 {
        void_caches(connection).await?;
    }
    Ok(deleted)
}

/// Makes void what caches know of every response.
pub(in crate::store) async fn void_caches(connection: &mut Connection) -> QueryResult<()> {
    let statement = diesel::delete(cache_epoch::table);
    settled(statement.execute(connection)).await.map(drop)
}
