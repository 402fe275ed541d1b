//! MCP without any waiting: the operator's file, tool definitions, argument checks, outcomes.

pub mod catalogue;
pub mod file;
pub mod names;
pub mod outcome;
pub mod schema;
pub mod wire;
