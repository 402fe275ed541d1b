//! The API as clients see it.

mod basic;
mod keys;
mod leave;
mod recordings;
mod state;
mod surface;
