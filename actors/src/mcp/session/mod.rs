//! One session with one MCP server: opened, listed, called, each within a deadline of its own.

mod failure;
mod peer;
mod redact;
mod render;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, JsonObject, PaginatedRequestParams, RequestMetaObject,
    Tool,
};
use rmcp::service::{ClientInitializeError, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{RoleClient, serve_client};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use vllm_responses_protocol::mcp::catalogue::{Catalogue, MAX_TOOLS, RawTool, catalogue};
use vllm_responses_protocol::mcp::file::HttpKind;
use vllm_responses_protocol::mcp::outcome::Outcome;
use vllm_responses_protocol::trace::TraceContext;

pub use failure::{Failure, Phase, Reason};

use super::guard::{CallerHeaders, Destination, Guard};
use super::net::calm::Calm;
use super::net::connect::{Connector, Dialer};
use super::net::http::Http;
use super::net::sse::LegacySse;
use super::net::stdio::StdioTransport;
use super::net::{MAX_MESSAGE, Progress};
use crate::process::{ChildSpec, EnvPolicy, Launcher, Limit, LimitKind, Output, Stdin};
use peer::Refuser;
use redact::Redactor;

/// Pages of a tool list that are read; a list without end is cut here.
const MAX_PAGES: usize = 64;
/// How long a server may take to answer a ping before it is taken for hung.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// Longest orderly end of a session.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// A stdio server's time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// How long each phase may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Name, TCP and TLS; the start of a process.
    pub connect: Duration,
    /// `initialize` and `initialized`.
    pub initialize: Duration,
    /// The whole tool list.
    pub list: Duration,
    /// One call.
    pub call: Duration,
}

/// Where a server is.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// A process to be started.
    Stdio {
        /// Who starts it.
        launcher: Launcher,
        /// Program and arguments.
        command: Vec<OsString>,
        /// Its whole environment.
        env: Vec<(OsString, OsString)>,
        /// Its working directory.
        cwd: Option<OsString>,
    },
    /// A URL, judged already.
    Http {
        /// The URL.
        to: Box<Destination>,
        /// Judges every connection and redirect.
        guard: Arc<Guard>,
        /// Sent to this origin only.
        headers: CallerHeaders,
        /// Which transport.
        kind: HttpKind,
        /// Makes the connections.
        dialer: Arc<Dialer>,
    },
}

/// An initialised session.
#[derive(Debug)]
pub struct Session {
    label: Arc<str>,
    deadlines: Deadlines,
    service: RunningService<RoleClient, Refuser>,
    progress: Progress,
    /// What of the server's words may be told.
    redactor: Redactor,
    /// Counts how often the server said that its tools have changed.
    changes: watch::Receiver<u64>,
}

/// The text of a result is cut to this many bytes.
pub const MAX_RESULT: usize = 1024 * 1024;

impl Session {
    /// Connects and initialises.
    ///
    /// # Errors
    /// [`Failure`] with the phase that failed.
    pub async fn open(
        label: &str,
        endpoint: &Endpoint,
        deadlines: Deadlines,
    ) -> Result<Self, Failure> {
        let label: Arc<str> = label.into();
        let progress = Progress::default();
        let (told, changes) = watch::channel(0);
        let redactor = Redactor::of(endpoint);
        let opening = Opening {
            label: &label,
            deadlines,
            progress: &progress,
            peer: Refuser::new(told),
        };
        let opened = match endpoint {
            Endpoint::Stdio { .. } => opening.stdio(endpoint).await,
            Endpoint::Http {
                to,
                guard,
                headers,
                kind,
                dialer,
            } => {
                let connector = Connector {
                    dialer: Arc::clone(dialer),
                    guard: Arc::clone(guard),
                    limit: deadlines.connect,
                    progress: progress.clone(),
                };
                let http = Http::new(connector, (**to).clone(), headers.clone());
                if is_legacy(*kind, to) {
                    Box::pin(opening.legacy(http)).await
                } else {
                    // Opening holds a whole HTTP client; it is rare, and boxed for those who wait.
                    Box::pin(opening.streamable(http)).await
                }
            }
        };
        let service = opened.map_err(|failure| Failure {
            reason: redactor.reason(failure.reason),
            ..failure
        })?;
        Ok(Self {
            label,
            deadlines,
            service,
            progress,
            redactor,
            changes,
        })
    }

