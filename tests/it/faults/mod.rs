//! Faults of the upstream, the client, the storage and the process; names carry the fault's id.

mod client;
mod durability;
mod shutdown;
mod slow;
mod upstream;
