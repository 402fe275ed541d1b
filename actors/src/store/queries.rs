//! The statements, one function each, named for their purpose. SQL is portable.
//!
//! This text is compiled twice, as a module of `sqlite` and of `postgres`: diesel's traits differ per
//! database, and one generic function would need a page of bounds. The parent says what `Connection`
//! and `Database` are; its `settled` makes a future of what a statement gives, ready at once on SQLite.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use diesel::QueryResult;
use diesel::dsl::{auto_type, exists, not};
use diesel::prelude::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods,
    OptionalExtension, QueryDsl,
};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::Bool;
use vllm_responses_protocol::ids::{Owner, ResponseId};

use super::chains::octet_length;
use super::{
    Connection, RunQueryDsl, UNUSED, blobs, deletions, insert_responses, insert_settings, settled,
};
use crate::store::rows::{ApprovalRow, DeadRow, Prepared, PurgedRow, StoredRow};
use crate::store::schema::{approvals, cache_epoch, responses, seal_key, settings};
use crate::store::writer::{Attempt, Purged, What};

diesel::alias!(responses as children: Children);

/// What makes a response live. Nothing else decides it.
#[auto_type]
pub(in crate::store) fn live(now_ms: i64) -> _ {
    responses::deleted_at.is_null().and(
        responses::expires_at
            .is_null()
            .or(responses::expires_at.gt(now_ms)),
    )
}

/// One live response with its settings.
pub(in crate::store) async fn fetch(
    connection: &mut Connection,
    owner: &Owner,
    id: &ResponseId,
    now_ms: i64,
) -> QueryResult<Option<StoredRow>> {
    let query = responses::table
        .inner_join(
            settings::table.on(settings::owner
                .eq(responses::owner)
                .and(settings::hash.eq(responses::settings_hash))),
        )
        .filter(responses::id.eq(id.as_str()))
        .filter(responses::owner.eq(owner.as_str()))
        .filter(live(now_ms))
        .select((responses::response, settings::json));
    settled(query.first(connection)).await.optional()
}

/// Writes a group, what is new first; says of each write whether it changed something. To be called in
/// a transaction.
pub(in crate::store) async fn write_all(
    connection: &mut Connection,
    group: &[Arc<What>],
    attempt: Attempt,
) -> QueryResult<Vec<bool>> {
    let new: Vec<&Prepared> = group
        .iter()
        .filter_map(|what| what.new_response())
        .collect();
    if !new.is_empty() {
        insert(connection, &new).await?;
    }
    let mut changed = Vec::with_capacity(group.len());
    for what in group {
        changed.push(match &**what {
            What::Insert(_) => true,
            What::Delete { owner, id, now_ms } => {
                delete(connection, (owner, id), *now_ms, attempt).await?
            }
            What::BeginEpoch(word) => {
                begin_epoch(connection, word).await?;
                true
            }
            What::OfferSealKey(digits) => offer_seal_key(connection, digits.expose()).await?,
            What::Claim(rows) => claim(connection, rows).await?,
        });
    }
    Ok(changed)
}

/// Inserts responses and what of their settings and data is not there.
///
/// An asker who got no answer may ask again: the same response of the same owner, already there, is
/// left as it is, deleted or not. Any other response under a taken id is a unique violation.
async fn insert(connection: &mut Connection, new: &[&Prepared]) -> QueryResult<()> {
    let mut inserted = insert_responses(connection, new).await?;
    for one in new {
        // An id that stands twice in a group was taken by the first.
        if !inserted.remove(one.parts().0.id.as_str()) && !is_there(connection, one).await? {
            return Err(DieselError::DatabaseError(
                DatabaseErrorKind::UniqueViolation,
                Box::new("another response has this id".to_owned()),
            ));
        }
    }
    // Most of a group shares its settings. In one order everywhere: two gateways that insert the same
    // new settings wait for each other, and must not do so in a circle.
    let settings: BTreeMap<_, _> = new.iter().map(|one| (one.settings_key(), *one)).collect();
    let settings: Vec<&Prepared> = settings.into_values().collect();
    insert_settings(connection, &settings).await?;
    blobs::keep(connection, new).await
}

