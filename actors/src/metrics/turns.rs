//! Responses and the model calls behind them.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use vllm_responses_protocol::chat::fault::UpstreamFault;
use vllm_responses_protocol::turn::{self, Turn};

use super::{Metrics, OTHER};

/// Seconds until a model's first words, and until its answer begins.
const WAIT_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0, 240.0,
];
/// Seconds between two reads of one answer.
const GAP_BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    status: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    model: Box<str>,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamCall {
    outcome: Box<str>,
}

/// Responses by how they ended, their tokens, and what the model server took.
#[derive(Clone, Debug)]
pub struct TurnMetrics {
    responses: Family<Ended, Counter>,
    tokens: Family<Tokens, Counter>,
    first_token: Family<Model, Histogram, fn() -> Histogram>,
    gaps: Histogram,
    upstream: Family<UpstreamCall, Counter>,
    upstream_durations: Histogram,
    not_stored: Counter,
    shortened: Counter,
    extra_bytes: Counter,
}

impl TurnMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            responses: Family::default(),
            tokens: Family::default(),
            first_token: Family::new_with_constructor(|| Histogram::new(WAIT_BUCKETS)),
            gaps: Histogram::new(GAP_BUCKETS),
            upstream: Family::default(),
            upstream_durations: Histogram::new(WAIT_BUCKETS),
            not_stored: Counter::default(),
            shortened: Counter::default(),
            extra_bytes: Counter::default(),
        };
        registry.register(
            "responses",
            "Responses by final status and error code; `refused` had an HTTP error status",
            metrics.responses.clone(),
        );
        registry.register(
            "tokens",
            "Tokens by model and kind; cached ones are part of the input, reasoning of the output",
            metrics.tokens.clone(),
        );
        registry.register(
            "time_to_first_token_seconds",
            "From the request to the first bytes of a streamed model answer",
            metrics.first_token.clone(),
        );
        registry.register(
            "inter_token_gap_seconds",
            "Between two reads of one streamed model answer; a read may bring several tokens",
            metrics.gaps.clone(),
        );
        registry.register(
            "upstream_requests",
            "Model calls by the model server's status, or what went wrong",
            metrics.upstream.clone(),
        );
        registry.register(
            "upstream_request_duration_seconds",
            "From a model call to the head of its answer, retries included",
            metrics.upstream_durations.clone(),
        );
        registry.register(
            "responses_not_stored",
            "Responses that were to be kept and could not be",
            metrics.not_stored.clone(),
        );
        registry.register(
            "prompts_shortened",
            "Model calls that went again without the oldest turns (`truncation`)",
            metrics.shortened.clone(),
        );
        registry.register(
            "upstream_extra_bytes",
            "Bytes that came with the end of an answer and belong to nothing",
            metrics.extra_bytes.clone(),
        );
        metrics
    }

    /// The model server has answered a call, or not.
    pub fn upstream_answered(&self, took: Duration, answer: Result<(), &UpstreamFault>) {
        let outcome = match answer {
            Ok(()) => "200".into(),
            Err(UpstreamFault::Status { status, .. }) => match status {
                300..=599 => status.to_string().into(),
                _ => OTHER.into(),
            },
            Err(fault) => fault_word(fault).into(),
        };
        let call = UpstreamCall { outcome };
        self.upstream.get_or_create(&call).inc();
        self.upstream_durations.observe(took.as_secs_f64());
    }

    /// An answer broke off, or was none, after its head.
    pub fn upstream_broke(&self, fault: &UpstreamFault) {
        let call = UpstreamCall {
            outcome: fault_word(fault).into(),
        };
        self.upstream.get_or_create(&call).inc();
    }

    /// Time between two reads of an answer.
    pub fn gap(&self, gap: Duration) {
        self.gaps.observe(gap.as_secs_f64());
    }

    /// A response that was to be kept is not.
    pub fn not_stored(&self) {
        self.not_stored.inc();
    }

    /// A model call goes again without the oldest turns.
    pub fn shortened(&self) {
        self.shortened.inc();
    }
}

impl Metrics {
    /// A turn is over; `first_token` is from the request to the first bytes of a streamed answer.
    pub fn turn_ended(&self, turn: &Turn, first_token: Option<Duration>) {
        let turns = self.turns();
        let Some(turn::Ended { status, code }) = turn.ended() else {
            return;
        };
        let ended = Ended {
            status,
            code: code.unwrap_or("none"),
        };
        turns.responses.get_or_create(&ended).inc();
        let extra = u64::try_from(turn.extra_bytes()).unwrap_or(u64::MAX);
        turns.extra_bytes.inc_by(extra);
        for item in turn.output() {
            self.tools().requested(item);
        }
        let model = self.model(&turn.identity().model);
        if let Some(first) = first_token {
            let label = Model {
                model: model.clone(),
            };
            let waits = turns.first_token.get_or_create(&label);
            waits.observe(first.as_secs_f64());
        }
        for (kind, count) in turn.tokens() {
            let label = Tokens {
                model: model.clone(),
                kind,
            };
            turns.tokens.get_or_create(&label).inc_by(count);
        }
    }
}

fn fault_word(fault: &UpstreamFault) -> &'static str {
    match fault {
        UpstreamFault::Status { .. } => "status",
        UpstreamFault::Unreachable => "unreachable",
        UpstreamFault::WrongContentType => "wrong_content_type",
        UpstreamFault::TimedOut(_) => "timed_out",
        UpstreamFault::Reset => "reset",
        UpstreamFault::TooLong => "too_long",
        UpstreamFault::PartGone | UpstreamFault::PartUnread => "not_sent",
    }
}
