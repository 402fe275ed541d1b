//! What the cache tells about itself, as numbers since the start.

use serde::{Deserialize, Serialize};

use crate::latency::Latency;

/// See the module. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheFacts {
    /// Chains answered from Redis.
    pub hits: u64,
    /// Chains that Redis did not have, or not whole.
    pub misses: u64,
    /// Chains for which Redis was not asked, or not believed: see the cache's page.
    pub bypasses: u64,
    /// Entries found damaged.
    pub damaged: u64,
    /// Operations that Redis did not answer, answered too late, or answered with an error.
    pub errors: u64,
    /// Chains written to Redis.
    pub fills: u64,
    /// Deletions that had to begin a new epoch because Redis could not be reached.
    pub epochs_begun: u64,
    /// Whether Redis is being left alone after failures.
    pub breaker_open: bool,
    /// How long operations took, those that failed too.
    pub latency: Latency,
}