/// Whether this very response is kept already.
async fn is_there(connection: &mut Connection, new: &Prepared) -> QueryResult<bool> {
    let (record, settings_hash) = new.parts();
    let same = responses::table
        .filter(responses::id.eq(record.id.as_str()))
        .filter(responses::owner.eq(record.owner.as_str()))
        .filter(responses::response.eq(&*record.response))
        .filter(responses::input_items.eq(&*record.input_items))
        .filter(responses::settings_hash.eq(settings_hash));
    settled(diesel::select(exists(same)).get_result(connection)).await
}

/// Marks a live response as deleted; says whether there was one. Its expiry moves too, so that one
/// index finds all that may be purged.
async fn delete(
    connection: &mut Connection,
    (owner, id): (&Owner, &ResponseId),
    now_ms: i64,
    attempt: Attempt,
) -> QueryResult<bool> {
    let mine = responses::table
        .filter(responses::id.eq(id.as_str()))
        .filter(responses::owner.eq(owner.as_str()));
    let mark = (
        responses::deleted_at.eq(now_ms),
        responses::expires_at.eq(now_ms),
    );
    let statement = diesel::update(mine.filter(live(now_ms))).set(mark);
    let changed = settled(statement.execute(connection)).await? > 0;
    if changed || attempt == Attempt::First {
        return Ok(changed);
    }
    // The first attempt may have been committed although its connection broke.
    let done = mine.filter(responses::deleted_at.eq(now_ms));
    settled(diesel::select(exists(done)).get_result(connection)).await
}

/// Responses that ended before `before_ms`, in the order of their end, behind `after`.
pub(in crate::store) async fn dead(
    connection: &mut Connection,
    (ended, id): (i64, &str),
    before_ms: i64,
    limit: i64,
) -> QueryResult<Vec<DeadRow>> {
    let children_of = children.filter(
        children
            .field(responses::previous_response_id)
            .eq(responses::id.nullable()),
    );
    let behind = responses::expires_at
        .gt(ended)
        .or(responses::expires_at.eq(ended).and(responses::id.gt(id)));
    let query = responses::table
        .filter(responses::expires_at.ge(ended))
        .filter(responses::expires_at.lt(before_ms))
        .filter(behind)
        .order((responses::expires_at, responses::id))
        .limit(limit)
        .select((
            responses::expires_at.assume_not_null(),
            responses::id,
            exists(children_of),
        ));
    settled(query.load(connection)).await
}

/// Removes these responses where they ended before `before_ms` and nothing continues them, then their
/// ancestors for the same reason, until `most` rows were tried or [`PURGE_BYTES`] went. To be called in
/// a transaction.
pub(in crate::store) async fn purge(
    connection: &mut Connection,
    mut ids: Vec<String>,
    before_ms: i64,
    most: usize,
) -> QueryResult<Purged> {
    let mut purged = Purged::default();
    let (mut tries, mut room) = (most, PURGE_BYTES);
    deletions::forget(connection, before_ms).await?;
    while tries > 0 && !ids.is_empty() {
        let candidates = ids.split_off(ids.len().saturating_sub(tries));
        tries -= candidates.len();
        let (batch, left) = within(connection, candidates, &mut room).await?;
        if batch.is_empty() {
            ids.extend(left);
            break;
        }
        deletions::note(connection, &batch, before_ms).await?;
        let gone = purge_leaves(connection, &batch, before_ms).await?;
        let went: Vec<String> = gone.iter().map(|row| row.id.clone()).collect();
        blobs::let_go(connection, &went).await?;
        for row in gone {
            purged.rows += 1;
            purged.settings.insert((row.owner, row.settings_hash));
            ids.extend(row.previous_response_id);
        }
        ids.extend(left);
    }
    purged.left = ids;
    Ok(purged)
}

/// Most bytes of the rows that one transaction removes; a row that has more goes alone. In SQLite they
/// are overwritten, while nobody else can write.
pub(in crate::store) const PURGE_BYTES: i64 = 8 << 20;

