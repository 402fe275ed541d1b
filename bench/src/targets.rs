//! The goals that the figures are held to, as ratios within one run where that is possible.

use serde::Serialize;

use crate::chain::{Chain, Long};
use crate::report::{Report, Row};
use crate::scenario::HELD;
use crate::servers::{Facts, Kind};

/// A goal, what was measured, and of whom.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) name: &'static str,
    /// `≤` or `≥` and the limit.
    pub(crate) bound: String,
    /// The figure of each server, where the goal compares them.
    pub(crate) direct: Option<f64>,
    pub(crate) relay: Option<f64>,
    pub(crate) gateway: Option<f64>,
    pub(crate) measured: f64,
    pub(crate) met: bool,
}

/// A row's figure.
type Figure = fn(&Row) -> Option<f64>;

const P50: Figure = |row| Some(row.p50_ms);
const RATE: Figure = |row| Some(row.requests_per_second);
const EVENTS: Figure = |row| row.events_per_second;
const CPU: Figure = |row| row.cpu_micros_per_request;
const EVENT_CPU: Figure = |row| row.cpu_micros_per_event;
const DELTA: Figure = |row| row.delta_p50_ms;
const LATE_DELTA: Figure = |row| row.delta_p99_ms;

/// Figures of direct, relay and gateway; any may not have been measured.
#[derive(Clone, Copy)]
struct Three {
    direct: Option<f64>,
    relay: Option<f64>,
    gateway: Option<f64>,
}

/// Every goal whose figures were measured.
pub(crate) fn judge(report: &Report) -> Vec<Goal> {
    let goals = [
        speed(&report.rows),
        streams(&report.rows),
        memory(&report.rows, report.process.as_ref()),
        history(&report.chains, report.long.as_ref()),
    ];
    goals.into_iter().flatten().flatten().collect()
}

fn speed(rows: &[Row]) -> Vec<Option<Goal>> {
    let at = |scenario, kind, figure| Three::at(rows, scenario, kind, figure);
    let one = at("plain-c1", Kind::Gateway, P50);
    let kept = at("plain-c1", Kind::Stored, P50);
    let many = at("plain-c64", Kind::Gateway, RATE);
    let cpu = at("plain-c64", Kind::Stored, CPU);
    vec![
        one.added()
            .zip(one.added_by_relay())
            .map(|(ours, theirs)| ours / theirs)
            .map(|it| one.at_most("plain C=1: added p50 ÷ what the relay adds", 2.0, it)),
        kept.added()
            .map(|it| kept.at_most("plain C=1 with SQLite: added p50, ms", 0.6, it)),
        many.to_relay()
            .map(|it| many.at_least("plain C=64: req/s ÷ relay", 0.6, it)),
        cpu.gateway
            .map(|it| cpu.at_most("plain C=64 with SQLite: CPU µs per request", 150.0, it)),
    ]
}

fn streams(rows: &[Row]) -> Vec<Option<Goal>> {
    let at = |scenario, figure| Three::at(rows, scenario, Kind::Gateway, figure);
    let rate = at("stream-c64", EVENTS);
    let burst = at("stream-c64", EVENT_CPU);
    let paced = at("paced-c64", EVENT_CPU);
    let first = at("stream-c1", DELTA);
    let late = at("stream-c64", LATE_DELTA);
    let paced_late = at("paced-c64", LATE_DELTA);
    vec![
        rate.to_relay()
            .map(|it| rate.at_least("stream C=64: events/s ÷ relay", 0.6, it)),
        burst
            .gateway
            .map(|it| burst.at_most("stream C=64: CPU µs per event", 3.0, it)),
        paced
            .to_relay()
            .map(|it| paced.at_most("paced C=64: CPU per event ÷ relay", 1.3, it)),
        first
            .added()
            .map(|it| first.at_most("stream C=1: added p50 to the first delta, ms", 0.3, it)),
        late.to_relay()
            .map(|it| late.at_most("stream C=64: p99 to the first delta ÷ relay", 3.0, it)),
        paced_late
            .to_relay()
            .map(|it| paced_late.at_most("paced C=64: p99 to the first delta ÷ relay", 3.0, it)),
    ]
}

