//! `setup code-interpreter`: installs it, removes old ones, or writes what another machine needs to install it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use actix_rt::System;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use url::Url;
use vllm_responses_actors::interpreter::bundle::Packages;
use vllm_responses_actors::interpreter::setup::pins::{PACKAGES_URL, REGISTRY_URL, Release};
use vllm_responses_actors::interpreter::setup::{
    self, Existing, Mirrors, Origin, Outcome, Request, SetupError,
};
use vllm_responses_actors::{terminal, tls};

use super::progress::Shown;
use super::{USAGE, answer, complain};
use crate::config::interpreter;
use crate::config::raw::{self, Inputs};
use crate::logging;

const AFTER: &str = "\
Downloads Deno and Pyodide (about 50 MB; science about 60 MB more) from the npm registry, checks
them against checksums in this program, and builds the interpreter: about a minute, 150 MB of disk.
At a terminal it asks first, unless --yes is given. Nothing is needed on the machine; where a proxy or a token is, npm is asked if it is installed.

Without a network:
  elsewhere:  vllm-responses setup code-interpreter --export parts.tar
  here:       vllm-responses setup code-interpreter --from parts.tar

The folder (or archive) is printed on stdout, everything else on stderr.

Environment:
  VR_PYODIDE_CACHE_DIR   where it is installed; else `vllm-responses/code-interpreter` in
                         XDG_CACHE_HOME or ~/.cache
  NPM_CONFIG_REGISTRY    another npm registry";

/// The command's shape.
pub(super) fn command() -> Command {
    let path = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    let url =
        |name: &'static str, help: String| Arg::new(name).long(name).value_name("URL").help(help);
    let packages = Arg::new("packages")
        .long("packages")
        .value_name("WORD")
        .value_parser(["core", "science"])
        .default_value("core")
        .help("`science` adds numpy, pandas, matplotlib, scipy, scikit-learn and more");
    let force = Arg::new("force")
        .long("force")
        .action(ArgAction::SetTrue)
        .help("Install again what is there");
    Command::new("setup")
        .about("Install optional parts")
        .subcommand_required(true)
        .subcommand(
            Command::new("code-interpreter")
                .about("Install the code interpreter: Python in a sandbox")
                .after_help(AFTER)
                .arg(packages)
                .arg(path(
                    "from",
                    "PATH",
                    "Archive of --export, or a folder of the same files, instead of the network",
                ))
                .arg(path(
                    "export",
                    "FILE",
                    "Write what an installation needs into this archive, and install nothing",
                ))
                .arg(
                    path(
                        "deno",
                        "FILE",
                        "Deno executable to use instead of the pinned one",
                    )
                    .conflicts_with("export"),
                )
                .arg(force)
                .arg(
                    Arg::new("yes")
                        .long("yes")
                        .short('y')
                        .action(ArgAction::SetTrue)
                        .help("Do not ask at a terminal before the download"),
                )
                .arg(prune_flag())
                .arg(url(
                    "registry",
                    format!("npm registry [env: NPM_CONFIG_REGISTRY, default: {REGISTRY_URL}]"),
                ))
                .arg(url(
                    "pyodide-url",
                    format!("Where the packages of `science` lie [default: {PACKAGES_URL}]"),
                )),
        )
}

fn prune_flag() -> Arg {
    Arg::new("prune")
        .long("prune")
        .action(ArgAction::SetTrue)
        .conflicts_with_all(["packages", "from", "export", "deno", "force"])
        .help("Remove interpreters of other versions that nothing runs, and install nothing")
}

/// Does it.
pub(super) fn run(given: &ArgMatches, inputs: &Inputs) -> ExitCode {
    let raw = raw::gather(inputs);
    let Some(cache) = interpreter::cache_folder(&raw) else {
        complain(&[format!("error: {NO_FOLDER}")]);
        return ExitCode::from(USAGE);
    };
    if given.get_flag("prune") {
        return prune(&cache);
    }
    let request = match request(given, inputs, cache) {
        Ok(request) => request,
        Err(problem) => {
            complain(&[format!("error: {problem}")]);
            return ExitCode::from(USAGE);
        }
    };
    let done = match given.get_one::<PathBuf>("export") {
        Some(target) => {
            let target = inputs.directory.join(target);
            export(&request, &target).map(|()| answer(&format!("{}\n", target.display())))
        }
        None if !given.get_flag("yes") && !agreed(&request, None) => {
            complain(&["nothing was downloaded or installed".to_owned()]);
            return ExitCode::FAILURE;
        }
        None => install(&request).map(|outcome| tell(&outcome)),
    };
    done.unwrap_or_else(|error| {
        complain(&[format!("error: {error}")]);
        ExitCode::FAILURE
    })
}

/// There is no place to install to.
const NO_FOLDER: &str =
    "there is no folder for the code interpreter; set `VR_PYODIDE_CACHE_DIR`, or `HOME`";

/// Whether a person at the terminal lets this be downloaded. Where nobody is there the command itself is
/// the word for it, and where nothing is to be downloaded there is nothing to ask.
pub(super) fn agreed(request: &Request, limit: Option<Duration>) -> bool {
    let Some(bytes) = setup::download_bytes(request).filter(|_| terminal::has_person()) else {
        return true;
    };
    let within = limit.map_or_else(String::new, |limit| {
        format!("; no answer within {} s means no", limit.as_secs())
    });
    ask(&format!(
        "The code interpreter (Python in a sandbox) is not installed.\n\
         Download {} MB from {}, checked against checksums in this program,\n\
         and build it in {} (about a minute, 150 MB of disk)? [Y/n{within}] ",
        bytes / 1_000_000,
        source(&request.origin),
        request.cache.display(),
    ));
    let answer = terminal::line_within(limit);
    if answer.is_none() {
        ask("\n");
    }
    answer.is_some_and(|answer| matches!(&*answer.to_ascii_lowercase(), "" | "y" | "yes"))
}

