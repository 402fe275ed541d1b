//! The language of the integration tests: a scripted upstream, the gateway as a process, a raw
//! client, and the checkers that run on everything that a client was told.

pub(crate) mod bulk;
pub(crate) mod canary;
pub(crate) mod cgroup;
pub(crate) mod checker;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod gateway;
pub(crate) mod history;
pub(crate) mod knobs;
pub(crate) mod postgres;
pub(crate) mod processes;
#[path = "../../../actors/tests/cache/redis.rs"]
#[expect(dead_code, reason = "the cache's own suite uses the rest")]
pub(crate) mod redis;
pub(crate) mod tree;
pub(crate) mod upstream;

pub(crate) use checker::{check_resource, check_stream, check_usage};
pub(crate) use client::{Client, Reply};
pub(crate) use gateway::TestGateway;
pub(crate) use upstream::{Fake, Gate, Script};
