//! What the cache can be asked about itself. What it is asked for responses is the store's API.

use actix::{Message, MessageResponse};
use serde::Serialize;

use super::facts::CacheFacts;

/// How is the cache? Sender: the status page, metrics, tests.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "CacheObservation")]
pub struct Observe;

/// State of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, MessageResponse)]
pub struct CacheObservation {
    /// How Redis fares; none where there is no Redis.
    pub redis: Option<CacheFacts>,
}
