//! The API as clients see it.

mod basic;
mod leave;
mod recordings;
mod state;
mod surface;
