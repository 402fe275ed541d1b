//! Starts a vLLM of our own, and keeps it running.
//!
//! The process plumbing does the work; here is only what is special about vLLM. Its engine outlives
//! a killed server and it can hang on SIGTERM with a stream open (measured on vLLM 0.32), so its
//! whole tree is killed after a grace; its exit status says nothing, since it is 0 after a crash.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor as _, Addr, Recipient};
use actix_rt::ArbiterHandle;

use super::command::VllmCommand;
use super::settings::{SpawnSettings, UpstreamSettings};
use super::{Poll, client, poll};
use crate::process::actor::{ChildActor, ChildSettings, FirstStart, SameSpec};
use crate::process::messages::PhaseChanged;
use crate::process::readiness::{Answer, HealthSettings, Probe, ReadySettings};
use crate::process::{ChildSpec, EnvPolicy, Launcher, Output, Stdin};
use crate::supervisor::restart::RestartSettings;

/// An idle vLLM is gone 4 s after SIGTERM; a hung one never.
const GRACE: Duration = Duration::from_secs(8);

/// Why vLLM cannot be started. One line, naming the remedy.
#[derive(Debug, thiserror::Error)]
pub enum SpawnVllmError {
    /// Something else listens where vLLM is to listen.
    #[error(
        "vLLM's port {port} is taken ({error}): give another with `--port` after `--`, or attach to what runs there with `--upstream`"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// The system's words.
        error: io::Error,
    },
    /// No thread could be started.
    #[error("the process launcher cannot be started ({0})")]
    Launcher(io::Error),
}

/// The actor that will run vLLM once it is told to start. Its phases go to `observer`.
///
/// # Errors
/// [`SpawnVllmError`], before any process is started.
pub fn supervise(
    command: &VllmCommand,
    settings: &SpawnSettings,
    upstream: UpstreamSettings,
    observer: Recipient<PhaseChanged>,
    arbiter: &ArbiterHandle,
) -> Result<Addr<ChildActor>, SpawnVllmError> {
    let port = command.port;
    drop(
        TcpListener::bind((command.host.as_str(), port))
            .map_err(|error| SpawnVllmError::PortTaken { port, error })?,
    );
    let launcher = Launcher::start("/proc/self/exe".into(), crate::process::outlet())
        .map_err(SpawnVllmError::Launcher)?;
    let spec = spec(command, settings);
    let numbers = numbers(settings);
    Ok(ChildActor::start_in_arbiter(arbiter, move |_| {
        let launch = Rc::new(SameSpec { launcher, spec });
        ChildActor::new("vllm", launch, probe(upstream), numbers, vec![observer])
    }))
}

fn spec(command: &VllmCommand, settings: &SpawnSettings) -> ChildSpec {
    ChildSpec {
        name: "vllm".to_owned(),
        program: settings.program.clone().into(),
        args: command.args.iter().map(Into::into).collect(),
        directory: None,
        env: EnvPolicy::InheritWithoutOurs {
            hidden: Vec::new(),
            set: Vec::new(),
        },
        stdin: Stdin::Null,
        output: Output::Prefixed,
        grace: GRACE,
        limits: Vec::new(),
        sandbox: None,
    }
}

fn numbers(settings: &SpawnSettings) -> ChildSettings {
    ChildSettings {
        ready: ReadySettings {
            limit: settings.startup_timeout,
            notice_every: settings.ready_interval,
            ..ReadySettings::default()
        },
        health: HealthSettings::default(),
        restart: RestartSettings {
            on_exit: settings.on_exit,
            ..RestartSettings::default()
        },
        first_start: FirstStart::MustSucceed,
    }
}

/// Asks for the model list, from the thread the actor lives on.
fn probe(upstream: UpstreamSettings) -> Probe {
    let client = client::client(upstream.base_url.as_str(), upstream.deadlines.connect);
    Box::new(move || {
        let (client, upstream) = (client.clone(), upstream.clone());
        Box::pin(async move {
            match poll(&client, &upstream).await {
                Poll::Ready => Answer::Ready,
                Poll::NotYet(reason) => Answer::NotYet(reason),
                refused @ Poll::Unauthorized(_) => Answer::Refused(format!(
                    "vLLM {refused}: set `VR_OPENAI_API_KEY` to the key it was started with"
                )),
            }
        })
    })
}
