//! The cache in front of the store.

pub mod settings;
