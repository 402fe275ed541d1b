//! The code interpreter with real processes.
//!
//! The binary has its own `main`, so that it can be the guardian between a test and an interpreter, as
//! the product is, and a worker that breaks the protocol.
//!
//! `TEST_INTERPRETER_BUNDLE` names a bundle; without it only the tests with a scripted worker run, and
//! the rest says so. `TEST_INTERPRETER_SCIENCE_BUNDLE` names one with numpy, pandas and matplotlib.
//! Its tests are long ones, ignored unless asked for.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stderr,
    reason = "tests without the standard harness are not known as tests"
)]

mod crowd;
mod escape;
mod fake;
mod isolation;
mod probes;
mod resources;
mod rest;
mod science;
mod stage;
mod violations;
mod wall;

use std::ffi::OsString;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use vllm_responses_actors::process;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = process::entry(args.iter().cloned()) {
        return code;
    }
    let words: Vec<String> = args
        .into_iter()
        .filter_map(|arg| arg.into_string().ok())
        .collect();
    if words.get(1).map(String::as_str) == Some(fake::ARGUMENT) {
        return fake::run(words.get(2).map_or("", String::as_str));
    }
    let mut trials = violations::trials();
    trials.extend(rest::trials());
    match stage::bundle("TEST_INTERPRETER_BUNDLE") {
        Some(_) => {
            let groups = [
                escape::trials(),
                wall::trials(),
                isolation::trials(),
                resources::trials(),
                rest::real_trials(),
                crowd::trials(),
            ];
            trials.extend(groups.into_iter().flatten());
        }
        None => eprintln!(
            "SKIPPED: the tests with a real interpreter; set TEST_INTERPRETER_BUNDLE to a bundle"
        ),
    }
    match stage::bundle("TEST_INTERPRETER_SCIENCE_BUNDLE") {
        // Run by `--ignored full_`, as the long suite does.
        Some(_) => trials.extend(
            science::trials()
                .into_iter()
                .map(|trial| trial.with_ignored_flag(true)),
        ),
        None => eprintln!(
            "SKIPPED: the tests with numpy and its like; set TEST_INTERPRETER_SCIENCE_BUNDLE"
        ),
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Makes a trial of a function that panics when it fails.
fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}
