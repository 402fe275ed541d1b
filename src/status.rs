//! The shape of `GET /v1/status`, which the gateway writes and `vllm-responses status` reads.
//!
//! Documented in `docs/status.md`. Everything here is safe for whoever has a key: no secret, no
//! content of a client, and a child's own lines cut and without the upstream's key.

use serde::{Deserialize, Serialize};
use vllm_responses_actors::cache::facts::CacheFacts;
use vllm_responses_actors::mcp::messages::{RuntimeDown, ServerSummary};
use vllm_responses_actors::mcp::runtime;
use vllm_responses_actors::process::messages::{ChildStatus, Phase};
use vllm_responses_actors::process::sandbox::Walls;
use vllm_responses_actors::secret::Secret;
use vllm_responses_actors::store::messages::Backend;
use vllm_responses_actors::supervisor::messages::{Health, StopStage};
use vllm_responses_protocol::mcp::wire::ServerPhase;
use vllm_responses_protocol::tools::{Availability, Offers};

/// How many of a child's last lines are shown.
const MOST_LINES: usize = 20;
/// Longer lines are cut, in characters.
const LONGEST_LINE: usize = 500;

/// The whole page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the gateway.
    pub version: String,
    /// Process id of the gateway.
    pub pid: u32,
    /// Since the gateway started.
    pub uptime_ms: u64,
    /// As `GET /health/ready` says.
    pub ready: bool,
    /// How far a stop has come.
    pub stop: StopStage,
    /// Responses that run now.
    pub in_flight: usize,
    /// Responses that may run at once.
    pub capacity: usize,
    /// The model server.
    pub upstream: UpstreamStatus,
    /// Where responses are kept.
    pub store: StoreStatus,
    /// What stands in front of the store.
    pub cache: CacheStatus,
    /// Processes that the gateway started and keeps running.
    pub children: Vec<ChildView>,
    /// The code interpreter; none where there is none.
    pub code_interpreter: Option<InterpreterView>,
    /// Tools that the gateway runs itself.
    pub tools: Vec<ToolStatus>,
}

/// The code interpreter: a pool of processes that live for one session each, here or at a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterpreterView {
    /// URL of the service that has them, when the gateway has not.
    pub service: Option<String>,
    /// Its state.
    pub phase: Standing,
    /// Its processes.
    pub live: usize,
    /// Those that wait for a first call.
    pub idle: usize,
    /// Calls that wait for one.
    pub waiting: usize,
    /// Starts that failed.
    pub failures: u64,
    /// Why the last start failed, until one succeeds.
    pub last_error: Option<String>,
    /// What the operating system puts around them; null while that is not known.
    #[serde(default)]
    pub walls: Option<Walls>,
}

/// State of a component that is no process of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Not configured.
    Off,
    /// Not up yet.
    Starting,
    /// Works.
    Ready,
    /// Worked before and does not now, or gives no answer.
    Down,
}

impl From<&Health> for Standing {
    fn from(health: &Health) -> Self {
        match health {
            Health::Starting => Self::Starting,
            Health::Ready => Self::Ready,
            Health::Down { .. } => Self::Down,
        }
    }
}

/// The model server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its state.
    pub phase: Standing,
    /// Its base URL.
    pub url: String,
    /// The first model that it listed.
    pub model: Option<String>,
    /// What last went wrong, also when all is well again.
    pub last_error: Option<String>,
}

/// Where responses are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Its state.
    pub phase: Standing,
    /// Which database, once it is open.
    pub backend: Option<Backend>,
    /// Writes that wait.
    pub queued_writes: usize,
    /// Writes that may wait.
    pub queue_capacity: usize,
    /// What last went wrong, also when all is well again.
    pub last_error: Option<String>,
}

/// What stands in front of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Its state; down while Redis is left alone after failures.
    pub phase: Standing,
    /// What it has done since the start; none without Redis.
    pub redis: Option<CacheFacts>,
}

/// A process that the gateway started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildView {
    /// Its name.
    pub name: String,
    /// Its phase; none when its supervisor gives no answer.
    pub phase: Option<Phase>,
    /// Its process id while it runs.
    pub pid: Option<u32>,
    /// Since its start, while it runs.
    pub uptime_ms: Option<u64>,
    /// How often it was started again.
    pub restarts: u32,
    /// What last went wrong, also when all is well again.
    pub last_error: Option<String>,
    /// The newest lines that it wrote, oldest first. Only for who may see them.
    pub last_lines: Vec<String>,
}

