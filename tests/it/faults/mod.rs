//! Faults of the upstream, the client, the storage and the process; names carry the fault's id.

mod client;
mod durability;
mod limits;
mod postgres;
mod pressure;
mod redis;
mod secrets;
mod shutdown;
mod slow;
mod stage;
mod upstream;
mod upstream_bytes;
mod upstream_chunks;
mod upstream_crowd;
