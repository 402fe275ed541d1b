//! `TurnActor`: one per response in flight, on the thread of the HTTP worker that took the request.
//!
//! It owns the waiting for one [`Turn`]: it loads the history, makes the upstream call, reads the
//! answer, hands bytes to the client and commits the record, and it notices when the client leaves,
//! a deadline passes or the gateway stops. Every rule of the API is in the machine, none here.
//!
//! Tokens are not mailbox messages: one future (`Flow`) moves bytes from the upstream through the
//! machine to a **bounded** channel that is the HTTP body. The upstream is not read while the channel
//! is full, and everything that one wake-up finds ready leaves as one buffer.

mod call;
mod clock;
mod flow;
mod load;
mod timings;

use std::task::Waker;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, SpawnHandle, WrapFuture};
use awc::Client;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, PollSender};
use vllm_responses_protocol::chat::fault::UpstreamFault;
use vllm_responses_protocol::ids::{Owner, ResponseId};
use vllm_responses_protocol::record::Record;
use vllm_responses_protocol::responses::event::Delivery;
use vllm_responses_protocol::responses::tool::McpServer;
use vllm_responses_protocol::tools::ToolCall;
use vllm_responses_protocol::tools::mcp::ListError;
use vllm_responses_protocol::turn::Turn;
use vllm_responses_protocol::turn::effect::{Action, Cancel, Effects, Input, Kept, Refusal};

use crate::ask::ask;
use crate::env::{Clock as _, SystemClock};
use crate::mcp::messages::ListTools;
use crate::metrics::{self, TurnEnd};
use crate::store::messages::{Commit, Extent, LoadChain};
use crate::supervisor::messages::{Permit, StopStage};
use crate::tools::CallContext;
use crate::vllm::messages::Suspect;
use crate::vllm::settings::CallDeadlines;
use crate::vllm::tokenize;
use call::{Answer, Call};
use flow::{Flow, Part};
use timings::{Timings, log_messages};

/// Buffers between the turn and the HTTP body. Each holds what one wake-up brought, at most about
/// 64 KiB, which bounds what a client that does not read can make us keep (fault B1).
const BODY_BUFFERS: usize = 4;
/// The store's own deadline is 5 s; this one is for a store actor that died.
const STORE_LIMIT: Duration = Duration::from_secs(8);
/// An MCP server's own limits are shorter, unless they are configured longer; then this one ends the
/// wait, and not the listing.
const LIST_LIMIT: Duration = Duration::from_secs(120);

/// What a turn is started with.
#[derive(Debug)]
pub struct Job {
    /// The machine, not yet begun.
    pub turn: Turn,
    /// Whose response it is.
    pub owner: Owner,
    /// The response it continues.
    pub previous: Option<ResponseId>,
    /// The right to run, with what the turn needs to reach.
    pub permit: Permit,
    /// For the upstream's log and ours.
    pub request_id: Box<str>,
}

/// What the HTTP handler holds. Dropping it tells the turn that its client left.
#[derive(Debug)]
pub struct TurnHandle {
    /// How to answer.
    pub head: oneshot::Receiver<Head>,
    /// The body of a stream; ends after the last byte.
    pub body: mpsc::Receiver<Bytes>,
}

/// How to answer the client.
#[derive(Debug)]
pub enum Head {
    /// 200, and the body is an event stream.
    Stream,
    /// 200, and this is the body.
    Whole(Bytes),
    /// An error.
    Refused(Refusal),
}

/// Starts a turn on this thread.
pub fn start(job: Job, client: Client) -> TurnHandle {
    let (head, head_receiver) = oneshot::channel();
    let (body, body_receiver) = mpsc::channel(BODY_BUFFERS);
    TurnActor::create(|_| TurnActor::new(job, client, head, body));
    TurnHandle {
        head: head_receiver,
        body: body_receiver,
    }
}

