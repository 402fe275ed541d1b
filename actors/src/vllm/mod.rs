//! The upstream: an external vLLM, or one that the gateway spawns.

pub mod command;
pub mod settings;
