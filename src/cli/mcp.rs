//! `mcp-runtime` and `mcp-probe`.

use std::process::ExitCode;

use vllm_responses_actors::process::ignore_hangup;
use vllm_responses_actors::tls;

use super::{USAGE, answer, complain};
use crate::config::raw::{self, Inputs};
use crate::config::{Logging, mcp as config};
use crate::logging;
use crate::mcp::{probe, runtime};

/// Runs the process of the operator's MCP servers until a signal.
pub(super) fn run_runtime(inputs: &Inputs) -> ExitCode {
    ignore_hangup();
    let raw = raw::gather(inputs);
    let judged = config::runtime(&raw).and_then(|config| {
        let path = inputs.directory.join(&config.file);
        let file = config::read_file(&path, &config::surroundings(inputs))?;
        Ok((config, file))
    });
    let (config, file) = match judged {
        Ok(judged) => judged,
        Err(problems) => {
            let lines: Vec<_> = problems
                .iter()
                .map(|problem| format!("error: {problem}"))
                .collect();
            complain(&lines);
            return ExitCode::from(USAGE);
        }
    };
    let _kept_as_it_is = logging::init(&config.logging);
    for notice in &file.notices {
        log::warn!("in the file of MCP servers, {notice}");
    }
    tls::install();
    finish(runtime::run(config, file, inputs.env.clone()))
}

/// Lists a server's tools and makes some calls.
pub(super) fn run_probe(url: &str, calls: &[String]) -> ExitCode {
    let _kept_as_it_is = logging::init(&Logging {
        filter: "warn".to_owned(),
        format: crate::config::LogFormat::Text,
        timings: false,
        model_messages: false,
    });
    tls::install();
    match probe::run(url, calls) {
        Ok(text) => answer(&text),
        Err(problem) => finish(Err(problem)),
    }
}

fn finish(outcome: Result<(), String>) -> ExitCode {
    logging::finish();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            complain(&[format!("error: {problem}")]);
            ExitCode::FAILURE
        }
    }
}
