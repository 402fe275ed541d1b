//! Built-in servers, inside the MCP runtime process: each has an actor that keeps it reachable.
//!
//! All start at once and none waits for another. A server that fails is tried again after 1, 2, 4 ...
//! 30 s for as long as the runtime lives; a list that the server says has changed is read again.

mod calling;
mod keep;
pub mod messages;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::WrapFuture as _;
use actix::{Actor, Addr, AsyncContext as _, Context, Handler, MessageResult, ResponseFuture};
use tokio::sync::{Notify, Semaphore, watch};
use vllm_responses_protocol::mcp::file::{
    DefaultApproval, Filled, HttpServer, McpFile, ServerEntry, StdioServer, Transport,
};
use vllm_responses_protocol::mcp::outcome::Outcome;
use vllm_responses_protocol::mcp::wire::ServerState;

use super::guard::{CallerHeaders, Destination, Guard, vet_headers};
use super::net::connect::Dialer;
use super::session::Endpoint;
use super::settings::HostedSettings;
use crate::process::Launcher;
use calling::Calling;
use keep::{Keeper, Live};
use messages::{Call, Describe};

/// Calls of one server that run at once; the rest wait.
const MAX_CALLS: usize = 64;
/// Variables of ours that a stdio server gets (decision 14).
const PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

/// Whether a stdio server gets this variable of ours: those are no secrets.
pub(super) fn is_passed(name: &OsStr) -> bool {
    PASSED.iter().any(|passed| name == *passed)
}

/// Why a file's server cannot be served. One line with the place of the cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`mcpServers.{label}.{member}` {rule}")]
pub struct BadServer {
    label: Box<str>,
    member: &'static str,
    rule: &'static str,
}

/// Everything needed to start the servers of a file.
#[derive(Clone, Debug)]
pub struct Means {
    /// Starts stdio servers.
    pub launcher: Launcher,
    /// Connects to the others.
    pub dialer: Arc<Dialer>,
    /// Deadlines and rules.
    pub settings: HostedSettings,
    /// The environment of this process.
    pub env: BTreeMap<OsString, OsString>,
}

/// The running servers.
#[derive(Clone, Debug)]
pub struct Servers {
    /// By label.
    pub by_label: Arc<BTreeMap<Box<str>, Addr<ServerActor>>>,
    /// Grows whenever the state of any of them changes.
    pub revision: watch::Receiver<u64>,
}

