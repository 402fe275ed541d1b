//! Public wire types of the Responses API, one noun a file.

pub mod content;
pub mod event;
pub mod item;
pub mod response;
