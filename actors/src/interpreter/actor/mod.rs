//! The actor that owns all interpreters: it keeps some waiting, gives them to calls, and ends them.
//!
//! Its rules are in `pool` and `sessions`; here they are carried out. It lives on one thread, where the
//! interpreters' pipes are read too; what runs is bounded by the number of live interpreters.

mod handlers;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use actix::fut::WrapFuture;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, SpawnHandle};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use vllm_responses_protocol::ids::{IdSource, Prefix, fresh};

use crate::env::Clock;
use crate::interpreter::backend::{Call, End, InterpreterBackend, Ran, Session};
use crate::interpreter::limits;
use crate::interpreter::messages::{
    CallError, Container, Execute, ExecuteError, Executed, InterpreterStatus,
};
use crate::interpreter::pool::{Pool, PoolSettings, Step, WorkerId, wish};
use crate::interpreter::sessions::{Begin, SessionSettings, Sessions};
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
}

impl Default for InterpreterSettings {
    fn default() -> Self {
        Self {
            pool: PoolSettings::default(),
            sessions: SessionSettings::default(),
            queue: 256,
            queue_wait: Duration::from_secs(60),
        }
    }
}

/// How often delays and expiries are looked at.
const TICK: Duration = Duration::from_secs(1);

type Answer = Result<Executed, ExecuteError>;

/// A call that has not begun.
struct Waiting {
    number: u64,
    execute: Execute,
    reply: oneshot::Sender<Answer>,
    /// Watches for the caller's giving up and for the end of its patience.
    watch: SpawnHandle,
}

/// A call that runs.
struct Running {
    container_id: String,
    worker: WorkerId,
    wall: Duration,
    reply: oneshot::Sender<Answer>,
}

/// Owns all interpreters. It is made on the thread it runs on.
pub struct CodeInterpreterActor {
    backend: Box<dyn InterpreterBackend>,
    settings: InterpreterSettings,
    clock: Box<dyn Clock>,
    ids: Box<dyn IdSource>,
    pool: Pool,
    sessions: Sessions,
    /// Those that are neither starting nor running a call nor warming up.
    resting: HashMap<WorkerId, Box<dyn Session>>,
    waiting: VecDeque<Waiting>,
    calls: u64,
    starts: u64,
    failures: u64,
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
            ready: self.starts > 0 && !self.pool.is_broken(),
            idle: self.pool.idle(),
            warm: self.pool.warm(),
            live: self.pool.live(),
            held: self.sessions.held(),
            kept: self.sessions.kept(),
            waiting: self.waiting.len(),
            starts: self.starts,
            failures: self.failures,
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
            if let Some(worker) = self.sessions.evict() {
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

    /// How many fresh interpreters the waiting calls need.
    fn want_new(&self) -> usize {
        // Calls that wait for the same one need it once.
        let mut shared = HashSet::new();
        let mut new = 0;
        for waiting in &self.waiting {
            let is_new = match &waiting.execute.container {
                Container::New => true,
                Container::Shared(id) => !self.sessions.has(id) && shared.insert(id),
                Container::Named(_) => false,
            };
            new += usize::from(is_new);
        }
        new
    }

    /// Begins every waiting call that can begin, in the order they came.
    fn serve_waiting(&mut self, ctx: &mut Context<Self>) {
        for waiting in std::mem::take(&mut self.waiting) {
            match self.place(&waiting.execute) {
                Ok(Some((container_id, worker))) => {
                    ctx.cancel_future(waiting.watch);
                    let running = Running {
                        container_id,
                        worker,
                        wall: waiting.execute.limits.wall,
                        reply: waiting.reply,
                    };
                    self.run_one(running, waiting.execute, ctx);
                }
                Ok(None) => self.waiting.push_back(waiting),
                Err(error) => {
                    ctx.cancel_future(waiting.watch);
                    drop(waiting.reply.send(Err(error)));
                }
            }
        }
    }

    /// Where a call may run now; `None` when it must wait.
    fn place(&mut self, execute: &Execute) -> Result<Option<(String, WorkerId)>, ExecuteError> {
        let now = self.now();
        match &execute.container {
            Container::Named(id) => match self.sessions.begin(id, &execute.owner, now) {
                Begin::Run(worker) => Ok(Some((id.clone(), worker))),
                Begin::Wait => Ok(None),
                Begin::Unknown => Err(ExecuteError::UnknownContainer),
            },
            Container::Shared(id) => match self.sessions.begin(id, &execute.owner, now) {
                Begin::Run(worker) => Ok(Some((id.clone(), worker))),
                Begin::Wait => Ok(None),
                // Somebody else's.
                Begin::Unknown if self.sessions.has(id) => Err(ExecuteError::UnknownContainer),
                Begin::Unknown => Ok(self.open(id.clone(), execute, now)),
            },
            Container::New => {
                let id = String::from(fresh(Prefix::Container, self.ids.as_mut()));
                Ok(self.open(id, execute, now))
            }
        }
    }

    /// A fresh interpreter under this id, when one is waiting.
    fn open(&mut self, id: String, execute: &Execute, now: Duration) -> Option<(String, WorkerId)> {
        let wish = wish(&execute.code, self.backend.imports());
        let worker = self.pool.take(wish)?;
        self.sessions
            .open(id.clone(), execute.owner.clone(), worker, now);
        Some((id, worker))
    }

    /// Calls that wait for a fresh interpreter, taken out of the queue.
    fn take_new_ones(&mut self, ctx: &mut Context<Self>) -> Vec<Waiting> {
        let (new, named): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| match &waiting.execute.container {
                Container::New => true,
                Container::Shared(id) => !self.sessions.has(id),
                Container::Named(_) => false,
            });
        self.waiting = named.into();
        for waiting in &new {
            ctx.cancel_future(waiting.watch);
        }
        new
    }

