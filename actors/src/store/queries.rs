//! The statements, one function each, named for their purpose. SQL is portable.

use diesel::dsl::exists;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::SqliteConnection;
use vllm_responses_protocol::ids::{Owner, ResponseId};

use super::rows::{LinkRow, Prepared, StoredRow};
use super::schema::{cache_epoch, responses, settings};

/// More links than any conversation has; a longer chain is a cycle or damage, and is refused.
pub(super) const MAX_LINKS: usize = 10_000;

/// The asked-for response must be live; its ancestors only have to be there. Oldest first.
const CHAIN: &str = "\
WITH RECURSIVE chain (id, previous_response_id, depth) AS (
    SELECT id, previous_response_id, 0 FROM responses
    WHERE id = $1 AND owner = $2 AND deleted_at IS NULL
      AND (expires_at IS NULL OR expires_at > $3)
  UNION ALL
    SELECT parent.id, parent.previous_response_id, chain.depth + 1
    FROM responses AS parent JOIN chain ON parent.id = chain.previous_response_id
    WHERE parent.owner = $2 AND chain.depth < $4
)
SELECT responses.id, responses.status, responses.input_items, responses.response,
       responses.expires_at
FROM chain JOIN responses ON responses.id = chain.id
ORDER BY chain.depth DESC";

/// Inserts one response and, unless they are there, its settings.
///
/// An asker who got no answer may ask again: the same response of the same owner, already there, is
/// left as it is, deleted or not. Any other response under a taken id is a unique violation.
pub(super) fn insert(connection: &mut SqliteConnection, new: &Prepared) -> QueryResult<()> {
    let inserted = diesel::insert_into(responses::table)
        .values(new.response())
        .on_conflict_do_nothing()
        .execute(connection)?;
    if inserted == 0 {
        return if is_there(connection, new)? {
            Ok(())
        } else {
            Err(DieselError::DatabaseError(
                DatabaseErrorKind::UniqueViolation,
                Box::new("another response has this id".to_owned()),
            ))
        };
    }
    diesel::insert_into(settings::table)
        .values(new.settings())
        .on_conflict_do_nothing()
        .execute(connection)?;
    Ok(())
}

/// Whether this very response is kept already.
fn is_there(connection: &mut SqliteConnection, new: &Prepared) -> QueryResult<bool> {
    let (record, settings_hash) = new.parts();
    let same = responses::table
        .filter(responses::id.eq(record.id.as_str()))
        .filter(responses::owner.eq(record.owner.as_str()))
        .filter(responses::response.eq(&*record.response))
        .filter(responses::input_items.eq(&*record.input_items))
        .filter(responses::settings_hash.eq(settings_hash));
    diesel::select(exists(same)).get_result(connection)
}

/// Marks a live response as deleted; says whether there was one.
pub(super) fn delete(
    connection: &mut SqliteConnection,
    owner: &Owner,
    id: &ResponseId,
    now_ms: i64,
) -> QueryResult<bool> {
    let live = responses::table
        .filter(responses::id.eq(id.as_str()))
        .filter(responses::owner.eq(owner.as_str()))
        .filter(responses::deleted_at.is_null())
        .filter(
            responses::expires_at
                .is_null()
                .or(responses::expires_at.gt(now_ms)),
        );
    let changed = diesel::update(live)
        .set(responses::deleted_at.eq(now_ms))
        .execute(connection)?;
    Ok(changed > 0)
}

/// One live response with its settings.
pub(super) fn fetch(
    connection: &mut SqliteConnection,
    owner: &Owner,
    id: &ResponseId,
    now_ms: i64,
) -> QueryResult<Option<StoredRow>> {
    responses::table
        .inner_join(
            settings::table.on(settings::owner
                .eq(responses::owner)
                .and(settings::hash.eq(responses::settings_hash))),
        )
        .filter(responses::id.eq(id.as_str()))
        .filter(responses::owner.eq(owner.as_str()))
        .filter(responses::deleted_at.is_null())
        .filter(
            responses::expires_at
                .is_null()
                .or(responses::expires_at.gt(now_ms)),
        )
        .select((responses::response, settings::json))
        .first(connection)
        .optional()
}

/// The chain that ends with a live response; empty when there is none.
pub(super) fn chain(
    connection: &mut SqliteConnection,
    owner: &Owner,
    id: &ResponseId,
    now_ms: i64,
) -> QueryResult<Vec<LinkRow>> {
    diesel::sql_query(CHAIN)
        .bind::<Text, _>(id.as_str())
        .bind::<Text, _>(owner.as_str())
        .bind::<BigInt, _>(now_ms)
        .bind::<BigInt, _>(i64::try_from(MAX_LINKS).unwrap_or(i64::MAX))
        .load(connection)
}

/// The settings of a response, live or not; its chain was found, so it is there.
pub(super) fn settings_of(
    connection: &mut SqliteConnection,
    owner: &Owner,
    id: &ResponseId,
) -> QueryResult<String> {
    responses::table
        .inner_join(
            settings::table.on(settings::owner
                .eq(responses::owner)
                .and(settings::hash.eq(responses::settings_hash))),
        )
        .filter(responses::id.eq(id.as_str()))
        .filter(responses::owner.eq(owner.as_str()))
        .select(settings::json)
        .first(connection)
}

/// There is one row, since there is one generation of cache entries.
const EPOCH_ROW: i32 = 1;

/// The word of the present generation of cache entries.
pub(super) fn epoch(connection: &mut SqliteConnection) -> QueryResult<Option<String>> {
    cache_epoch::table
        .find(EPOCH_ROW)
        .select(cache_epoch::word)
        .first(connection)
        .optional()
}

/// Begins a new generation of cache entries.
pub(super) fn begin_epoch(connection: &mut SqliteConnection, word: &str) -> QueryResult<()> {
    diesel::insert_into(cache_epoch::table)
        .values((cache_epoch::id.eq(EPOCH_ROW), cache_epoch::word.eq(word)))
        .on_conflict(cache_epoch::id)
        .do_update()
        .set(cache_epoch::word.eq(word))
        .execute(connection)?;
    Ok(())
}
