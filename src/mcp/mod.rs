//! MCP in the root crate: the runtime process with its loopback HTTP service, the probe command, and
//! what the gateway wires up.

pub mod probe;
pub mod runtime;
mod service;
pub(crate) mod wire;
