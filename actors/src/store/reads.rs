//! What is read of responses: whole chains, parts of them, single ones, and how much it would be.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Handler, ResponseFuture};
use bytes::Bytes;
use vllm_responses_protocol::ids::{Owner, ResponseId};
use vllm_responses_protocol::record::{Chain, Link, Stored};

use super::backend::Readers;
use super::messages::{
    ChainPart, Extent, Fetch, FindLinks, LoadChain, LoadPart, ReadChunk, StoreError, Weigh,
    Weighed, Weight,
};
use super::rows::{LinkRow, MAX_LINKS};
use super::{StoreActor, is_impossible};
use crate::env::{Clock as _, SystemClock};

/// Most ids that one statement names.
const IDS: usize = 256;

/// Many at once, bounded by the readers.
impl Handler<LoadChain> for StoreActor {
    type Result = ResponseFuture<Result<Option<Chain>, StoreError>>;

    fn handle(
        &mut self,
        LoadChain { owner, id, extent }: LoadChain,
        _: &mut Self::Context,
    ) -> Self::Result {
        let readers = self.readers.clone();
        let shared = Rc::clone(&self.shared);
        let now_ms = SystemClock.now_ms();
        self.noted(async move {
            if is_impossible(&id) {
                return Ok(None);
            }
            let read = readers.chain(owner.clone(), id.clone(), now_ms);
            let mut rows = shared.counters.timed(read).await?;
            rows.sort_unstable_by_key(|row| Reverse(row.depth));
            let Some(expires_at_ms) = rows.last().map(|last| last.expires_at) else {
                return Ok(None);
            };
            if rows.len() > MAX_LINKS {
                return Err(StoreError::TooLong);
            }
            if rows
                .first()
                .is_some_and(|first| first.previous_response_id.is_some())
            {
                return Err(StoreError::Incomplete);
            }
            let links = links(rows)?;
            let settings = match extent {
                Extent::Items => None,
                Extent::WithSettings => Some(readers.settings_of(owner, id).await?.into()),
            };
            Ok(Some(Chain {
                links,
                expires_at_ms,
                settings,
            }))
        })
    }
}

/// Many at once, bounded by the readers.
impl Handler<LoadPart> for StoreActor {
    type Result = ResponseFuture<Result<Option<ChainPart>, StoreError>>;

    fn handle(&mut self, part: LoadPart, _: &mut Self::Context) -> Self::Result {
        let readers = self.readers.clone();
        let shared = Rc::clone(&self.shared);
        let now_ms = SystemClock.now_ms();
        let LoadPart {
            owner,
            id,
            skip,
            most,
        } = part;
        self.noted(async move {
            if is_impossible(&id) || most == 0 {
                return Ok(None);
            }
            let depth = |links: usize| i64::try_from(links).unwrap_or(i64::MAX);
            let depths = (depth(skip), depth(skip.saturating_add(most)));
            let read = readers.part(owner.clone(), id.clone(), now_ms, depths);
            let mut rows = shared.counters.timed(read).await?;
            if rows.is_empty() {
                let (links, _) = readers.weight(owner, id, now_ms).await?;
                let past_the_beginning = ChainPart {
                    links: Vec::new(),
                    is_beginning: true,
                };
                return Ok((links > 0).then_some(past_the_beginning));
            }
            rows.sort_unstable_by_key(|row| row.depth);
            let oldest = rows.last();
            let is_beginning = oldest.is_some_and(|row| row.previous_response_id.is_none());
            if !is_beginning && rows.len() < most {
                let deepest = oldest.map_or(0, |row| row.depth);
                return Err(if deepest >= depth(MAX_LINKS) {
                    StoreError::TooLong
                } else {
                    StoreError::Incomplete
                });
            }
            Ok(Some(ChainPart {
                links: links(rows)?,
                is_beginning,
            }))
        })
    }
}

/// Many at once, bounded by the readers.
impl Handler<FindLinks> for StoreActor {
    type Result = ResponseFuture<Result<Vec<Arc<Link>>, StoreError>>;

