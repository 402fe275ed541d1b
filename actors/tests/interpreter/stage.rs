//! What the tests share: an actor on a real runtime, and calls to it.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use actix::{Actor, Addr};
use tokio_util::sync::CancellationToken;
use vllm_responses_actors::env::{SystemClock, SystemIds};
use vllm_responses_actors::interpreter::actor::{CodeInterpreterActor, InterpreterSettings};
use vllm_responses_actors::interpreter::bundle::Bundle;
use vllm_responses_actors::interpreter::limits::CallLimits;
use vllm_responses_actors::interpreter::messages::{
    CallError, Container, Execute, ExecuteError, Executed, InterpreterStatus, Observe, Release,
};
use vllm_responses_actors::interpreter::pool::PoolSettings;
use vllm_responses_actors::interpreter::settings::Limits;
use vllm_responses_actors::interpreter::worker::{self, PyodideBackend};
use vllm_responses_actors::process::sandbox::Walls;
use vllm_responses_actors::process::{ChildSpec, Launcher};
use vllm_responses_protocol::ids::{self, Owner, Prefix};

/// The bundle that a variable names, if it is set. A bundle that cannot be used is a failure.
pub(crate) fn bundle(variable: &str) -> Option<Bundle> {
    let folder = std::env::var_os(variable)?;
    let folder = PathBuf::from(folder);
    Some(Bundle::open(&folder).unwrap_or_else(|error| panic!("{variable}: {error}")))
}

pub(crate) fn core() -> Bundle {
    bundle("TEST_INTERPRETER_BUNDLE").unwrap()
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(test);
}

pub(crate) fn launcher() -> Launcher {
    Launcher::start("/proc/self/exe".into(), Box::new(std::io::stderr())).unwrap()
}

/// So many wait, so many may live.
pub(crate) fn sized(idle: usize, most_live: usize) -> InterpreterSettings {
    InterpreterSettings {
        pool: PoolSettings {
            idle,
            most_live,
            ..PoolSettings::default()
        },
        ..InterpreterSettings::default()
    }
}

/// The actor, and what to ask it with.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) actor: Addr<CodeInterpreterActor>,
}

impl Stage {
    /// On a bundle.
    pub(crate) fn on(bundle: &Bundle, settings: InterpreterSettings) -> Self {
        Self::with(
            PyodideBackend::new(launcher(), bundle, &Limits::default()),
            settings,
        )
    }

    /// On whatever this specification starts.
    pub(crate) fn scripted(spec: ChildSpec, settings: InterpreterSettings) -> Self {
        Self::with(PyodideBackend::scripted(launcher(), spec), settings)
    }

    fn with(backend: PyodideBackend, settings: InterpreterSettings) -> Self {
        let actor = CodeInterpreterActor::new(
            Box::new(backend),
            settings,
            Walls::of_this_machine(),
            (Box::new(SystemClock), Box::new(SystemIds)),
        );
        Self {
            actor: actor.start(),
        }
    }

    pub(crate) async fn execute(&self, execute: Execute) -> Result<Executed, ExecuteError> {
        self.actor.send(execute).await.unwrap()
    }

    /// A call in a fresh container.
    pub(crate) async fn fresh(&self, code: &str) -> Executed {
        self.execute(first(code)).await.unwrap()
    }

    /// A call in the container of an earlier one.
    pub(crate) async fn again(&self, before: &Executed, code: &str) -> Executed {
        self.execute(again(before, code)).await.unwrap()
    }

    /// Gives a container back, which is then kept or ended.
    pub(crate) async fn release(&self, executed: &Executed) {
        let release = Release {
            owner: Owner::default(),
            container_id: executed.container_id.clone(),
        };
        self.actor.send(release).await.unwrap();
    }

    pub(crate) async fn status(&self) -> InterpreterStatus {
        self.actor.send(Observe).await.unwrap()
    }

    /// Waits until the status is as wanted; fails after a minute.
    pub(crate) async fn until(&self, what: impl Fn(&InterpreterStatus) -> bool) {
        let start = Instant::now();
        loop {
            let status = self.status().await;
            if what(&status) {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "it stays at {status:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A call with the usual limits, of nobody in particular.
pub(crate) fn call(container: Container, code: &str) -> Execute {
    Execute {
        owner: Owner::default(),
        container,
        code: code.to_owned(),
        limits: CallLimits::default(),
        cancel: CancellationToken::new(),
    }
}

/// A call in the container of an earlier one.
pub(crate) fn again(before: &Executed, code: &str) -> Execute {
    call(Container::Named(before.container_id.clone()), code)
}

/// A call in a fresh container.
pub(crate) fn first(code: &str) -> Execute {
    let id = ids::fresh(Prefix::Container, &mut SystemIds);
    call(Container::Shared(id.into()), code)
}

/// As [`first`], within this time.
pub(crate) fn brief(code: &str, wall: Duration) -> Execute {
    Execute {
        limits: CallLimits {
            wall,
            ..CallLimits::default()
        },
        ..first(code)
    }
}

/// The traceback of a call that raised.
pub(crate) fn raised(executed: &Executed) -> &str {
    match &executed.error {
        Some(CallError::Raised(text)) => text,
        other => panic!("not raised but {other:?}; printed {:?}", executed.logs),
    }
}

/// A worker whose host program is ours with some text replaced: one wall taken down to test the next.
pub(crate) fn with_harness(
    bundle: &Bundle,
    changes: &[(&str, &str)],
) -> (tempfile::TempDir, ChildSpec) {
    let mut text = std::fs::read_to_string(bundle.harness()).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "the harness has no `{old}`");
        text = text.replace(old, new);
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap().join("harness.mjs");
    std::fs::write(&place, text).unwrap();
    let mut spec = worker::spec(bundle, &Limits::default());
    let ours = bundle.harness().into_os_string();
    for argument in &mut spec.args {
        if *argument == ours {
            *argument = place.clone().into();
        } else if argument.to_string_lossy().starts_with("--allow-read=") {
            argument.push(",");
            argument.push(&place);
        }
    }
    spec.sandbox.as_mut().unwrap().read.push(place);
    (folder, spec)
}
