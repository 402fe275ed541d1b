//! The gateway's copy of what the MCP runtime knows, and calls through it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use awc::Client;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use vllm_responses_protocol::mcp::catalogue::{Catalogue, ToolEntry};
use vllm_responses_protocol::mcp::inbound::MAX_RESULT;
use vllm_responses_protocol::mcp::mentions::{self, Mention};
use vllm_responses_protocol::mcp::outcome::{CallError, Outcome, SERVER_ERROR};
use vllm_responses_protocol::mcp::wire::{CallOrder, ServerPhase, Snapshot};
use vllm_responses_protocol::tools::mcp::Listed;

use crate::mcp::messages::{CallTool, ListFailure, RuntimeDown, ServerSummary, UnknownServer};
use crate::mcp::net::MAX_MESSAGE;
use crate::mcp::settings::HostedSettings;
use crate::mcp::way::Way;
use crate::own_client::in_trace;

const CONNECT: Duration = Duration::from_secs(2);
/// Longer than the runtime holds a poll.
const POLL_LIMIT: Duration = Duration::from_secs(40);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);
/// Largest snapshot: so many servers with full lists do not fit a model anyway.
const MAX_SNAPSHOT: usize = 64 * 1024 * 1024;
/// A result with every byte escaped, pictures, and what is around it.
const MAX_OUTCOME: usize = 6 * MAX_RESULT + MAX_MESSAGE + 64 * 1024;
/// What the runtime may take beyond the limits it keeps itself.
const SLACK: Duration = Duration::from_secs(10);

/// One built-in server.
#[derive(Clone, Debug)]
struct BuiltInServer {
    summary: ServerSummary,
    /// Limit of one call.
    call: Duration,
    tools: Arc<Catalogue>,
}

/// What is known.
#[derive(Debug, Default)]
struct View {
    /// `None` before the first answer, and while the runtime does not answer.
    servers: Option<BTreeMap<Box<str>, BuiltInServer>>,
    /// Whether an answer failed since the last good one.
    down: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    /// `None` without built-in servers; then there is no HTTP client either, which has a copy of the
    /// system's TLS roots.
    runtime: Option<(Way, RuntimeClient)>,
    settings: HostedSettings,
    view: watch::Sender<View>,
    /// Whether the runtime is being stopped.
    pub(super) leaving: Cell<bool>,
    /// What the log has said of tools that speak of others.
    mentions: RefCell<BTreeSet<Mention>>,
}

/// `awc`'s own type shows nothing of itself.
struct RuntimeClient(Client);

impl std::fmt::Debug for RuntimeClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RuntimeClient")
    }
}

impl Link {
    pub(super) fn new(runtime: Option<Way>, settings: HostedSettings) -> Self {
        let view = View {
            servers: runtime.is_none().then(BTreeMap::new),
            down: false,
        };
        let with_client = |way: Way| {
            let client = RuntimeClient(way.client(CONNECT));
            (way, client)
        };
        Self {
            runtime: runtime.map(with_client),
            settings,
            view: watch::Sender::new(view),
            leaving: Cell::new(false),
            mentions: RefCell::default(),
        }
    }