    fn run_one(&mut self, running: Running, execute: Execute, ctx: &mut Context<Self>) {
        let Some(mut session) = self.resting.remove(&running.worker) else {
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
            (session, ran)
        };
        let finish = work
            .into_actor(self)
            .map(|(session, ran), actor, ctx| actor.finish(running, session, ran, ctx));
        ctx.spawn(finish);
    }

    fn finish(
        &mut self,
        running: Running,
        session: Box<dyn Session>,
        ran: Ran,
        ctx: &mut Context<Self>,
    ) {
        let Running {
            container_id,
            worker,
            wall,
            reply,
        } = running;
        let error = match ran.end {
            End::Completed(error) => {
                // One that has ended since is not kept; its container is forgotten already.
                if self.pool.has(worker) {
                    self.resting.insert(worker, session);
                }
                let now = self.now();
                self.sessions.finish(&container_id, now);
                Ok(error.map(CallError::Raised))
            }
            End::TimedOut => Ok(Some(CallError::TimedOut {
                seconds: wall.as_secs(),
            })),
            // The reason may be in words of model code: it is not for the log. That it ended is told
            // by the caller, who knows the ids.
            End::Died(_reason) => Ok(Some(CallError::Died)),
            End::Cancelled => Err(ExecuteError::Cancelled),
        };
        if !self.resting.contains_key(&worker) {
            self.sessions.forget(worker);
            self.end(worker);
        }
        drop(reply.send(error.map(|error| Executed {
            container_id,
            logs: ran.gathered.logs,
            images: ran.gathered.images,
            error,
            truncated: ran.gathered.truncated,
        })));
        self.advance(ctx);
    }

    fn start_one(&mut self, id: WorkerId, ctx: &mut Context<Self>) {
        let start = self.backend.start();
        ctx.spawn(
            start
                .into_actor(self)
                .map(move |started, actor, ctx| actor.on_started(id, started, ctx)),
        );
    }

