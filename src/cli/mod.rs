//! The command line: what was asked, and the commands that answer without a gateway.

mod args;
mod db;
mod interpreter;
mod keys;
mod mcp;
mod progress;
mod serve;
mod setup;
mod status;
mod tips;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::ArgMatches;

use crate::config::raw::{Inputs, Raw};
use crate::config::{self, Config, render, validate};
use crate::logging;

/// Bad configuration or usage.
const USAGE: u8 = 2;

/// Does what the process arguments say.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let matches = match args::command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(error),
    };
    match matches.subcommand() {
        Some(("serve", given)) => {
            let install = serve::Install::from(given.get_flag("yes"));
            serve::run(&inputs(given, &arguments), install)
        }
        Some(("check-config", given)) => check_config(&inputs(given, &arguments)),
        Some(("code-interpreter", given)) => interpreter::run(&inputs(given, &arguments)),
        Some(("mcp-runtime", given)) => mcp::run_runtime(&inputs(given, &arguments)),
        Some(("mcp-probe", given)) => {
            let calls = given.get_many::<String>("call").unwrap_or_default();
            let url = given.get_one::<String>("url").map_or("", String::as_str);
            mcp::run_probe(url, &calls.cloned().collect::<Vec<_>>())
        }
        Some(("db", given)) => db::run(given),
        Some(("setup", given)) => match given.subcommand() {
            Some(("code-interpreter", given)) => setup::run(given, &environment()),
            _ => ExitCode::from(USAGE),
        },
        Some(("status", given)) => status::run(given, &environment()),
        Some(("keys", given)) => match given.subcommand() {
            Some(("new", given)) => {
                let name = given.get_one::<String>("name").map_or("", String::as_str);
                keys::new(name, given.get_one::<String>("append"))
            }
            _ => ExitCode::from(USAGE),
        },
        _ => ExitCode::from(USAGE),
    }
}

fn usage(error: clap::Error) -> ExitCode {
    let error = tips::add(error);
    if error.print().is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
}

fn inputs(given: &ArgMatches, arguments: &[OsString]) -> Inputs {
    let (flags, around) = (args::flags(given), environment());
    Inputs {
        piped: config::piped(&flags, &around.directory),
        flags,
        spawn: args::behind_dashes(given, arguments),
        ..around
    }
}

/// The only place that looks at the process environment and directory.
fn environment() -> Inputs {
    Inputs {
        flags: BTreeMap::new(),
        spawn: None,
        env: std::env::vars_os().collect(),
        directory: std::env::current_dir().unwrap_or_default(),
        piped: None,
    }
}

/// Loads the configuration, or reports every problem on stderr.
fn load(inputs: &Inputs) -> Result<(Raw, Config), ExitCode> {
    let (raw, judged) = config::load(inputs);
    match judged {
        Ok(config) => Ok((raw, config)),
        Err(problems) => {
            // A variable that is misspelt may be why one is missing.
            let mut lines = warnings(&raw);
            lines.extend(problems.iter().map(|problem| format!("error: {problem}")));
            complain(&lines);
            Err(ExitCode::from(USAGE))
        }
    }
}

/// Lines on stderr, behind those of the log.
fn complain(lines: &[String]) {
    let mut text = lines.join("\n");
    text.push('\n');
    logging::say(&text);
    logging::finish();
}

fn answer(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(text.as_bytes());
    match written.and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            complain(&[format!(
                "error: standard output cannot be written ({error})"
            )]);
            ExitCode::FAILURE
        }
    }
}

fn warnings(raw: &Raw) -> Vec<String> {
    let notices = raw.notices.iter();
    notices.map(|notice| format!("warning: {notice}")).collect()
}

fn check_config(inputs: &Inputs) -> ExitCode {
    let (raw, judged) = config::load(inputs);
    let Err(problems) = judged else {
        let warnings = warnings(&raw);
        if !warnings.is_empty() {
            complain(&warnings);
        }
        return answer(&render::effective(&raw));
    };
    let mut lines = warnings(&raw);
    lines.extend(problems.iter().map(|problem| format!("error: {problem}")));
    complain(&lines);
    // One that is only unfinished is shown. Bad values are not: a secret may stand in the wrong place.
    if problems == [validate::NO_UPSTREAM] {
        let _shown: ExitCode = answer(&render::effective(&raw));
    }
    ExitCode::from(USAGE)
}
