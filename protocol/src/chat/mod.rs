//! Upstream wire types: chat completions as vLLM speaks them.

pub mod answer;
pub mod chunk;
pub mod fault;
pub mod request;
pub mod template;
pub mod tokenize;
