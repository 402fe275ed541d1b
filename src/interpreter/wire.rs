//! Wires the code interpreter into the gateway: processes of its own, or the way to a service.

use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use vllm_responses_actors::ask::ask;
use vllm_responses_actors::interpreter::messages::Stop;
use vllm_responses_actors::interpreter::settings::{Chosen, CodeInterpreterSettings, Mode};
use vllm_responses_actors::interpreter::start::{self, Running};
use vllm_responses_actors::tools::Tool;

use crate::http::state::InterpreterDoor;

/// Telling the actor to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The gateway's code interpreter, on a thread of its own.
pub(crate) struct Interpreter {
    thread: Arbiter,
    running: Running,
    service: Option<Box<str>>,
}

impl Interpreter {
    /// Starts it; what it needs comes up while the caller goes on.
    ///
    /// # Errors
    /// One sentence, when what was asked for cannot be had.
    pub(crate) fn start(settings: &CodeInterpreterSettings) -> Result<Self, String> {
        let thread = Arbiter::new();
        let running =
            start::start(settings, &thread.handle()).map_err(|error| error.to_string())?;
        let service = match &settings.mode {
            Mode::External(service) => Some(service.url.as_str().into()),
            Mode::Spawn(_) | Mode::Disabled => None,
        };
        Ok(Self {
            thread,
            running,
            service,
        })
    }

    /// What turns get.
    pub(crate) fn tool(&self) -> Option<Arc<dyn Tool>> {
        self.running.tool.clone()
    }

    /// Whom the status page asks.
    pub(crate) fn door(&self) -> Option<InterpreterDoor> {
        let doors = self.running.doors.as_ref()?;
        Some(InterpreterDoor {
            observe: doors.observe.clone(),
            service: self.service.clone(),
        })
    }

    /// Ends it. One that does not hear this is ended by its guardian.
    pub(crate) async fn stop(self) {
        if let Some(doors) = &self.running.doors {
            let _unheard: Result<(), _> = ask(&doors.stop, Stop, STOP_LIMIT).await;
        }
        self.thread.stop();
    }
}

/// Waits for one that was asked for; the default one comes up beside the first responses.
///
/// # Errors
/// One sentence, when `code_interpreter.startup_timeout` passes first.
pub(crate) async fn until_ready(
    settings: &CodeInterpreterSettings,
    door: Option<InterpreterDoor>,
) -> Result<(), String> {
    let is_asked_for = match &settings.mode {
        Mode::External(_) => true,
        Mode::Spawn(spawn) => spawn.chosen == Chosen::ByUser,
        Mode::Disabled => false,
    };
    match door.filter(|_| is_asked_for) {
        Some(door) => {
            if let Mode::External(service) = &settings.mode {
                log::info!("code interpreter: waiting for {}", service.url);
            }
            start::until_ready(&door.observe, settings.startup_timeout).await
        }
        None => Ok(()),
    }
}
