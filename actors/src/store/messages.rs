//! What the store can be asked. `CacheActor` answers the same messages and stands in front of it.

use std::sync::Arc;

use actix::{Message, Recipient};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vllm_responses_protocol::blob::BlobRef;
use vllm_responses_protocol::ids::{Owner, ResponseId};
use vllm_responses_protocol::record::{Chain, Link, Record, Stored};

use super::facts::StoreFacts;
use crate::secret::Secret;
use crate::supervisor::messages::Report;

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
    /// A row that a stored response continues is not there any more.
    #[error("an earlier response of the conversation is not stored any more")]
    Incomplete,
    /// More links than a chain may have.
    #[error("the conversation has too many responses")]
    TooLong,
}

/// Keep this response, in its stored form, and the data that it refers to.
///
/// The reply comes after the commit: from then on every replica can read it.
/// Sender: `TurnActor`, before it writes the terminal event.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct Commit(pub Box<Record>);

/// The chain that ends with this response, oldest first.
///
/// `None` when the id is unknown, deleted, expired or somebody else's (the four are one answer).
/// Ancestors may be deleted: a live descendant still sees them. One that is gone altogether is
/// [`StoreError::Incomplete`].
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

/// What these responses themselves took in and made, without their ancestors: those that are live, in
/// the order in which they are named. Sender: `TurnActor`, for items that a request refers to.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<Arc<Link>>, StoreError>")]
pub struct FindLinks {
    /// Whose responses.
    pub owner: Owner,
    /// Which.
    pub ids: Vec<ResponseId>,
}

/// A part of a chain: so many links, beginning so many before its last; `None` as in [`LoadChain`].
/// Only these are read. Sender: who shows a chain in pages.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<ChainPart>, StoreError>")]
pub struct LoadPart {
    /// Whose chain.
    pub owner: Owner,
    /// The last response of the chain.
    pub id: ResponseId,
    /// Links to leave out at the end of the chain: 0 begins with the response itself.
    pub skip: usize,
    /// Most links.
    pub most: usize,
}

/// What [`LoadPart`] gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainPart {
    /// Newest first.
    pub links: Vec<Arc<Link>>,
    /// Whether nothing comes before the oldest of them.
    pub is_beginning: bool,
}

/// How much there is to read? Answered without reading it. `None` when nothing is live. Sender: who
/// makes room before a [`LoadChain`], a [`LoadPart`] or a [`FindLinks`].
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<Weight>, StoreError>")]
pub struct Weigh {
    /// Whose.
    pub owner: Owner,
    /// What would be read.
    pub what: Weighed,
}

/// What is weighed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weighed {
    /// The chain that ends with this response.
    Chain(ResponseId),
    /// These responses, without their ancestors.
    Links(Vec<ResponseId>),
    /// What a [`Fetch`] of this one reads: its settings too, and not its input.
    Resource(ResponseId),
}

/// What [`Weigh`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Responses.
    pub links: usize,
    /// Bytes of their items, as text.
    pub bytes: usize,
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

/// Most bytes of a chunk of large data.
pub const CHUNK: usize = 1 << 20;

/// One chunk of the data that responses of this owner refer to, in pieces; `None` when it is not there. Sender:
/// who writes a text that has references, chunk by chunk.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<Vec<Bytes>>, StoreError>")]
pub struct ReadChunk {
    /// Whose data.
    pub owner: Owner,
    /// Which.
    pub blob: BlobRef,
    /// Chunks before it.
    pub position: usize,
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

/// May this response make these calls, which its client has approved? All of them, or none.
///
/// `false` when another response made one of them before, on this gateway or any other of the same
/// database. The reply comes after the commit, and the same response may ask again.
///
/// Requests are those of clients who keep their own history, too: any text may be one.
/// Sender: `TurnActor`, before it runs what a request approves.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<bool, StoreError>")]
pub struct Claim {
    /// Whose approvals.
    pub owner: Owner,
    /// Who makes the calls.
    pub response: ResponseId,
    /// Ids of the approval requests.
    pub requests: Vec<Box<str>>,
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
    /// Why a read or a write failed last, until one works again.
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

/// The key that seals reasoning, in hexadecimal digits: the one that is kept, or this one, which then is.
///
/// Of several gateways that start at once all get the same. Sender: `seal::open`, through `CacheActor`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Secret, StoreError>")]
pub struct KeepSealKey(pub Secret);

/// Tell this one how the store is, now and whenever that changes. Sender: whoever starts the gateway.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ReportTo(pub Recipient<Report>);

/// Write what is queued, take nothing more, and leave SQLite's file so that a copy of it is a backup.
/// Sender: whoever stops the gateway, when no turn runs any more.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct Close;