    /// Counts the server's notices that its tools have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.service.is_closed() || self.service.peer().is_transport_closed()
    }

    /// The server's tools, within the limits of [`catalogue`].
    ///
    /// # Errors
    /// [`Failure`] of the list phase.
    pub async fn list(&self) -> Result<Catalogue, Failure> {
        let limit = self.deadlines.list;
        let listed = timeout(limit, self.list_pages()).await;
        let tools = listed.map_err(|_elapsed| self.timed_out(Phase::List, limit))??;
        Ok(catalogue(&self.label, tools))
    }

    async fn list_pages(&self) -> Result<Vec<RawTool>, Failure> {
        let mut tools = Vec::new();
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor.take());
            let page = self.service.peer().list_tools(Some(params)).await;
            let page = page.map_err(|error| self.failed(Phase::List, &error))?;
            tools.extend(page.tools.into_iter().map(raw_tool));
            cursor = page.next_cursor.filter(|cursor| !cursor.is_empty());
            if cursor.is_none() || tools.len() > MAX_TOOLS {
                break;
            }
        }
        Ok(tools)
    }

    /// Calls a tool. Dropping the future tells the server that nobody waits any more. The place in a
    /// trace goes into `_meta`, as MCP has it (SEP-414), and over HTTP into the headers too.
    ///
    /// # Errors
    /// [`Failure`] of the call phase; what the tool itself says went wrong is an [`Outcome`].
    pub async fn call(
        &self,
        tool: &str,
        arguments: &str,
        trace: Option<&TraceContext>,
    ) -> Result<Outcome, Failure> {
        let arguments: JsonObject = serde_json::from_str(arguments)
            .map_err(|_malformed| self.failure(Phase::Call, Reason::BadArguments))?;
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        params.meta = trace.map(trace_meta);
        let limit = self.deadlines.call;
        let called = timeout(limit, self.service.peer().call_tool_once(params)).await;
        let answer = called
            .map_err(|_elapsed| self.timed_out(Phase::Call, limit))?
            .map_err(|error| self.failed(Phase::Call, &error))?;
        // Anything else asks for a person's input, or offers to answer later.
        let CallToolResponse::Complete(result) = answer else {
            return Err(self.failure(Phase::Call, Reason::WantsInput));
        };
        let outcome = render::outcome(&result, MAX_RESULT);
        Ok(self.redactor.outcome(outcome))
    }

    /// Whether the server still answers.
    pub async fn is_alive(&self) -> bool {
        use rmcp::model::{ClientRequest, PingRequest};
        let ping = ClientRequest::PingRequest(PingRequest::default());
        let answered = timeout(PING_LIMIT, self.service.peer().send_request(ping)).await;
        match answered {
            // An error is an answer too: not every server knows the request.
            Ok(answer) => answer.is_ok() || !self.is_closed(),
            Err(_elapsed) => false,
        }
    }

    /// Ends the session and, for a process of ours, the process. While others use it, it ends with
    /// the last of them.
    pub async fn close(self: Arc<Self>) {
        if let Ok(mut alone) = Arc::try_unwrap(self)
            && let Err(error) = alone.service.close_with_timeout(CLOSE_LIMIT).await
        {
            log::debug!(
                "the session of MCP server `{}` ended badly: {error}",
                alone.label
            );
        }
    }

    /// Why the session is gone.
    pub(super) fn lost(&self) -> Failure {
        let known = self.progress.last_trouble();
        self.failure(Phase::Call, known.map_or(Reason::Closed, Reason::Trouble))
    }

    fn failure(&self, phase: Phase, reason: Reason) -> Failure {
        Failure::new(&self.label, phase, reason)
    }

    fn timed_out(&self, phase: Phase, limit: Duration) -> Failure {
        self.failure(phase, Reason::TimedOut(limit))
    }

    fn failed(&self, phase: Phase, error: &rmcp::ServiceError) -> Failure {
        let reason = failure::reason(error, &self.progress);
        self.failure(phase, self.redactor.reason(reason))
    }
}

/// What the two halves of opening share.
struct Opening<'a> {
    label: &'a Arc<str>,
    deadlines: Deadlines,
    progress: &'a Progress,
    peer: Refuser,
}

type Service = RunningService<RoleClient, Refuser>;

