//! What the cache needs to know; parsed from `VR_RESPONSE_STORE_CACHE`, `VR_REDIS_*` by `src/config`.

use std::time::Duration;

use crate::secret::Secret;
use crate::store::messages::Extent;

/// Settings of `CacheActor` when Redis is on.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// `redis://` or `rediss://` URL, password included.
    pub url: Secret,
    /// How long an entry lives (`VR_RESPONSE_STORE_CACHE_TTL_SECONDS`).
    pub ttl: Duration,
    /// What look-ups will ask for, so that it is there.
    pub extent: Extent,
    /// How long one operation may take, waiting for a connection included: [`CacheSettings::LIMIT`],
    /// but in tests that count and therefore must not be disturbed by a busy machine.
    pub limit: Duration,
}

impl CacheSettings {
    /// Beyond this the store is the faster one (fault D8).
    pub const LIMIT: Duration = Duration::from_millis(50);
}
