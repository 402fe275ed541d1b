//! What the cache can be asked about itself. What it is asked for responses is the store's API.

use actix::{Message, MessageResponse};
use serde::Serialize;

/// How is the cache? Sender: the status page.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "CacheObservation")]
pub struct Observe;

/// State of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, MessageResponse)]
pub struct CacheObservation {
    /// Whether there is a Redis.
    pub enabled: bool,
}
