//! The goals that the figures are held to, as ratios within one run where that is possible.

use serde::Serialize;

use crate::chain::Chain;
use crate::report::{Process, RELAY, Row};

/// The stub, asked without anything between.
pub(crate) const DIRECT: &str = "direct";
/// The gateway with `store: false`.
pub(crate) const GATEWAY: &str = "gateway";
/// The gateway with its SQLite store.
pub(crate) const STORED: &str = "gateway+store";

/// A goal and what was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) name: &'static str,
    /// `≤` or `≥` and the limit.
    pub(crate) bound: String,
    pub(crate) measured: f64,
    pub(crate) met: bool,
}

/// Every goal whose figures were measured.
pub(crate) fn judge(rows: &[Row], process: &Process, chain: Option<&Chain>) -> Vec<Goal> {
    let goals = [
        speed(rows),
        streams(rows),
        memory(rows, process),
        vec![chain.map(|chain| {
            let ratio = chain.late.cpu_micros_per_item / chain.early.cpu_micros_per_item;
            at_most(
                "chain: CPU per item, turns 91 to 100 ÷ 11 to 20",
                2.0,
                ratio,
            )
        })],
    ];
    goals.into_iter().flatten().flatten().collect()
}

fn speed(rows: &[Row]) -> Vec<Option<Goal>> {
    let added = |server| Some(p50(rows, "plain-c1", server)? - p50(rows, "plain-c1", DIRECT)?);
    let rate = |server| find(rows, "plain-c64", server).map(|row| row.requests_per_second);
    vec![
        ratio(added(GATEWAY), added(RELAY))
            .map(|it| at_most("plain C=1: added p50 ÷ what the relay adds", 2.0, it)),
        added(STORED).map(|it| at_most("plain C=1 with store: added p50, ms", 0.6, it)),
        ratio(rate(GATEWAY), rate(RELAY)).map(|it| at_least("plain C=64: req/s ÷ relay", 0.6, it)),
        find(rows, "plain-c64", STORED)
            .and_then(|row| row.cpu_micros_per_request)
            .map(|it| at_most("plain C=64 with store: CPU µs per request", 150.0, it)),
    ]
}

fn streams(rows: &[Row]) -> Vec<Option<Goal>> {
    let rate = |server| find(rows, "stream-c64", server)?.tokens_per_second;
    let cpu = |scenario, server| find(rows, scenario, server)?.cpu_micros_per_token;
    let first = |scenario, server| find(rows, scenario, server).map(|row| row.first_p50_ms);
    let late = |scenario, server| find(rows, scenario, server).map(|row| row.first_p99_ms);
    let added = first("stream-c1", GATEWAY).zip(first("stream-c1", DIRECT));
    vec![
        ratio(rate(GATEWAY), rate(RELAY))
            .map(|it| at_least("stream C=64: tokens/s ÷ relay", 0.6, it)),
        cpu("stream-c64", GATEWAY).map(|it| at_most("stream C=64: CPU µs per token", 3.0, it)),
        ratio(cpu("paced-c64", GATEWAY), cpu("paced-c64", RELAY))
            .map(|it| at_most("paced C=64: CPU per token ÷ relay", 1.3, it)),
        added.map(|(ours, bare)| {
            at_most(
                "stream C=1: added p50 to the first token, ms",
                0.3,
                ours - bare,
            )
        }),
        ratio(late("stream-c64", GATEWAY), late("stream-c64", RELAY))
            .map(|it| at_most("stream C=64: p99 to the first token ÷ relay", 3.0, it)),
        ratio(late("paced-c64", GATEWAY), late("paced-c64", RELAY))
            .map(|it| at_most("paced C=64: p99 to the first token ÷ relay", 3.0, it)),
    ]
}

fn memory(rows: &[Row], process: &Process) -> Vec<Option<Goal>> {
    let peaks = rows
        .iter()
        .filter(|row| row.server.starts_with(GATEWAY) && row.scenario.ends_with("-c64"));
    vec![
        Some(at_most("idle: MiB", 20.0, process.idle_mib)),
        peaks
            .filter_map(|row| row.peak_mib)
            .reduce(f64::max)
            .map(|it| at_most("C=64: largest peak, MiB", 60.0, it)),
        Some(at_most("start to ready, ms", 150.0, process.ready_ms)),
        Some(at_most("binary, MB", 40.0, process.binary_mb)),
    ]
}

fn find<'a>(rows: &'a [Row], scenario: &str, server: &str) -> Option<&'a Row> {
    rows.iter()
        .find(|row| row.scenario == scenario && row.server == server)
}

fn p50(rows: &[Row], scenario: &str, server: &str) -> Option<f64> {
    find(rows, scenario, server).map(|row| row.p50_ms)
}

fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Option<f64> {
    Some(ours? / theirs?)
}

fn at_most(name: &'static str, limit: f64, measured: f64) -> Goal {
    Goal {
        name,
        bound: format!("≤ {limit}"),
        measured,
        met: measured <= limit,
    }
}

fn at_least(name: &'static str, limit: f64, measured: f64) -> Goal {
    Goal {
        name,
        bound: format!("≥ {limit}"),
        measured,
        met: measured >= limit,
    }
}
