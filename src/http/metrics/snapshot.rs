//! What components know of themselves, as metrics.

use std::fmt::Error;
use std::fs;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use vllm_responses_actors::cache::facts::CacheFacts;
use vllm_responses_actors::env::descriptor_limit;
use vllm_responses_actors::interpreter::messages::InterpreterStatus;
use vllm_responses_actors::latency::Latency;
use vllm_responses_actors::mcp::messages::ServerSummary;
use vllm_responses_actors::metrics::PREFIX;
use vllm_responses_actors::process::messages::{ChildStatus, Phase};
use vllm_responses_actors::store::facts::{GROUP_SIZES, StoreFacts};
use vllm_responses_actors::store::messages::StoreObservation;
use vllm_responses_actors::supervisor::messages::{Health, LimitFacts, Observation};
use vllm_responses_protocol::mcp::wire::ServerPhase;

use super::write::{Counts, Page};
use crate::logging;

/// One moment. What did not answer is not there.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) gateway: Option<Observation>,
    pub(super) limits: Option<LimitFacts>,
    pub(super) store: Option<StoreObservation>,
    /// `None` without Redis, too.
    pub(super) redis: Option<CacheFacts>,
    pub(super) python: Option<InterpreterStatus>,
    pub(super) children: Vec<ChildStatus>,
    pub(super) servers: Vec<ServerSummary>,
    pub(super) descriptors: Option<u64>,
    pub(super) uptime: Duration,
}

/// Open descriptors of this process; counting them opens one itself.
pub(super) fn descriptors() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(open.saturating_sub(1)).ok()
}

impl Snapshot {
    /// To be written beside what is counted.
    pub(super) fn registry(self) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        registry
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut page = Page(encoder);
        self.process(&mut page)?;
        if let Some(seen) = &self.gateway {
            gateway(seen, &mut page)?;
        }
        if let Some(facts) = &self.limits {
            limits(facts, &mut page)?;
        }
        if let Some(seen) = &self.store {
            store(&seen.facts, &mut page)?;
        }
        if let Some(facts) = &self.redis {
            redis(facts, &mut page)?;
        }
        if let Some(seen) = &self.python {
            python(seen, &mut page)?;
        }
        self.children(&mut page)?;
        self.servers(&mut page)
    }
}

impl Snapshot {
    fn process(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauge(("build_info", "Always 1"), &[(&version, 1.0)])?;
        let uptime = self.uptime.as_secs_f64();
        page.gauge(("uptime_seconds", "Since the start"), &[(&[], uptime)])?;
        if let Some(open) = self.descriptors {
            let about = ("open_descriptors", "Descriptors that this process has open");
            page.gauge(about, &[(&[], number(open))])?;
        }
        let about = ("max_descriptors", "Descriptors that it may have open");
        page.gauge(about, &[(&[], number(descriptor_limit()))])?;
        let about = (
            "log_lines_dropped",
            "Lines of the log dropped because nobody read them",
        );
        page.counter(about, &[(&[], logging::dropped())])
    }

    fn children(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let names = self.children.iter();
        let labels: Vec<_> = names.map(|child| [("child", &*child.name)]).collect();
        let all = || self.children.iter().zip(&labels);
        let up: Vec<_> = all()
            .map(|(child, labels)| (&labels[..], flag(child.phase == Phase::Ready)))
            .collect();
        page.gauge(("child_up", "Whether a child process is ready"), &up)?;
        let restarts: Vec<_> = all()
            .map(|(child, labels)| (&labels[..], u64::from(child.restarts)))
            .collect();
        page.counter(
            ("child_restarts", "How often it was started again"),
            &restarts,
        )
    }

