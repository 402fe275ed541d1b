//! The cache in front of a real database, with a real Redis.
//!
//! `redis` starts and hurts servers, `fixture` has replicas of a gateway's cache and a store whose
//! answers can be counted and held back. Without a `redis-server` on the path the cases say so and
//! pass, except where `TEST_REDIS_URL` or `CI` says that one is expected.

#[cfg(test)]
mod faults;
#[cfg(test)]
mod final_deletes;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod look_ups;
#[cfg(test)]
mod redis;
#[cfg(test)]
#[path = "../store/fixture.rs"]
#[expect(dead_code, reason = "the store's own suite uses the rest")]
mod store_fixture;