fn memory(rows: &[Row], process: Option<&Facts>) -> Vec<Option<Goal>> {
    let alone = Three::of_gateway(None);
    let ours = |row: &&Row| {
        row.concurrency == 64
            && [Kind::Gateway, Kind::Stored]
                .map(Kind::name)
                .contains(&row.server.as_str())
    };
    let peaks = rows.iter().filter(ours).filter_map(|row| row.peak_mib);
    let per_stream: Figure = |row| Some(row.grown_mib? * 1024.0 / row.concurrency as f64);
    let held = Three::at(rows, HELD, Kind::Gateway, per_stream);
    let lost = rows
        .iter()
        .find(|row| row.scenario == HELD && row.server == Kind::Gateway.name());
    let fact = |figure: fn(&Facts) -> f64| process.map(figure);
    vec![
        held.gateway
            .map(|it| held.at_most("5,000 open streams: KiB each", 32.0, it)),
        lost.map(|row| alone.at_most("5,000 open streams: lost", 0.0, row.faults as f64)),
        fact(|it| it.idle_mib).map(|it| alone.at_most("idle: MiB", 20.0, it)),
        peaks
            .reduce(f64::max)
            .map(|it| alone.at_most("C=64: largest peak, MiB", 60.0, it)),
        fact(|it| it.ready_ms).map(|it| alone.at_most("start to ready, ms", 150.0, it)),
        fact(|it| it.binary_mb).map(|it| alone.at_most("binary, MB", 40.0, it)),
    ]
}

fn history(chains: &[Chain], long: Option<&Long>) -> Vec<Option<Goal>> {
    let alone = Three::of_gateway(None);
    let sqlite = chains.iter().find(|it| it.server == Kind::Stored.name());
    let ratio =
        sqlite.and_then(|it| Some(it.late.cpu_micros_per_item? / it.early.cpu_micros_per_item?));
    let long = long.map(|it| Three {
        direct: Some(it.direct_millis),
        relay: Some(it.relay_millis),
        gateway: Some(it.millis),
    });
    vec![
        ratio.map(|it| alone.at_most("chain: CPU per item, turns 191 to 200 ÷ 11 to 20", 2.0, it)),
        long.and_then(|long| {
            let added = long.added()?;
            Some(long.at_most("5 MB of history in SQLite: added, ms", 25.0, added))
        }),
    ]
}

impl Three {
    fn at(rows: &[Row], scenario: &str, gateway: Kind, figure: Figure) -> Self {
        let of = |kind: Kind| {
            let found = |row: &&Row| row.scenario == scenario && row.server == kind.name();
            rows.iter().find(found).and_then(figure)
        };
        Self {
            direct: of(Kind::Direct),
            relay: of(Kind::Relay),
            gateway: of(gateway),
        }
    }

    fn of_gateway(gateway: Option<f64>) -> Self {
        Self {
            direct: None,
            relay: None,
            gateway,
        }
    }

    fn added(self) -> Option<f64> {
        Some(self.gateway? - self.direct?)
    }

    fn added_by_relay(self) -> Option<f64> {
        Some(self.relay? - self.direct?)
    }

    fn to_relay(self) -> Option<f64> {
        Some(self.gateway? / self.relay?)
    }

    fn at_most(self, name: &'static str, limit: f64, measured: f64) -> Goal {
        let met = measured <= limit;
        let bound = format!("≤ {limit}");
        Goal {
            bound,
            met,
            ..self.goal(name, measured)
        }
    }

    fn at_least(self, name: &'static str, limit: f64, measured: f64) -> Goal {
        let met = measured >= limit;
        let bound = format!("≥ {limit}");
        Goal {
            bound,
            met,
            ..self.goal(name, measured)
        }
    }

    /// Without its verdict.
    fn goal(self, name: &'static str, measured: f64) -> Goal {
        Goal {
            name,
            bound: String::new(),
            direct: self.direct,
            relay: self.relay,
            gateway: self.gateway,
            measured,
            met: false,
        }
    }
}
