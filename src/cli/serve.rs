//! `serve`: configuration first, then the log, then the gateway.

use std::process::ExitCode;

use super::{complain, load};
use crate::config::raw::Inputs;
use crate::logging;

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
    match crate::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            complain(&[format!("error: {problem}")]);
            ExitCode::FAILURE
        }
    }
}
