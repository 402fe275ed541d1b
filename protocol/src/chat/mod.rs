//! Upstream wire types: chat completions as vLLM and other servers speak them.

pub mod chunk;
pub mod complaint;
pub mod content;
pub mod fault;
pub mod finish;
pub(crate) mod lenient;
pub(crate) mod repair;
pub mod request;
pub mod template;
pub mod tokenize;
pub mod usage;
