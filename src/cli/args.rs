//! The shape of the command line, with flags made from the key table.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::setup;
use super::status;
use crate::config::table::{CONFIG, Kind, Row, TABLE};

const ABOUT: &str = "A gateway that gives any vLLM server a stateful OpenAI Responses API";

const AFTER: &str = "\
Example, with a vLLM server on port 8000:
  vllm-responses serve --upstream http://127.0.0.1:8000
then point an OpenAI client at http://127.0.0.1:5969/v1.

Where configuration comes from, strongest first:
  flags, environment (VR_...), `.env` in the working directory,
  the TOML file of --config or VR_CONFIG, defaults.
  `vllm-responses check-config` prints every value and its place.

Exit codes:
  0    stopped cleanly, or the answer was given
  1    failed while starting or running; where a vLLM of its own was the
       cause, that one's code (128 and the signal's number)
  2    wrong usage or configuration; every problem is on stderr
  130  stopped at once by a second SIGINT
  143  stopped at once by a second SIGTERM";

/// The whole command line.
pub(super) fn command() -> Command {
    let name = Arg::new("name")
        .value_name("NAME")
        .required(true)
        .help("Owner of the key's data");
    Command::new("vllm-responses")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER)
        .subcommand_required(true)
        .arg_required_else_help(false)
        .subcommand(configured("serve", "Start the gateway").arg(yes()))
        .subcommand(setup::command())
        .subcommand(configured(
            "check-config",
            "Print the effective configuration, secrets redacted",
        ))
        .subcommand(with_flags(
            Command::new("code-interpreter")
                .about("Run the code interpreter for gateways to attach to")
                .after_help(AFTER),
            is_of_service,
        ))
        .subcommand(with_flags(
            Command::new("mcp-runtime")
                .about("Run the operator's MCP servers for gateways to attach to")
                .after_help(AFTER),
            |row| {
                ["mcp.", "logging.", CONFIG]
                    .iter()
                    .any(|part| row.key.starts_with(part))
            },
        ))
        .subcommand(probe())
        .subcommand(status::command())
        .subcommand(super::db::command())
        .subcommand(
            Command::new("keys")
                .about("API keys of clients")
                .subcommand_required(true)
                .subcommand(
                    Command::new("new")
                        .about("Make a key and its line for the keys file")
                        .arg(name)
                        .arg(
                            Arg::new("append")
                                .long("append")
                                .value_name("FILE")
                                .help("Add the line to this keys file, and print the key alone"),
                        ),
                ),
        )
}

/// Whether the interpreter's service has this key: all of the interpreter's but who runs it.
fn is_of_service(row: &Row) -> bool {
    match row.key {
        "code_interpreter.mode" | "code_interpreter.url" => false,
        "lifecycle.shutdown_grace" | CONFIG => true,
        key => key.starts_with("code_interpreter.") || key.starts_with("logging."),
    }
}

/// For tests and for looking for a fault, not for everyday use.
fn probe() -> Command {
    Command::new("mcp-probe")
        .hide(true)
        .about("List an MCP server's tools and make some calls")
        .arg(
            Arg::new("call")
                .long("call")
                .value_name("TOOL=JSON")
                .action(ArgAction::Append)
                .help("Call this tool with these arguments"),
        )
        .arg(Arg::new("url").value_name("URL").required(true))
}

fn yes() -> Arg {
    Arg::new("yes")
        .long("yes")
        .action(ArgAction::SetTrue)
        .help("Install what is missing (the code interpreter, 50 MB) without asking")
}

fn configured(name: &'static str, about: &'static str) -> Command {
    let command = Command::new(name).about(about).after_help(AFTER);
    with_flags(command, |row| row.key != "code_interpreter.host").arg(
        Arg::new("vllm")
            .value_name("MODEL AND VLLM ARGUMENTS")
            .last(true)
            .num_args(0..)
            .help("Start vLLM with these arguments instead of using --upstream"),
    )
}

/// Under which title a flag stands in `--help`.
fn heading(key: &str) -> &'static str {
    match key.split_once('.').map_or("", |(section, _)| section) {
        "gateway" => "Where to listen",
        "upstream" => "The model server",
        "vllm" => "A vLLM of the gateway's own (behind --)",
        "code_interpreter" => "Code interpreter",
        "mcp" => "MCP",
        "lifecycle" => "Stopping",
        "logging" => "Log",
        _ => "Configuration",
    }
}

/// Adds the flags of those rows that `takes` takes.
fn with_flags(mut command: Command, takes: impl Fn(&Row) -> bool) -> Command {
    for row in TABLE.iter().filter(|row| takes(row)) {
        let Some(flag) = row.flag else { continue };
        let default = if row.default.is_empty() {
            String::new()
        } else {
            format!(", default: {}", row.default)
        };
        let place = match row.kind {
            Kind::Text if matches!(row.key, "upstream.url" | "code_interpreter.url") => "URL",
            Kind::Text if row.key == "code_interpreter.bundle" => "FOLDER",
            Kind::Text if matches!(row.key, "gateway.host" | "code_interpreter.host") => "HOST",
            Kind::Text => "FILE",
            Kind::Number | Kind::Fraction => "NUMBER",
            Kind::Switch => "BOOLEAN",
            Kind::Duration => "DURATION",
            Kind::Size => "SIZE",
            Kind::Choice(words) => words.join("|").leak(),
        };
        let arg = Arg::new(row.key)
            .long(flag.trim_start_matches('-'))
            .value_name(place)
            .help_heading(heading(row.key))
            .allow_hyphen_values(row.kind == Kind::Number || row.kind == Kind::Duration)
            .help(format!("{} [env: {}{default}]", row.meaning, row.env));
        // `--flag` alone means yes; a value needs `=`, since the next word may be another argument.
        let arg = if row.kind == Kind::Switch {
            arg.num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
        } else {
            arg
        };
        command = command.arg(arg);
    }
    command
}

/// Flags that were given, by TOML key; a command without a flag has not been given it.
pub(super) fn flags(given: &ArgMatches) -> BTreeMap<&'static str, String> {
    TABLE
        .iter()
        .filter(|row| row.flag.is_some())
        .filter_map(|row| {
            let value = given.try_get_one::<String>(row.key).ok()??;
            Some((row.key, value.clone()))
        })
        .collect()
}

/// What stood behind `--`; an empty list when nothing did.
pub(super) fn behind_dashes(given: &ArgMatches, arguments: &[OsString]) -> Option<Vec<String>> {
    if !arguments.iter().any(|argument| argument == "--") {
        return None;
    }
    Some(
        given
            .try_get_many::<String>("vllm")
            .ok()
            .flatten()
            .map(|all| all.cloned().collect())
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