    fn handle(
        &mut self,
        FindLinks { owner, ids }: FindLinks,
        _: &mut Self::Context,
    ) -> Self::Result {
        let readers = self.readers.clone();
        let shared = Rc::clone(&self.shared);
        let now_ms = SystemClock.now_ms();
        self.noted(async move {
            let ids = possible(&ids);
            let mut found = HashMap::with_capacity(ids.len());
            for some in ids.chunks(IDS) {
                let read = readers.some_links(owner.clone(), some.to_vec(), now_ms);
                let rows = shared.counters.timed(read).await?;
                found.extend(rows.into_iter().map(|row| (row.id().to_owned(), row)));
            }
            links(ids.iter().filter_map(|id| found.remove(id)))
        })
    }
}

/// Many at once, bounded by the readers.
impl Handler<Weigh> for StoreActor {
    type Result = ResponseFuture<Result<Option<Weight>, StoreError>>;

    fn handle(&mut self, Weigh { owner, what }: Weigh, _: &mut Self::Context) -> Self::Result {
        let readers = self.readers.clone();
        self.noted(async move {
            let (links, bytes) = weigh(&readers, owner, what).await?;
            let number = |count: i64| usize::try_from(count).unwrap_or(usize::MAX);
            Ok((links > 0).then_some(Weight {
                links: number(links),
                bytes: number(bytes),
            }))
        })
    }
}

/// Links and bytes.
async fn weigh(readers: &Readers, owner: Owner, what: Weighed) -> Result<(i64, i64), StoreError> {
    let now_ms = SystemClock.now_ms();
    match what {
        Weighed::Chain(id) if is_impossible(&id) => Ok((0, 0)),
        Weighed::Chain(id) => readers.weight(owner, id, now_ms).await,
        Weighed::Resource(id) if is_impossible(&id) => Ok((0, 0)),
        Weighed::Resource(id) => readers.weight_of_resource(owner, id, now_ms).await,
        Weighed::Links(ids) => {
            let mut sum = (0, 0);
            for some in possible(&ids).chunks(IDS) {
                let read = readers.weight_of_some(owner.clone(), some.to_vec(), now_ms);
                let (links, bytes) = read.await?;
                sum = (sum.0 + links, sum.1 + bytes);
            }
            Ok(sum)
        }
    }
}

/// Many at once, bounded by the readers.
impl Handler<Fetch> for StoreActor {
    type Result = ResponseFuture<Result<Option<Stored>, StoreError>>;

    fn handle(&mut self, Fetch { owner, id }: Fetch, _: &mut Self::Context) -> Self::Result {
        let readers = self.readers.clone();
        let shared = Rc::clone(&self.shared);
        let now_ms = SystemClock.now_ms();
        self.noted(async move {
            if is_impossible(&id) {
                return Ok(None);
            }
            let row = shared
                .counters
                .timed(readers.fetch(owner, id, now_ms))
                .await?;
            Ok(row.map(Stored::from))
        })
    }
}

/// Many at once, bounded by the readers.
impl Handler<ReadChunk> for StoreActor {
    type Result = ResponseFuture<Result<Option<Vec<Bytes>>, StoreError>>;

    fn handle(&mut self, read: ReadChunk, _: &mut Self::Context) -> Self::Result {
        let readers = self.readers.clone();
        let shared = Rc::clone(&self.shared);
        self.noted(async move {
            let Ok(position) = i32::try_from(read.position) else {
                return Ok(None);
            };
            let chunk = readers.chunk(read.owner, read.blob.digits(), position);
            shared.counters.timed(chunk).await
        })
    }
}

/// Those of these ids that a database can be asked for.
fn possible(ids: &[ResponseId]) -> Vec<String> {
    let possible = ids.iter().filter(|id| !is_impossible(id));
    possible.map(ToString::to_string).collect()
}

fn links(rows: impl IntoIterator<Item = LinkRow>) -> Result<Vec<Arc<Link>>, StoreError> {
    rows.into_iter().map(LinkRow::link).collect()
}
