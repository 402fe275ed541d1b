//! `serve`: configuration first, then the log, then the gateway.

use std::process::ExitCode;
use std::time::Duration;

use vllm_responses_actors::interpreter::settings::{Chosen, CodeInterpreterSettings, Mode};
use vllm_responses_actors::interpreter::setup::Request;
use vllm_responses_actors::process::ignore_hangup;
use vllm_responses_actors::terminal;

use super::{complain, load, setup};
use crate::config::raw::Inputs;
use crate::gateway::{self, Failure};
use crate::reload::LogSource;
use crate::shutdown::Outcome;
use crate::{listen, logging};

/// A terminal at which nobody sits must not keep a gateway from starting.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Whether what is missing may be downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Install {
    /// `--yes`.
    Always,
    /// Where a person at the terminal says so.
    Asked,
}

impl From<bool> for Install {
    fn from(yes: bool) -> Self {
        if yes { Self::Always } else { Self::Asked }
    }
}

impl Install {
    fn allows(self, request: &Request) -> bool {
        self == Self::Always
            || (terminal::has_person() && setup::agreed(request, Some(ANSWER_WITHIN)))
    }
}

/// Runs the gateway until it stops.
pub(super) fn run(inputs: &Inputs, install: Install) -> ExitCode {
    // It means that keys and logging are read again, which they are about to be anyway.
    ignore_hangup();
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
    let request = spawn
        .cache
        .clone()
        .map(|cache| setup::default_request(inputs, cache))
        .filter(|request| install.allows(request));
    if let Some(request) = request {
        log::info!("the code interpreter is being installed; Ctrl-C stops that");
        match setup::install(&request) {
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
