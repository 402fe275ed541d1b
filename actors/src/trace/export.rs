//! How spans leave: a bounded queue, and one task on a thread of its own that sends them over OTLP.
//!
//! Requests only put finished spans into the queue. A collector that is down, slow or hung costs them
//! nothing: what does not fit is dropped and counted, and the log says so once per outage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_rt::Arbiter;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vllm_responses_protocol::ids::IdSource as _;

use super::Scope;
use crate::env::SystemIds;

/// Finished spans that wait to be sent; at some 2 KiB each, 4 MiB.
const QUEUE: usize = 2048;
/// Spans of one message; well below what collectors take (4 MiB).
const BATCH: usize = 512;
/// How long the first span of a message waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// Longest sending of one message.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// Most attributes of a span; the facts of one are fewer.
const MAX_FACTS: u32 = 16;

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingSettings {
    /// `service.name` of the resource.
    pub service_name: String,
    /// Share of the traces that begin here which are recorded, 0 to 1. Of those that a client began,
    /// the client decides.
    pub sample_ratio: f64,
    /// Host of the collector; IPv6 without brackets.
    pub host: String,
    /// Its OTLP port for gRPC.
    pub port: u16,
}

impl TracingSettings {
    fn endpoint(&self) -> String {
        if self.host.contains(':') {
            format!("http://[{}]:{}", self.host, self.port)
        } else {
            format!("http://{}:{}", self.host, self.port)
        }
    }
}

/// The sending side; owned by whoever starts it, who calls [`Exporter::finish`] at the end.
#[derive(Debug)]
pub struct Exporter {
    arbiter: Arbiter,
    stop: CancellationToken,
    done: oneshot::Receiver<()>,
}

impl Exporter {
    /// Sends what is queued and ends the thread, within `limit`.
    pub async fn finish(self, limit: Duration) {
        self.stop.cancel();
        if timeout(limit, self.done).await.is_err() {
            log::warn!("the last spans were not taken by the collector in time and are lost");
        }
        self.arbiter.stop();
    }
}

/// Starts the sending side. Spans begin at the scope that comes with it.
pub fn start(settings: &TracingSettings) -> (Scope, Exporter) {
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", settings.service_name.clone()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new(
                "service.instance.id",
                format!("{:032x}", SystemIds.next_bits()),
            ),
        ])
        .build();
    let (spans, queue) = mpsc::channel(QUEUE);
    let lost = Arc::new(AtomicU64::new(0));
    let inlet = Inlet {
        spans,
        lost: Arc::clone(&lost),
    };
    let ratio = Sampler::TraceIdRatioBased(settings.sample_ratio);
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(ratio)))
        .with_max_attributes_per_span(MAX_FACTS)
        .with_resource(resource.clone())
        .with_span_processor(inlet)
        .build();
    let (told, done) = oneshot::channel::<()>();
    let exporter = Exporter {
        arbiter: Arbiter::new(),
        stop: CancellationToken::new(),
        done,
    };
    let (endpoint, stop) = (settings.endpoint(), exporter.stop.clone());
    exporter.arbiter.spawn(async move {
        // Made here: its connection belongs to this thread.
        let built = OtlpExporter::builder()
            .with_tonic()
            .with_endpoint(&endpoint)
            .with_timeout(SEND_LIMIT)
            .build();
        match built {
            Ok(mut otlp) => {
                otlp.set_resource(&resource);
                let health = Health::new(endpoint, lost);
                send_all(queue, otlp, stop, health).await;
            }
            Err(_unusable) => log::error!("no spans are sent: {endpoint} is no usable address"),
        }
        drop(told);
    });
    let scope = Scope {
        tracer: Some(provider.tracer("vllm-responses")),
        at: None,
    };
    (scope, exporter)
}

/// Where the SDK leaves finished spans. Never waits.
#[derive(Debug)]
struct Inlet {
    spans: mpsc::Sender<SpanData>,
    lost: Arc<AtomicU64>,
}

impl SpanProcessor for Inlet {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// The queue is emptied by [`Exporter::finish`].
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends until it is told to stop, and then what is left.
async fn send_all(
    mut queue: mpsc::Receiver<SpanData>,
    exporter: impl SpanExporter,
    stop: CancellationToken,
    mut health: Health,
) {
    loop {
        let first = tokio::select! {
            first = queue.recv() => first,
            () = stop.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        let Some(first) = first else { return };
        let mut batch = vec![first];
        let gather = async {
            while batch.len() < BATCH {
                let Some(span) = queue.recv().await else {
                    return;
                };
                batch.push(span);
            }
        };
        tokio::select! {
            // First what is there; either way the batch holds it.
            biased;
            _ = timeout(GATHER, gather) => {}
            () = stop.cancelled() => {}
        }
        let count = batch.len();
        let sent = timeout(SEND_LIMIT, exporter.export(batch)).await;
        match sent {
            Ok(Ok(())) => health.taken(),
            Ok(Err(_)) | Err(_) => health.refused(count),
        }
    }
}

/// Whether the collector takes what it is sent, for the log.
#[derive(Debug)]
struct Health {
    endpoint: String,
    /// Spans that did not fit the queue.
    lost: Arc<AtomicU64>,
    /// Spans of messages that were not taken, in this outage.
    refused: u64,
    down: bool,
    /// It was too slow once.
    slow: bool,
}

impl Health {
    fn new(endpoint: String, lost: Arc<AtomicU64>) -> Self {
        Self {
            endpoint,
            lost,
            refused: 0,
            down: false,
            slow: false,
        }
    }

    /// The collector took a message. That it is too slow is said once: the queue may be full again at
    /// any time.
    fn taken(&mut self) {
        if !self.down && !self.slow && self.lost.load(Ordering::Relaxed) > 0 {
            self.slow = true;
            log::warn!("the trace collector is too slow for all spans; some are dropped");
        }
        if std::mem::take(&mut self.down) {
            let lost = std::mem::take(&mut self.refused) + self.lost.swap(0, Ordering::Relaxed);
            log::info!(lost; "the trace collector takes spans again");
        }
    }

    /// It did not take one with so many spans.
    fn refused(&mut self, spans: usize) {
        self.refused += u64::try_from(spans).unwrap_or(u64::MAX);
        if !std::mem::replace(&mut self.down, true) {
            log::warn!(
                "the trace collector at {} takes no spans; they are dropped until it does, requests \
                 go on",
                self.endpoint
            );
        }
    }
}
