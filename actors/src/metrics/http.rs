//! HTTP requests, as the Python gateway of the same name counts them.

use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds until the head of an answer.
const HTTP_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0,
];
/// Seconds that a stream lasts.
const STREAM_BUCKETS: [f64; 22] = [
    0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0,
    180.0, 240.0, 300.0, 420.0, 600.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: Box<str>,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: &'static str,
    route: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: Box<str>,
}

/// Requests and streams. Routes are templates, never paths.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Family<Answered, Counter>,
    durations: Family<Asked, Histogram, fn() -> Histogram>,
    in_flight: Gauge<i64, AtomicI64>,
    streams: Gauge<i64, AtomicI64>,
    stream_durations: Family<Route, Histogram, fn() -> Histogram>,
}

/// Counts one stream from its beginning until this is dropped.
#[derive(Debug)]
pub struct StreamGuard {
    metrics: HttpMetrics,
    route: Box<str>,
    began: Instant,
}

/// Counts one request as in flight until this is dropped.
#[derive(Debug)]
pub struct RequestGuard(Gauge<i64, AtomicI64>);

impl HttpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(HTTP_BUCKETS)),
            in_flight: Gauge::default(),
            streams: Gauge::default(),
            stream_durations: Family::new_with_constructor(|| Histogram::new(STREAM_BUCKETS)),
        };
        registry.register(
            "http_requests",
            "Requests answered, by method, route template and status",
            metrics.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "Time until the head of the answer; of a stream that is its beginning",
            metrics.durations.clone(),
        );
        registry.register(
            "http_in_flight_requests",
            "Requests that wait for the head of their answer",
            metrics.in_flight.clone(),
        );
        registry.register(
            "sse_connections_in_flight",
            "Streams that are open",
            metrics.streams.clone(),
        );
        registry.register(
            "sse_stream_duration_seconds",
            "How long streams were open",
            metrics.stream_durations.clone(),
        );
        metrics
    }

    /// A request has come.
    pub fn asked(&self) -> RequestGuard {
        self.in_flight.inc();
        RequestGuard(self.in_flight.clone())
    }

    /// The head of its answer goes out.
    pub fn answered(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let route: Box<str> = route.into();
        let asked = Asked {
            method,
            route: route.clone(),
        };
        let durations = self.durations.get_or_create(&asked);
        durations.observe(took.as_secs_f64());
        let answered = Answered {
            method,
            route,
            status,
        };
        self.requests.get_or_create(&answered).inc();
    }

    /// A stream begins.
    pub fn stream(&self, route: &str) -> StreamGuard {
        self.streams.inc();
        StreamGuard {
            metrics: self.clone(),
            route: route.into(),
            began: Instant::now(),
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.metrics.streams.dec();
        let route = Route {
            route: std::mem::take(&mut self.route),
        };
        let durations = self.metrics.stream_durations.get_or_create(&route);
        durations.observe(self.began.elapsed().as_secs_f64());
    }
}
