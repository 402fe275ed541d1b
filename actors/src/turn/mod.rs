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
mod keep;
mod large;
mod load;
mod outlet;
mod room;
mod spent;
mod timings;
mod tools;
mod watch;

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, SpawnHandle, WrapFuture};
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use vllm_responses_protocol::chat::fault::UpstreamFault;
use vllm_responses_protocol::ids::{Owner, ResponseId};
use vllm_responses_protocol::record::Status;
use vllm_responses_protocol::responses::event::Delivery;
use vllm_responses_protocol::turn::Turn;
use vllm_responses_protocol::turn::effect::{Action, Cancel, Effects, Input, Refusal};

use crate::blobs::Whole;
use crate::env::{Clock as _, SystemClock};
use crate::http1::Client;
use crate::limits::estimate::Estimate;
use crate::memory::Held;
use crate::origin::Origin;
use crate::supervisor::messages::Permit;
use crate::trace::{Fact, Span};
use crate::vllm::messages::Suspect;
use crate::vllm::settings::CallDeadlines;
use call::{Answer, Call};
use flow::{Flow, Part};
use large::{Food, Machine};
use outlet::Outlet;
pub use outlet::Pieces;
pub use spent::Spent;
use timings::{Timings, log_complaint, log_messages};

/// The store's own deadline is 5 s, and longer for a large commit (see `patience`); this one is
/// for a store actor that died.
const STORE_LIMIT: Duration = Duration::from_secs(8);

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
    pub origin: Origin,
    /// The request's own span; ends with the turn.
    pub span: Span,
    /// How long the request has waited already, from its first byte to the permit.
    pub queued: Duration,
    /// What the request takes in memory.
    pub load: Load,
    /// What the model's answers have used so far.
    pub spent: Arc<Spent>,
}

/// What a request and everything that is read for it take in memory: see `memory::weight`.
#[derive(Debug)]
pub struct Load {
    /// Until the model answers.
    pub held: Held,
    /// What is left of it then, in bytes.
    pub kept: usize,
}

/// What the HTTP handler holds. Dropping it tells the turn that its client left.
#[derive(Debug)]
pub struct TurnHandle {
    /// How to answer.
    pub head: oneshot::Receiver<Head>,
    /// The body of a stream; ends after the last byte.
    pub body: Pieces,
}

/// How to answer the client.
#[derive(Debug)]
pub enum Head {
    /// 200, and the body is an event stream.
    Stream,
    /// 200, and this is the body, with what it takes of the memory budget until the client has it.
    Whole(Whole, Held),
    /// An error.
    Refused(Refusal),
}

/// Starts a turn on this thread.
pub fn start(job: Job, client: Client) -> TurnHandle {
    let (head, head_receiver) = oneshot::channel();
    let (body, pieces) = outlet::channel();
    TurnActor::create(|_| TurnActor::new(job, client, head, body));
    TurnHandle {
        head: head_receiver,
        body: pieces,
    }
}

/// See the module.
pub(crate) struct TurnActor {
    turn: Machine,
    effects: Effects,
    owner: Owner,
    previous: Option<ResponseId>,
    permit: Permit,
    origin: Origin,
    span: Span,
    spent: Arc<Spent>,
    /// The request, its history, results of tools, and the answer.
    load: Load,
    /// What the answer takes of it; see `memory::weight`.
    output: usize,
    client: Client,
    head: Option<oneshot::Sender<Head>>,
    outlet: Outlet,
    /// The answer being read.
    upstream: Option<Answer>,
    /// What was read and is not translated yet; see `flow`.
    unread: Bytes,
    part: Part,
    /// A whole answer so far, for a client that does not stream.
    whole: Vec<u8>,
    /// How many bytes of whole answers were read up to now.
    whole_read: usize,
    /// Wakes [`Flow`] after effects that something else caused.
    flow: Option<Waker>,
    calling: Option<SpawnHandle>,
    /// Model calls so far.
    calls: u32,
    /// Cancelled when the answer is decided: tools that still run end.
    tools: CancellationToken,
    timings: Timings,
    /// When the client last heard something.
    spoke: Instant,
    /// When the upstream last sent something, or could have; when the call began, where its answer is
    /// taken as a whole.
    heard: Instant,
    /// How much a stream had said when it was last looked at and had said more, and when that was.
    gained: (usize, Instant),
    /// The client owes a read, so nothing is read of the upstream either.
    blocked: bool,
    /// The running call, where tokens are limited and it has not told what it used.
    uncharged: Option<Estimate>,
    /// When the running answer was last read from; `None` before its first bytes.
    last_read: Option<Instant>,
}