    fn servers(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let labels: Vec<_> = self
            .servers
            .iter()
            .map(|server| {
                let name = ("server_label", &*server.label);
                (
                    [name],
                    [name, ("status", "ok")],
                    [name, ("status", "error")],
                )
            })
            .collect();
        let all = || self.servers.iter().zip(&labels);
        let up: Vec<_> = all()
            .map(|(server, (name, ..))| (&name[..], flag(server.phase == ServerPhase::Available)))
            .collect();
        page.gauge(
            ("mcp_server_up", "Whether a built-in MCP server serves"),
            &up,
        )?;
        let startups: Vec<_> = all()
            .flat_map(|(server, (_, ok, error))| {
                [(&ok[..], server.came_up), (&error[..], server.failed)]
            })
            .collect();
        page.counter(
            (
                "mcp_server_startup",
                "How often a built-in MCP server came up, and how often it failed",
            ),
            &startups,
        )
    }
}

fn gateway(seen: &Observation, page: &mut Page<'_>) -> Result<(), Error> {
    let about = ("ready", "Whether requests are taken and everything works");
    page.gauge(about, &[(&[], flag(seen.ready))])?;
    let up = |health: &Health| flag(*health == Health::Ready);
    page.gauge(
        ("component_up", "Whether what requests need works"),
        &[
            (&[("component", "store")], up(&seen.store)),
            (&[("component", "upstream")], up(&seen.upstream)),
        ],
    )?;
    let about = ("responses_in_flight", "Responses that run");
    page.gauge(about, &[(&[], size(seen.in_flight))])?;
    let about = ("response_places", "Responses that may run at once");
    page.gauge(about, &[(&[], size(seen.capacity))])
}

fn limits(facts: &LimitFacts, page: &mut Page<'_>) -> Result<(), Error> {
    page.counter(
        (
            "refused_requests",
            "Requests that were not let in, by what was spent",
        ),
        &[
            (&[("reason", "places")], facts.refused_full),
            (&[("reason", "memory")], facts.refused_memory),
            (&[("reason", "concurrent")], facts.refused_concurrent),
            (&[("reason", "requests")], facts.refused_requests),
            (&[("reason", "tokens")], facts.refused_tokens),
        ],
    )?;
    let about = ("responses_shed", "Responses ended because memory was short");
    page.counter(about, &[(&[], facts.shed)])?;
    let about = (
        "limits_judged_alone",
        "Requests judged without the Redis that shares limits",
    );
    page.counter(about, &[(&[], facts.judged_alone)])?;
    let about = (
        "buffered_bytes",
        "Bytes that requests make the gateway buffer",
    );
    page.gauge(about, &[(&[], size(facts.memory_used))])?;
    let about = ("buffered_bytes_limit", "Bytes that they may");
    page.gauge(about, &[(&[], size(facts.memory_limit))])
}

fn store(facts: &StoreFacts, page: &mut Page<'_>) -> Result<(), Error> {
    page.counter(
        ("store_writes", "Writes by what became of them"),
        &[
            (&[("outcome", "committed")], facts.committed),
            (&[("outcome", "failed")], facts.failed),
            (&[("outcome", "refused")], facts.refused),
            (&[("outcome", "timed_out")], facts.timed_out),
        ],
    )?;
    let about = ("store_write_retries", "Attempts after a broken connection");
    page.counter(about, &[(&[], facts.retries)])?;
    page.counter(
        ("store_reads", "Reads by what became of them"),
        &[
            (&[("outcome", "ok")], facts.reads),
            (&[("outcome", "failed")], facts.failed_reads),
        ],
    )?;
    let about = ("store_purged", "Ended responses that were removed for good");
    page.counter(about, &[(&[], facts.purged)])?;
    let about = ("store_queued_writes", "Writes that wait for their group");
    page.gauge(about, &[(&[], size(facts.queued))])?;
    let used = facts.connections.saturating_sub(facts.idle);
    page.gauge(
        ("store_connections", "Open connections of the pool"),
        &[
            (&[("state", "used")], f64::from(used)),
            (&[("state", "idle")], f64::from(facts.idle)),
        ],
    )?;
    page.histogram(
        ("store_group_size", "Writes of one transaction"),
        &Counts {
            bounds: &GROUP_SIZES.map(size),
            classes: &facts.group_sizes,
            sum: number(facts.committed + facts.failed),
        },
    )?;
    let about = (
        "store_commit_duration_seconds",
        "How long transactions took",
    );
    latency(about, &facts.commits, page)?;
    let about = ("store_read_duration_seconds", "How long reads took");
    latency(about, &facts.read_times, page)
}

