//! Public wire types of the Responses API, one noun a file.

pub mod content;
pub mod item;