/// See the module.
pub(crate) struct TurnActor {
    turn: Turn,
    effects: Effects,
    owner: Owner,
    previous: Option<ResponseId>,
    permit: Permit,
    request_id: Box<str>,
    client: Client,
    head: Option<oneshot::Sender<Head>>,
    outlet: PollSender<Bytes>,
    /// The answer being read.
    upstream: Option<Answer>,
    /// What was read and is not translated yet; see `flow`.
    unread: Bytes,
    part: Part,
    /// A whole answer so far, for a client that does not stream.
    whole: Vec<u8>,
    /// Wakes [`Flow`] after effects that something else caused.
    flow: Option<Waker>,
    calling: Option<SpawnHandle>,
    /// Holds the body's channel open.
    client_watch: Option<SpawnHandle>,
    /// Cancelled when the answer is decided: tools that still run end.
    tools: CancellationToken,
    timings: Timings,
    /// When the client last heard something.
    spoke: Instant,
    /// When the upstream last said something.
    heard: Instant,
    /// When the running answer was last read from; `None` before its first bytes.
    last_read: Option<Instant>,
}

impl TurnActor {
    fn new(
        job: Job,
        client: Client,
        head: oneshot::Sender<Head>,
        body: mpsc::Sender<Bytes>,
    ) -> Self {
        let now = Instant::now();
        let delivery = job.turn.delivery();
        Self {
            turn: job.turn,
            effects: Effects::default(),
            owner: job.owner,
            previous: job.previous,
            permit: job.permit,
            request_id: job.request_id,
            client,
            head: Some(head),
            outlet: PollSender::new(body),
            upstream: None,
            unread: Bytes::new(),
            part: match delivery {
                Delivery::Events => Part::Beginning,
                Delivery::Whole => Part::Rest,
            },
            whole: Vec::new(),
            flow: None,
            calling: None,
            client_watch: None,
            tools: CancellationToken::new(),
            timings: Timings::begin(now),
            spoke: now,
            heard: now,
            last_read: None,
        }
    }

    fn deadlines(&self) -> CallDeadlines {
        self.permit.peers.upstream.deadlines
    }

    /// Steps the machine and does what it asks for.
    fn feed(&mut self, input: Input<'_>, ctx: &mut Context<Self>) {
        self.feed_at(SystemClock.now_ms(), input, ctx);
    }

    /// As [`Self::feed`], by a clock that was read before; Unix milliseconds.
    fn feed_at(&mut self, now_ms: i64, input: Input<'_>, ctx: &mut Context<Self>) {
        self.turn.step(now_ms, input, &mut self.effects);
        if self.effects.actions.is_empty() {
            // As after almost every token: nothing has changed that anything waits for.
            return self.wake_flow();
        }
        for action in std::mem::take(&mut self.effects.actions) {
            self.perform(action, ctx);
        }
        if self.turn.is_decided() {
            self.tools.cancel();
        }
        self.wake_flow();
    }

    fn wake_flow(&self) {
        if let Some(flow) = &self.flow {
            flow.wake_by_ref();
        }
    }

    fn perform(&mut self, action: Action, ctx: &mut Context<Self>) {
        match action {
            Action::CallModel(body) => self.call_model(body.into(), ctx),
            Action::ListTools { tool_index, server } => self.list_tools(tool_index, &server, ctx),
            Action::RunTool(call) => self.run_tool(call, ctx),
            Action::CountTokens(body) => self.count_tokens(body.into(), ctx),
            Action::LeftOut(turns) => self.left_out(turns),
            Action::FindItems(responses) => self.find_items(responses, ctx),
            Action::Begin => self.answer(Head::Stream),
            Action::Answer => {
                let body = std::mem::take(&mut self.effects.bytes);
                self.answer(Head::Whole(body.into()));
            }
            Action::Refuse(refusal) => self.answer(Head::Refused(refusal)),
            Action::Persist(record) => self.persist(record, ctx),
            // `Flow` ends the actor once the last byte is handed over.
            Action::End => {}
        }
    }

    fn left_out(&self, turns: usize) {
        self.permit.peers.metrics.turns().shortened();
        log::info!(
            request_id = &*self.request_id, response_id = self.turn.identity().id.as_str(), turns;
            "the prompt was too long: its oldest turns are left out (`truncation`)"
        );
    }

    fn answer(&mut self, head: Head) {
        if let Some(sender) = self.head.take() {
            // A client that left is noticed elsewhere.
            let _unheard: Result<(), Head> = sender.send(head);
        }
    }