/// Words to the terminal, behind what the log has said so far.
fn ask(text: &str) {
    logging::say(text);
    logging::finish();
}

/// Host of the registry: its URL may have a password in it.
fn source(origin: &Origin) -> String {
    match origin {
        Origin::Network(mirrors) => {
            let url = Url::parse(&mirrors.registry).ok();
            let host = url.as_ref().and_then(Url::host_str);
            host.unwrap_or("the npm registry").to_owned()
        }
        Origin::Local(path) => path.display().to_string(),
    }
}

/// Installs, telling how it goes on stderr.
///
/// # Errors
/// [`SetupError`].
pub(super) fn install(request: &Request) -> Result<Outcome, SetupError> {
    tls::install();
    let mut shown = Shown::on_stderr();
    let outcome = System::new().block_on(setup::install(request, &mut shown));
    shown.end();
    outcome
}

/// Writes the archive, telling how it goes on stderr.
fn export(request: &Request, target: &Path) -> Result<(), SetupError> {
    tls::install();
    let mut shown = Shown::on_stderr();
    let done = System::new().block_on(setup::export(request, target, &mut shown));
    shown.end();
    done
}

/// Removes what other versions left: each removed folder on stdout, each used one on stderr.
fn prune(cache: &Path) -> ExitCode {
    let mut shown = Shown::on_stderr();
    let pruned = System::new().block_on(setup::prune(cache, &mut shown));
    shown.end();
    match pruned {
        Ok(pruned) => {
            let lines = |paths: &[PathBuf], note: &str| -> Vec<String> {
                let line = |path: &PathBuf| format!("{}{note}", path.display());
                paths.iter().map(line).collect()
            };
            let used = lines(&pruned.in_use, " is in use and stays");
            if !used.is_empty() {
                complain(&used);
            }
            let removed = lines(&pruned.removed, "\n");
            answer(&removed.concat())
        }
        Err(error) => {
            complain(&[format!("error: {error}")]);
            ExitCode::FAILURE
        }
    }
}

/// The words for a person, the path for a script.
fn tell(outcome: &Outcome) -> ExitCode {
    let (text, path) = match outcome {
        Outcome::Installed(path) => ("the code interpreter is installed in", path),
        Outcome::AlreadyThere(path) => (
            "the code interpreter is already installed (`setup code-interpreter --force` installs it again), in",
            path,
        ),
    };
    complain(&[text.to_owned()]);
    answer(&format!("{}\n", path.display()))
}

/// What `serve` installs when it may: `core`, from the network.
pub(super) fn default_request(inputs: &Inputs, cache: PathBuf) -> Request {
    Request {
        cache,
        packages: Packages::Core,
        origin: Origin::Network(Mirrors {
            registry: registry(&inputs.env),
            packages: PACKAGES_URL.to_owned(),
            npm: npm(&inputs.env),
        }),
        deno: None,
        existing: Existing::Keep,
        release: Release::pinned(),
    }
}

fn request(given: &ArgMatches, inputs: &Inputs, cache: PathBuf) -> Result<Request, String> {
    let text = |name: &str| given.get_one::<String>(name).map(String::as_str);
    let path = |name: &str| {
        given
            .get_one::<PathBuf>(name)
            .map(|path| inputs.directory.join(path))
    };
    let mut request = default_request(inputs, cache);
    if text("packages") == Some("science") {
        request.packages = Packages::Science;
    }
    if given.get_flag("force") {
        request.existing = Existing::Replace;
    }
    request.deno = path("deno");
    if let Origin::Network(mirrors) = &mut request.origin {
        for (flag, place) in [
            ("registry", &mut mirrors.registry),
            ("pyodide-url", &mut mirrors.packages),
        ] {
            if let Some(url) = text(flag) {
                url.clone_into(place);
            }
        }
        for (name, url) in [
            ("--registry` or `NPM_CONFIG_REGISTRY", &mirrors.registry),
            ("--pyodide-url", &mirrors.packages),
        ] {
            if !interpreter::is_http(url) {
                return Err(format!(
                    "`{name}`: must be a URL that begins with http:// or https://"
                ));
            }
        }
    }
    if let Some(local) = path("from") {
        if !local.exists() {
            let rule = "there is no such file or folder; name what `--export` wrote";
            return Err(format!("`--from`: {rule}"));
        }
        request.origin = Origin::Local(local);
    }
    Ok(request)
}

/// npm reads its variables in either case.
fn registry(env: &BTreeMap<OsString, OsString>) -> String {
    ["NPM_CONFIG_REGISTRY", "npm_config_registry"]
        .iter()
        .filter_map(|name| env.get(OsStr::new(name)))
        .filter_map(|value| value.to_str())
        .find(|value| !value.is_empty())
        .unwrap_or(REGISTRY_URL)
        .to_owned()
}

/// The npm of this machine.
fn npm(env: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let path = env.get(OsStr::new("PATH"))?;
    std::env::split_paths(path)
        .map(|folder| folder.join("npm"))
        .find(|program| program.is_absolute() && program.is_file())
}
