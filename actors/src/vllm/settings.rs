//! What the gateway needs to know of its upstream.

use std::time::Duration;

use url::Url;

use super::vouch::Vouch;
use crate::secret::Secret;
use crate::supervisor::restart::OnExit;

/// Settings of `VllmActor` for an external upstream, and of every call made to it.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Base URL, ending in `/v1` without a slash behind it.
    pub base_url: Url,
    /// Bearer token for the upstream (`VR_OPENAI_API_KEY`).
    pub api_key: Option<Secret>,
    /// How long start-up waits for the model list (`--upstream-ready-timeout`).
    pub ready_timeout: Duration,
    /// How often waiting is reported (`--upstream-ready-interval`).
    pub ready_interval: Duration,
    /// Deadlines of one call.
    pub deadlines: CallDeadlines,
    /// Who says that what listens there is ours; `None` for an upstream of others.
    pub vouch: Option<Vouch>,
}

/// Deadlines of one upstream call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallDeadlines {
    /// TCP connect.
    pub connect: Duration,
    /// From the request to the upstream's status line, streamed calls.
    pub head: Duration,
    /// Silence within a stream. Below the 300 s after which Codex gives up.
    pub idle: Duration,
    /// A whole call that is not streamed.
    pub whole: Duration,
    /// How long the client's status line is held for the upstream's (architecture 3.5).
    pub hold_status: Duration,
    /// Silence towards the client after which an SSE comment is sent.
    pub keep_alive: Duration,
}

impl Default for CallDeadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            head: Duration::from_secs(240),
            idle: Duration::from_secs(240),
            whole: Duration::from_secs(1800),
            hold_status: Duration::from_secs(5),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// How a vLLM of our own is started and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnSettings {
    /// The executable (`VR_VLLM_BIN`).
    pub program: String,
    /// How long it may load (`--vllm-startup-timeout`).
    pub startup_timeout: Duration,
    /// How often its loading is reported (`--vllm-ready-interval`).
    pub ready_interval: Duration,
    /// What its end means (`--on-vllm-exit`).
    pub on_exit: OnExit,
}
