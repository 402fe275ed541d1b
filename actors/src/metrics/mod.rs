//! What the gateway counts while it works, for `GET /metrics`.
//!
//! One [`Metrics`] is made at start-up and cloned to whoever counts. It has only what has to be
//! counted as it happens: requests, responses, tool calls. What actors know of themselves (the store's
//! writes, the pool of interpreters) is asked of them when somebody scrapes.
//!
//! The number of series is bounded: every label has words of ours, or names that the operator chose
//! (models that the upstream lists, built-in MCP servers); whatever clients name beside those is
//! [`OTHER`] or [`MCP_REMOTE`]. Nothing is counted per token: the smallest thing is a read.

mod http;
mod tools;
mod turns;

use std::fmt;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::watch;

pub use http::{HttpMetrics, StreamGuard};
pub use tools::{MCP_REMOTE, Running, ToolMetrics};
pub use turns::TurnMetrics;

/// What stands before every name.
pub const PREFIX: &str = "vllm_responses";
/// Label of everything that has no label of its own.
pub const OTHER: &str = "other";
/// Most models with a label of their own.
const MAX_MODELS: usize = 100;

/// How metrics are shown (`VR_METRICS_*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Where; `None` where they are not.
    pub door: Option<MetricsDoor>,
}

/// Where metrics are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsDoor {
    /// Path of the page.
    pub path: String,
    /// Whether a key is needed, where keys are configured.
    pub keyed: bool,
}

/// See the module; cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    http: HttpMetrics,
    turns: TurnMetrics,
    tools: ToolMetrics,
    models: watch::Sender<Vec<Box<str>>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let (http, turns, tools) = (
            HttpMetrics::register(&mut registry),
            TurnMetrics::register(&mut registry),
            ToolMetrics::register(&mut registry),
        );
        Self(Arc::new(Inner {
            registry,
            http,
            turns,
            tools,
            models: watch::Sender::new(Vec::new()),
        }))
    }
}

impl Metrics {
    /// What was counted, to be written out.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Of HTTP requests.
    pub fn http(&self) -> &HttpMetrics {
        &self.0.http
    }

    /// Of responses.
    pub fn turns(&self) -> &TurnMetrics {
        &self.0.turns
    }

    /// Of tools.
    pub fn tools(&self) -> &ToolMetrics {
        &self.0.tools
    }

    /// The models that get labels of their own: those that the upstream lists.
    pub fn know_models(&self, models: &[String]) {
        let models = models.iter().take(MAX_MODELS);
        let models = models.map(|model| model.as_str().into()).collect();
        self.0.models.send_replace(models);
    }

    /// The label of a model.
    pub fn model(&self, name: &str) -> Box<str> {
        let known = self.0.models.borrow();
        let label = known.iter().find(|model| &***model == name);
        label.cloned().unwrap_or_else(|| OTHER.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t10_models_that_nobody_lists_share_a_label() {
        let metrics = Metrics::default();
        metrics.know_models(&["m".to_owned()]);
        assert_eq!(&*metrics.model("m"), "m");
        for number in 0..10_000 {
            assert_eq!(&*metrics.model(&format!("m{number}")), OTHER);
        }
        let many: Vec<String> = (0..500).map(|number| number.to_string()).collect();
        metrics.know_models(&many);
        let labels = many.iter().filter(|name| &*metrics.model(name) != OTHER);
        assert_eq!(labels.count(), MAX_MODELS);
    }
}
