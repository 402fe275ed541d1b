//! The statements about large data: what responses refer to is there as long as they are. Compiled
//! twice, as `queries` is.
//!
//! On PostgreSQL who relies on data locks its row, in the order of the keys, until its own row is
//! committed; who removes data locks it first, and looks for uses in a later statement, which sees all
//! that was committed before the lock was got.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use diesel::QueryResult;
use diesel::dsl::{exists, not};
use diesel::prelude::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use vllm_responses_protocol::blob::BlobRef;
use vllm_responses_protocol::ids::Owner;

use super::{Connection, RunQueryDsl, lock_blobs, present_blobs, settled};
use crate::store::rows::{BlobRow, Prepared, UseRow, chunks_of};
use crate::store::schema::{blob_chunks, blob_uses, blobs};

/// Data looked at in one transaction that removes.
const UNUSED: i64 = 64;
/// Most bytes of a piece.
const PIECE: usize = 64 << 10;
/// How often data is tried that comes and goes at the same moment.
const TRIES: u32 = 3;

/// A key of `blobs`, and the data where it is at hand.
type Wanted<'a> = BTreeMap<(&'a str, String), (BlobRef, Option<&'a str>)>;

/// Puts the data of these responses in where it is not there, and notes that they use it. To be called
/// in their transaction.
pub(in crate::store) async fn keep(
    connection: &mut Connection,
    new: &[&Prepared],
) -> QueryResult<()> {
    let mut wanted = Wanted::new();
    for one in new {
        let (record, _) = one.parts();
        for blob in &record.blobs {
            let key = (record.owner.as_str(), blob.at.digits());
            let (_, data) = wanted.entry(key).or_insert((blob.at, None));
            *data = data.or(blob.data.as_deref());
        }
    }
    let Some(now_ms) = new.iter().map(|one| one.parts().0.created_at_ms).max() else {
        return Ok(());
    };
    let mut tries = TRIES;
    loop {
        forget_present(connection, &mut wanted).await?;
        if wanted.is_empty() {
            break;
        }
        if tries == 0 {
            return Err(fault(
                DatabaseErrorKind::SerializationFailure,
                "data came and went",
            ));
        }
        tries -= 1;
        put_missing(connection, &mut wanted, now_ms).await?;
    }
    for one in new {
        for row in UseRow::of(one) {
            let statement = diesel::insert_into(blob_uses::table)
                .values(row)
                .on_conflict_do_nothing();
            settled(statement.execute(connection)).await?;
        }
    }
    Ok(())
}

/// Leaves what is not there; what is stays until the transaction ends.
async fn forget_present(connection: &mut Connection, wanted: &mut Wanted<'_>) -> QueryResult<()> {
    let owners: HashSet<&str> = wanted.keys().map(|(owner, _)| *owner).collect();
    let mut owners: Vec<&str> = owners.into_iter().collect();
    owners.sort_unstable();
    for owner in owners {
        let of_owner = wanted.keys().filter(|(of, _)| *of == owner);
        let hashes: Vec<String> = of_owner.map(|(_, hash)| hash.clone()).collect();
        let there = present_blobs(connection, owner, &hashes).await?;
        wanted.retain(|(of, hash), _| *of != owner || !there.contains(hash));
    }
    Ok(())
}

/// Puts in what is not there, in the order of the keys. Where another transaction did so meanwhile, its
/// data is left in `wanted`: it is to be locked.
async fn put_missing(
    connection: &mut Connection,
    wanted: &mut Wanted<'_>,
    now_ms: i64,
) -> QueryResult<()> {
    let mut put = Vec::new();
    for ((owner, hash), (blob, data)) in &*wanted {
        let Some(data) = data else {
            return Err(fault(
                DatabaseErrorKind::CheckViolation,
                "data that the response refers to is not stored any more",
            ));
        };
        let row = BlobRow::new(owner, hash, blob.bytes(), now_ms);
        if put_blob(connection, &row).await? {
            put_chunks(connection, (owner, hash), chunks_of(data)).await?;
            put.push((*owner, hash.clone()));
        }
    }
    for key in put {
        wanted.remove(&key);
    }
    Ok(())
}

/// Puts a row of `blobs` in unless it is there; says whether it was not.
pub(in crate::store) async fn put_blob(
    connection: &mut Connection,
    row: &BlobRow,
) -> QueryResult<bool> {
    let statement = diesel::insert_into(blobs::table)
        .values(row)
        .on_conflict_do_nothing();
    Ok(settled(statement.execute(connection)).await? > 0)
}

/// Puts the data behind a row of `blobs`.
pub(in crate::store) async fn put_chunks(
    connection: &mut Connection,
    (owner, hash): (&str, &str),
    chunks: impl Iterator<Item = &str>,
) -> QueryResult<()> {
    for (position, content) in (0_i32..).zip(chunks) {
        let row = (
            blob_chunks::owner.eq(owner),
            blob_chunks::hash.eq(hash),
            blob_chunks::position.eq(position),
            blob_chunks::content.eq(content),
        );
        settled(
            diesel::insert_into(blob_chunks::table)
                .values(row)
                .execute(connection),
        )
        .await?;
    }
    Ok(())
}

fn fault(kind: DatabaseErrorKind, words: &str) -> DieselError {
    DieselError::DatabaseError(kind, Box::new(words.to_owned()))
}

/// One chunk in small pieces, which other threads free: the allocator keeps what is large for the thread
/// that made it (measured: 300 MB held after 100 MB were read).
pub(in crate::store) async fn pieces(
    connection: &mut Connection,
    owner: &Owner,
    hash: &str,
    position: i32,
) -> QueryResult<Option<Vec<Bytes>>> {
    let chunk = chunk(connection, owner, hash, position).await?;
    let cut = |chunk: String| {
        let pieces = chunk.as_bytes().chunks(PIECE);
        pieces.map(Bytes::copy_from_slice).collect()
    };
    Ok(chunk.map(cut))
}

/// One chunk.
pub(in crate::store) async fn chunk(
    connection: &mut Connection,
    owner: &Owner,
    hash: &str,
    position: i32,
) -> QueryResult<Option<String>> {
    let query = blob_chunks::table
        .find((owner.as_str(), hash, position))
        .select(blob_chunks::content);
    settled(query.first(connection)).await.optional()
}

/// Notes that these responses are gone. To be called in the transaction that removes them.
pub(in crate::store) async fn let_go(
    connection: &mut Connection,
    responses: &[String],
) -> QueryResult<()> {
    let gone = blob_uses::table.filter(blob_uses::response.eq_any(responses));
    let statement = diesel::delete(gone).returning((blob_uses::owner, blob_uses::hash));
    let keys: Vec<(String, String)> = settled(statement.get_results(connection)).await?;
    let keys: HashSet<(String, String)> = keys.into_iter().collect();
    for (owner, hash) in keys {
        let users = blob_uses::table
            .filter(blob_uses::owner.eq(blobs::owner))
            .filter(blob_uses::hash.eq(blobs::hash));
        let unused = blobs::table
            .filter(blobs::owner.eq(&owner))
            .filter(blobs::hash.eq(&hash))
            .filter(not(exists(users)));
        let statement = diesel::update(unused).set(blobs::unused.eq(1));
        settled(statement.execute(connection)).await?;
    }
    Ok(())
}

/// Removes data that nothing uses, up to `most` bytes; one that has more goes alone. Says how many
/// were looked at: 0 when there is nothing left to do. To be called in a transaction.
pub(in crate::store) async fn drop_unused(
    connection: &mut Connection,
    most: i64,
) -> QueryResult<usize> {
    let query = blobs::table
        .filter(blobs::unused.eq(1))
        .order((blobs::owner, blobs::hash))
        .limit(UNUSED)
        .select((blobs::owner, blobs::hash, blobs::bytes));
    let found: Vec<(String, String, i64)> = settled(query.load(connection)).await?;
    let mut bytes: i64 = 0;
    let within = found.into_iter().take_while(|(_, _, size)| {
        let is_first = bytes == 0;
        bytes = bytes.saturating_add((*size).max(1));
        is_first || bytes <= most
    });
    let keys: Vec<(String, String)> = within.map(|(owner, hash, _)| (owner, hash)).collect();
    lock_blobs(connection, &keys).await?;
    for (owner, hash) in &keys {
        let uses = blob_uses::table
            .filter(blob_uses::owner.eq(owner))
            .filter(blob_uses::hash.eq(hash));
        let is_used: bool = settled(diesel::select(exists(uses)).get_result(connection)).await?;
        let blob = blobs::table.find((owner, hash));
        if is_used {
            let statement = diesel::update(blob).set(blobs::unused.eq(0));
            settled(statement.execute(connection)).await?;
            continue;
        }
        let chunks = blob_chunks::table
            .filter(blob_chunks::owner.eq(owner))
            .filter(blob_chunks::hash.eq(hash));
        settled(diesel::delete(chunks).execute(connection)).await?;
        settled(diesel::delete(blob).execute(connection)).await?;
    }
    Ok(keys.len())
}

/// Finds all data that nothing uses, in case that somebody lost sight of it; reads the whole table.
pub(in crate::store) async fn find_unused(connection: &mut Connection) -> QueryResult<()> {
    let users = blob_uses::table
        .filter(blob_uses::owner.eq(blobs::owner))
        .filter(blob_uses::hash.eq(blobs::hash));
    let unused = blobs::table.filter(blobs::unused.eq(0).and(not(exists(users))));
    let statement = diesel::update(unused).set(blobs::unused.eq(1));
    settled(statement.execute(connection)).await.map(drop)
}

/// How many there are, and their bytes.
pub(in crate::store) async fn census(connection: &mut Connection) -> QueryResult<(i64, i64)> {
    // A sum of large integers is no integer on PostgreSQL.
    let sum =
        diesel::dsl::sql::<diesel::sql_types::BigInt>("CAST(COALESCE(SUM(bytes), 0) AS BIGINT)");
    let query = blobs::table.select((diesel::dsl::count_star(), sum));
    settled(query.first(connection)).await
}

/// What these responses use.
pub(in crate::store) async fn uses_of(
    connection: &mut Connection,
    responses: &[String],
) -> QueryResult<Vec<UseRow>> {
    let query = blob_uses::table
        .filter(blob_uses::response.eq_any(responses))
        .order((blob_uses::response, blob_uses::hash));
    settled(query.load(connection)).await
}

/// A row of `blobs`.
pub(in crate::store) async fn find_blob(
    connection: &mut Connection,
    owner: &str,
    hash: &str,
) -> QueryResult<Option<BlobRow>> {
    let query = blobs::table.find((owner, hash));
    settled(query.first(connection)).await.optional()
}

/// Puts a whole blob in unless it is there. To be called in a transaction.
pub(in crate::store) async fn put_whole(
    connection: &mut Connection,
    row: &BlobRow,
    chunks: &[String],
) -> QueryResult<()> {
    if put_blob(connection, row).await? {
        let key = (row.owner.as_str(), row.hash.as_str());
        put_chunks(connection, key, chunks.iter().map(String::as_str)).await?;
    }
    Ok(())
}

/// Puts these uses in; of those that are there, the owner is brought up to date.
pub(in crate::store) async fn put_uses(
    connection: &mut Connection,
    rows: &[UseRow],
) -> QueryResult<()> {
    for row in rows {
        let statement = diesel::insert_into(blob_uses::table)
            .values(row)
            .on_conflict((blob_uses::response, blob_uses::hash))
            .do_update()
            .set(blob_uses::owner.eq(&row.owner));
        settled(statement.execute(connection)).await?;
    }
    Ok(())
}

/// Gives the data of those without an owner to this one. To be called in a transaction.
pub(in crate::store) async fn adopt(connection: &mut Connection, name: &str) -> QueryResult<()> {
    for statement in [
        "INSERT INTO blobs (owner, hash, bytes, created_at, unused) \
         SELECT $1, hash, bytes, created_at, unused FROM blobs AS theirs WHERE owner = '' AND NOT EXISTS \
         (SELECT 1 FROM blobs AS mine WHERE mine.owner = $1 AND mine.hash = theirs.hash)",
        "UPDATE blob_chunks SET owner = $1 WHERE owner = '' AND NOT EXISTS \
         (SELECT 1 FROM blob_chunks AS mine WHERE mine.owner = $1 AND mine.hash = blob_chunks.hash \
         AND mine.position = blob_chunks.position)",
        "UPDATE blob_uses SET owner = $1 WHERE owner = ''",
    ] {
        let statement = diesel::sql_query(statement).bind::<diesel::sql_types::Text, _>(name);
        settled(statement.execute(connection)).await?;
    }
    let left = diesel::delete(blob_chunks::table.filter(blob_chunks::owner.eq("")));
    settled(left.execute(connection)).await?;
    let left = diesel::delete(blobs::table.filter(blobs::owner.eq("")));
    settled(left.execute(connection)).await.map(drop)
}
