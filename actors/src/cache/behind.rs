//! The store as the cache asks it.

use actix::{Addr, Message, Recipient};

use crate::store::StoreActor;
use crate::store::messages::{
    BeginEpoch, Claim, Close, Commit, Fetch, FindLinks, KeepSealKey, LoadChain, LoadPart, Observe,
    ReadChunk, ReadEpoch, Remove, ReportTo, StoreError, Weigh,
};

/// Who answers what the cache does not.
#[derive(Clone, Debug)]
pub struct Behind {
    /// Keeps responses.
    pub commits: Recipient<Commit>,
    /// Reads chains.
    pub chains: Recipient<LoadChain>,
    /// Reads parts of chains.
    pub parts: Recipient<LoadPart>,
    /// Reads some responses without their ancestors.
    pub links: Recipient<FindLinks>,
    /// Tells how much there is to read.
    pub weights: Recipient<Weigh>,
    /// Reads single responses.
    pub fetches: Recipient<Fetch>,
    /// Reads large data.
    pub chunks: Recipient<ReadChunk>,
    /// Deletes.
    pub removals: Recipient<Remove>,
    /// Takes approvals.
    pub claims: Recipient<Claim>,
    /// Reads the cache epoch.
    pub epochs: Recipient<ReadEpoch>,
    /// Begins another.
    pub beginnings: Recipient<BeginEpoch>,
    /// Keeps the key that seals reasoning.
    pub seal_keys: Recipient<KeepSealKey>,
    /// Tells how the store is.
    pub observe: Recipient<Observe>,
    /// Tells it to others when it changes.
    pub reports: Recipient<ReportTo>,
    /// Ends the store.
    pub closing: Recipient<Close>,
}

impl From<Addr<StoreActor>> for Behind {
    fn from(store: Addr<StoreActor>) -> Self {
        Self {
            commits: store.clone().recipient(),
            chains: store.clone().recipient(),
            parts: store.clone().recipient(),
            links: store.clone().recipient(),
            weights: store.clone().recipient(),
            fetches: store.clone().recipient(),
            chunks: store.clone().recipient(),
            removals: store.clone().recipient(),
            claims: store.clone().recipient(),
            epochs: store.clone().recipient(),
            beginnings: store.clone().recipient(),
            seal_keys: store.clone().recipient(),
            observe: store.clone().recipient(),
            reports: store.clone().recipient(),
            closing: store.recipient(),
        }
    }
}

/// Asks the store, which has deadlines of its own; a store that is gone is one that is unavailable.
pub(super) async fn ask<M, R>(of: &Recipient<M>, message: M) -> Result<R, StoreError>
where
    M: Message<Result = Result<R, StoreError>> + Send + 'static,
    R: Send + 'static,
{
    of.send(message)
        .await
        .map_err(|_gone| StoreError::Unavailable("its actor ended".to_owned()))?
}
