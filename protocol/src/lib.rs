//! The pure half of the gateway: wire types, translation and the turn machine.
//!
//! Nothing here waits, reads a clock, draws a random number, opens a socket or logs. Every rule of
//! the Responses API lives in this crate as a function from data to data, so that each of them is a
//! plain unit test. `vllm-responses-actors` feeds it bytes and performs the effects it asks for.
#![forbid(unsafe_code)]

pub mod blob;
pub mod chat;
pub mod compose;
pub mod error;
pub mod history;
pub mod ids;
mod json;
mod json_text;
pub mod mcp;
pub mod normalize;
pub mod record;
pub mod responses;
pub mod seal;
pub mod secret;
pub mod sse;
pub mod tools;
pub mod trace;
pub mod translate;
pub mod turn;
pub mod weigh;
