//! Wires MCP into the gateway: the runtime as a child, and the actor that turns and handlers ask.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor as _, Addr};
use actix_rt::Arbiter;
use vllm_responses_actors::ask::{AskError, ask_actor};
use vllm_responses_actors::mcp::client::McpActor;
use vllm_responses_actors::mcp::messages::AwaitRuntime;
use vllm_responses_actors::mcp::net::connect::{Dialer, SystemNetwork};
use vllm_responses_actors::mcp::net::intake::Intake;
use vllm_responses_actors::mcp::runtime::{self, RuntimeEnv};
use vllm_responses_actors::mcp::settings::{BuiltIn, HostedSettings, McpSettings};
use vllm_responses_actors::mcp::way::Way;
use vllm_responses_actors::memory::Memory;
use vllm_responses_actors::process::actor::ChildActor;
use vllm_responses_actors::process::messages::{Phase, Start};
use vllm_responses_actors::secret::Secret;
use vllm_responses_actors::supervisor::SupervisorActor;
use vllm_responses_actors::supervisor::messages::{AwaitPhase, OwnProcess};

use crate::config::{LogFormat, Logging};

/// MCP, not started yet.
pub(crate) struct Mcp {
    /// The runtime's process, when it is ours.
    pub(crate) child: Option<Addr<ChildActor>>,
    way: Option<Way>,
    settings: McpSettings,
}

impl Mcp {
    /// Prepares the runtime's process where there is one to start.
    pub(crate) fn prepare(
        settings: &McpSettings,
        logging: &Logging,
        supervisor: &Addr<SupervisorActor>,
        control: &Arbiter,
    ) -> Result<Self, String> {
        let (child, way) = match &settings.built_in {
            BuiltIn::Off => (None, None),
            BuiltIn::Attached(link) => (None, Some(Way::Attached(link.clone()))),
            BuiltIn::Spawned { file, named } => {
                let started = runtime::supervise(
                    environment((file, named), settings.hosted, logging),
                    settings.hosted,
                    supervisor.clone().recipient(),
                    &control.handle(),
                );
                let (child, way) = started.map_err(|error| error.to_string())?;
                (Some(child), Some(way))
            }
        };
        Ok(Self {
            child,
            way,
            settings: settings.clone(),
        })
    }

    /// Starts the actor, on a thread of its own: the sessions' tasks live there.
    pub(crate) fn start(&self, memory: Memory) -> Addr<McpActor> {
        let (way, hosted) = (self.way.clone(), self.settings.hosted);
        let remote = self.settings.remote.clone();
        let arbiter = Arbiter::new();
        McpActor::start_in_arbiter(&arbiter.handle(), move |_| {
            let intake = Intake::within(memory);
            let dialer = Arc::new(Dialer::with(Arc::new(SystemNetwork), intake));
            McpActor::new(way, hosted, remote, dialer)
        })
    }
}

/// Starts the runtime's process; ready when the servers that are required are there.
pub(crate) async fn start_runtime(
    child: &Addr<ChildActor>,
    mcp: &Addr<McpActor>,
    supervisor: &Addr<SupervisorActor>,
    limit: Duration,
) -> Result<(), String> {
    let gone = |gone: AskError| gone.to_string();
    ask_actor(child, Start, limit).await.map_err(gone)?;
    let phase = |phase| supervisor.send(AwaitPhase(OwnProcess::McpRuntime, phase));
    // Its own supervision bounds how long this takes.
    tokio::select! {
        ready = phase(Phase::Ready) => drop(ready.map_err(|closed| closed.to_string())?),
        failed = phase(Phase::Failed) => {
            return Err(failed.map_or_else(|closed| closed.to_string(), |end| end.last_error));
        }
    }
    ask_actor(mcp, AwaitRuntime, limit).await.map_err(gone)
}

/// What the runtime is told, under the names that its own configuration has.
fn environment(
    (file, named): (&Path, &[(OsString, Secret)]),
    hosted: HostedSettings,
    logging: &Logging,
) -> RuntimeEnv {
    let millis = |limit: Duration| OsString::from(format!("{}ms", limit.as_millis()));
    let text = |text: &str| OsString::from(text);
    let file = std::path::absolute(file).unwrap_or_else(|_unknown| file.to_owned());
    let variables = vec![
        ("VR_MCP_CONFIG_PATH".into(), file.into()),
        (
            "VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC".into(),
            millis(hosted.startup),
        ),
        (
            "VR_MCP_STDIO_STARTUP_TIMEOUT_SEC".into(),
            millis(hosted.program_startup),
        ),
        ("VR_MCP_HOSTED_TOOL_TIMEOUT_SEC".into(), millis(hosted.call)),
        (
            "VR_MCP_STRICT_DEFINITIONS".into(),
            text(if hosted.strict_definitions {
                "true"
            } else {
                "false"
            }),
        ),
        ("RUST_LOG".into(), text(&logging.filter)),
        (
            "VR_LOG_FORMAT".into(),
            text(match logging.format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            }),
        ),
    ];
    // Those that the file names come first: ours win.
    let named = named
        .iter()
        .map(|(name, value)| (name.clone(), value.expose().into()));
    RuntimeEnv {
        variables: named.chain(variables).collect(),
    }
}