    fn call_model(&mut self, body: Bytes, ctx: &mut Context<Self>) {
        // In a further round: what the last answer's connection still has is of no interest.
        self.upstream = None;
        self.last_read = None;
        self.heard = Instant::now();
        self.timings.hydrated.get_or_insert(self.heard);
        if self.permit.peers.log.model_messages {
            log_messages(&self.request_id, "to the model", &body);
        }
        let call = call::call(Call {
            client: self.client.clone(),
            upstream: self.permit.peers.upstream.clone(),
            request_id: self.request_id.clone(),
            delivery: self.turn.delivery(),
            body,
        });
        let answered = call
            .into_actor(self)
            .map(|answer, act, ctx| act.answered(answer, ctx));
        self.calling = Some(ctx.spawn(answered));
    }

    fn answered(&mut self, answer: Result<Answer, UpstreamFault>, ctx: &mut Context<Self>) {
        self.calling = None;
        let called = std::mem::replace(&mut self.heard, Instant::now());
        self.timings.answered.get_or_insert(self.heard);
        let counted = answer.as_ref().map(|_| ());
        let turns = self.permit.peers.metrics.turns();
        turns.upstream_answered(self.heard - called, counted);
        match answer {
            Ok(answer) => {
                self.upstream = Some(answer);
                self.feed(Input::UpstreamOpened, ctx);
            }
            Err(fault) => {
                log::warn!(request_id = &*self.request_id, response_id = self.turn.identity().id.as_str();
                    "upstream call failed: {}", describe(&fault));
                if fault == UpstreamFault::Unreachable {
                    self.permit.peers.suspects.do_send(Suspect);
                }
                self.feed(Input::UpstreamFailed(fault), ctx);
            }
        }
    }

    fn list_tools(&mut self, tool_index: usize, server: &McpServer, ctx: &mut Context<Self>) {
        let lists = self.permit.peers.mcp.clone();
        let list = ListTools {
            owner: self.owner.clone(),
            server: server.into(),
        };
        let listed = async move { ask(&lists, list, LIST_LIMIT).await };
        ctx.spawn(listed.into_actor(self).map(move |listed, act, ctx| {
            let answer = match listed {
                Ok(listed) => listed.map_err(|failure| failure.meaning()),
                Err(gone) => Err(ListError::Unavailable(gone.to_string().into())),
            };
            act.feed(Input::ToolsListed { tool_index, answer }, ctx);
        }));
    }

    fn run_tool(&mut self, ToolCall { output_index, call }: ToolCall, ctx: &mut Context<Self>) {
        let began = Instant::now();
        let context = CallContext {
            owner: self.owner.clone(),
            request_id: self.request_id.clone(),
            cancel: self.tools.clone(),
        };
        let running = metrics::Running::of(&call);
        let run = self.permit.peers.tools.run(&context, call);
        let ended = run.into_actor(self).map(move |outcome, act, ctx| {
            let took = began.elapsed();
            act.timings.tools += took;
            let tools = act.permit.peers.metrics.tools();
            tools.ran(running, took, &outcome);
            act.feed(
                Input::ToolEnded {
                    output_index,
                    outcome,
                },
                ctx,
            );
        });
        ctx.spawn(ended);
    }

    fn persist(&mut self, record: Box<Record>, ctx: &mut Context<Self>) {
        self.timings.decided = Some(Instant::now());
        let commits = self.permit.peers.commits.clone();
        let commit = async move { ask(&commits, Commit(record), STORE_LIMIT).await };
        ctx.spawn(commit.into_actor(self).map(|outcome, act, ctx| {
            let kept = match outcome {
                Ok(Ok(())) => Kept::Yes,
                Ok(Err(error)) => act.not_kept(&error),
                Err(error) => act.not_kept(&error),
            };
            act.feed(Input::Stored(kept), ctx);
        }));
    }

    fn not_kept(&self, error: &dyn std::error::Error) -> Kept {
        self.permit.peers.metrics.turns().not_stored();
        log::warn!(request_id = &*self.request_id, response_id = self.turn.identity().id.as_str();
            "response not stored: {error}");
        Kept::No
    }

    /// Ends the turn from outside and stops listening to the upstream.
    fn cancel(&mut self, why: Cancel, ctx: &mut Context<Self>) {
        if self.turn.is_decided() {
            return;
        }
        if let Some(calling) = self.calling.take() {
            ctx.cancel_future(calling);
        }
        self.upstream = None;
        self.feed(Input::Cancelled(why), ctx);
    }

