//! Brings the code interpreter up, as the configuration wants it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Recipient};
use actix_rt::ArbiterHandle;
use tokio::time::{Instant, sleep};
use vllm_responses_protocol::tools::PythonPackages;

use super::actor::CodeInterpreterActor;
use super::bundle::{Bundle, Packages};
use super::messages::{Execute, Observe, Release, Stop};
use super::remote::RemoteInterpreterActor;
use super::settings::{Chosen, CodeInterpreterSettings, Mode, OsSandbox, Spawn};
use super::tool::{CodeInterpreter, MissingCodeInterpreter};
use super::worker::PyodideBackend;
use crate::ask::ask;
use crate::env::{SystemClock, SystemIds, memory_bytes};
use crate::process::Launcher;
use crate::process::sandbox::Walls;
use crate::tools::Tool;

/// Why the code interpreter cannot be started. One line, naming the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was asked for and is not installed.
    #[error("{0}")]
    Bundle(#[from] super::bundle::BundleError),
    /// The kernel's walls were asked for.
    #[error(
        "this kernel offers no complete wall for model-written code ({0}), and \
         `--code-interpreter-require-os-sandbox` asks for one: use a kernel with Landlock and \
         seccomp, or leave the option out"
    )]
    Walls(Walls),
    /// No thread could be started.
    #[error("the process launcher cannot be started ({0})")]
    Launcher(#[from] io::Error),
}

/// A code interpreter that has been started, here or elsewhere.
#[derive(Debug)]
pub struct Running {
    /// Whom to ask; `None` when there is none.
    pub doors: Option<Doors>,
    /// What turns get; `None` when it is switched off.
    pub tool: Option<Arc<dyn Tool>>,
}

/// What is asked of a code interpreter by others than turns.
#[derive(Clone, Debug)]
pub struct Doors {
    /// How it is.
    pub observe: Recipient<Observe>,
    /// Ends it, or the way to it.
    pub stop: Recipient<Stop>,
}

/// Starts the actor; its first interpreters come up while the caller goes on.
///
/// # Errors
/// [`StartError`], when what was asked for explicitly cannot be had.
pub fn start(
    settings: &CodeInterpreterSettings,
    arbiter: &ArbiterHandle,
) -> Result<Running, StartError> {
    match &settings.mode {
        Mode::Disabled => Ok(Running {
            doors: None,
            tool: None,
        }),
        Mode::External(service) => {
            let service = service.clone();
            let actor = RemoteInterpreterActor::start_in_arbiter(arbiter, move |_| {
                RemoteInterpreterActor::new(service)
            });
            Ok(running(&actor, settings, PythonPackages::Unknown))
        }
        Mode::Spawn(spawn) => match start_here(settings, spawn, arbiter) {
            Ok(actor) => Ok(running(&actor, settings, packages(spawn))),
            Err(StartError::Bundle(error)) if spawn.chosen == Chosen::ByDefault => Ok(Running {
                doors: None,
                tool: Some(Arc::new(MissingCodeInterpreter(error.to_string().into()))),
            }),
            Err(error) => Err(error),
        },
    }
}

/// Starts the actor of interpreters of this machine.
///
/// # Errors
/// [`StartError`].
pub fn start_here(
    settings: &CodeInterpreterSettings,
    spawn: &Spawn,
    arbiter: &ArbiterHandle,
) -> Result<Addr<CodeInterpreterActor>, StartError> {
    let bundle = spawn.bundle()?;
    if let Some(why) = bundle.of_others() {
        log::warn!(
            "the code interpreter at {} is not this user's alone, {why}: whoever it is can have programs run \
             in its place; make one with `vllm-responses setup code-interpreter` as this user or as root",
            bundle.root().display()
        );
    }
    let walls = Walls::of_this_machine().with_group();
    if !walls.are_complete() {
        if settings.os_sandbox == OsSandbox::Required {
            return Err(StartError::Walls(walls));
        }
        log::warn!(
            "the operating system's wall around model-written code is not complete ({walls}): code that \
             breaks out of WebAssembly and Deno could reach what this user can; use a kernel (5.13 or \
             later) and a container profile that allow Landlock and seccomp, or refuse to start without \
             with `--code-interpreter-require-os-sandbox`"
        );
    }
    spawn_actor(settings, &bundle, walls, arbiter)
}

/// Waits until calls are served.
///
/// # Errors
/// One sentence, when `limit` passes first.
pub async fn until_ready(observe: &Recipient<Observe>, limit: Duration) -> Result<(), String> {
    let begin = Instant::now();
    loop {
        let status = ask(observe, Observe, ASK).await;
        if status.as_ref().is_ok_and(|status| status.ready) {
            return Ok(());
        }
        if begin.elapsed() >= limit {
            let reason = status.map(|status| status.last_error);
            let reason = reason.unwrap_or_else(|silent| Some(silent.to_string()));
            return Err(format!(
                "the code interpreter is not there after {} s ({}): see to that, give it longer \
                 with `--code-interpreter-startup-timeout`, or start with `--code-interpreter \
                 disabled`",
                limit.as_secs(),
                reason.unwrap_or_else(|| "no reason is known".to_owned())
            ));
        }
        sleep(LOOK).await;
    }
}

/// The actors answer from memory.
const ASK: Duration = Duration::from_secs(5);
/// How often readiness is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What the bundle has; it was opened a moment ago.
fn packages(spawn: &Spawn) -> PythonPackages {
    match spawn.bundle().map(|bundle| bundle.manifest().packages) {
        Ok(Packages::Core) => PythonPackages::Core,
        Ok(Packages::Science) => PythonPackages::Science,
        Err(_gone) => PythonPackages::Unknown,
    }
}

fn running<A>(
    actor: &Addr<A>,
    settings: &CodeInterpreterSettings,
    packages: PythonPackages,
) -> Running
where
    A: Actor + Handler<Execute> + Handler<Release> + Handler<Observe> + Handler<Stop>,
    A::Context: ToEnvelope<A, Execute>
        + ToEnvelope<A, Release>
        + ToEnvelope<A, Observe>
        + ToEnvelope<A, Stop>,
{
    let tool = CodeInterpreter {
        calls: actor.clone().recipient(),
        releases: actor.clone().recipient(),
        limits: settings.limits.call(),
        packages,
    };
    Running {
        doors: Some(Doors {
            observe: actor.clone().recipient(),
            stop: actor.clone().recipient(),
        }),
        tool: Some(Arc::new(tool)),
    }
}

fn spawn_actor(
    settings: &CodeInterpreterSettings,
    bundle: &Bundle,
    walls: Walls,
    arbiter: &ArbiterHandle,
) -> Result<Addr<CodeInterpreterActor>, StartError> {
    let launcher = Launcher::start("/proc/self/exe".into(), crate::process::outlet())?;
    let numbers = settings.actor(bundle.manifest(), memory_bytes());
    let backend = PyodideBackend::new(launcher, bundle, &settings.limits).holding(bundle)?;
    Ok(CodeInterpreterActor::start_in_arbiter(arbiter, move |_| {
        CodeInterpreterActor::new(
            Box::new(backend),
            numbers,
            walls,
            (Box::new(SystemClock), Box::new(SystemIds)),
        )
    }))
}
