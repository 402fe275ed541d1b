//! Everything that waits: actors that own processes, sockets, databases and clocks.
//!
//! HTTP handlers (root package) talk to these actors by the messages in each folder's `messages.rs`.

#![deny(unsafe_code)]

pub mod ask;
pub mod blobs;
pub mod cache;
mod cgroup;
pub mod env;
pub mod http1;
pub mod interpreter;
pub mod latency;
pub mod limits;
pub mod mask;
pub mod mcp;
pub mod memory;
pub mod metrics;
pub mod origin;
pub mod own_client;
pub mod plain_file;
pub mod process;
pub mod redact;
pub mod seal;
pub mod secret;
pub mod store;
pub mod supervisor;
pub mod terminal;
pub mod tls;
pub mod token;
pub mod tools;
pub mod trace;
pub mod turn;
pub mod vllm;
