//! Everything that waits: actors that own processes, sockets, databases and clocks.
//!
//! HTTP handlers (root package) talk to these actors by the messages in each folder's `messages.rs`.

pub mod cache;
pub mod secret;
pub mod store;
pub mod vllm;
