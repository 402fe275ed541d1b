//! MCP: servers of the operator and of callers, reached under policy.

pub mod guard;
pub mod names;
