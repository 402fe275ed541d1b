//! The statements that read conversations, whole or in part, and that weigh them before. Compiled
//! twice, as `queries` is.
//!
//! Nothing here is sorted by the database: a sorter carries whole rows, and writes those that are large
//! to temporary files, in clear. The reader sorts by depth.

use diesel::QueryResult;
use diesel::dsl::sum;
use diesel::prelude::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl,
};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Nullable, Text};
use vllm_responses_protocol::ids::{Owner, ResponseId};

use super::queries::live;
use super::{Connection, Database, RunQueryDsl, settled};
use crate::store::rows::{LinkRow, MAX_LINKS};
use crate::store::schema::{responses, settings};

#[diesel::declare_sql_function]
extern "SQL" {
    /// Bytes of a text. Both databases read them from the row's head: a large text is not loaded.
    fn octet_length(text: Text) -> Integer;
}

/// Links of the chain that ends with a live response, in no order; none when there is none.
pub(in crate::store) async fn chain(
    connection: &mut Connection,
    owner: &Owner,
    id: &ResponseId,
    now_ms: i64,
) -> QueryResult<Vec<LinkRow>> {
    let query = Links(Walk::new(owner, id, now_ms));
    settled(query.load(connection)).await
}

/// As [`chain`], but only those from this depth on and before that one. The response itself is at 0.
pub(in crate::store) async fn part(
    connection: &mut Connection,
    owner: &Owner,
    id: &ResponseId,
    now_ms: i64,
    (from, until): (i64, i64),
) -> QueryResult<Vec<LinkRow>> {
    let walk = Walk::new(owner, id, now_ms);
    settled(Part { walk, from, until }.load(connection)).await
}

/// How many links the chain has that ends with a live response, and how many bytes; none when there is
/// none.
pub(in crate::store) async fn weight(
    connection: &mut Connection,
    owner: &Owner,
    id: &ResponseId,
    now_ms: i64,
) -> QueryResult<(i64, i64)> {
    let query = Weight(Walk::new(owner, id, now_ms));
    settled(query.get_result(connection)).await
}

/// Those of these responses that are live, in no order.
pub(in crate::store) async fn some_links(
    connection: &mut Connection,
    owner: &Owner,
    ids: &[String],
    now_ms: i64,
) -> QueryResult<Vec<LinkRow>> {
    let query = responses::table
        .filter(responses::id.eq_any(ids))
        .filter(responses::owner.eq(owner.as_str()))
        .filter(live(now_ms))
        .select((
            responses::id,
            responses::status,
            responses::input_items,
            responses::response,
            responses::expires_at,
            responses::previous_response_id,
            diesel::dsl::sql::<BigInt>("CAST(0 AS BIGINT)"),
        ));
    settled(query.load(connection)).await
}

/// How many of these responses are live, and how many bytes they have.
pub(in crate::store) async fn weight_of_some(
    connection: &mut Connection,
    owner: &Owner,
    ids: &[String],
    now_ms: i64,
) -> QueryResult<(i64, i64)> {
    let query = responses::table
        .filter(responses::id.eq_any(ids))
        .filter(responses::owner.eq(owner.as_str()))
        .filter(live(now_ms))
        .select((
            diesel::dsl::count_star(),
            sum(octet_length(responses::input_items)),
            sum(octet_length(responses::response)),
        ));
    let (links, taken, made): (i64, Option<i64>, Option<i64>) =
        settled(query.get_result(connection)).await?;
    Ok((links, taken.unwrap_or_default() + made.unwrap_or_default()))
}

/// Whether this response is live, as a count, and how many bytes it has with its settings, without its
/// input.
pub(in crate::store) async fn weight_of_resource(
    connection: &mut Connection,
    owner: &Owner,
    id: &ResponseId,
    now_ms: i64,
) -> QueryResult<(i64, i64)> {
    let query = responses::table
        .inner_join(
            settings::table.on(settings::owner
                .eq(responses::owner)
                .and(settings::hash.eq(responses::settings_hash))),
        )
        .filter(responses::id.eq(id.as_str()))
        .filter(responses::owner.eq(owner.as_str()))
        .filter(live(now_ms))
        .select((
            octet_length(responses::response),
            octet_length(settings::json),
        ));
    let found: Option<(i32, i32)> = settled(query.first(connection)).await.optional()?;
    Ok(found.map_or((0, 0), |(made, settings)| {
        (1, i64::from(made) + i64::from(settings))
    }))
}

