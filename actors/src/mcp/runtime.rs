//! Starts the MCP runtime, our own binary once more, and keeps it running.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor as _, Addr, Recipient};
use actix_rt::ArbiterHandle;
use url::Url;
use vllm_responses_protocol::ids::IdSource as _;

use super::settings::{HostedSettings, RuntimeLink};
use crate::env::SystemIds;
use crate::process::actor::{ChildActor, ChildSettings, FirstStart, SameSpec};
use crate::process::messages::PhaseChanged;
use crate::process::readiness::{Answer, HealthSettings, Probe, ReadySettings};
use crate::process::{ChildSpec, EnvPolicy, Launcher, Output, Stdin};
use crate::secret::Secret;
use crate::supervisor::restart::RestartSettings;
use crate::vllm::client;

/// Name of the child, in logs and phases.
pub const NAME: &str = "mcp-runtime";
/// Stdio servers below it have 3 s of their own.
const GRACE: Duration = Duration::from_secs(8);
/// What start-up takes beyond the servers that are required.
const START_SLACK: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(2);

/// Why the runtime cannot be started. One line, naming the remedy.
#[derive(Debug, thiserror::Error)]
pub enum SpawnRuntimeError {
    /// Something else listens where it is to listen.
    #[error(
        "the MCP runtime's port {port} is taken ({error}): give another with `--mcp-port`, or attach to what runs there with `VR_MCP_BUILTIN_RUNTIME_URL` and without `--mcp-config`"
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
    /// The port makes no URL; never happens.
    #[error("the MCP runtime's address cannot be written")]
    Address,
}

/// How the runtime's own settings reach it: variables, beside those of the gateway's environment.
#[derive(Clone, Debug)]
pub struct RuntimeEnv {
    /// Name and value.
    pub variables: Vec<(OsString, OsString)>,
}

/// A link to a runtime that is to be started on this port, with a fresh token: other users of this
/// machine cannot use it.
pub fn fresh_link(port: u16) -> Result<RuntimeLink, SpawnRuntimeError> {
    let url = Url::parse(&format!("http://127.0.0.1:{port}"));
    let token = format!("{:032x}", SystemIds.next_bits());
    Ok(RuntimeLink {
        url: url.map_err(|_never| SpawnRuntimeError::Address)?,
        token: Some(Secret::new(&token)),
    })
}

/// The actor that will run the runtime once it is told to start. Its phases go to `observer`.
///
/// # Errors
/// [`SpawnRuntimeError`], before any process is started.
pub fn supervise(
    link: &RuntimeLink,
    env: RuntimeEnv,
    settings: HostedSettings,
    observer: Recipient<PhaseChanged>,
    arbiter: &ArbiterHandle,
) -> Result<Addr<ChildActor>, SpawnRuntimeError> {
    let port = link.url.port_or_known_default().unwrap_or_default();
    drop(
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| SpawnRuntimeError::PortTaken { port, error })?,
    );
    let launcher = Launcher::start("/proc/self/exe".into(), Box::new(io::stderr()))
        .map_err(SpawnRuntimeError::Launcher)?;
    let spec = ChildSpec {
        name: NAME.to_owned(),
        // The file itself, not `/proc/self/exe`, which would be the guardian's.
        program: own_program().into(),
        args: vec!["mcp-runtime".into()],
        directory: None,
        env: EnvPolicy::InheritWithoutOurs {
            hidden: Vec::new(),
            set: env.variables,
        },
        stdin: Stdin::Held,
        output: Output::Prefixed,
        grace: GRACE,
        limits: Vec::new(),
        sandbox: None,
    };
    let numbers = ChildSettings {
        ready: ReadySettings {
            // Only servers that are required are waited for.
            limit: settings
                .startup
                .max(settings.program_startup)
                .saturating_mul(3)
                .saturating_add(START_SLACK),
            pause: Duration::from_millis(50),
            ..ReadySettings::default()
        },
        health: HealthSettings::default(),
        restart: RestartSettings::default(),
        first_start: FirstStart::MustSucceed,
    };
    let link = link.clone();
    Ok(ChildActor::start_in_arbiter(arbiter, move |_| {
        let launch = Rc::new(SameSpec { launcher, spec });
        ChildActor::new(NAME, launch, probe(link), numbers, vec![observer])
    }))
}

fn own_program() -> std::path::PathBuf {
    let own = std::env::current_exe();
    own.unwrap_or_else(|_unknown| Path::new("/proc/self/exe").to_owned())
}

fn probe(link: RuntimeLink) -> Probe {
    let client = client::client(&link.endpoint(""), CONNECT);
    Box::new(move || {
        let request = link.authorize(client.get(link.endpoint("/health")));
        Box::pin(async move {
            match request.send().await {
                Ok(answer) if answer.status().as_u16() == 200 => Answer::Ready,
                Ok(_) => Answer::NotYet("a server that is required is not available yet".into()),
                Err(_unreachable) => Answer::NotYet("it does not answer yet".into()),
            }
        })
    })
}
