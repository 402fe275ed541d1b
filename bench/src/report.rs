//! Rounds made into rows, and rows into a table and JSON.

use serde::Serialize;

use crate::chain::Chain;
use crate::load::Round;
use crate::scenario::{Delivery, Scenario};
use crate::targets::Goal;

/// The server every ratio is against.
pub(crate) const RELAY: &str = "relay";

/// One server in one scenario: each figure is the median of the rounds' figures.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) server: String,
    pub(crate) rounds: usize,
    pub(crate) requests: usize,
    /// Answers that were not right, of all rounds.
    pub(crate) faults: usize,
    pub(crate) first_fault: Option<String>,
    pub(crate) requests_per_second: f64,
    /// Of streams only.
    pub(crate) tokens_per_second: Option<f64>,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    /// To the first byte of a body, or the first token of a stream.
    pub(crate) first_p50_ms: f64,
    pub(crate) first_p99_ms: f64,
    pub(crate) cpu_micros_per_request: Option<f64>,
    pub(crate) cpu_micros_per_token: Option<f64>,
    pub(crate) peak_mib: Option<f64>,
}

/// The gateway as a process.
#[derive(Debug, Serialize)]
pub(crate) struct Process {
    /// From start to the first 200 of `/health/ready`; median of the starts.
    pub(crate) ready_ms: f64,
    /// Resident after the start.
    pub(crate) idle_mib: f64,
    pub(crate) binary_mb: f64,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) load_after: String,
    pub(crate) process: Process,
    pub(crate) rows: Vec<Row>,
    pub(crate) chain: Option<Chain>,
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
        let streamed = scenario.delivery != Delivery::Plain;
        let count = |round: &Round| round.wholes.len().max(1) as f64;
        let cpu = some(&|round| Some(round.cpu_micros? as f64 / count(round)));
        let rate = of(&|round| round.wholes.len() as f64 / round.seconds);
        Self {
            scenario: scenario.name,
            server: server.to_owned(),
            rounds: rounds.len(),
            requests: rounds.iter().map(|round| round.wholes.len()).sum(),
            faults: rounds.iter().map(|round| round.faults.len()).sum(),
            first_fault: rounds.iter().find_map(|it| it.faults.first().cloned()),
            requests_per_second: rate,
            tokens_per_second: streamed.then_some(rate * tokens),
            p50_ms: of(&|round| percentile(&round.wholes, 50)),
            p95_ms: of(&|round| percentile(&round.wholes, 95)),
            p99_ms: of(&|round| percentile(&round.wholes, 99)),
            first_p50_ms: of(&|round| percentile(&round.firsts, 50)),
            first_p99_ms: of(&|round| percentile(&round.firsts, 99)),
            cpu_micros_per_request: cpu,
            cpu_micros_per_token: cpu.filter(|_| streamed).map(|cpu| cpu / tokens),
            peak_mib: some(&|round| round.peak_mib),
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

/// The report as Markdown.
pub(crate) fn table(report: &Report) -> String {
    let mut out = format!(
        "{}; after {}\n\n\
         | scenario | server | req/s | tokens/s | p50 ms | p95 ms | p99 ms | first p50 | first p99 \
         | CPU µs/req | CPU µs/token | peak MiB | rate ÷ relay | CPU ÷ relay | faults |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        report.machine, report.load_after
    );
    for row in &report.rows {
        let relay = report
            .rows
            .iter()
            .find(|other| other.scenario == row.scenario && other.server == RELAY);
        let rate = relay.map(|relay| row.requests_per_second / relay.requests_per_second);
        let cpu = relay
            .and_then(|relay| Some(row.cpu_micros_per_request? / relay.cpu_micros_per_request?));
        let cells = [
            row.scenario.to_owned(),
            row.server.clone(),
            format!("{:.0}", row.requests_per_second),
            cell(row.tokens_per_second, 0),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p95_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.2}", row.first_p50_ms),
            format!("{:.2}", row.first_p99_ms),
            cell(row.cpu_micros_per_request, 0),
            cell(row.cpu_micros_per_token, 2),
            cell(row.peak_mib, 1),
            cell(rate, 2),
            cell(cpu, 2),
            row.faults.to_string(),
        ];
        let line = format!("| {} |\n", cells.join(" | "));
        out.push_str(&line);
    }
    out.push_str(&rest(report));
    out
}

/// Chain, process and goals.
fn rest(report: &Report) -> String {
    let mut out = String::new();
    if let Some(chain) = &report.chain {
        out.push_str("\n| chain, turns | CPU µs/turn | CPU µs/item | ms/turn |\n");
        out.push_str("|---|--:|--:|--:|\n");
        for span in [&chain.early, &chain.late] {
            let line = format!(
                "| {} to {} | {:.0} | {:.1} | {:.2} |\n",
                span.from,
                span.from + 9,
                span.cpu_micros_per_turn,
                span.cpu_micros_per_item,
                span.millis_per_turn
            );
            out.push_str(&line);
        }
    }
    out.push_str("\n| goal | at most or least | measured | |\n|---|--:|--:|---|\n");
    for goal in &report.goals {
        let verdict = if goal.met { "ok" } else { "miss" };
        let line = format!(
            "| {} | {} | {:.2} | {verdict} |\n",
            goal.name, goal.bound, goal.measured
        );
        out.push_str(&line);
    }
    for row in report.rows.iter().filter(|row| row.faults > 0) {
        let fault = row.first_fault.as_deref().unwrap_or_default();
        let line = format!("\n{} {}: {fault}\n", row.scenario, row.server);
        out.push_str(&line);
    }
    out
}

fn cell(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.digits$}"))
}