/// A tool that the gateway runs itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolStatus {
    /// Its type in requests; `mcp:LABEL` for a server of the operator's.
    pub name: String,
    /// Whether requests may use it.
    pub state: ToolState,
    /// How to get it, or what is wrong with it, when it is missing.
    pub remedy: Option<String>,
}

/// Whether requests may use a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolState {
    /// They may.
    Offered,
    /// It is switched off.
    Off,
    /// It should be there and is not.
    Missing,
}

/// Whether a child's own lines may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// To who has a key, and to the own machine.
    Shown,
    /// Without those of programs that speak MCP, to who has a key: what they say of their work is their
    /// operator's, who has the log.
    WithoutPrograms,
    /// To strangers, where no keys are configured.
    Hidden,
}

impl ChildView {
    /// A child as others may see it: with few and short lines, in which `secret` is not readable.
    pub fn new(seen: ChildStatus, lines: Lines, secret: Option<&Secret>) -> Self {
        let newest = match lines {
            Lines::Hidden => 0,
            Lines::WithoutPrograms if seen.name == runtime::NAME => 0,
            Lines::WithoutPrograms | Lines::Shown => MOST_LINES,
        };
        let first = seen.last_lines.len().saturating_sub(newest);
        Self {
            name: seen.name,
            phase: Some(seen.phase),
            pid: seen.pid,
            uptime_ms: seen
                .uptime
                .map(|uptime| u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)),
            restarts: seen.restarts,
            last_error: seen.last_error,
            last_lines: seen
                .last_lines
                .into_iter()
                .skip(first)
                .map(|line| shown(&line, secret))
                .collect(),
        }
    }

    /// A child whose supervisor gave no answer.
    pub fn silent(name: &str, problem: String) -> Self {
        Self {
            name: name.to_owned(),
            phase: None,
            pid: None,
            uptime_ms: None,
            restarts: 0,
            last_error: Some(problem),
            last_lines: Vec::new(),
        }
    }
}

/// vLLM writes its arguments into its log, and with them the key that it was given.
fn shown(line: &str, secret: Option<&Secret>) -> String {
    let line = match secret.map(Secret::expose).filter(|key| !key.is_empty()) {
        Some(key) => line.replace(key, "[redacted]"),
        None => line.to_owned(),
    };
    line.chars().take(LONGEST_LINE).collect()
}

/// What is known of MCP servers.
#[derive(Clone, Debug)]
pub struct McpView {
    /// Whether requests may name servers of their own.
    pub remote: bool,
    /// The operator's.
    pub servers: Result<Vec<ServerSummary>, RuntimeDown>,
}

/// The tools of this moment. Names every tool there is, so that a new one is not forgotten.
pub fn tools(offers: Offers, mcp: McpView) -> Vec<ToolStatus> {
    let Offers {
        code_interpreter,
        python_packages: _,
    } = offers;
    let mut tools = vec![tool("code_interpreter", code_interpreter)];
    tools.extend(mcp_tools(mcp));
    tools
}

fn mcp_tools(mcp: McpView) -> Vec<ToolStatus> {
    let Ok(servers) = mcp.servers else {
        let down = "the runtime of the operator's servers does not answer";
        return vec![tool("mcp", Availability::Missing(down.into()))];
    };
    let whole = if mcp.remote || !servers.is_empty() {
        Availability::Offered
    } else {
        Availability::Off
    };
    let each = servers.into_iter().map(|server| {
        let availability = match server.phase {
            ServerPhase::Available => Availability::Offered,
            ServerPhase::Starting => Availability::Missing("it is starting".into()),
            ServerPhase::Unavailable { reason } => Availability::Missing(reason),
        };
        tool(&format!("mcp:{}", server.label), availability)
    });
    std::iter::once(tool("mcp", whole)).chain(each).collect()
}

