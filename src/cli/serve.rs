//! `serve`: configuration first, then the log, then the gateway.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use vllm_responses_actors::interpreter::settings::{Chosen, CodeInterpreterSettings, Mode};

use super::{complain, load, setup};
use crate::config::raw::Inputs;
use crate::gateway::{self, Failure};
use crate::reload::LogSource;
use crate::shutdown::Outcome;
use crate::{listen, logging};

/// Whether what is missing may be downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Install {
    /// `--yes`.
    Always,
    /// Where a person looks on, and can stop it.
    OnTerminal,
}

impl From<bool> for Install {
    fn from(yes: bool) -> Self {
        if yes { Self::Always } else { Self::OnTerminal }
    }
}

impl Install {
    fn allowed(self) -> bool {
        self == Self::Always || (std::io::stdin().is_terminal() && std::io::stderr().is_terminal())
    }
}

/// Runs the gateway until it stops.
pub(super) fn run(inputs: &Inputs, install: Install) -> ExitCode {
    let (raw, config) = match load(inputs) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let log = LogSource {
        handle: logging::init(&config.logging),
        inputs: inputs.clone(),
    };
    for notice in &raw.notices {
        log::warn!("{notice}");
    }
    if let Err(problem) = listen::try_out(&config.gateway) {
        complain(&[format!("error: {problem}")]);
        return ExitCode::FAILURE;
    }
    provide_interpreter(&config.interpreter, inputs, install);
    let ended = gateway::run(config, log);
    logging::finish();
    match ended {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Cut(code)) => ExitCode::from(code),
        Err(Failure { problem, code }) => {
            complain(&[format!("error: {problem}")]);
            ExitCode::from(code)
        }
    }
}

/// Sees to the interpreter that nobody asked for or declined: one that is missing is installed where
/// that is allowed, and else done without (decision 28). An explicit one was checked with the
/// configuration. This is before the port is bound, on a thread that serves nobody yet.
fn provide_interpreter(settings: &CodeInterpreterSettings, inputs: &Inputs, install: Install) {
    let Mode::Spawn(spawn) = &settings.mode else {
        return;
    };
    if spawn.chosen == Chosen::ByUser || spawn.bundle().is_ok() {
        return;
    }
    if let Some(cache) = spawn.cache.clone().filter(|_| install.allowed()) {
        log::info!(
            "the code interpreter is not there yet and is being installed; Ctrl-C stops that"
        );
        match setup::install(&setup::default_request(inputs, cache)) {
            Ok(_) => return,
            Err(error) => log::warn!("the code interpreter could not be installed: {error}"),
        }
    }
    log::warn!(
        "no code interpreter: requests for that tool are refused; install it with \
         `vllm-responses setup code-interpreter`, start with `--yes`, or silence this with \
         `--code-interpreter disabled`"
    );
}
