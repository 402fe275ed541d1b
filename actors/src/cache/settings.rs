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
}
