//! The integration tests of the gateway: one binary, so that it links once.
//!
//! Everything goes through the real executable and real sockets. `harness` is the small language
//! that the cases are written in; a scripted upstream plays vLLM.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::as_conversions,
    clippy::let_underscore_must_use,
    let_underscore_drop,
    clippy::format_push_string,
    clippy::fn_params_excessive_bools,
    clippy::wildcard_enum_match_arm,
    clippy::large_stack_arrays,
    reason = "the harness is threads and sockets, outside the actor world of the product"
)]

#[cfg(test)]
mod api;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod load;
#[cfg(test)]
mod mcp;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod telemetry;
