//! The actor that owns all interpreters: it keeps some waiting, gives them to calls, and ends them.
//!
//! Its rules are in `pool` and `sessions`; here they are carried out. It lives on one thread, where the
//! interpreters' pipes are read too; what runs is bounded by the number of live interpreters.

mod handlers;
mod queue;
mod workers;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use actix::fut::WrapFuture;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, SpawnHandle};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use vllm_responses_protocol::ids::IdSource;

use crate::env::Clock;
use crate::interpreter::backend::{Call, End, InterpreterBackend, Ran, Session};
use crate::interpreter::limits;
use crate::interpreter::messages::{CallError, Execute, ExecuteError, Executed, InterpreterStatus};
use crate::interpreter::pool::{Pool, PoolSettings, Step, WorkerId};
use crate::interpreter::sessions::{SessionSettings, Sessions};
use crate::latency::Latency;
use crate::process::sandbox::Walls;

/// The numbers of the actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterpreterSettings {
    /// How many interpreters there are.
    pub pool: PoolSettings,
    /// How long containers are kept.
    pub sessions: SessionSettings,
    /// Calls that may wait for an interpreter or for their container.
    pub queue: usize,
    /// How long they may.
    pub queue_wait: Duration,
    /// How long the first interpreter may take before the log says so.
    pub startup_timeout: Duration,
}

impl Default for InterpreterSettings {
    fn default() -> Self {
        Self {
            pool: PoolSettings::default(),
            sessions: SessionSettings::default(),
            queue: 256,
            queue_wait: Duration::from_secs(60),
            startup_timeout: Duration::from_secs(600),
        }
    }
}

/// How often delays and expiries are looked at.
const TICK: Duration = Duration::from_secs(1);

type Answer = Result<Executed, ExecuteError>;

/// A call that has not begun.
struct Waiting {
    number: u64,
    since: Instant,
    execute: Execute,
    /// Interpreters that were gone before they had the code.
    attempts: u32,
    reply: oneshot::Sender<Answer>,
    /// Watches for the caller's giving up and for the end of its patience.
    watch: SpawnHandle,
}

/// A call that runs.
struct Running {
    worker: WorkerId,
    state: State,
    /// This one included.
    attempts: u32,
    reply: oneshot::Sender<Answer>,
}

/// An interpreter that has nothing to do.
struct Resting {
    session: Box<dyn Session>,
    /// Processor time that it had used when it came to rest.
    cpu: Option<Duration>,
}

impl Resting {
    fn new(session: Box<dyn Session>) -> Self {
        let cpu = session.cpu();
        Self { session, cpu }
    }

    /// Whether it does something all the same: code of an earlier call goes on.
    fn is_restless(&self) -> bool {
        let used = self.session.cpu().zip(self.cpu);
        used.is_some_and(|(now, before)| now.saturating_sub(before) > limits::REST_CPU)
    }
}

/// What a call finds in its interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing: any other interpreter would do.
    None,
    /// What the container's earlier calls left.
    Earlier,
}

/// A call is not made more often, should every fresh interpreter be gone before it has the code.
const MOST_ATTEMPTS: u32 = 4;

/// Owns all interpreters. It is made on the thread it runs on.
pub struct CodeInterpreterActor {
    backend: Box<dyn InterpreterBackend>,
    settings: InterpreterSettings,
    clock: Box<dyn Clock>,
    ids: Box<dyn IdSource>,
    pool: Pool,
    sessions: Sessions,
    /// Those that are neither starting nor running a call nor warming up.
    resting: HashMap<WorkerId, Resting>,
    waiting: VecDeque<Waiting>,
    calls: u64,
    starts: u64,
    failures: u64,
    waits: Latency,
    last_error: Option<String>,
    walls: Walls,
    /// Ends every call when the actor is told to stop.
    stop: CancellationToken,
}

