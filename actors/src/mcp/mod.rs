//! MCP: servers of the operator and of callers, reached under policy.
//!
//! `guard` says what may be dialled, `net` dials it, `session` speaks MCP through the official SDK.
//! `hosted` is the inside of the runtime process, where the operator's servers live.

pub mod guard;
pub mod hosted;
pub mod names;
pub mod net;
pub mod session;
pub mod settings;
