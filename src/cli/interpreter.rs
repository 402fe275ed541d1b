//! `code-interpreter`: the service that `serve --code-interpreter external` attaches to.

use std::process::ExitCode;

use vllm_responses_actors::process::ignore_hangup;

use super::{USAGE, complain};
use crate::config::interpreter as config;
use crate::config::raw::{self, Inputs};
use crate::interpreter::runtime;
use crate::logging;
use crate::shutdown::Outcome;

/// Runs the service until a signal.
pub(super) fn run(inputs: &Inputs) -> ExitCode {
    ignore_hangup();
    let raw = raw::gather(inputs);
    let config = match config::service(&raw) {
        Ok(config) => config,
        Err(problems) => {
            let lines: Vec<_> = problems
                .iter()
                .map(|problem| format!("error: {problem}"))
                .collect();
            complain(&lines);
            return ExitCode::from(USAGE);
        }
    };
    logging::init(&config.logging);
    let ended = runtime::run(config);
    logging::finish();
    match ended {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Cut(code)) => ExitCode::from(code),
        Err(problem) => {
            complain(&[format!("error: {problem}")]);
            ExitCode::FAILURE
        }
    }
}
