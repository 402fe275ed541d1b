//! `serve`: configuration first, then the log, then the gateway.

use std::process::ExitCode;

use super::{complain, load};
use crate::config::raw::Inputs;
use crate::gateway::{self, Failure};
use crate::logging;
use crate::shutdown::Outcome;

/// Runs the gateway until it stops.
pub(super) fn run(inputs: &Inputs) -> ExitCode {
    let (raw, config) = match load(inputs) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    logging::init(&config.logging);
    for notice in &raw.notices {
        log::warn!("{notice}");
    }
    match gateway::run(config) {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Cut(code)) => ExitCode::from(code),
        Err(Failure { problem, code }) => {
            complain(&[format!("error: {problem}")]);
            ExitCode::from(code)
        }
    }
}
