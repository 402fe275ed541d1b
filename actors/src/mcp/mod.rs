//! MCP: servers of the operator and of callers, reached under policy.
//!
//! `guard` says what may be dialled, `net` dials it, `session` speaks MCP through the official SDK.
//! `hosted` is the inside of the runtime process, where the operator's servers live; `client` is the
//! gateway's half, `runtime` starts and keeps that process.

pub mod client;
pub mod guard;
pub mod hosted;
pub mod messages;
pub mod net;
pub mod runtime;
pub mod session;
pub mod settings;
pub mod way;