impl TurnActor {
    fn new(job: Job, client: Client, head: oneshot::Sender<Head>, body: Outlet) -> Self {
        let now = Instant::now();
        let delivery = job.turn.delivery();
        Self {
            turn: Machine::new(job.turn),
            effects: Effects::default(),
            owner: job.owner,
            previous: job.previous,
            load: Load {
                held: job.load.held.of(&job.permit.account),
                kept: job.load.kept,
            },
            output: 0,
            permit: job.permit,
            origin: job.origin,
            span: job.span,
            spent: job.spent,
            client,
            head: Some(head),
            outlet: body,
            upstream: None,
            unread: Bytes::new(),
            part: match delivery {
                Delivery::Events => Part::Beginning,
                Delivery::Whole => Part::Rest,
            },
            whole: Vec::new(),
            whole_read: 0,
            flow: None,
            calling: None,
            calls: 0,
            tools: CancellationToken::new(),
            timings: Timings::begin(now, job.queued),
            spoke: now,
            heard: now,
            gained: (0, now),
            blocked: false,
            uncharged: None,
            last_read: None,
        }
    }

    fn deadlines(&self) -> CallDeadlines {
        self.permit.peers.upstream.deadlines
    }

    /// Steps the machine and does what it asks for, at once, or where the step is large later. To be
    /// called last: the machine may be away.
    fn feed(&mut self, input: Input<'static>, ctx: &mut Context<Self>) {
        self.feed_at(SystemClock.now_ms(), Food::Input(input), ctx);
    }

    /// As [`Self::feed`], by a clock that was read before; Unix milliseconds.
    fn feed_at(&mut self, now_ms: i64, food: Food, ctx: &mut Context<Self>) {
        if self.is_large(&food) {
            return self.step_aside(now_ms, food, ctx);
        }
        food.step(&mut self.turn, now_ms, &mut self.effects);
        self.do_as_told(ctx);
    }