/// Splits these responses into those that there is room for, and the others.
async fn within(
    connection: &mut Connection,
    ids: Vec<String>,
    room: &mut i64,
) -> QueryResult<(Vec<String>, Vec<String>)> {
    let sizes = responses::table.filter(responses::id.eq_any(&ids)).select((
        responses::id,
        octet_length(responses::input_items),
        octet_length(responses::response),
    ));
    let sizes: Vec<(String, i32, i32)> = settled(sizes.load(connection)).await?;
    let sizes: HashMap<String, i64> = sizes
        .into_iter()
        .map(|(id, taken, made)| (id, i64::from(taken) + i64::from(made)))
        .collect();
    Ok(ids.into_iter().partition(|id| {
        let size = sizes.get(id).copied().unwrap_or_default();
        let is_first = *room == PURGE_BYTES;
        let fits = is_first || size <= *room;
        if fits {
            *room -= size.max(1);
        }
        fits
    }))
}

/// Removes those of these responses that ended before `before_ms` and that nothing continues.
async fn purge_leaves(
    connection: &mut Connection,
    ids: &[String],
    before_ms: i64,
) -> QueryResult<Vec<PurgedRow>> {
    let children_of = children.filter(
        children
            .field(responses::previous_response_id)
            .eq(responses::id.nullable()),
    );
    let leaves = responses::table
        .filter(responses::id.eq_any(ids))
        .filter(responses::expires_at.lt(before_ms))
        .filter(not(exists(children_of)));
    let statement = diesel::delete(leaves).returning((
        responses::id,
        responses::previous_response_id,
        responses::owner,
        responses::settings_hash,
    ));
    settled(statement.get_results(connection)).await
}

/// Removes those of these settings (owner, hash) that no response has any more. To be called while
/// nobody else can write settings: one who finds them there would rely on them.
pub(in crate::store) async fn drop_settings(
    connection: &mut Connection,
    candidates: &HashSet<(String, String)>,
) -> QueryResult<()> {
    // One statement for all: a pair that is none of them and that nobody uses may go as well.
    let owners = candidates.iter().map(|(owner, _)| owner);
    let hashes = candidates.iter().map(|(_, hash)| hash);
    let unused = settings::table
        .filter(settings::owner.eq_any(owners.collect::<HashSet<_>>()))
        .filter(settings::hash.eq_any(hashes.collect::<HashSet<_>>()))
        .filter(diesel::dsl::sql::<Bool>(UNUSED));
    settled(diesel::delete(unused).execute(connection))
        .await
        .map(drop)
}

/// The settings of a response, live or not; its chain was found, so it is there.
pub(in crate::store) async fn settings_of(
    connection: &mut Connection,
    owner: &Owner,
    id: &ResponseId,
) -> QueryResult<String> {
    let query = responses::table
        .inner_join(
            settings::table.on(settings::owner
                .eq(responses::owner)
                .and(settings::hash.eq(responses::settings_hash))),
        )
        .filter(responses::id.eq(id.as_str()))
        .filter(responses::owner.eq(owner.as_str()))
        .select(settings::json);
    settled(query.first(connection)).await
}

/// There is one row, since there is one generation of cache entries.
const EPOCH_ROW: i32 = 1;
/// The row of [`try_write`], which is no generation.
const TRIED_ROW: i32 = 2;

/// The word of the present generation of cache entries.
pub(in crate::store) async fn epoch(connection: &mut Connection) -> QueryResult<Option<String>> {
    let query = cache_epoch::table.find(EPOCH_ROW).select(cache_epoch::word);
    settled(query.first(connection)).await.optional()
}

/// Looks for a response that no id names, to see whether responses can be read.
pub(in crate::store) async fn try_read(connection: &mut Connection) -> QueryResult<bool> {
    let nobody = responses::table.filter(responses::id.eq(""));
    settled(diesel::select(exists(nobody)).get_result(connection)).await
}

/// Begins a new generation of cache entries.
async fn begin_epoch(connection: &mut Connection, word: &str) -> QueryResult<()> {
    let statement = diesel::insert_into(cache_epoch::table)
        .values((cache_epoch::id.eq(EPOCH_ROW), cache_epoch::word.eq(word)))
        .on_conflict(cache_epoch::id)
        .do_update()
        .set(cache_epoch::word.eq(word));
    settled(statement.execute(connection)).await.map(drop)
}

/// There is one row: every gateway on this database seals with the same key.
const SEAL_KEY_ROW: i32 = 1;

