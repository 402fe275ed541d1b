//! What SIGHUP reads again: the API keys, and how the log is written. What is bad changes nothing.

use tokio::sync::watch;
use vllm_responses_actors::supervisor::messages::TurnLog;

use crate::config::raw::{self, Inputs};
use crate::config::{Logging, telemetry};
use crate::keys::Keys;
use crate::logging::LogHandle;

/// How the log's settings came to be, and where changed ones go.
#[derive(Debug)]
pub struct LogSource {
    /// Where configuration comes from; the environment is the one of the start.
    pub inputs: Inputs,
    /// The running log; `None` when it is somebody else's.
    pub handle: Option<LogHandle>,
}

/// Reads again what may change while the gateway runs.
#[derive(Debug)]
pub(crate) struct Reload {
    keys: Keys,
    log: LogSource,
    turns: watch::Sender<TurnLog>,
}

impl Reload {
    pub(crate) fn new(keys: Keys, log: LogSource, settings: &Logging) -> Self {
        Self {
            keys,
            log,
            turns: watch::Sender::new(of_turns(settings)),
        }
    }

    /// What turns say of themselves in the log, now and later.
    pub(crate) fn turn_log(&self) -> watch::Receiver<TurnLog> {
        self.turns.subscribe()
    }

    /// Reads everything again.
    pub(crate) fn run(&self) {
        self.keys.reload();
        match telemetry::logging(&raw::gather(&self.log.inputs)) {
            Ok(settings) => {
                if let Some(handle) = &self.log.handle {
                    handle.apply(&settings);
                }
                self.turns.send_replace(of_turns(&settings));
                log::info!("logging is configured anew");
            }
            Err(problems) => log::error!(
                "logging not changed, the configuration is bad: {}",
                problems.join("; ")
            ),
        }
    }
}

fn of_turns(settings: &Logging) -> TurnLog {
    TurnLog {
        timings: settings.timings,
        model_messages: settings.model_messages,
    }
}