    /// Does what the machine asked for.
    fn do_as_told(&mut self, ctx: &mut Context<Self>) {
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
            Action::CallModel(body) => self.call_model(body, ctx),
            Action::Used(call) => {
                self.uncharged = None;
                let (prompt, completion) = (call.prompt_tokens(), call.completion_tokens());
                self.spent.add(prompt, completion);
                self.charge(prompt.saturating_add(completion));
            }
            Action::ListTools { tool_index, server } => self.list_tools(tool_index, &server, ctx),
            Action::Suspect(mentions) => {
                for mention in mentions {
                    log::warn!(request_id = &*self.origin.request_id, response_id = &*self.origin.response_id;
                        "{mention}");
                }
            }
            Action::ClaimApprovals(requests) => self.claim(requests, ctx),
            Action::RunTool(call) => self.run_tool(call, ctx),
            Action::CountTokens(body) => self.count_tokens(body, ctx),
            Action::LeftOut(turns) => self.left_out(turns),
            Action::Complained(told) => {
                log_complaint(&self.origin, &told, *self.permit.peers.log.borrow());
            }
            Action::LostCalls(calls) => {
                log::warn!(request_id = &*self.origin.request_id, response_id = &*self.origin.response_id, calls;
                    "the model called functions without a name, or more than there may be in one answer: the calls are left out");
            }
            Action::EffortRefused => {
                let model = &self.turn.identity().model;
                self.permit.peers.efforts.refused(model);
            }
            Action::FindItems(wanted) => self.find_items(wanted, ctx),
            Action::Begin => self.answer(Head::Stream, 200),
            Action::Answer => {
                let body = std::mem::take(&mut self.effects.bytes);
                let text = body.len();
                let body = self.whole(body);
                let memory = self.permit.account.memory();
                let held = memory.hold(text + body.window());
                self.answer(Head::Whole(body, held), 200);
            }
            Action::Refuse(refusal) => {
                let status = refusal.error.status;
                self.answer(Head::Refused(refusal), status);
            }
            Action::Persist(record) => self.persist(record, ctx),
            // `Flow` ends the actor once the last byte is handed over.
            Action::End => {}
        }
    }

    fn left_out(&self, turns: usize) {
        self.permit.peers.metrics.turns().shortened();
        log::info!(
            request_id = &*self.origin.request_id, response_id = &*self.origin.response_id, turns;
            "the prompt was too long: its oldest turns are left out (`truncation`)"
        );
    }

    fn charge(&self, tokens: u64) {
        if let Some(meter) = &self.permit.meter {
            meter.charge(tokens);
        }
    }

    /// A model call ended without telling its usage: what was seen is charged.
    fn charge_seen(&mut self) {
        if let Some(seen) = self.uncharged.take() {
            self.charge(seen.tokens());
        }
    }

    fn answer(&mut self, head: Head, status: u16) {
        self.span.note(Fact::HttpStatus(status));
        if status >= 500 {
            self.span.fail("the request failed");
        }
        if let Some(sender) = self.head.take() {
            // A client that left is noticed elsewhere.
            let _unheard: Result<(), Head> = sender.send(head);
        }
    }

    /// A text of the machine's, with the data that its marks stand for.
    fn whole(&self, text: Vec<u8>) -> Whole {
        self.permit.peers.blobs.whole(&self.owner, text.into())
    }

    fn call_model(&mut self, body: Vec<u8>, ctx: &mut Context<Self>) {
        // In a further round: what the last answer's connection still has is of no interest.
        self.upstream = None;
        self.calls += 1;
        self.charge_seen();
        let estimate = self.permit.meter.as_ref().map(|_| Estimate::of(&body));
        self.last_read = None;
        self.heard = Instant::now();
        self.timings.hydrated.get_or_insert(self.heard);
        if self.permit.peers.log.borrow().model_messages {
            let marks = self.permit.peers.blobs.marks;
            log_messages(&self.origin, "to the model", &body, marks);
        }
        let text = body.len();
        let body = self.whole(body);
        self.hold_at_least(self.load.kept + 2 * text + body.window());
        let call = call::call(Call {
            client: self.client.clone(),
            upstream: self.permit.peers.upstream.clone(),
            origin: self.origin.clone(),
            number: self.calls,
            model: self.turn.identity().model.clone(),
            delivery: self.turn.delivery(),
            body: body.into(),
        });
        let answered = call.into_actor(self).map(|answer, act, ctx| {
            if answer.is_ok() {
                act.uncharged = estimate;
            }
            act.answered(answer, ctx);
        });
        self.calling = Some(ctx.spawn(answered));
    }

    fn answered(&mut self, answer: Result<Answer, UpstreamFault>, ctx: &mut Context<Self>) {
        self.calling = None;
        // What the call was made of is gone.
        self.load.held.cut(self.load.kept);
        let called = std::mem::replace(&mut self.heard, Instant::now());
        let counted = answer.as_ref().map(|_| ());
        let turns = self.permit.peers.metrics.turns();
        turns.upstream_answered(self.heard - called, counted);
        self.gained.1 = self.heard;
        if self.turn.delivery() == Delivery::Whole {
            self.heard = called;
        }
        match answer {
            Ok(answer) => {
                self.upstream = Some(answer);
                self.feed(Input::UpstreamOpened, ctx);
            }
            Err(fault) => {
                log::warn!(request_id = &*self.origin.request_id, response_id = &*self.origin.response_id;
                    "upstream call failed: {}", describe(&fault));
                if matches!(fault, UpstreamFault::Unreachable | UpstreamFault::Reset) {
                    self.permit.peers.suspects.do_send(Suspect);
                }
                self.feed(Input::UpstreamFailed(fault), ctx);
            }
        }
    }

    /// What the request's span says at its end.
    fn note_end(&mut self) {
        if let Some(usage) = self.turn.usage() {
            self.span.note(Fact::InputTokens(usage.input_tokens()));
            self.span.note(Fact::OutputTokens(usage.output_tokens()));
        }
        if let Some(ended) = self.turn.ended() {
            self.span.note(Fact::Ended(ended.status));
            if ended.status == Status::Failed.as_str() {
                self.span.fail("the response failed");
            }
        }
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
}

impl Actor for TurnActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.watch_stop(ctx);
        self.watch_memory(ctx);
        ctx.spawn(Flow);
        ctx.run_later(self.next_look(), Self::look_at_clock);
        self.load_history(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // However the turn ended: nobody waits for its tools any more.
        self.tools.cancel();
        self.charge_seen();
        if self.turn.is_away() {
            // The thread ends, and with it all that runs here.
            return;
        }
        if let Some(container) = self.turn.container() {
            self.permit.peers.tools.release(&self.owner, container);
        }
        // Of an answer that comes whole the first bytes say nothing of the first token.
        let streams = self.turn.delivery() == Delivery::Events;
        let first_token = self.timings.first_token().filter(|_| streams);
        self.permit
            .peers
            .metrics
            .turn_ended(&self.turn, first_token);
        self.note_end();
        let log = *self.permit.peers.log.borrow();
        if log.timings {
            self.timings.log(&self.origin, self.turn.usage());
        }
        if log.model_messages {
            log_messages(
                &self.origin,
                "from the model",
                self.turn.output_json().as_bytes(),
                self.permit.peers.blobs.marks,
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
        | UpstreamFault::TooLong
        | UpstreamFault::PartGone
        | UpstreamFault::PartUnread => format!("{fault:?}"),
    }
}
