//! Opening a session: the transport, the handshake, and the version of the protocol.
//!
//! Most servers begin with `initialize` and take any version that we name or answer with their own. One
//! that refuses is asked again with the version that it names; one that knows no `initialize`, with
//! `server/discover`, as of 2026-07-28.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::ProtocolVersion;
use rmcp::service::{ClientInitializeError, ClientLifecycleMode, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{RoleClient, serve_client_with_lifecycle};
use tokio::time::{sleep, timeout};
use vllm_responses_protocol::mcp::file::HttpKind;

use super::failure;
use super::peer::Refuser;
use super::program::{self, Program};
use super::redact::Redactor;
use super::{Deadlines, Endpoint, Failure, Phase, Reason};
use crate::mcp::guard::Destination;
use crate::mcp::net::calm::Calm;
use crate::mcp::net::connect::Connector;
use crate::mcp::net::http::Http;
use crate::mcp::net::sse::LegacySse;
use crate::mcp::net::stdio::StdioTransport;
use crate::mcp::net::{MAX_MESSAGE, Progress, Trouble, VERSIONS};
use crate::process::{ChildSpec, EnvPolicy, Limit, LimitKind, Output, SpawnError, Stdin};

/// A stdio server's time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);
/// How long a session that a server forgot may take to be made anew.
const RENEWAL: Duration = Duration::from_secs(5);
/// Most handshakes that are tried.
const MAX_TRIES: usize = 3;
/// JSON-RPC code of 2026-07-28 for a version that is not spoken.
const UNSUPPORTED_VERSION: i64 = -32022;
/// JSON-RPC: no such method.
const METHOD_NOT_FOUND: i64 = -32601;

pub(super) type Service = RunningService<RoleClient, Refuser>;

/// An open session, and the program at its other end if that is one of ours.
pub(super) struct Opened {
    pub(super) service: Service,
    pub(super) program: Option<Program>,
}

/// Opens a session, with the versions that the server speaks.
pub(super) async fn open(
    label: &Arc<str>,
    endpoint: &Endpoint,
    deadlines: Deadlines,
    progress: &Progress,
) -> Result<Opened, Failure> {
    let mut version = ProtocolVersion::LATEST_WITH_INITIALIZE;
    let mut tried = Vec::new();
    let mut first = None;
    loop {
        tried.push(version.clone());
        let opening = Opening {
            label,
            deadlines,
            progress,
            peer: Refuser::new(progress.clone(), version.clone()),
            version,
        };
        let failure = match opening.run(endpoint).await {
            Ok(opened) => return Ok(opened),
            Err(failure) => failure,
        };
        let next = other_version(&failure, progress, &tried);
        // The first refusal is the one that tells most.
        let told = first.get_or_insert(failure);
        match next {
            Some(next) if tried.len() < MAX_TRIES => version = next,
            _ => return Err(told.clone()),
        }
    }
}

/// The version that a server which has refused ours may take.
fn other_version(
    failure: &Failure,
    progress: &Progress,
    tried: &[ProtocolVersion],
) -> Option<ProtocolVersion> {
    let Reason::Rpc { code, .. } = failure.reason else {
        // An HTTP status without words: it may be the header of a version that is missed.
        let bare = failure.reason == Reason::Trouble(Trouble::Status(400));
        return bare.then(newest).filter(|newest| !tried.contains(newest));
    };
    let named = progress.named_versions().into_iter();
    let mut named = named.filter_map(version_of);
    let named = named.find(|version| !tried.contains(version));
    let knows_no_initialize = matches!(code, UNSUPPORTED_VERSION | METHOD_NOT_FOUND | 400);
    named
        .or_else(|| knows_no_initialize.then(newest))
        .filter(|version| !tried.contains(version))
}

fn newest() -> ProtocolVersion {
    ProtocolVersion::V_2026_07_28
}

fn version_of(text: &str) -> Option<ProtocolVersion> {
    let known = VERSIONS.contains(&text);
    let mut versions = ProtocolVersion::KNOWN_VERSIONS.iter();
    versions
        .find(|version| known && version.as_str() == text)
        .cloned()
}

/// What the two halves of opening share.
struct Opening<'a> {
    label: &'a Arc<str>,
    deadlines: Deadlines,
    progress: &'a Progress,
    peer: Refuser,
    version: ProtocolVersion,
}

