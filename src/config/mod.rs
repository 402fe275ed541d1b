//! The configuration: where it comes from (`raw`), what is allowed (`validate`), all keys (`table`).
//!
//! Settings of a component live with the component; [`Config`] puts them together.

mod dotenv;
pub(crate) mod files;
pub(crate) mod interpreter;
mod limits;
pub mod mcp;
mod metrics;
pub(crate) mod notices;
pub mod raw;
pub mod render;
pub mod table;
pub(crate) mod telemetry;
pub mod validate;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vllm_responses_actors::cache::settings::CacheSettings;
use vllm_responses_actors::interpreter::settings::{Chosen, CodeInterpreterSettings, Mode};
use vllm_responses_actors::limits::LimitSettings;
use vllm_responses_actors::mcp::settings::{BuiltIn, McpSettings};
use vllm_responses_actors::memory::Memory;
use vllm_responses_actors::metrics::MetricsSettings;
use vllm_responses_actors::seal::SealSettings;
use vllm_responses_actors::store::settings::StoreSettings;
use vllm_responses_actors::trace::TracingSettings;
use vllm_responses_actors::vllm::command::VllmCommand;
use vllm_responses_actors::vllm::settings::{SpawnSettings, UpstreamSettings};
use vllm_responses_protocol::responses::request::{OmittedTools, Retention};
use vllm_responses_protocol::tools::LoopLimits;

use crate::http::cors::CorsOrigins;
use crate::keys;
use raw::{Inputs, Raw};

/// Everything the gateway needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where HTTP is served.
    pub gateway: GatewaySettings,
    /// The model server.
    pub upstream: Upstream,
    /// Where responses are kept.
    pub store: StoreSettings,
    /// Redis, when on.
    pub cache: Option<CacheSettings>,
    /// Who runs Python for the model.
    pub interpreter: CodeInterpreterSettings,
    /// Bounds on what clients may send and use.
    pub limits: Limits,
    /// Bounds of the tool loop.
    pub loop_limits: LoopLimits,
    /// Choices of the wire protocol.
    pub protocol: ProtocolSettings,
    /// What is kept, and how what is not kept is sealed.
    pub privacy: Privacy,
    /// How a stop goes.
    pub lifecycle: Lifecycle,
    /// What is logged and how.
    pub logging: Logging,
    /// Where spans go, when tracing is on.
    pub tracing: Option<TracingSettings>,
    /// MCP servers.
    pub mcp: McpSettings,
    /// How metrics are shown.
    pub metrics: MetricsSettings,
    /// File of API keys; `None` lets everyone in. `load` has proved that it can be read.
    pub api_keys_file: Option<PathBuf>,
}

/// Where HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// IP address (IPv6 without brackets) or host name.
    pub host: String,
    /// 0 lets the system choose.
    pub port: u16,
    /// Threads, at least 1.
    pub workers: usize,
    /// A client that takes no byte for this long is cut off.
    pub write_stall: Duration,
    /// A client whose request has no whole head by then is cut off.
    pub head_timeout: Duration,
    /// How long a body may take, unless it comes faster than a kibibyte a second.
    pub body_timeout: Duration,
    /// Which web pages may use the gateway.
    pub cors: CorsOrigins,
    /// Names that the gateway may be called by besides its own, in lower case.
    pub allowed_hosts: Vec<String>,
}

/// The model server.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// One that runs already.
    External(Box<UpstreamSettings>),
    /// `-- MODEL ...`: one that the gateway starts.
    Spawn(Box<SpawnUpstream>),
}

/// A vLLM that the gateway starts.
#[derive(Clone, Debug)]
pub struct SpawnUpstream {
    /// What stood behind `--`, read.
    pub command: VllmCommand,
    /// How it is started and kept.
    pub spawn: SpawnSettings,
    /// How it is called.
    pub upstream: UpstreamSettings,
}

/// Bounds on what clients may send and use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request body in bytes.
    pub body_bytes: usize,
    /// Deepest nesting of JSON.
    pub json_depth: usize,
    /// Responses at once; 0 means computed.
    pub max_in_flight: usize,
    /// The budget for buffered bytes.
    pub memory: Memory,
    /// Rates, and places of keys.
    pub rates: LimitSettings,
}

/// Choices of the wire protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolSettings {
    /// Whose names reasoning events carry.
    pub reasoning_events: ReasoningEvents,
    /// What an unknown request field causes.
    pub requests: Strictness,
    /// What an unknown tool causes.
    pub tools: Strictness,
    /// What omitted tools mean.
    pub omitted_tools: OmittedTools,
}

