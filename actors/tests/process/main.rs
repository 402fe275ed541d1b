//! The process plumbing with real processes.
//!
//! The binary has its own `main`, so that it can be everything a test needs: the tests, a gateway to be
//! killed, the guardian between them (as the product is) and the child at the end of the chain.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests without the standard harness are not known as tests"
)]

mod death;
mod fake;
mod gateway;
mod init;
mod look;
mod plumbing;

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
    match words.get(1).map(String::as_str) {
        Some(fake::ARGUMENT) => fake::run(&words[2..]),
        Some(gateway::ARGUMENT) => gateway::run(&words[2..]),
        _ => {
            let groups = [plumbing::trials(), death::trials(), init::trials()];
            let trials: Vec<Trial> = groups.into_iter().flatten().collect();
            libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
        }
    }
}

/// Makes a trial of a function that panics when it fails.
fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}