    /// Keeps the copy fresh for as long as the actor lives.
    pub(super) async fn follow(&self) {
        let Some((link, http)) = &self.runtime else {
            return;
        };
        let mut since = 0;
        loop {
            if let Some(snapshot) = poll(link, http, since).await {
                since = snapshot.revision;
                self.take(snapshot);
                continue;
            }
            // A restarted runtime counts from the beginning.
            since = 0;
            let was_up = self.view.borrow().servers.is_some();
            if was_up && !self.leaving.get() {
                log::warn!(
                    "the MCP runtime does not answer; its tools are unavailable until it does"
                );
            }
            self.view.send_modify(|view| {
                view.servers = None;
                view.down = true;
            });
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }

    fn take(&self, snapshot: Snapshot) {
        let mut servers = BTreeMap::new();
        let view = self.view.borrow();
        let known = view.servers.as_ref();
        for state in snapshot.servers {
            let mut summary = ServerSummary {
                label: state.label.clone(),
                transport: state.transport,
                required: state.required,
                always_approve: state.always_approve,
                phase: state.phase,
                came_up: 0,
                failed: 0,
            };
            let before = known.and_then(|known| known.get(&state.label));
            summary.count_since(before.map(|before| &before.summary));
            let tools = Arc::new(Catalogue {
                tools: state.tools.into_iter().map(Arc::new).collect(),
                notices: state.notices,
            });
            let call = Duration::from_millis(state.call_limit_ms).max(self.settings.call);
            servers.insert(
                state.label,
                BuiltInServer {
                    summary,
                    call,
                    tools,
                },
            );
        }
        drop(view);
        self.note_mentions(&mut servers);
        self.view.send_replace(View {
            servers: Some(servers),
            down: false,
        });
    }

    /// Notes where a server's tools speak of another's; what is new goes to the log.
    fn note_mentions(&self, servers: &mut BTreeMap<Box<str>, BuiltInServer>) {
        let all: Vec<(&str, Vec<&ToolEntry>)> = servers
            .iter()
            .map(|(label, server)| {
                (
                    &**label,
                    server.tools.tools.iter().map(|tool| &**tool).collect(),
                )
            })
            .collect();
        let found: BTreeSet<Mention> = mentions::among(&all).into_iter().collect();
        for mention in &found {
            if let Some(server) = servers.get_mut(&mention.server) {
                Arc::make_mut(&mut server.tools)
                    .notices
                    .push(mention.to_string());
            }
        }
        for mention in found.difference(&self.mentions.borrow()) {
            log::warn!("{mention}");
        }
        self.mentions.replace(found);
    }

    pub(super) fn servers(&self) -> Result<Vec<ServerSummary>, RuntimeDown> {
        let view = self.view.borrow();
        let servers = view.servers.as_ref().ok_or(RuntimeDown)?;
        Ok(servers
            .values()
            .map(|server| server.summary.clone())
            .collect())
    }

    /// Resolves when the runtime has told of its servers, or when it takes too long.
    pub(super) async fn until_known(&self) {
        let mut seen = self.view.subscribe();
        let known = seen.wait_for(|view| view.servers.is_some());
        drop(timeout(SLACK, known).await);
    }

    /// From memory; a server that is still starting is waited for.
    pub(super) async fn tools(&self, label: &str) -> Result<Listed, ListFailure> {
        let is_settled = |view: &View| match &view.servers {
            None => view.down,
            Some(servers) => servers
                .get(label)
                .is_none_or(|server| server.summary.phase != ServerPhase::Starting),
        };
        let mut seen = self.view.subscribe();
        // Connecting, the handshake and the list have a limit each.
        let limit = self.settings.startup.saturating_mul(3);
        let settled = timeout(limit, seen.wait_for(is_settled)).await;
        let Ok(Ok(view)) = settled else {
            return Err(ListFailure::Unavailable("it is still starting".into()));
        };
        let servers = view.servers.as_ref().ok_or(ListFailure::RuntimeDown)?;
        let server = servers.get(label).ok_or_else(|| {
            let known = servers.keys().cloned().collect();
            let label = label.into();
            ListFailure::Unknown(UnknownServer { label, known })
        })?;
        match &server.summary.phase {
            ServerPhase::Unavailable { reason } => Err(ListFailure::Unavailable(reason.clone())),
            ServerPhase::Starting | ServerPhase::Available => Ok(Listed {
                tools: Arc::clone(&server.tools),
                always_approve: server.summary.always_approve,
            }),
        }
    }

    pub(super) async fn call(&self, label: &str, call: &CallTool) -> Outcome {
        let failed = |message: &str| Outcome::Failed {
            error: CallError::protocol(SERVER_ERROR, message),
        };
        let Some((link, http)) = &self.runtime else {
            return failed("there is no MCP runtime");
        };
        let order = CallOrder {
            server: label.into(),
            tool: call.tool.clone(),
            arguments: call.arguments.clone(),
        };
        let request = http.0.post(link.endpoint("/internal/mcp/call"));
        let request = in_trace(request, call.origin.scope.context());
        let answered = async {
            let sent = link.authorize(request).send_json(&order).await;
            let mut answer = sent.map_err(|_unreachable| "the MCP runtime does not answer")?;
            match answer.status().as_u16() {
                200 => {}
                404 => return Err("no built-in MCP server has this label"),
                409 => return Err("the MCP server is not available now"),
                _ => return Err("the MCP runtime refused the call"),
            }
            let body = answer.body().limit(MAX_OUTCOME).await;
            let body = body.map_err(|_broken| "the MCP runtime broke off")?;
            serde_json::from_slice(&body).map_err(|_malformed| "the MCP runtime broke off")
        };
        let view = self.view.borrow();
        let server = view.servers.as_ref().and_then(|servers| servers.get(label));
        let call = server.map_or(self.settings.call, |server| server.call);
        drop(view);
        let limit = call.saturating_mul(2).saturating_add(SLACK);
        match timeout(limit, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(why)) => failed(why),
            Err(_elapsed) => failed("the MCP runtime does not answer"),
        }
    }
}

/// The state of all servers, once it is another than `since`; `None` when there is no answer.
async fn poll(link: &Way, http: &RuntimeClient, since: u64) -> Option<Snapshot> {
    let path = format!("/internal/mcp/servers?since={since}");
    let request = link.authorize(http.0.get(link.endpoint(&path)));
    let answered = async {
        let mut answer = request.send().await.ok()?;
        if answer.status().as_u16() != 200 {
            return None;
        }
        answer.body().limit(MAX_SNAPSHOT).await.ok()
    };
    let body = timeout(POLL_LIMIT, answered).await.ok()??;
    serde_json::from_slice(&body).ok()
}
