//! Brings the code interpreter up, as the configuration wants it.

use std::io;
use std::sync::Arc;

use actix::{Actor as _, Addr};
use actix_rt::ArbiterHandle;

use super::actor::CodeInterpreterActor;
use super::bundle::Bundle;
use super::settings::{Chosen, CodeInterpreterSettings, Mode, OsSandbox};
use super::tool::{CodeInterpreter, MissingCodeInterpreter};
use super::worker::PyodideBackend;
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
        "this kernel offers no complete wall for model-written code ({0:?}), and \
         `--code-interpreter-require-os-sandbox` asks for one: use a kernel with Landlock and \
         seccomp, or leave the option out"
    )]
    Walls(Walls),
    /// No thread could be started.
    #[error("the process launcher cannot be started ({0})")]
    Launcher(#[from] io::Error),
}

/// A code interpreter that runs here.
#[derive(Debug)]
pub struct Running {
    /// Its actor; `None` when there is none.
    pub actor: Option<Addr<CodeInterpreterActor>>,
    /// What turns get; `None` when it is switched off.
    pub tool: Option<Arc<dyn Tool>>,
}

/// Starts the actor; its first interpreters come up while the caller goes on.
///
/// # Errors
/// [`StartError`], when what was asked for explicitly cannot be had.
pub fn start(
    settings: &CodeInterpreterSettings,
    arbiter: &ArbiterHandle,
) -> Result<Running, StartError> {
    let Mode::Spawn(spawn) = &settings.mode else {
        return Ok(Running {
            actor: None,
            tool: None,
        });
    };
    let bundle = match spawn.bundle() {
        Ok(bundle) => bundle,
        Err(error) if spawn.chosen == Chosen::ByDefault => {
            let tool = MissingCodeInterpreter(error.to_string().into());
            return Ok(Running {
                actor: None,
                tool: Some(Arc::new(tool)),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let walls = Walls::of_this_machine();
    if !walls.are_complete() {
        if settings.os_sandbox == OsSandbox::Required {
            return Err(StartError::Walls(walls));
        }
        log::warn!("this kernel offers no complete wall for model-written code: {walls:?}");
    }
    let actor = spawn_actor(settings, &bundle, walls, arbiter)?;
    let tool = CodeInterpreter {
        calls: actor.clone().recipient(),
        releases: actor.clone().recipient(),
        limits: settings.limits.call(),
    };
    Ok(Running {
        actor: Some(actor),
        tool: Some(Arc::new(tool)),
    })
}

fn spawn_actor(
    settings: &CodeInterpreterSettings,
    bundle: &Bundle,
    walls: Walls,
    arbiter: &ArbiterHandle,
) -> Result<Addr<CodeInterpreterActor>, StartError> {
    let launcher = Launcher::start("/proc/self/exe".into(), Box::new(io::stderr()))?;
    let numbers = settings.actor(bundle.manifest(), memory_bytes());
    let backend = PyodideBackend::new(launcher, bundle, &settings.limits);
    Ok(CodeInterpreterActor::start_in_arbiter(arbiter, move |_| {
        CodeInterpreterActor::new(
            Box::new(backend),
            numbers,
            walls,
            (Box::new(SystemClock), Box::new(SystemIds)),
        )
    }))
}
