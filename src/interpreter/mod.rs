//! The code interpreter in the root crate: the `code-interpreter` command with its HTTP service, and
//! what the gateway wires up.

pub mod runtime;
mod service;
pub(crate) mod wire;