impl Opening<'_> {
    async fn stdio(self, endpoint: &Endpoint) -> Result<Service, Failure> {
        let started = timeout(self.deadlines.connect, start(self.label, endpoint)).await;
        let spawned = started
            .map_err(|_elapsed| self.timed_out(Phase::Connect))?
            .map_err(|reason| Failure::new(self.label, Phase::Connect, Reason::Start(reason)))?;
        let transport = StdioTransport::new(spawned, self.progress.clone()).map_err(|error| {
            let reason = Reason::Start(error.to_string().into());
            Failure::new(self.label, Phase::Connect, reason)
        })?;
        let (label, deadlines, progress) = (self.label, self.deadlines, self.progress);
        let opened = serve_client(self.peer, Calm::new(transport));
        initialised(label, deadlines, progress, opened).await
    }

    async fn streamable(self, http: Http) -> Result<Service, Failure> {
        let config = StreamableHttpClientTransportConfig::with_uri(http.home().url.as_str())
            .max_sse_event_size(MAX_MESSAGE);
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let (label, deadlines, progress) = (self.label, self.deadlines, self.progress);
        let opened = serve_client(self.peer, Calm::new(transport));
        initialised(label, deadlines, progress, opened).await
    }

    async fn legacy(self, http: Http) -> Result<Service, Failure> {
        let limit = self.deadlines.connect;
        let opened = timeout(limit, LegacySse::open(http)).await;
        let transport = opened
            .map_err(|_elapsed| self.timed_out(Phase::Connect))?
            .map_err(|trouble| Failure::new(self.label, Phase::Connect, trouble.into()))?;
        let (label, deadlines, progress) = (self.label, self.deadlines, self.progress);
        let opened = serve_client(self.peer, Calm::new(transport));
        initialised(label, deadlines, progress, opened).await
    }

    fn timed_out(&self, phase: Phase) -> Failure {
        Failure::new(self.label, phase, Reason::TimedOut(self.deadlines.connect))
    }
}

/// Waits for the handshake; its time begins when there is a connection.
async fn initialised(
    label: &str,
    deadlines: Deadlines,
    progress: &Progress,
    opened: impl Future<Output = Result<Service, ClientInitializeError>>,
) -> Result<Service, Failure> {
    let limit = deadlines.initialize;
    let too_long = async {
        progress.until_connected().await;
        sleep(limit).await;
    };
    let outcome = tokio::select! {
        outcome = opened => outcome,
        () = too_long => {
            return Err(Failure::new(label, Phase::Initialize, Reason::TimedOut(limit)));
        }
    };
    outcome.map_err(|error| {
        let phase = if progress.has_connected() {
            Phase::Initialize
        } else {
            Phase::Connect
        };
        let mut reason = failure::initialize_reason(&error, progress);
        if reason == Reason::Trouble(super::net::Trouble::ConnectTimedOut) {
            reason = Reason::TimedOut(deadlines.connect);
        }
        Failure::new(label, phase, reason)
    })
}

/// By the word, or by the path as the Python gateway's MCP library does.
fn is_legacy(kind: HttpKind, to: &Destination) -> bool {
    match kind {
        HttpKind::Sse => true,
        HttpKind::Streamable => false,
        HttpKind::Auto => to
            .url
            .path()
            .split('/')
            .any(|part| part.eq_ignore_ascii_case("sse")),
    }
}

/// Starts a stdio server. The words of the error name no argument and no variable.
async fn start(label: &str, endpoint: &Endpoint) -> Result<crate::process::Spawned, Box<str>> {
    let Endpoint::Stdio {
        launcher,
        command,
        env,
        cwd,
    } = endpoint
    else {
        return Err("it is no program".into());
    };
    let (program, args) = command.split_first().ok_or("it has no program")?;
    let spec = ChildSpec {
        name: format!("mcp {label}"),
        program: program.clone(),
        args: args.to_vec(),
        directory: cwd.clone().map(Into::into),
        env: EnvPolicy::Only(env.clone()),
        stdin: Stdin::Piped,
        output: Output::Protocol,
        grace: GRACE,
        // Where memory is short, before the gateway and the model server.
        limits: vec![Limit {
            kind: LimitKind::OomScore,
            value: 500,
        }],
        sandbox: None,
    };
    let spawned = launcher.spawn(spec).await;
    spawned.map_err(|error| error.to_string().into())
}

fn trace_meta(context: &TraceContext) -> RequestMetaObject {
    let mut meta = RequestMetaObject::new();
    meta.set_traceparent(context.parent());
    if !context.state().is_empty() {
        meta.set_tracestate(context.state());
    }
    meta
}

fn raw_tool(tool: Tool) -> RawTool {
    let annotations = tool.annotations.as_ref();
    RawTool {
        name: tool.name.into_owned(),
        description: tool.description.map(std::borrow::Cow::into_owned),
        input_schema: serde_json::to_string(&*tool.input_schema).unwrap_or_default(),
        read_only: annotations
            .and_then(|hints| hints.read_only_hint)
            .unwrap_or(false),
        annotations: annotations.and_then(|hints| serde_json::to_string(hints).ok()),
    }
}