impl Opening<'_> {
    async fn run(self, endpoint: &Endpoint) -> Result<Opened, Failure> {
        match endpoint {
            Endpoint::Stdio { .. } => self.stdio(endpoint).await,
            Endpoint::Http {
                to,
                guard,
                headers,
                kind,
                dialer,
                ..
            } => {
                let connector = Connector {
                    dialer: Arc::clone(dialer),
                    guard: Arc::clone(guard),
                    limit: self.deadlines.connect,
                    progress: self.progress.clone(),
                };
                let http = Http::new(connector, (**to).clone(), headers.clone());
                // Opening holds a whole HTTP client; it is rare, and boxed for those who wait.
                let service = if is_legacy(*kind, to) {
                    Box::pin(self.legacy(http)).await?
                } else {
                    Box::pin(self.streamable(http)).await?
                };
                Ok(Opened {
                    service,
                    program: None,
                })
            }
        }
    }

    fn lifecycle(&self) -> ClientLifecycleMode {
        if self.version.has_initialize() {
            return ClientLifecycleMode::Initialize;
        }
        ClientLifecycleMode::Discover {
            preferred_versions: vec![self.version.clone()],
        }
    }

    async fn stdio(self, endpoint: &Endpoint) -> Result<Opened, Failure> {
        let started = timeout(self.deadlines.connect, start(self.label, endpoint)).await;
        let spawned = started
            .map_err(|_elapsed| self.timed_out(Phase::Connect))?
            .map_err(|reason| Failure::new(self.label, Phase::Connect, Reason::Start(reason)))?;
        let program = Program::new(self.label, endpoint, &spawned.child);
        let transport = StdioTransport::new(spawned, self.progress.clone()).map_err(|error| {
            let reason = Reason::Start(error.to_string().into());
            Failure::new(self.label, Phase::Connect, reason)
        })?;
        let (label, deadlines, progress) = (self.label, self.deadlines, self.progress);
        let lifecycle = self.lifecycle();
        let opened = serve_client_with_lifecycle(self.peer, Calm::new(transport), lifecycle);
        match initialised(label, deadlines, progress, opened).await {
            Ok(service) => Ok(Opened {
                service,
                program: Some(program),
            }),
            Err(failure) => Err(program.explain(failure).await),
        }
    }

    async fn streamable(self, http: Http) -> Result<Service, Failure> {
        let config = StreamableHttpClientTransportConfig::with_uri(http.home().url.as_str())
            .session_recovery_timeout(RENEWAL)
            .max_sse_event_size(MAX_MESSAGE);
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let (label, deadlines, progress) = (self.label, self.deadlines, self.progress);
        let lifecycle = self.lifecycle();
        let opened = serve_client_with_lifecycle(self.peer, Calm::new(transport), lifecycle);
        initialised(label, deadlines, progress, opened).await
    }

    async fn legacy(self, http: Http) -> Result<Service, Failure> {
        let limit = self.deadlines.connect;
        let opened = timeout(limit, LegacySse::open(http)).await;
        let transport = opened
            .map_err(|_elapsed| self.timed_out(Phase::Connect))?
            .map_err(|trouble| Failure::new(self.label, Phase::Connect, trouble.into()))?;
        let (label, deadlines, progress) = (self.label, self.deadlines, self.progress);
        let lifecycle = self.lifecycle();
        let opened = serve_client_with_lifecycle(self.peer, Calm::new(transport), lifecycle);
        initialised(label, deadlines, progress, Box::pin(opened)).await
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
        if reason == Reason::Trouble(Trouble::ConnectTimedOut) {
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
        ..
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
        secrets: Redactor::of(endpoint).into_lines(),
        // Where memory is short, before the gateway and the model server.
        limits: vec![Limit {
            kind: LimitKind::OomScore,
            value: 500,
        }],
        sandbox: None,
    };
    if let Some(folder) = cwd
        && !std::path::Path::new(folder).is_dir()
    {
        return Err("its working directory (`cwd`) is not there".into());
    }
    let spawned = launcher.spawn(spec).await;
    spawned.map_err(|error| match error {
        SpawnError::NotFound { .. } => {
            let name = program::name_of(program);
            format!(
                "its program (`command`) `{name}` is not found; install it or give its full path"
            )
            .into()
        }
        other @ (SpawnError::Refused { .. } | SpawnError::Stopped { .. }) => {
            other.to_string().into()
        }
    })
}
