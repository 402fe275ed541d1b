//! One session with one MCP server: opened, listed, called, each within a deadline of its own.

mod failure;
mod json_strings;
mod list;
mod opening;
mod peer;
mod program;
mod redact;
mod secrets;
mod task;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use rmcp::ServiceError;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, JsonObject, PaginatedRequestParams, RequestMetaObject,
};
use tokio::sync::watch;
use tokio::time::timeout;
use vllm_responses_protocol::mcp::file::{Filled, HttpKind};
use vllm_responses_protocol::mcp::outcome::Outcome;
use vllm_responses_protocol::trace::TraceContext;

pub use failure::{Failure, Phase, Reason};
pub use list::FreshList;

use super::guard::{CallerHeaders, Destination, Guard};
use super::net::Progress;
use super::net::connect::Dialer;
use crate::process::Launcher;
use list::Pages;
use opening::Service;
use program::Program;
use redact::Redactor;

/// Pages of a tool list that are read; a list without end is cut here.
const MAX_PAGES: usize = 64;
/// How long a server may take to answer a ping before it is taken for hung.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// Longest orderly end of a session.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

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
        /// What of these was filled in.
        filled: Vec<Filled>,
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
        /// What of URL and headers was filled in.
        filled: Vec<Filled>,
        /// Makes the connections.
        dialer: Arc<Dialer>,
    },
}

/// An initialised session.
#[derive(Debug)]
pub struct Session {
    label: Arc<str>,
    deadlines: Deadlines,
    service: Service,
    /// The program at the other end.
    program: Option<Program>,
    progress: Progress,
    /// What of the server's words may be told.
    redactor: Redactor,
}

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
        let redactor = Redactor::of(endpoint);
        let opened = opening::open(&label, endpoint, deadlines, &progress).await;
        let opened = opened.map_err(|failure| Failure {
            reason: redactor.reason(failure.reason),
            ..failure
        })?;
        Ok(Self {
            label,
            deadlines,
            service: opened.service,
            program: opened.program,
            progress,
            redactor,
        })
    }

    /// Counts the server's notices that its tools have changed, and sessions made anew.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.progress.changes()
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.service.is_closed() || self.service.peer().is_transport_closed()
    }

    /// The server's tools, within the limits of a catalogue.
    ///
    /// # Errors
    /// [`Failure`] of the list phase.
    pub async fn list(&self) -> Result<FreshList, Failure> {
        let limit = self.deadlines.list;
        let listed = timeout(limit, self.list_pages()).await;
        let pages = listed.map_err(|_elapsed| self.timed_out(Phase::List, limit))??;
        Ok(pages.finish(&self.label, &self.redactor))
    }

    async fn list_pages(&self) -> Result<Pages, Failure> {
        let mut pages = Pages::default();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor.clone());
            let page = self.service.peer().list_tools(Some(params)).await;
            let page = page.map_err(|error| self.failed(Phase::List, &error))?;
            let next = page.next_cursor.clone().filter(|next| !next.is_empty());
            let last = next.is_none() || next == cursor;
            cursor = next;
            let room = pages.take(page);
            let room = room.ok_or_else(|| self.failure(Phase::List, Reason::Protocol))?;
            if last || !room {
                break;
            }
        }
        Ok(pages)
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
        let called = timeout(limit, self.called(params)).await;
        match called.map_err(|_elapsed| self.timed_out(Phase::Call, limit))? {
            Ok(outcome) => Ok(self.redactor.outcome(outcome)),
            Err(failure) => Err(self.explained(failure).await),
        }
    }

    async fn called(&self, params: CallToolRequestParams) -> Result<Outcome, Failure> {
        let answer = self.service.peer().call_tool_once(params).await;
        let answer = answer.map_err(|error| self.failed(Phase::Call, &error))?;
        let outcome = match answer {
            CallToolResponse::Complete(result) => task::outcome(&result.content),
            CallToolResponse::Task(created) => {
                let ended = task::ended(self.service.peer(), created.task).await;
                match ended {
                    Ok(outcome) => outcome,
                    Err(task::Stop::WantsInput) => {
                        return Err(self.failure(Phase::Call, Reason::WantsInput));
                    }
                    Err(task::Stop::Failed(error)) => {
                        return Err(self.failed(Phase::Call, &error));
                    }
                }
            }
            CallToolResponse::InputRequired(_) | _ => {
                return Err(self.failure(Phase::Call, Reason::WantsInput));
            }
        };
        outcome.ok_or_else(|| self.failure(Phase::Call, Reason::Protocol))
    }

    /// Whether the server still answers.
    pub async fn is_alive(&self) -> bool {
        use rmcp::model::{ClientRequest, PingRequest};
        let ping = ClientRequest::PingRequest(PingRequest::default());
        let answered = timeout(PING_LIMIT, self.service.peer().send_request(ping)).await;
        match answered {
            // An error of the server's is an answer too: not every server knows the request.
            Ok(Ok(_) | Err(ServiceError::McpError(_))) => !self.is_closed(),
            Ok(Err(_)) | Err(_) => false,
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
    pub(super) async fn lost(&self) -> Failure {
        let known = self.progress.last_trouble();
        let reason = known.map_or(Reason::Closed, Reason::Trouble);
        self.explained(self.failure(Phase::Call, reason)).await
    }

    /// With how the program ended, where that is why.
    async fn explained(&self, failure: Failure) -> Failure {
        let Some(program) = &self.program else {
            return failure;
        };
        let failure = program.explain(failure).await;
        Failure {
            reason: self.redactor.reason(failure.reason),
            ..failure
        }
    }

    fn failure(&self, phase: Phase, reason: Reason) -> Failure {
        Failure::new(&self.label, phase, reason)
    }

    fn timed_out(&self, phase: Phase, limit: Duration) -> Failure {
        self.failure(phase, Reason::TimedOut(limit))
    }

    fn failed(&self, phase: Phase, error: &ServiceError) -> Failure {
        let reason = failure::reason(error, &self.progress);
        self.failure(phase, self.redactor.reason(reason))
    }
}

fn trace_meta(context: &TraceContext) -> RequestMetaObject {
    let mut meta = RequestMetaObject::new();
    meta.set_traceparent(context.parent());
    if !context.state().is_empty() {
        meta.set_tracestate(context.state());
    }
    meta
}
