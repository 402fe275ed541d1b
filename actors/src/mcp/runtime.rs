//! Starts the MCP runtime, our own binary once more, and keeps it running.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor as _, Addr, Recipient};
use actix_rt::ArbiterHandle;
use futures_util::future::LocalBoxFuture;
use tokio::sync::watch;
use vllm_responses_protocol::ids::IdSource as _;

use super::settings::HostedSettings;
use super::way::{Meeting, Way};
use crate::env::SystemIds;
use crate::mask::Mask;
use crate::process::actor::{ChildActor, ChildSettings, FirstStart, Launch, Launched, Running};
use crate::process::messages::PhaseChanged;
use crate::process::readiness::{Answer, HealthSettings, Probe, ReadySettings};
use crate::process::socket::private_socket;
use crate::process::{ChildSpec, EnvPolicy, Launcher, Output, SpawnError, Stdin};
use crate::secret::Secret;
use crate::supervisor::restart::RestartSettings;

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
    /// No thread could be started.
    #[error("the process launcher cannot be started ({0})")]
    Launcher(io::Error),
}

/// How the runtime's own settings reach it: variables, beside those of the gateway's environment.
#[derive(Clone, Debug)]
pub struct RuntimeEnv {
    /// Name and value.
    pub variables: Vec<(OsString, OsString)>,
}

/// The actor that will run the runtime once it is told to start, and the way to what it runs. Its phases
/// go to `observer`.
///
/// # Errors
/// [`SpawnRuntimeError`], before any process is started.
pub fn supervise(
    env: RuntimeEnv,
    settings: HostedSettings,
    observer: Recipient<PhaseChanged>,
    arbiter: &ArbiterHandle,
) -> Result<(Addr<ChildActor>, Way), SpawnRuntimeError> {
    let launcher = Launcher::start("/proc/self/exe".into(), crate::process::outlet())
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
        // Each start gives it a socket of its own.
        stdin: Stdin::Null,
        output: Output::Prefixed,
        grace: GRACE,
        secrets: Mask::default(),
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
    let (meeting, seen) = watch::channel(None);
    let way = Way::Own(seen);
    let probed = way.clone();
    let actor = ChildActor::start_in_arbiter(arbiter, move |_| {
        let launch = RuntimeLaunch {
            launcher,
            spec,
            meeting: Rc::new(meeting),
        };
        ChildActor::new(
            NAME,
            Rc::new(launch),
            probe(&probed),
            numbers,
            vec![observer],
        )
    });
    Ok((actor, way))
}

/// Starts the runtime with a fresh socket and a fresh token: what is meant for it never reaches another
/// process, nor the one before it.
struct RuntimeLaunch {
    launcher: Launcher,
    spec: ChildSpec,
    meeting: Rc<watch::Sender<Option<Meeting>>>,
}

impl Launch for RuntimeLaunch {
    fn launch(&self) -> LocalBoxFuture<'static, Result<Rc<dyn Running>, SpawnError>> {
        let (launcher, mut spec) = (self.launcher.clone(), self.spec.clone());
        let meeting = Rc::clone(&self.meeting);
        meeting.send_replace(None);
        Box::pin(async move {
            let refused = |error: io::Error| SpawnError::Refused {
                name: NAME.to_owned(),
                reason: error.to_string(),
            };
            let (listener, address) = private_socket().map_err(refused)?;
            let token = format!("{:032x}", SystemIds.next_bits());
            spec.stdin = Stdin::Listener(listener);
            if let EnvPolicy::InheritWithoutOurs { set, .. } = &mut spec.env {
                set.push(("VR_MCP_RUNTIME_TOKEN".into(), token.clone().into()));
            }
            let spawned = launcher.spawn(spec).await?;
            meeting.send_replace(Some(Meeting {
                address,
                token: Secret::new(&token),
            }));
            let child: Rc<dyn Running> = Rc::new(Launched(spawned.child));
            Ok(child)
        })
    }
}

fn own_program() -> std::path::PathBuf {
    let own = std::env::current_exe();
    own.unwrap_or_else(|_unknown| Path::new("/proc/self/exe").to_owned())
}

fn probe(way: &Way) -> Probe {
    let client = way.client(CONNECT);
    let way = way.clone();
    Box::new(move || {
        let request = way.authorize(client.get(way.endpoint("/health")));
        Box::pin(async move {
            match request.send().await {
                Ok(answer) if answer.status().as_u16() == 200 => Answer::Ready,
                Ok(_) => Answer::NotYet("a server that is required is not available yet".into()),
                Err(_unreachable) => Answer::NotYet("it does not answer yet".into()),
            }
        })
    })
}
