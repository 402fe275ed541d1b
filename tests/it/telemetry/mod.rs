//! What operators see: spans at a real collector, and the log.
//!
//! Mutations that fail these groups are listed in each file.

mod logs;
mod outage;
mod reload;
mod spans;
