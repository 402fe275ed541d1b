//! Rounds made into rows, and everything measured into JSON.

use serde::Serialize;

use crate::chain::{Chain, Long};
use crate::interpreter::Interpreter;
use crate::load::Round;
use crate::scenario::Scenario;
use crate::servers::Facts;
use crate::targets::Goal;
use crate::toolloop::ToolLoop;

/// One server in one scenario: each figure is the median of the rounds' figures.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) server: String,
    pub(crate) concurrency: usize,
    pub(crate) rounds: usize,
    pub(crate) requests: usize,
    /// Answers that were not right, of all rounds.
    pub(crate) faults: usize,
    pub(crate) first_fault: Option<String>,
    pub(crate) requests_per_second: f64,
    /// Events with a token, of streams only.
    pub(crate) events_per_second: Option<f64>,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    /// To the first byte of the body.
    pub(crate) byte_p50_ms: f64,
    pub(crate) byte_p99_ms: f64,
    /// To the first token, of streams only.
    pub(crate) delta_p50_ms: Option<f64>,
    pub(crate) delta_p99_ms: Option<f64>,
    pub(crate) cpu_micros_per_request: Option<f64>,
    pub(crate) cpu_micros_per_event: Option<f64>,
    pub(crate) peak_mib: Option<f64>,
    /// What the peak is above the memory before the round.
    pub(crate) grown_mib: Option<f64>,
    pub(crate) descriptors: Option<usize>,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) load_after: String,
    pub(crate) command: String,
    pub(crate) seconds: f64,
    pub(crate) process: Option<Facts>,
    pub(crate) rows: Vec<Row>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) long: Option<Long>,
    pub(crate) tools: Option<ToolLoop>,
    pub(crate) interpreter: Option<Interpreter>,
    pub(crate) goals: Vec<Goal>,
}

impl Row {
    pub(crate) fn new(scenario: &Scenario, server: &str, rounds: &[Round]) -> Self {
        let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
        let some = |figure: &dyn Fn(&Round) -> Option<f64>| {
            let found: Option<Vec<f64>> = rounds.iter().map(figure).collect();
            found.map(median)
        };
        let tokens = scenario.tokens as f64;
        let streamed = scenario.delivery.streams();
        let count = |round: &Round| round.wholes.len().max(1) as f64;
        let cpu = some(&|round| Some(round.cpu_micros? as f64 / count(round)));
        let rate = of(&|round| round.wholes.len() as f64 / round.seconds);
        let delta = |percent| streamed.then(|| of(&|round| percentile(&round.deltas, percent)));
        Self {
            scenario: scenario.name,
            server: server.to_owned(),
            concurrency: scenario.concurrency,
            rounds: rounds.len(),
            requests: rounds.iter().map(|round| round.wholes.len()).sum(),
            faults: rounds.iter().map(|round| round.faults.len()).sum(),
            first_fault: rounds.iter().find_map(|it| it.faults.first().cloned()),
            requests_per_second: rate,
            events_per_second: streamed.then_some(rate * tokens),
            p50_ms: of(&|round| percentile(&round.wholes, 50)),
            p95_ms: of(&|round| percentile(&round.wholes, 95)),
            p99_ms: of(&|round| percentile(&round.wholes, 99)),
            byte_p50_ms: of(&|round| percentile(&round.bytes, 50)),
            byte_p99_ms: of(&|round| percentile(&round.bytes, 99)),
            delta_p50_ms: delta(50),
            delta_p99_ms: delta(99),
            cpu_micros_per_request: cpu,
            cpu_micros_per_event: cpu.filter(|_| streamed).map(|cpu| cpu / tokens),
            peak_mib: some(&|round| round.peak_mib),
            grown_mib: some(&|round| round.grown_mib),
            descriptors: rounds.iter().filter_map(|round| round.descriptors).max(),
        }
    }
}

/// The middle one; 0 of nothing.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

/// In ms, of ascending µs.
fn percentile(micros: &[u64], percent: usize) -> f64 {
    let at = (micros.len() * percent / 100).min(micros.len().saturating_sub(1));
    micros.get(at).copied().unwrap_or(0) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let micros: Vec<u64> = (1..=100).map(|it| it * 1000).collect();
        let found = [
            percentile(&micros, 50),
            percentile(&micros, 99),
            percentile(&[7000], 99),
            percentile(&[], 50),
            median(vec![3.0, 1.0, 2.0]),
        ];
        assert_eq!(format!("{found:?}"), "[51.0, 100.0, 7.0, 0.0, 2.0]");
    }
}