fn tool(name: &str, availability: Availability) -> ToolStatus {
    let (state, remedy) = match availability {
        Availability::Offered => (ToolState::Offered, None),
        Availability::Off => (ToolState::Off, None),
        Availability::Missing(remedy) => (ToolState::Missing, Some(remedy.into())),
    };
    ToolStatus {
        name: name.to_owned(),
        state,
        remedy,
    }
}

/// For a terminal: what others wrote must not move the cursor of who looks at it.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if letter.is_control() {
                '\u{fffd}'
            } else {
                letter
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn child(lines: Vec<String>) -> ChildStatus {
        ChildStatus {
            name: "vllm".to_owned(),
            phase: Phase::Ready,
            pid: Some(7),
            uptime: Some(Duration::from_millis(1500)),
            restarts: 2,
            was_ready: true,
            last_error: None,
            last_lines: lines,
        }
    }

    #[test]
    fn few_short_lines_are_shown_without_the_key_and_none_to_strangers() {
        let mut lines: Vec<String> = (0..30).map(|n| format!("line {n}")).collect();
        lines.push("args: {'api_key': ['s3cret']}".to_owned());
        lines.push("é".repeat(9000));
        let secret = Secret::new("s3cret");
        let seen = ChildView::new(child(lines.clone()), Lines::Shown, Some(&secret));
        assert_eq!(seen.last_lines.len(), MOST_LINES);
        assert_eq!(seen.last_lines[17], "line 29");
        assert_eq!(seen.last_lines[18], "args: {'api_key': ['[redacted]']}");
        assert_eq!(seen.last_lines[19].chars().count(), LONGEST_LINE);
        assert_eq!((seen.uptime_ms, seen.restarts), (Some(1500), 2));
        let hidden = ChildView::new(child(lines.clone()), Lines::Hidden, None);
        assert!(hidden.last_lines.is_empty());
        let seen = ChildView::new(child(lines.clone()), Lines::WithoutPrograms, None);
        assert_eq!(seen.last_lines.len(), MOST_LINES);
        let of_mcp = ChildStatus {
            name: runtime::NAME.to_owned(),
            ..child(lines)
        };
        let seen = ChildView::new(of_mcp.clone(), Lines::WithoutPrograms, None);
        assert!(seen.last_lines.is_empty());
        let seen = ChildView::new(of_mcp, Lines::Shown, None);
        assert_eq!(seen.last_lines.len(), MOST_LINES);
    }

    #[test]
    fn a_missing_tool_says_how_to_get_it() {
        let offers = Offers {
            code_interpreter: Availability::Missing("install it".into()),
            ..Offers::default()
        };
        let expected = ToolStatus {
            name: "code_interpreter".to_owned(),
            state: ToolState::Missing,
            remedy: Some("install it".to_owned()),
        };
        let none = McpView {
            remote: false,
            servers: Ok(Vec::new()),
        };
        let mcp_off = ToolStatus {
            name: "mcp".to_owned(),
            state: ToolState::Off,
            remedy: None,
        };
        assert_eq!(tools(offers, none.clone()), [expected, mcp_off]);
        assert_eq!(tools(Offers::default(), none)[0].state, ToolState::Off);
    }

    #[test]
    fn every_mcp_server_is_listed_with_what_is_wrong_with_it() {
        let server = |label: &str, phase| ServerSummary {
            label: label.into(),
            transport: "stdio".into(),
            required: false,
            always_approve: false,
            phase,
            came_up: 0,
            failed: 0,
        };
        let reason = ServerPhase::Unavailable {
            reason: "it ended".into(),
        };
        let view = McpView {
            remote: false,
            servers: Ok(vec![
                server("a", ServerPhase::Available),
                server("b", reason),
            ]),
        };
        let seen: Vec<_> = mcp_tools(view)
            .into_iter()
            .map(|tool| (tool.name, tool.state, tool.remedy))
            .collect();
        let offered = |name: &str| (name.to_owned(), ToolState::Offered, None);
        let ended = (
            "mcp:b".to_owned(),
            ToolState::Missing,
            Some("it ended".to_owned()),
        );
        assert_eq!(seen, [offered("mcp"), offered("mcp:a"), ended]);
        let down = McpView {
            remote: true,
            servers: Err(RuntimeDown),
        };
        assert_eq!(mcp_tools(down)[0].state, ToolState::Missing);
    }
}
