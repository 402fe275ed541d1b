//! vllm-responses: a gateway that gives any vLLM server a stateful `OpenAI` Responses API.
//!
//! This crate is HTTP, the command line and configuration only. `cli` reads arguments, `config`
//! turns everything a user may say into one checked `Config`, `gateway` wires the actors and serves
//! `http`, `shutdown` takes it all down again. Everything that waits on something else is in
//! `vllm-responses-actors`; every rule of the API is in `vllm-responses-protocol`.
#![forbid(unsafe_code)]

mod banner;
mod bearer;
pub mod cli;
pub mod config;
pub mod gateway;
mod given_up;
pub mod http;
pub mod interpreter;
pub mod keys;
mod listen;
pub mod logging;
pub mod mcp;
pub mod reload;
mod shutdown;
pub mod status;
