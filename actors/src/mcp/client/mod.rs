//! The gateway's half of MCP: what turns and handlers ask.
//!
//! Of built-in servers it keeps a copy of everything the runtime knows, renewed by one long poll, so
//! that listing them costs no network. Sessions with callers' servers are kept for a conversation's
//! length, one per owner, URL and credentials.

mod link;
mod remote;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::WrapFuture as _;
use actix::{Actor, AsyncContext as _, Context, Handler, MessageResult, ResponseFuture};
use tokio::sync::Semaphore;
use vllm_responses_protocol::mcp::catalogue::ToolEntry;
use vllm_responses_protocol::mcp::outcome::{
    CallError, INVALID_PARAMS, Outcome, SERVER_ERROR, UNKNOWN_TOOL,
};
use vllm_responses_protocol::mcp::schema;

use super::messages::{AwaitRuntime, CallTool, Leaving, ListServers, ListTools, ServerRef};
use super::net::connect::Dialer;
use super::settings::{HostedSettings, RemoteSettings};
use super::way::Way;
use link::Link;
use remote::Remote;

/// Calls that run at once; the rest wait.
const MAX_CALLS: usize = 256;
/// How often sessions that nobody used are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// See the module.
pub struct McpActor {
    link: Rc<Link>,
    remote: Rc<Remote>,
    calls: Arc<Semaphore>,
}

impl fmt::Debug for McpActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpActor").finish_non_exhaustive()
    }
}

impl McpActor {
    /// An actor that knows its built-in servers once the runtime behind `runtime` answers; `None` means
    /// that there are none. Must be made on the thread it runs on.
    pub fn new(
        runtime: Option<Way>,
        hosted: HostedSettings,
        remote: RemoteSettings,
        dialer: Arc<Dialer>,
    ) -> Self {
        Self {
            link: Rc::new(Link::new(runtime, hosted)),
            remote: Rc::new(Remote {
                settings: remote,
                deadlines: hosted,
                dialer,
                sessions: RefCell::default(),
                pins: RefCell::default(),
            }),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
        }
    }
}

impl Actor for McpActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        let link = Rc::clone(&self.link);
        ctx.spawn(async move { link.follow().await }.into_actor(self));
        ctx.run_interval(SWEEP_EVERY, |actor, _| actor.remote.sweep());
    }
}

/// Synchronous: a copy of what is known.
impl Handler<ListServers> for McpActor {
    type Result = MessageResult<ListServers>;

    fn handle(&mut self, _: ListServers, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.link.servers())
    }
}

/// Waits beside the mailbox.
impl Handler<AwaitRuntime> for McpActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: AwaitRuntime, _: &mut Self::Context) -> Self::Result {
        let link = Rc::clone(&self.link);
        Box::pin(async move { link.until_known().await })
    }
}

/// Synchronous.
impl Handler<Leaving> for McpActor {
    type Result = ();

    fn handle(&mut self, _: Leaving, _: &mut Self::Context) {
        self.link.leaving.set(true);
    }
}

/// Overlaps: what is known is answered at once, a server that is not known is asked.
impl Handler<ListTools> for McpActor {
    type Result = ResponseFuture<<ListTools as actix::Message>::Result>;

    fn handle(&mut self, ask: ListTools, _: &mut Self::Context) -> Self::Result {
        let (link, remote) = (Rc::clone(&self.link), Rc::clone(&self.remote));
        Box::pin(async move {
            match &ask.server {
                ServerRef::BuiltIn(label) => link.tools(label).await,
                ServerRef::Remote(server) => remote.tools(&ask.owner, server, &ask.origin).await,
            }
        })
    }
}

/// Overlaps with other calls, as many as the semaphore has places.
impl Handler<CallTool> for McpActor {
    type Result = ResponseFuture<Outcome>;

    fn handle(&mut self, call: CallTool, _: &mut Self::Context) -> Self::Result {
        let (link, remote) = (Rc::clone(&self.link), Rc::clone(&self.remote));
        let places = Arc::clone(&self.calls);
        Box::pin(async move {
            let work = async {
                let _place = places.acquire().await;
                match &call.server {
                    ServerRef::BuiltIn(label) => match fitting(link.tools(label).await, &call) {
                        Ok(_) => link.call(label, &call).await,
                        Err(error) => Outcome::Failed { error },
                    },
                    ServerRef::Remote(server) => {
                        let listed = remote.tools(&call.owner, server, &call.origin).await;
                        match fitting(listed, &call) {
                            Ok(tool) => remote.call(server, &call, &tool).await,
                            Err(error) => Outcome::Failed { error },
                        }
                    }
                }
            };
            tokio::select! {
                outcome = work => outcome,
                () = call.cancel.cancelled() => Outcome::Failed {
                    error: CallError::protocol(SERVER_ERROR, "the call was cancelled"),
                },
            }
        })
    }
}

/// The tool of a call whose arguments fit it.
fn fitting(
    listed: <ListTools as actix::Message>::Result,
    call: &CallTool,
) -> Result<Arc<ToolEntry>, CallError> {
    let listed =
        listed.map_err(|failure| CallError::protocol(SERVER_ERROR, failure.to_string()))?;
    let tool = listed.tools.find(&call.tool).ok_or_else(|| {
        CallError::protocol(UNKNOWN_TOOL, "the MCP server has no tool of this name")
    })?;
    schema::check(&tool.input_schema, &call.arguments)
        .map_err(|rule| CallError::protocol(INVALID_PARAMS, rule))?;
    Ok(Arc::clone(tool))
}
