//! The API as clients see it.

mod basic;
mod clients;
mod items;
mod keys;
mod leave;
mod recordings;
mod state;
mod surface;
