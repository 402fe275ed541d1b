//! MCP without any waiting: the operator's file, tool definitions, argument checks, outcomes.

pub mod catalogue;
pub mod file;
pub mod hidden;
pub mod inbound;
pub mod mentions;
pub mod names;
pub mod outcome;
pub mod pins;
pub mod salvage;
pub mod schema;
pub mod wire;