impl fmt::Debug for CodeInterpreterActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeInterpreterActor")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl CodeInterpreterActor {
    /// An actor that starts interpreters of this kind once it runs. `walls` is for its status.
    pub fn new(
        backend: Box<dyn InterpreterBackend>,
        settings: InterpreterSettings,
        walls: Walls,
        (clock, ids): (Box<dyn Clock>, Box<dyn IdSource>),
    ) -> Self {
        let pool = PoolSettings {
            warms: !backend.imports().is_empty(),
            ..settings.pool
        };
        Self {
            backend,
            settings,
            clock,
            ids,
            pool: Pool::new(pool),
            sessions: Sessions::new(settings.sessions),
            resting: HashMap::new(),
            waiting: VecDeque::new(),
            calls: 0,
            starts: 0,
            failures: 0,
            waits: Latency::default(),
            last_error: None,
            walls,
            stop: CancellationToken::new(),
        }
    }

    fn now(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.clock.now_ms()).unwrap_or(0))
    }

    fn status(&self) -> InterpreterStatus {
        InterpreterStatus {
            // With no stock to keep, the first call starts the first one.
            ready: (self.starts > 0 || self.settings.pool.idle == 0) && !self.pool.is_broken(),
            idle: self.pool.idle(),
            warm: self.pool.warm(),
            live: self.pool.live(),
            held: self.sessions.held(),
            kept: self.sessions.kept(),
            waiting: self.waiting.len(),
            starts: self.starts,
            failures: self.failures,
            waits: self.waits,
            last_error: self.last_error.clone(),
            walls: self.walls,
        }
    }

    /// Gives interpreters to those who wait, then starts what is missing. Called after every change.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        if self.stop.is_cancelled() {
            return;
        }
        self.serve_waiting(ctx);
        if self.pool.is_broken() {
            let reason = self.last_error.clone().unwrap_or_default();
            for waiting in self.take_new_ones(ctx) {
                drop(
                    waiting
                        .reply
                        .send(Err(ExecuteError::Unavailable(reason.clone()))),
                );
            }
        }
        let short = self.want_new();
        if short > 0 && self.pool.is_full() {
            // A kept container makes room for a call that waits.
            let asker = self.next_in_line().cloned();
            if let Some(worker) = self.sessions.evict(asker.as_ref(), self.now()) {
                self.end(worker);
            }
        }
        let now = self.now();
        while let Some(step) = self.pool.plan(now, short) {
            match step {
                Step::Start(id) => self.start_one(id, ctx),
                Step::Warm(id) => self.warm_one(id, ctx),
            }
        }
    }

    fn run_one(&mut self, running: Running, execute: Execute, ctx: &mut Context<Self>) {
        let Some(Resting { mut session, .. }) = self.resting.remove(&running.worker) else {
            // Its end has been seen, and its container is forgotten with the next event.
            drop(running.reply.send(Err(ExecuteError::UnknownContainer)));
            return;
        };
        let stop = self.stop.clone();
        let work = async move {
            let call = Call {
                code: &execute.code,
                limits: execute.limits,
                cancel: &execute.cancel,
            };
            let ran = tokio::select! {
                ran = session.run(call) => ran,
                () = stop.cancelled() => Ran::default(),
            };
            (session, execute, ran)
        };
        let finish = work
            .into_actor(self)
            .map(|(session, execute, ran), actor, ctx| {
                if actor.settle(&running, execute.container.id(), session, &ran) {
                    return actor.again(running, execute, ctx);
                }
                drop(running.reply.send(answer(&execute, ran)));
                actor.advance(ctx);
            });
        ctx.spawn(finish);
    }

    /// Keeps the interpreter of a call that is over, or ends it. Whether the call is to be made again.
    fn settle(
        &mut self,
        running: &Running,
        container: &str,
        session: Box<dyn Session>,
        ran: &Ran,
    ) -> bool {
        let worker = running.worker;
        match ran.end {
            End::Completed(_) if ran.rests => {
                // One that has ended since is not kept; its container is forgotten already.
                if self.pool.has(worker) {
                    self.resting.insert(worker, Resting::new(session));
                }
                let now = self.now();
                self.sessions.finish(container, now);
            }
            End::Completed(_) => log_restless(),
            // The reason may be in words of model code: it is not for the log. That it ended is told by
            // the caller, who knows the ids.
            End::NotBegun(_) | End::Died(_) | End::TimedOut | End::Cancelled => {}
        }
        if !self.resting.contains_key(&worker) {
            self.sessions.forget(worker);
            self.end(worker);
        }
        matches!(ran.end, End::NotBegun(_))
            && running.state == State::None
            && running.attempts < MOST_ATTEMPTS
            && !self.stop.is_cancelled()
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        for worker in self.sessions.expire(now) {
            self.end(worker);
        }
        let restless = self.resting.iter().filter(|(_, one)| one.is_restless());
        let restless: Vec<_> = restless.map(|(worker, _)| *worker).collect();
        for worker in restless {
            log_restless();
            self.sessions.forget(worker);
            self.end(worker);
        }
        self.advance(ctx);
    }
}

fn log_restless() {
    log::warn!("an interpreter went on running after its call was answered; it is ended");
}

/// What the caller is told of a call that is over.
fn answer(execute: &Execute, ran: Ran) -> Answer {
    let error = match ran.end {
        End::Completed(error) => error.map(CallError::Raised),
        End::TimedOut => Some(CallError::TimedOut {
            seconds: execute.limits.wall.as_secs(),
        }),
        End::NotBegun(_) | End::Died(_) => Some(CallError::Died),
        End::Cancelled => return Err(ExecuteError::Cancelled),
    };
    Ok(Executed {
        container_id: execute.container.id().to_owned(),
        logs: ran.gathered.logs,
        images: ran.gathered.images,
        error,
        truncated: ran.gathered.truncated,
    })
}

impl Actor for CodeInterpreterActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Callers are held back by the queue's own limit, which answers; a full mailbox would not.
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(TICK, Self::tick);
        ctx.run_later(self.settings.startup_timeout, |actor, _| {
            if actor.starts == 0 && actor.settings.pool.idle > 0 {
                log::error!("no interpreter has come up within `code_interpreter.startup_timeout`");
            }
        });
        self.advance(ctx);
    }
}

/// More than the queue takes, so that its refusals are heard.
const MAILBOX: usize = 1024;
