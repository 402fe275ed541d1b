//! Starts a vLLM of our own, and keeps it running.
//!
//! The process plumbing does the work; here is only what is special about vLLM. Its engine outlives
//! a killed server and it can hang on SIGTERM with a stream open (measured on vLLM 0.32), so its
//! whole tree is killed after a grace; its exit status says nothing, since it is 0 after a crash.

use std::cell::Cell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor as _, Addr, Recipient};
use actix_rt::ArbiterHandle;
use futures_util::future::LocalBoxFuture;
use vllm_responses_protocol::ids::IdSource as _;

use super::command::VllmCommand;
use super::settings::{SpawnSettings, UpstreamSettings};
use super::vouch::Vouch;
use super::{Poll, poll};
use crate::env::SystemIds;
use crate::mask::Mask;
use crate::process::actor::{ChildActor, ChildSettings, FirstStart, Launch, Running, SameSpec};
use crate::process::messages::PhaseChanged;
use crate::process::readiness::{Answer, HealthSettings, Probe, ReadySettings};
use crate::process::{ChildSpec, EnvPolicy, Launcher, Output, SpawnError, Stdin};
use crate::secret::Secret;
use crate::supervisor::restart::RestartSettings;

/// An idle vLLM is gone 4 s after SIGTERM; a hung one never.
const GRACE: Duration = Duration::from_secs(8);

/// What vLLM's access log says of our own looks at it, many times a minute. Its loading, its errors and
/// the requests of people are what is worth seeing.
const OUR_PROBES: [&str; 1] = ["\"GET /v1/models HTTP/1.1\" 200"];

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
    let spec = spec(command, settings, upstream.api_key.as_ref());
    let numbers = numbers(settings);
    Ok(ChildActor::start_in_arbiter(arbiter, move |_| {
        let child = Rc::new(Cell::new(None));
        let launch = Rc::new(VllmLaunch {
            inner: SameSpec { launcher, spec },
            vouch: upstream.vouch.clone(),
            child: Rc::clone(&child),
        });
        let probe = probe(upstream, child);
        ChildActor::new("vllm", launch, probe, numbers, vec![observer])
    }))
}

/// What a vLLM of our own adds to its settings: a key that only it and we know, unless the user has
/// given one, and the check that it is itself.
pub fn own(upstream: UpstreamSettings, command: &VllmCommand) -> UpstreamSettings {
    // vLLM's own variable, which it inherits as it is.
    let given = std::env::var_os(KEY_VARIABLE).and_then(|key| key.into_string().ok());
    let given = given.filter(|key| !key.is_empty());
    let fresh = || format!("{:032x}", SystemIds.next_bits());
    UpstreamSettings {
        api_key: upstream
            .api_key
            .or_else(|| Some(Secret::new(&given.unwrap_or_else(fresh)))),
        vouch: Some(Vouch::new(&command.host, command.port)),
        ..upstream
    }
}

/// Where vLLM looks for its key, when `--api-key` gives none.
const KEY_VARIABLE: &str = "VLLM_API_KEY";

/// Starts vLLM, and remembers which process it is.
struct VllmLaunch {
    inner: SameSpec,
    vouch: Option<Vouch>,
    child: Rc<Cell<Option<u32>>>,
}

impl Launch for VllmLaunch {
    fn launch(&self) -> LocalBoxFuture<'static, Result<Rc<dyn Running>, SpawnError>> {
        self.child.set(None);
        if let Some(vouch) = &self.vouch {
            vouch.forget();
        }
        let (starting, child) = (self.inner.launch(), Rc::clone(&self.child));
        Box::pin(async move {
            let running = starting.await?;
            child.set(Some(running.pid()));
            Ok(running)
        })
    }
}

fn spec(command: &VllmCommand, settings: &SpawnSettings, key: Option<&Secret>) -> ChildSpec {
    // What the user has told vLLM itself stays.
    let is_given = command.api_key.is_some() || std::env::var_os(KEY_VARIABLE).is_some();
    // What it writes goes to a log and to the status page: short keys are no secrets, and words there.
    let secrets = Mask::of(key.map(Secret::expose));
    let key = key.filter(|_| !is_given);
    let key = key.map(|key| (KEY_VARIABLE.into(), key.expose().into()));
    ChildSpec {
        name: "vllm".to_owned(),
        program: settings.program.clone().into(),
        args: command.args.iter().map(Into::into).collect(),
        directory: None,
        env: EnvPolicy::InheritWithoutOurs {
            hidden: Vec::new(),
            set: key.into_iter().collect(),
        },
        stdin: Stdin::Null,
        output: Output::PrefixedWithout(&OUR_PROBES),
        grace: GRACE,
        secrets,
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

/// Asks for the model list, from the thread the actor lives on, once it is our child that listens.
fn probe(upstream: UpstreamSettings, child: Rc<Cell<Option<u32>>>) -> Probe {
    let client = upstream.client();
    Box::new(move || {
        let (client, upstream) = (client.clone(), upstream.clone());
        let child = child.get();
        Box::pin(async move {
            if let Some((vouch, child)) = upstream.vouch.as_ref().zip(child)
                && let Err(reason) = vouch.look(child).await
            {
                return Answer::NotYet(reason);
            }
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
