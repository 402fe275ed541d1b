//! What the store can be asked. `CacheActor` answers the same messages and stands in front of it.

use actix::Message;
use serde::{Deserialize, Serialize};
use vllm_responses_protocol::ids::{Owner, ResponseId};
use vllm_responses_protocol::record::{Chain, Record, Stored};

use super::facts::StoreFacts;

/// Why the store could not answer. Never carries stored content or a database URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or its disk is full, or it refused the statement.
    #[error("the response store is unavailable: {0}")]
    Unavailable(String),
    /// The database stayed locked or its queue stayed full past the deadline.
    #[error("the response store is busy")]
    Busy,
    /// A row holds what no version of ours wrote.
    #[error("a stored response cannot be read")]
    Corrupt,
}

/// Keep this response. The reply comes after the commit: from then on every replica can read it.
/// Sender: `TurnActor`, before it writes the terminal event.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct Commit(pub Box<Record>);

/// The chain that ends with this response, oldest first.
///
/// `None` when the id is unknown, deleted, expired or somebody else's (the four are one answer).
/// Ancestors may be deleted: a live descendant still sees them.
/// Sender: `TurnActor`, the `input_items` handler.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<Chain>, StoreError>")]
pub struct LoadChain {
    /// Whose chain.
    pub owner: Owner,
    /// The last response of the chain.
    pub id: ResponseId,
    /// How much of it.
    pub extent: Extent,
}

/// How much of a chain is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Its items.
    Items,
    /// Its items, and the settings of its last response.
    WithSettings,
}

/// One response; `None` as in [`LoadChain`]. Sender: the GET handler.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<Stored>, StoreError>")]
pub struct Fetch {
    /// Whose response.
    pub owner: Owner,
    /// Which.
    pub id: ResponseId,
}

/// Delete one response: from the reply on it reads as unknown everywhere. `false` when it already
/// did. Sender: the DELETE handler.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<bool, StoreError>")]
pub struct Remove {
    /// Whose response.
    pub owner: Owner,
    /// Which.
    pub id: ResponseId,
}

/// How is the store? Sender: the status page and metrics, through `CacheActor`; tests.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<StoreObservation, StoreError>")]
pub struct Observe;

/// State of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreObservation {
    /// Which database.
    pub backend: Backend,
    /// Writes that may wait; beyond it the store is busy.
    pub queue_capacity: usize,
    /// Why a read or a write last failed.
    pub last_error: Option<String>,
    /// What it has done so far.
    pub facts: StoreFacts,
}

/// Which database keeps the responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

/// The word that names the present generation of cache entries; `None` before there was any. Every
/// replica that trusts a cache reads it again and again. Sender: `CacheActor`.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Option<String>, StoreError>")]
pub struct ReadEpoch;

/// Begin a new generation of cache entries under this word, which nobody used before. The reply comes
/// after the commit. Sender: `CacheActor`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct BeginEpoch(pub String);
