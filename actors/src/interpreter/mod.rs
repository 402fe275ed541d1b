//! The code interpreter: Python written by a model, run in single-use processes behind three walls.

pub mod bundle;
pub mod settings;
pub mod setup;
