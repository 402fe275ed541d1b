//! Public wire types of the Responses API, one noun a file.

pub(crate) mod alike;
pub mod compaction;
pub mod content;
pub(crate) mod decode;
pub(crate) mod delta;
pub mod emulated;
pub mod event;
pub mod item;
pub mod kept;
pub mod mcp;
pub mod request;
pub mod response;
pub mod said;
pub mod settings;
pub mod tool;
mod words;