    fn load_history(&mut self, ctx: &mut Context<Self>) {
        let Some(previous) = self.previous.clone() else {
            return self.feed(Input::History(Vec::new()), ctx);
        };
        let chains = self.permit.peers.chains.clone();
        let message = LoadChain {
            owner: self.owner.clone(),
            id: previous,
            extent: if self.turn.inherits_tools() {
                Extent::WithSettings
            } else {
                Extent::Items
            },
        };
        let load = async move { load::history(chains, message).await };
        ctx.spawn(load.into_actor(self).map(|loaded, act, ctx| {
            let input = loaded.and_then(|(history, settings)| {
                if let Some(settings) = settings {
                    act.turn.inherit(&settings)?;
                }
                Ok(Input::History(history))
            });
            let input = input.unwrap_or_else(Input::Refused);
            act.feed(input, ctx);
        }));
    }

    fn count_tokens(&mut self, body: Bytes, ctx: &mut Context<Self>) {
        let client = self.client.clone();
        let upstream = self.permit.peers.upstream.clone();
        let count = async move { tokenize::count(&client, &upstream, body).await };
        let counted = count.into_actor(self).map(|count, act, ctx| {
            act.calling = None;
            act.feed(Input::Counted(count), ctx);
        });
        self.calling = Some(ctx.spawn(counted));
    }

    /// Reads the items of responses that the input refers to.
    fn find_items(&mut self, responses: Vec<ResponseId>, ctx: &mut Context<Self>) {
        let chains = self.permit.peers.chains.clone();
        let owner = self.owner.clone();
        let find = async move { load::items(chains, owner, responses).await };
        ctx.spawn(find.into_actor(self).map(|found, act, ctx| {
            let input = match found {
                Ok(items) => Input::Found(items),
                Err(error) => Input::Refused(error),
            };
            act.feed(input, ctx);
        }));
    }

    /// Watches the client: when it leaves, the receiving half of the body is dropped.
    fn watch_client(&mut self, ctx: &mut Context<Self>) {
        let Some(body) = self.outlet.get_ref().cloned() else {
            return;
        };
        let left = async move { body.closed().await };
        let left = left
            .into_actor(self)
            .map(|(), act, ctx| act.cancel(Cancel::ClientLeft, ctx));
        self.client_watch = Some(ctx.spawn(left));
    }

    /// Watches the gateway's own stop.
    fn watch_stop(&mut self, ctx: &mut Context<Self>) {
        let mut stop = self.permit.stop.clone();
        let ending = async move {
            stop.wait_for(|stage| *stage == StopStage::Ending)
                .await
                .is_ok()
        };
        ctx.spawn(ending.into_actor(self).map(|ending, act, ctx| {
            if ending {
                act.cancel(Cancel::Shutdown, ctx);
            }
        }));
    }
}

impl Actor for TurnActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.watch_client(ctx);
        self.watch_stop(ctx);
        ctx.spawn(Flow);
        ctx.run_later(self.next_look(), Self::look_at_clock);
        self.load_history(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // However the turn ended: nobody waits for its tools any more.
        self.tools.cancel();
        if let Some(container) = self.turn.container() {
            self.permit.peers.tools.release(&self.owner, container);
        }
        let end = TurnEnd {
            first_token: self.timings.first_read(),
        };
        self.permit.peers.metrics.turn_ended(&self.turn, end);
        let log = self.permit.peers.log;
        if log.timings {
            self.timings
                .log(&self.request_id, self.turn.identity().id.as_str());
        }
        if log.model_messages {
            log_messages(
                &self.request_id,
                "from the model",
                self.turn.output_json().as_bytes(),
            );
        }
    }
}

/// A fault for the log: no content, no secrets.
fn describe(fault: &UpstreamFault) -> String {
    match fault {
        UpstreamFault::Status { status, .. } => format!("status {status}"),
        UpstreamFault::Unreachable
        | UpstreamFault::WrongContentType
        | UpstreamFault::TimedOut(_)
        | UpstreamFault::Reset
        | UpstreamFault::TooLong => format!("{fault:?}"),
    }
}
