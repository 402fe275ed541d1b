//! A trace collector that receives OTLP over gRPC and keeps everything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A span as it came.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) name: String,
    /// 1 internal, 2 server, 3 client.
    pub(crate) kind: i32,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for a root.
    pub(crate) parent: String,
    pub(crate) facts: BTreeMap<String, String>,
    /// Words of a failure; empty without one.
    pub(crate) failure: String,
    pub(crate) resource: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    spans: Vec<Span>,
    /// Everything that came, as text.
    dump: String,
}

/// Runs until it is dropped.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Service {
    state: Arc<Mutex<State>>,
    hangs: bool,
}

impl Collector {
    pub(crate) fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), false)
    }

    /// Accepts connections and messages and never answers.
    pub(crate) fn hanging() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), true)
    }

    pub(crate) fn at(address: SocketAddr, hangs: bool) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let state = Arc::new(Mutex::new(State::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let service = Service {
            state: Arc::clone(&state),
            hangs,
        };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let serving = Server::builder()
                    .add_service(TraceServiceServer::new(service))
                    .serve(address);
                tokio::select! {
                    served = serving => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Settings of a gateway that sends here, every trace.
    pub(crate) fn env(&self) -> [(&'static str, String); 4] {
        [
            ("VR_TRACING_ENABLED", "true".to_owned()),
            ("VR_TRACING_SAMPLE_RATIO", "1".to_owned()),
            ("VR_OPENTELEMETRY_HOST", self.address.ip().to_string()),
            ("VR_OPENTELEMETRY_PORT", self.address.port().to_string()),
        ]
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.lock().spans.clone()
    }

    /// Everything that came, as text.
    pub(crate) fn dump(&self) -> String {
        self.lock().dump.clone()
    }

    /// Waits until what came is as wanted.
    #[track_caller]
    pub(crate) fn wait(&self, wanted: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let spans = self.spans();
            if wanted(&spans) {
                return spans;
            }
            assert!(Instant::now() < until, "only these spans came: {spans:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let message = request.into_inner();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.dump.push_str(&format!("{message:?}\n"));
        for of_resource in message.resource_spans {
            let resource = of_resource
                .resource
                .map(|resource| pairs(resource.attributes));
            for span in of_resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                state.spans.push(Span {
                    name: span.name,
                    kind: span.kind,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    facts: pairs(span.attributes),
                    failure: span.status.map(|status| status.message).unwrap_or_default(),
                    resource: resource.clone().unwrap_or_default(),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn pairs(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .into_iter()
        .map(|pair| {
            let value = pair.value.and_then(|value| value.value);
            (pair.key, value.map(text).unwrap_or_default())
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}