    fn on_started(
        &mut self,
        id: WorkerId,
        started: Result<Box<dyn Session>, String>,
        ctx: &mut Context<Self>,
    ) {
        match started {
            Ok(_) if self.stop.is_cancelled() => self.pool.gone(id),
            Ok(session) => {
                self.starts += 1;
                self.last_error = None;
                self.pool.started(id);
                let gone = session.gone().into_actor(self);
                ctx.spawn(gone.map(move |(), actor, ctx| actor.gone(id, ctx)));
                self.resting.insert(id, session);
            }
            Err(reason) => {
                self.failures += 1;
                log::warn!(reason:%; "an interpreter could not be started");
                self.last_error = Some(reason);
                let now = self.now();
                let random = u32::try_from(self.ids.next_bits() & 0xffff).unwrap_or(0);
                self.pool.start_failed(id, now, random);
            }
        }
        self.advance(ctx);
    }

    fn warm_one(&mut self, id: WorkerId, ctx: &mut Context<Self>) {
        let Some(mut session) = self.resting.remove(&id) else {
            return;
        };
        let modules = self.backend.imports().to_vec();
        let work = async move {
            let warmed = session.warm(&modules).await;
            (session, warmed)
        };
        let finish = work
            .into_actor(self)
            .map(move |(session, warmed), actor, ctx| {
                match warmed {
                    Ok(()) if actor.pool.has(id) && !actor.stop.is_cancelled() => {
                        actor.resting.insert(id, session);
                        actor.pool.warmed(id);
                    }
                    Ok(()) => {}
                    Err(reason) => {
                        log::warn!(reason:%; "an interpreter ended while it warmed up");
                        actor.end(id);
                    }
                }
                actor.advance(ctx);
            });
        ctx.spawn(finish);
    }

    /// Ends an interpreter that is here or was just dropped.
    fn end(&mut self, worker: WorkerId) {
        self.resting.remove(&worker);
        self.pool.ending(worker);
    }

    /// Nothing of this interpreter is left.
    fn gone(&mut self, worker: WorkerId, ctx: &mut Context<Self>) {
        self.resting.remove(&worker);
        self.sessions.forget(worker);
        self.pool.gone(worker);
        self.advance(ctx);
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        for worker in self.sessions.expire(now) {
            self.end(worker);
        }
        self.advance(ctx);
    }

    /// Puts a call into the queue, unless there is a reason to refuse it at once.
    fn enqueue(
        &mut self,
        execute: Execute,
        reply: oneshot::Sender<Answer>,
        ctx: &mut Context<Self>,
    ) {
        let refused = if execute.code.len() > limits::CODE_BYTES {
            Some(ExecuteError::CodeTooLong)
        } else if self.stop.is_cancelled() {
            Some(ExecuteError::Unavailable("it is stopping".to_owned()))
        } else if self.waiting.len() >= self.settings.queue {
            Some(ExecuteError::Busy)
        } else {
            None
        };
        if let Some(error) = refused {
            drop(reply.send(Err(error)));
            return;
        }
        self.calls += 1;
        let number = self.calls;
        let (cancel, patience) = (execute.cancel.clone(), self.settings.queue_wait);
        let gave_up = async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => ExecuteError::Cancelled,
                () = tokio::time::sleep(patience) => ExecuteError::Busy,
            }
        };
        let watch = gave_up
            .into_actor(self)
            .map(move |error, actor, _| actor.refuse(number, error));
        self.waiting.push_back(Waiting {
            number,
            execute,
            reply,
            watch: ctx.spawn(watch),
        });
        self.advance(ctx);
    }

    /// A waiting call gets an error instead.
    fn refuse(&mut self, number: u64, error: ExecuteError) {
        let at = self.waiting.iter().position(|w| w.number == number);
        if let Some(waiting) = at.and_then(|at| self.waiting.remove(at)) {
            drop(waiting.reply.send(Err(error)));
        }
    }
}

impl Actor for CodeInterpreterActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Callers are held back by the queue's own limit, which answers; a full mailbox would not.
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(TICK, Self::tick);
        self.advance(ctx);
    }
}

/// More than the queue takes, so that its refusals are heard.
const MAILBOX: usize = 1024;