/// The way from a live response to its first ancestor, which only has to be there.
///
/// Diesel has no recursive query, and its raw ones are prepared anew each time; those below are kept.
struct Walk<'a> {
    owner: &'a str,
    id: &'a str,
    live: live,
    deepest: i64,
}

impl<'a> Walk<'a> {
    fn new(owner: &'a Owner, id: &'a ResponseId, now_ms: i64) -> Self {
        Self {
            owner: owner.as_str(),
            id: id.as_str(),
            live: live(now_ms),
            deepest: i64::try_from(MAX_LINKS).unwrap_or(i64::MAX),
        }
    }

    fn walk_ast<'b>(&'b self, out: &mut AstPass<'_, 'b, Database>) -> QueryResult<()> {
        out.push_sql(
            "WITH RECURSIVE chain (id, previous_response_id, depth) AS (\
             SELECT id, previous_response_id, CAST(0 AS BIGINT) FROM responses WHERE id = ",
        );
        out.push_bind_param::<Text, _>(self.id)?;
        out.push_sql(" AND owner = ");
        out.push_bind_param::<Text, _>(self.owner)?;
        out.push_sql(" AND ");
        self.live.walk_ast(out.reborrow())?;
        out.push_sql(
            " UNION ALL \
             SELECT parent.id, parent.previous_response_id, chain.depth + 1 \
             FROM responses AS parent JOIN chain ON parent.id = chain.previous_response_id \
             WHERE parent.owner = ",
        );
        out.push_bind_param::<Text, _>(self.owner)?;
        out.push_sql(" AND chain.depth < ");
        out.push_bind_param::<BigInt, _>(&self.deepest)?;
        out.push_sql(") ");
        Ok(())
    }
}

const LINKS: &str = "SELECT responses.id, responses.status, responses.input_items, responses.response, \
     responses.expires_at, responses.previous_response_id, chain.depth \
     FROM chain JOIN responses ON responses.id = chain.id";

/// What [`LINKS`] gives.
type LinkColumns = (
    Text,
    Text,
    Text,
    Text,
    Nullable<BigInt>,
    Nullable<Text>,
    BigInt,
);

/// See [`chain`].
pub(in crate::store) struct Links<'a>(Walk<'a>);

impl QueryId for Links<'_> {
    type QueryId = Links<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Links<'_> {
    type SqlType = LinkColumns;
}

impl QueryFragment<Database> for Links<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Database>) -> QueryResult<()> {
        self.0.walk_ast(&mut out)?;
        out.push_sql(LINKS);
        Ok(())
    }
}

/// See [`part`].
pub(in crate::store) struct Part<'a> {
    walk: Walk<'a>,
    from: i64,
    until: i64,
}

impl QueryId for Part<'_> {
    type QueryId = Part<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Part<'_> {
    type SqlType = LinkColumns;
}

impl QueryFragment<Database> for Part<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Database>) -> QueryResult<()> {
        self.walk.walk_ast(&mut out)?;
        out.push_sql(LINKS);
        out.push_sql(" WHERE chain.depth >= ");
        out.push_bind_param::<BigInt, _>(&self.from)?;
        out.push_sql(" AND chain.depth < ");
        out.push_bind_param::<BigInt, _>(&self.until)?;
        Ok(())
    }
}

/// See [`weight`].
pub(in crate::store) struct Weight<'a>(Walk<'a>);

impl QueryId for Weight<'_> {
    type QueryId = Weight<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Weight<'_> {
    type SqlType = (BigInt, BigInt);
}

impl QueryFragment<Database> for Weight<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Database>) -> QueryResult<()> {
        self.0.walk_ast(&mut out)?;
        out.push_sql(
            "SELECT count(*), COALESCE(sum(octet_length(responses.input_items) \
             + octet_length(responses.response)), 0) \
             FROM chain JOIN responses ON responses.id = chain.id",
        );
        Ok(())
    }
}
