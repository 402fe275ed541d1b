//! What operators see: spans at a real collector, and the log.
//!
//! Mutations tried, each failed: the model server told of the request's span instead of the call's,
//! and a client's label noted (spans); the warning said for every message (outage); the response's id
//! left out of "chain not loaded", and messages not shortened (logs); the level kept (reload).

mod access;
mod logs;
mod outage;
mod reload;
mod spans;