fn redis(facts: &CacheFacts, page: &mut Page<'_>) -> Result<(), Error> {
    page.counter(
        ("cache_chains", "Chains by whether Redis had them"),
        &[
            (&[("outcome", "hit")], facts.hits),
            (&[("outcome", "miss")], facts.misses),
            (&[("outcome", "bypass")], facts.bypasses),
        ],
    )?;
    let about = (
        "cache_errors",
        "Operations that Redis did not answer in time",
    );
    page.counter(about, &[(&[], facts.errors)])?;
    let about = ("cache_damaged", "Entries that were found damaged");
    page.counter(about, &[(&[], facts.damaged)])?;
    let about = ("cache_fills", "Chains that were written to Redis");
    page.counter(about, &[(&[], facts.fills)])?;
    let about = ("cache_epochs", "Deletions that had to begin a new epoch");
    page.counter(about, &[(&[], facts.epochs_begun)])?;
    let about = ("cache_breaker_open", "Whether Redis is left alone");
    page.gauge(about, &[(&[], flag(facts.breaker_open))])?;
    let about = ("cache_operation_duration_seconds", "How long Redis took");
    latency(about, &facts.latency, page)
}

fn python(seen: &InterpreterStatus, page: &mut Page<'_>) -> Result<(), Error> {
    page.gauge(
        ("interpreter_workers", "Interpreters by what they do"),
        &[
            (&[("state", "idle")], size(seen.idle)),
            (&[("state", "warm")], size(seen.warm)),
            (&[("state", "held")], size(seen.held)),
            (&[("state", "kept")], size(seen.kept)),
        ],
    )?;
    let about = ("interpreter_processes", "Interpreters, starting ones too");
    page.gauge(about, &[(&[], size(seen.live))])?;
    let about = ("interpreter_waiting_calls", "Calls that wait for one");
    page.gauge(about, &[(&[], size(seen.waiting))])?;
    page.counter(
        ("interpreter_starts", "Starts of interpreters"),
        &[
            (&[("status", "ok")], seen.starts),
            (&[("status", "error")], seen.failures),
        ],
    )?;
    let about = (
        "interpreter_wait_seconds",
        "How long calls waited for a fresh interpreter",
    );
    latency(about, &seen.waits, page)
}

fn latency(about: (&str, &str), counted: &Latency, page: &mut Page<'_>) -> Result<(), Error> {
    let counts = Counts {
        bounds: &Latency::BOUNDS.map(|bound| bound.as_secs_f64()),
        classes: &counted.counts,
        sum: number(counted.sum_us) / 1e6,
    };
    page.histogram(about, &counts)
}

/// 1 is yes.
fn flag(on: impl Into<u8>) -> f64 {
    f64::from(on.into())
}

fn size(count: usize) -> f64 {
    number(count.try_into().unwrap_or(u64::MAX))
}

/// Exact up to 2^53: the format has floats only.
fn number(count: u64) -> f64 {
    let half = |bits: u64| f64::from(u32::try_from(bits).unwrap_or(u32::MAX));
    half(count >> 32) * 4_294_967_296.0 + half(count & u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_become_floats() {
        for (count, float) in [(0, 0.0), (7, 7.0), (4_294_967_296, 4_294_967_296.0)] {
            assert!((number(count) - float).abs() < f64::EPSILON, "{count}");
        }
        assert!(flag(true) > flag(false));
    }
}
