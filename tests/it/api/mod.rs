//! The API as clients see it.

mod basic;
mod blobs;
mod clients;
mod cors;
mod doors;
mod encodings;
mod fields;
mod items;
pub(crate) mod keys;
mod leave;
mod ownership;
mod recordings;
mod state;
mod surface;
