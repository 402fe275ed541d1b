//! The statements of the `db` commands: they look at whole tables. Compiled twice, as `queries` is.

use diesel::QueryResult;
use diesel::dsl::{count_star, min};
use diesel::prelude::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, QueryDsl,
};
use diesel::sql_types::Text;

use super::chains::octet_length;
use super::queries::live;
use super::{Connection, RunQueryDsl, blobs, deletions, put_rows, settled};
use crate::store::rows::{ApprovalRow, HeadRow, KeptRow, SettingsRow, UseRow};
use crate::store::schema::{approvals, responses, settings};

/// How many responses there are, are live, were deleted, and when the oldest was made.
pub(in crate::store) async fn census(
    connection: &mut Connection,
    now_ms: i64,
) -> QueryResult<(i64, i64, i64, Option<i64>)> {
    let all = responses::table.select((count_star(), min(responses::created_at)));
    let (rows, oldest) = settled(all.first::<(i64, Option<i64>)>(connection)).await?;
    let living = responses::table.filter(live(now_ms)).select(count_star());
    let living = settled(living.first(connection)).await?;
    let deleted = responses::table
        .filter(responses::deleted_at.is_not_null())
        .select(count_star());
    let deleted = settled(deleted.first(connection)).await?;
    Ok((rows, living, deleted, oldest))
}

/// Gives everything that has no owner to this one. To be called in a transaction.
pub(in crate::store) async fn adopt(connection: &mut Connection, name: &str) -> QueryResult<usize> {
    let settings_too = diesel::sql_query(
        "INSERT INTO settings (owner, hash, json) SELECT $1, hash, json FROM settings AS theirs \
         WHERE owner = '' AND NOT EXISTS \
         (SELECT 1 FROM settings AS mine WHERE mine.owner = $1 AND mine.hash = theirs.hash)",
    )
    .bind::<Text, _>(name);
    settled(settings_too.execute(connection)).await?;
    let ownerless = diesel::update(responses::table.filter(responses::owner.eq("")));
    let adopted = settled(ownerless.set(responses::owner.eq(name)).execute(connection)).await?;
    // An approval that the new owner gave under the same id was another's: what is left is void.
    let approved = diesel::sql_query(
        "UPDATE approvals SET owner = $1 WHERE owner = '' AND NOT EXISTS \
         (SELECT 1 FROM approvals AS mine WHERE mine.owner = $1 AND mine.request = approvals.request)",
    )
    .bind::<Text, _>(name);
    settled(approved.execute(connection)).await?;
    blobs::adopt(connection, name).await?;
    let left = diesel::delete(settings::table.filter(settings::owner.eq("")));
    settled(left.execute(connection)).await?;
    // What caches know of the ownerless ones is void.
    deletions::void_caches(connection).await?;
    Ok(adopted)
}

/// What is known of responses before they are read, behind `after`, in the order of their ids.
pub(in crate::store) async fn heads(
    connection: &mut Connection,
    after: &str,
    limit: i64,
) -> QueryResult<Vec<HeadRow>> {
    let query = responses::table
        .left_join(
            settings::table.on(settings::owner
                .eq(responses::owner)
                .and(settings::hash.eq(responses::settings_hash))),
        )
        .filter(responses::id.gt(after))
        .order(responses::id)
        .limit(limit)
        .select((
            responses::id,
            responses::owner,
            responses::settings_hash,
            octet_length(responses::input_items),
            octet_length(responses::response),
            octet_length(settings::json).nullable(),
        ));
    settled(query.load(connection)).await
}

/// Ids of those of these responses that are there, and the bytes of their texts.
pub(in crate::store) async fn weights(
    connection: &mut Connection,
    ids: &[String],
) -> QueryResult<Vec<(String, i32, i32)>> {
    let query = responses::table.filter(responses::id.eq_any(ids)).select((
        responses::id,
        octet_length(responses::input_items),
        octet_length(responses::response),
    ));
    settled(query.load(connection)).await
}

/// Live responses behind `after`, in the order of their ids.
pub(in crate::store) async fn living(
    connection: &mut Connection,
    after: &str,
    now_ms: i64,
    limit: i64,
) -> QueryResult<Vec<String>> {
    let query = responses::table
        .filter(responses::id.gt(after))
        .filter(live(now_ms))
        .order(responses::id)
        .limit(limit)
        .select(responses::id);
    settled(query.load(connection)).await
}

/// Those of these responses that are there.
pub(in crate::store) async fn some(
    connection: &mut Connection,
    ids: &[String],
) -> QueryResult<Vec<KeptRow>> {
    let query = responses::table.filter(responses::id.eq_any(ids));
    settled(query.load(connection)).await
}

/// This owner's settings of these hashes.
pub(in crate::store) async fn some_settings(
    connection: &mut Connection,
    owner: &str,
    hashes: &[&str],
) -> QueryResult<Vec<SettingsRow>> {
    let query = settings::table
        .filter(settings::owner.eq(owner))
        .filter(settings::hash.eq_any(hashes));
    settled(query.load(connection)).await
}

/// Puts these rows in as they are; of a response that is there, what changes in a row's life is brought
/// up to date; one that was deleted stays deleted. To be called in a transaction.
pub(in crate::store) async fn put(
    connection: &mut Connection,
    rows: &[KeptRow],
    their_settings: &[SettingsRow],
    uses: &[UseRow],
) -> QueryResult<()> {
    for row in their_settings {
        let statement = diesel::insert_into(settings::table)
            .values(row)
            .on_conflict_do_nothing();
        settled(statement.execute(connection)).await?;
    }
    if rows.is_empty() {
        return Ok(());
    }
    put_rows(connection, rows).await?;
    if rows.iter().any(|row| row.deleted_at.is_some()) {
        deletions::void_caches(connection).await?;
    }
    blobs::put_uses(connection, uses).await
}

/// Approvals behind `after`, in the order of their keys.
pub(in crate::store) async fn approvals(
    connection: &mut Connection,
    (owner, request): (&str, &str),
    limit: i64,
) -> QueryResult<Vec<ApprovalRow>> {
    let behind = approvals::owner.gt(owner).or(approvals::owner
        .eq(owner)
        .and(approvals::request.gt(request)));
    let query = approvals::table
        .filter(behind)
        .order((approvals::owner, approvals::request))
        .limit(limit);
    settled(query.load(connection)).await
}

/// Puts these approvals in where they are not there; says how many were not.
pub(in crate::store) async fn put_approvals(
    connection: &mut Connection,
    rows: &[ApprovalRow],
) -> QueryResult<usize> {
    let mut put = 0;
    for row in rows {
        let statement = diesel::insert_into(approvals::table)
            .values(row)
            .on_conflict_do_nothing();
        put += settled(statement.execute(connection)).await?;
    }
    Ok(put)
}
