//! Faults of the upstream, the client, the storage and the process; names carry the fault's id.

mod durability;
mod shutdown;
mod upstream;