/// The key that seals reasoning.
pub(in crate::store) async fn seal_key(connection: &mut Connection) -> QueryResult<Option<String>> {
    let query = seal_key::table.find(SEAL_KEY_ROW).select(seal_key::digits);
    settled(query.first(connection)).await.optional()
}

/// Keeps this key if there is none; says whether it is now the one.
async fn offer_seal_key(connection: &mut Connection, digits: &str) -> QueryResult<bool> {
    let statement = diesel::insert_into(seal_key::table)
        .values((seal_key::id.eq(SEAL_KEY_ROW), seal_key::digits.eq(digits)))
        .on_conflict_do_nothing();
    Ok(settled(statement.execute(connection)).await? > 0)
}

/// Takes these approvals for the response that their rows name, all or none; says whether it has them.
/// One that is taken already by an attempt whose answer was lost is its own.
async fn claim(connection: &mut Connection, rows: &[ApprovalRow]) -> QueryResult<bool> {
    for row in rows {
        let statement = diesel::insert_into(approvals::table)
            .values(row)
            .on_conflict_do_nothing();
        if settled(statement.execute(connection)).await? > 0 {
            continue;
        }
        let mine = approvals::table
            .find((&row.owner, &row.request))
            .filter(approvals::response.eq(&row.response));
        if settled(diesel::select(exists(mine)).get_result::<bool>(connection)).await? {
            continue;
        }
        let taken = approvals::table
            .filter(approvals::owner.eq(&row.owner))
            .filter(approvals::request.eq_any(rows.iter().map(|row| &row.request)))
            .filter(approvals::response.eq(&row.response));
        settled(diesel::delete(taken).execute(connection)).await?;
        return Ok(false);
    }
    Ok(true)
}

/// A page of the approvals before this time, oldest first, behind `after`; with each, whether its
/// conversation is stored. Keys are looked up page by page: a join over all would read both tables.
pub(in crate::store) async fn old_claims(
    connection: &mut Connection,
    (claimed, owner, request): (i64, &str, &str),
    before_ms: i64,
    limit: i64,
) -> QueryResult<Vec<(ApprovalRow, bool)>> {
    let behind = approvals::claimed_at
        .gt(claimed)
        .or(approvals::claimed_at.eq(claimed).and(
            approvals::owner.gt(owner).or(approvals::owner
                .eq(owner)
                .and(approvals::request.gt(request))),
        ));
    let query = approvals::table
        // Said by itself, it begins the walk along the index.
        .filter(approvals::claimed_at.ge(claimed))
        .filter(approvals::claimed_at.lt(before_ms))
        .filter(behind)
        .order((approvals::claimed_at, approvals::owner, approvals::request))
        .limit(limit);
    let page: Vec<ApprovalRow> = settled(query.load(connection)).await?;
    let origins: HashSet<&str> = page.iter().map(|row| row.origin.as_str()).collect();
    let kept = responses::table
        .filter(responses::id.eq_any(origins))
        .select(responses::id);
    let kept: Vec<String> = settled(kept.load(connection)).await?;
    let kept: HashSet<String> = kept.into_iter().collect();
    let flagged = page.into_iter().map(|row| {
        let is_kept = kept.contains(&row.origin);
        (row, is_kept)
    });
    Ok(flagged.collect())
}

/// Removes these approvals. To be called in a transaction.
pub(in crate::store) async fn forget_claims(
    connection: &mut Connection,
    claims: &[ApprovalRow],
) -> QueryResult<()> {
    for row in claims {
        let old = approvals::table.find((&row.owner, &row.request));
        settled(diesel::delete(old).execute(connection)).await?;
    }
    Ok(())
}

/// Writes a row that nobody reads, to see whether anything can be written.
pub(in crate::store) async fn try_write(connection: &mut Connection) -> QueryResult<()> {
    let row = (cache_epoch::id.eq(TRIED_ROW), cache_epoch::word.eq("tried"));
    let statement = diesel::insert_into(cache_epoch::table)
        .values(row)
        .on_conflict(cache_epoch::id)
        .do_update()
        .set(cache_epoch::word.eq("tried"));
    settled(statement.execute(connection)).await.map(drop)
}