/// Starts an actor for every server of a file, on this thread.
///
/// # Errors
/// Every header or URL that cannot be used.
pub fn start(file: &McpFile, means: &Means) -> Result<Servers, Vec<BadServer>> {
    let mut endpoints = Vec::new();
    let mut problems = Vec::new();
    for (label, entry) in &file.servers {
        match endpoint(label, entry, means) {
            Ok(endpoint) => endpoints.push((label, entry, endpoint)),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let (revision, seen) = watch::channel(1);
    let by_label = endpoints
        .into_iter()
        .map(|(label, entry, endpoint)| {
            let startup = means.settings.startup_of(entry);
            let call = means.settings.call_of(entry);
            let rules = (startup, call, means.settings.on_change());
            let keeper = Keeper::new(label, endpoint, rules, revision.clone());
            let actor = ServerActor::new(entry, keeper, (startup, call));
            (label.clone(), actor.start())
        })
        .collect();
    Ok(Servers {
        by_label: Arc::new(by_label),
        revision: seen,
    })
}

/// What of a file's servers cannot be used, beyond what reading the file has found.
pub fn check(file: &McpFile) -> Vec<BadServer> {
    let judged = file
        .servers
        .iter()
        .map(|(label, entry)| match &entry.transport {
            Transport::Stdio(_) => Ok(()),
            Transport::Http(server) => vet_http(label, server).map(drop),
        });
    judged.filter_map(Result::err).collect()
}

fn endpoint(label: &str, entry: &ServerEntry, means: &Means) -> Result<Endpoint, BadServer> {
    match &entry.transport {
        Transport::Stdio(server) => Ok(stdio(server, &entry.filled, means)),
        Transport::Http(server) => {
            let (to, headers) = vet_http(label, server)?;
            Ok(Endpoint::Http {
                to: Box::new(to),
                guard: Arc::new(Guard::Operator),
                headers,
                kind: server.kind,
                filled: entry.filled.clone(),
                dialer: Arc::clone(&means.dialer),
            })
        }
    }
}

fn vet_http(label: &str, server: &HttpServer) -> Result<(Destination, CallerHeaders), BadServer> {
    let bad = |member, rule| BadServer {
        label: label.into(),
        member,
        rule,
    };
    let to = Guard::Operator.vet(server.url.expose());
    let to = to.map_err(|_refused| bad("url", "cannot be dialled"))?;
    let headers = server.headers.iter().map(|(name, value)| (&**name, value));
    let headers = vet_headers(headers, server.auth.as_ref());
    Ok((to, headers.map_err(|rule| bad("headers", rule))?))
}

fn stdio(server: &StdioServer, filled: &[Filled], means: &Means) -> Endpoint {
    // What the file sets comes later and wins.
    let mut env: BTreeMap<OsString, OsString> = PASSED
        .iter()
        .filter_map(|name| means.env.get_key_value(OsString::from(name).as_os_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for (name, value) in &server.env {
        let name: &str = name;
        env.insert(name.into(), value.expose().into());
    }
    let words = std::iter::once(&server.command).chain(&server.args);
    Endpoint::Stdio {
        launcher: means.launcher.clone(),
        command: words.map(|word| OsString::from(&**word)).collect(),
        env: env.into_iter().collect(),
        cwd: server.cwd.as_deref().map(OsString::from),
        filled: filled.to_vec(),
    }
}

/// Whether an `mcp.json` may have this URL.
pub fn is_operator_url(text: &str) -> bool {
    Guard::Operator.vet(text).is_ok()
}

/// Keeps one server reachable and passes calls on to it.
pub struct ServerActor {
    label: Box<str>,
    transport: &'static str,
    required: bool,
    approval: DefaultApproval,
    startup: Duration,
    call: Duration,
    live: Rc<watch::Sender<Live>>,
    /// Rung when a call met a session that may be gone.
    suspect: Rc<Notify>,
    calls: Arc<Semaphore>,
    /// Taken by the flow when the actor starts.
    keeper: Option<Keeper>,
}

impl fmt::Debug for ServerActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerActor")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl ServerActor {
    fn new(entry: &ServerEntry, keeper: Keeper, (startup, call): (Duration, Duration)) -> Self {
        Self {
            label: keeper.label.clone(),
            transport: entry.transport.word(),
            required: entry.required,
            approval: entry.approval,
            startup,
            call,
            live: Rc::clone(&keeper.live),
            suspect: Rc::clone(&keeper.suspect),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            keeper: Some(keeper),
        }
    }
}

impl Actor for ServerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(keeper) = self.keeper.take() {
            ctx.spawn(keeper.run().into_actor(self));
        }
    }
}

/// Synchronous: a copy of what is known.
impl Handler<Describe> for ServerActor {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Self::Result {
        let live = self.live.borrow();
        MessageResult(ServerState {
            label: self.label.clone(),
            transport: self.transport.into(),
            required: self.required,
            always_approve: self.approval == DefaultApproval::Always,
            phase: live.phase.clone(),
            tools: live.tools.iter().map(|tool| (**tool).clone()).collect(),
            notices: live.notices.clone(),
            call_limit_ms: u64::try_from(self.call.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// Overlaps with other calls, as many as the semaphore has places.
impl Handler<Call> for ServerActor {
    type Result = ResponseFuture<Option<Outcome>>;

    fn handle(&mut self, call: Call, _: &mut Self::Context) -> Self::Result {
        let calling = Calling {
            live: Rc::clone(&self.live),
            suspect: Rc::clone(&self.suspect),
            wait: self.startup,
        };
        let places = Arc::clone(&self.calls);
        Box::pin(async move { calling.run(&call, &places).await })
    }
}
