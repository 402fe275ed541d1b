//! Room for what a turn reads from the store: reserved before it is read, and made true before items
//! are read out of it, on a thread that may block where there is much.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use vllm_responses_protocol::blob::Marks;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};
use vllm_responses_protocol::history::CorruptHistory;
use vllm_responses_protocol::record::{Chain, Link, Record};
use vllm_responses_protocol::weigh::{self, Weight};

use super::Load;
use crate::ask::ask;
use crate::memory::{Held, LARGE, Memory, Short, weight};
use crate::store::messages::{StoreError, Weigh};

/// What the store does not weigh is taken to be this long: nothing longer comes from elsewhere, so that
/// a conversation in the cache can be continued while the database is away.
const UNWEIGHED: usize = 8 << 20;

/// How long the weight is waited for: it is one look at an index.
const WEIGH_LIMIT: Duration = Duration::from_secs(1);

/// Room for what is to be read, and so many copies of it. What is not there needs none.
pub(super) async fn reserve(
    memory: &Memory,
    weights: &Recipient<Weigh>,
    asked: Weigh,
    copies: usize,
) -> Result<Held, ApiError> {
    let bytes = match ask(weights, asked, WEIGH_LIMIT).await {
        Ok(Ok(weighed)) => weighed.map_or(0, |weighed| weighed.bytes),
        // It says why when it is asked for the rows.
        Ok(Err(_)) | Err(_) => UNWEIGHED,
    };
    let bytes = weight::rows(bytes.saturating_mul(copies));
    memory.reserve(bytes).await.map_err(no_room)
}

/// A record as it is stored: what is large in it is looked through where that may take its time.
pub(super) async fn stored(
    record: Box<Record>,
    marks: Marks,
    memory: &Memory,
) -> Result<Box<Record>, StoreError> {
    if record.input_items.len() + record.response.len() < LARGE {
        return Ok(marks.store(record));
    }
    let stored = memory.work(move || marks.store(record)).await;
    stored.map_err(|_short| StoreError::Busy)
}

/// What is read out of rows, which are dropped.
pub(super) async fn items<T: Send + 'static>(
    chain: Chain,
    mut held: Held,
    copies: usize,
    read: impl FnOnce(&Chain) -> Result<T, CorruptHistory> + Send + 'static,
) -> Result<(Result<T, CorruptHistory>, Load), ApiError> {
    let memory = held.memory().clone();
    let is_large = chain.size() >= LARGE;
    let weigh = move || (weigh_all(&chain.links), chain);
    let (weighed, chain) = if is_large {
        memory.work(weigh).await.map_err(no_room)?
    } else {
        weigh()
    };
    let weighed = weighed * copies;
    let more = weight::history(weighed).saturating_sub(held.bytes());
    held.reserve(more).await.map_err(no_room)?;
    let parse = move || {
        let items = read(&chain);
        drop(chain);
        let kept = weight::kept_history(weighed);
        (items, Load { held, kept })
    };
    if is_large {
        memory.work(parse).await.map_err(no_room)
    } else {
        Ok(parse())
    }
}

fn weigh_all(links: &[Arc<Link>]) -> Weight {
    links.iter().fold(Weight::default(), |sum, link| {
        let (input, response) = (link.input_items.as_bytes(), link.response.as_bytes());
        sum + weigh::list(input) + weigh::request(response)
    })
}

fn no_room(short: Short) -> ApiError {
    match short {
        Short::Now => ApiError::new(
            ApiErrorCode::ServerIsOverloaded,
            "the gateway is short of memory; try again",
        ),
        Short::Never => ApiError::new(
            ApiErrorCode::PayloadTooLarge,
            "the conversation takes more memory than this gateway has for requests: send what is \
             still needed of it in `input`, or ask its operator to raise `limits.memory`",
        ),
    }
}
