//! Faults of the upstream, the client, the storage and the process; names carry the fault's id.

mod client;
mod durability;
mod framing;
mod ledger;
mod limits;
mod memory;
mod passing;
mod postgres;
mod postgres_limits;
mod power;
mod pressure;
mod raw_bytes;
mod redis;
mod replicas;
mod rolling;
mod secrets;
mod secrets_database;
mod shutdown;
mod slow;
mod soak;
mod stage;
mod upstream;
mod upstream_bytes;
mod upstream_chunks;
mod upstream_crowd;
