//! The command line: what was asked, and the commands that answer without a gateway.

mod args;
mod db;
mod interpreter;
mod mcp;
mod progress;
mod serve;
mod setup;
mod status;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::ArgMatches;

use crate::config::raw::{Inputs, Raw};
use crate::config::{self, Config, render};
use crate::keys;

/// Bad configuration or usage.
const USAGE: u8 = 2;

/// Does what the process arguments say.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let matches = match args::command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
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
                new_key(given.get_one::<String>("name").map_or("", String::as_str))
            }
            _ => ExitCode::from(USAGE),
        },
        _ => ExitCode::from(USAGE),
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    if error.print().is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
}

fn inputs(given: &ArgMatches, arguments: &[OsString]) -> Inputs {
    Inputs {
        flags: args::flags(given),
        spawn: args::behind_dashes(given, arguments),
        ..environment()
    }
}

/// The only place that looks at the process environment and directory.
fn environment() -> Inputs {
    Inputs {
        flags: BTreeMap::new(),
        spawn: None,
        env: std::env::vars_os().collect(),
        directory: std::env::current_dir().unwrap_or_default(),
    }
}

/// Loads the configuration, or reports every problem on stderr.
fn load(inputs: &Inputs) -> Result<(Raw, Config), ExitCode> {
    let (raw, judged) = config::load(inputs);
    match judged {
        Ok(config) => Ok((raw, config)),
        Err(problems) => {
            complain(
                &problems
                    .iter()
                    .map(|problem| format!("error: {problem}"))
                    .collect::<Vec<_>>(),
            );
            Err(ExitCode::from(USAGE))
        }
    }
}

/// Lines on stderr. When even that fails nobody is left to be told.
fn complain(lines: &[String]) {
    let mut text = lines.join("\n");
    text.push('\n');
    std::io::stderr()
        .write_all(text.as_bytes())
        .unwrap_or_default();
}

fn answer(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn check_config(inputs: &Inputs) -> ExitCode {
    match load(inputs) {
        Ok((raw, _)) => {
            if !raw.notices.is_empty() {
                complain(
                    &raw.notices
                        .iter()
                        .map(|notice| format!("warning: {notice}"))
                        .collect::<Vec<_>>(),
                );
            }
            answer(&render::effective(&raw))
        }
        Err(code) => code,
    }
}

fn new_key(name: &str) -> ExitCode {
    if !keys::valid_name(name) {
        complain(&["error: the name must be 1 to 64 letters, digits, `.`, `_` or `-`".to_owned()]);
        return ExitCode::from(USAGE);
    }
    let mut bytes = [0u8; 32];
    if getrandom::fill(&mut bytes).is_err() {
        complain(&["error: the system gives no random bytes; try again".to_owned()]);
        return ExitCode::FAILURE;
    }
    let key = format!("vr-{}", keys::hex(&bytes));
    answer(&format!(
        "Key, shown this once; give it to the client:\n{key}\n\nLine for the file of VR_API_KEYS_FILE:\n{}\n",
        keys::line_for(name, &key)
    ))
}