/// What is kept, and how what is not kept is sealed.
#[derive(Clone, Debug)]
pub struct Privacy {
    /// Whether responses may be kept at all.
    pub retention: Retention,
    /// How reasoning is sealed for clients.
    pub seal: SealSettings,
}

/// Whose names reasoning events carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasoningEvents {
    /// OpenAI's.
    OpenAi,
    /// Those of Open Responses.
    OpenResponses,
}

/// What something unknown causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// A warning in the log.
    Lenient,
    /// A 400.
    Strict,
}

impl From<bool> for Strictness {
    fn from(strict: bool) -> Self {
        if strict { Self::Strict } else { Self::Lenient }
    }
}

/// How a stop goes (SIGTERM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// Requests are still taken for this long while readiness is false.
    pub drain_delay: Duration,
    /// Running requests get this long to finish.
    pub shutdown_grace: Duration,
}

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// Filter of `env_logger`: `RUST_LOG`, or the configured level.
    pub filter: String,
    /// Text or JSON lines.
    pub format: LogFormat,
    /// Whether each response logs where its time went.
    pub timings: bool,
    /// Whether messages to and from the model are logged.
    pub model_messages: bool,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Gathers the configuration and judges what concerns the database only.
///
/// # Errors
/// All problems at once, those of names and files included.
pub fn load_store(inputs: &Inputs) -> Result<StoreSettings, Vec<String>> {
    validate::store(&raw::gather(inputs))
}

/// What is written into the pipe that `--config` names; `None` where it names a file, or nothing.
///
/// As in `--config <(envsubst < c.toml)`. Blocks for a while. Only the command line may name a pipe: whoever
/// writes it starts the writer beside it.
pub fn piped(
    flags: &BTreeMap<&'static str, String>,
    directory: &Path,
) -> Option<Result<String, String>> {
    files::read_pipe(&directory.join(flags.get(table::CONFIG)?))
}

/// A duration as configuration spells it, `30s` or `2h`; at most a hundred years.
pub fn duration(text: &str) -> Option<Duration> {
    values::duration(text)
}

/// Gathers and judges the configuration, the keys file, `mcp.json` and a wanted interpreter included.
///
/// # Errors
/// All problems at once, ready to be printed one a line.
pub fn load(inputs: &Inputs) -> (Raw, Result<Config, Vec<String>>) {
    let raw = raw::gather(inputs);
    let mut judged = validate::validate(&raw);
    let keys = raw
        .values
        .get("auth.api_keys_file")
        .filter(|value| !value.text.is_empty());
    if let Some(value) = keys {
        let path = inputs.directory.join(&value.text);
        if let Err(bad) = keys::load(&path) {
            let mut problems = judged.err().unwrap_or_default();
            problems.extend(
                bad.iter()
                    .map(|problem| format!("{}: {problem}", value.place)),
            );
            judged = Err(problems);
        }
    }
    if let Some(value) = raw
        .values
        .get("mcp.file")
        .filter(|value| !value.text.is_empty())
    {
        let path = inputs.directory.join(&value.text);
        let around = mcp::surroundings(inputs);
        if let Ok(config) = &mut judged
            && let BuiltIn::Spawned { named, .. } = &mut config.mcp.built_in
        {
            *named = mcp::named(&path, &around);
        }
        if let Err(bad) = mcp::read_file(&path, &around) {
            let mut problems = judged.err().unwrap_or_default();
            problems.extend(
                bad.iter()
                    .map(|problem| format!("{}: {problem}", value.place)),
            );
            judged = Err(problems);
        }
    }
    if let Ok(config) = &judged
        && let Some(problem) = missing_interpreter(&raw, config)
    {
        judged = Err(vec![problem]);
    }
    (raw, judged)
}

/// An interpreter that was asked for has to be there (decision 28).
fn missing_interpreter(raw: &Raw, config: &Config) -> Option<String> {
    let Mode::Spawn(spawn) = &config.interpreter.mode else {
        return None;
    };
    if spawn.chosen == Chosen::ByDefault {
        return None;
    }
    let error = spawn.bundle().err()?;
    let key = match spawn.bundle {
        Some(_) => "code_interpreter.bundle",
        None => "code_interpreter.mode",
    };
    let place = raw.values.get(key).map_or(key, |value| &value.place);
    Some(format!("{place}: {error}"))
}
