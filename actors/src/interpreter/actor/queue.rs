//! Calls that wait: for a fresh interpreter, or for the one of their container.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use actix::fut::WrapFuture as _;
use actix::{ActorFutureExt as _, AsyncContext as _, Context};
use tokio::sync::oneshot;

use super::{Answer, CodeInterpreterActor, Running, State, Waiting};
use crate::interpreter::limits;
use crate::interpreter::messages::{Container, Execute, ExecuteError};
use crate::interpreter::pool::{WorkerId, wish};
use crate::interpreter::sessions::Begin;

impl CodeInterpreterActor {
    /// Puts a call into the queue, unless there is a reason to refuse it at once.
    pub(super) fn enqueue(
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
        let waiting = self.wait(execute, reply, ctx);
        self.waiting.push_back(waiting);
        self.advance(ctx);
    }

    /// A call whose interpreter was gone before it had the code: it gets another, before all others.
    pub(super) fn again(&mut self, running: Running, execute: Execute, ctx: &mut Context<Self>) {
        log::info!("an interpreter ended while it waited for its first call; another one is taken");
        let waiting = Waiting {
            attempts: running.attempts,
            ..self.wait(execute, running.reply, ctx)
        };
        self.waiting.push_front(waiting);
        self.advance(ctx);
    }

    fn wait(
        &mut self,
        execute: Execute,
        reply: oneshot::Sender<Answer>,
        ctx: &mut Context<Self>,
    ) -> Waiting {
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
        Waiting {
            number,
            since: Instant::now(),
            execute,
            attempts: 0,
            reply,
            watch: ctx.spawn(watch),
        }
    }

    /// A waiting call gets an error instead.
    fn refuse(&mut self, number: u64, error: ExecuteError) {
        let at = self.waiting.iter().position(|w| w.number == number);
        if let Some(waiting) = at.and_then(|at| self.waiting.remove(at)) {
            drop(waiting.reply.send(Err(error)));
        }
    }

    /// How many fresh interpreters the waiting calls need.
    pub(super) fn want_new(&self) -> usize {
        // Calls that wait for the same one need it once.
        let mut shared = HashSet::new();
        let mut new = 0;
        for waiting in &self.waiting {
            let is_new = match &waiting.execute.container {
                Container::Shared(id) => !self.sessions.has(id) && shared.insert(id),
                Container::Named(_) => false,
            };
            new += usize::from(is_new);
        }
        new
    }

    /// Begins every waiting call that can begin, in the order they came.
    pub(super) fn serve_waiting(&mut self, ctx: &mut Context<Self>) {
        for waiting in std::mem::take(&mut self.waiting) {
            match self.place(&waiting.execute) {
                Ok(Some((worker, state))) => {
                    ctx.cancel_future(waiting.watch);
                    if state == State::None {
                        self.waits.record(waiting.since.elapsed());
                    }
                    let running = Running {
                        worker,
                        state,
                        attempts: waiting.attempts + 1,
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
    fn place(&mut self, execute: &Execute) -> Result<Option<(WorkerId, State)>, ExecuteError> {
        let now = self.now();
        let id = execute.container.id();
        match (
            self.sessions.begin(id, &execute.owner, now),
            &execute.container,
        ) {
            (Begin::Run(worker), _) => Ok(Some((worker, State::Earlier))),
            (Begin::Wait, _) => Ok(None),
            // Somebody else's is as unknown as one that is not there.
            (Begin::Unknown, Container::Shared(_)) if !self.sessions.has(id) => {
                Ok(self.open(execute, now).map(|worker| (worker, State::None)))
            }
            (Begin::Unknown, Container::Shared(_) | Container::Named(_)) => {
                Err(ExecuteError::UnknownContainer)
            }
        }
    }

    /// A fresh interpreter for this container, when one is waiting.
    fn open(&mut self, execute: &Execute, now: Duration) -> Option<WorkerId> {
        let wish = wish(&execute.code, self.backend.imports());
        let worker = self.pool.take(wish)?;
        let id = execute.container.id().to_owned();
        self.sessions.open(id, execute.owner.clone(), worker, now);
        Some(worker)
    }

    /// Calls that wait for a fresh interpreter, taken out of the queue.
    pub(super) fn take_new_ones(&mut self, ctx: &mut Context<Self>) -> Vec<Waiting> {
        let (new, named): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| match &waiting.execute.container {
                Container::Shared(id) => !self.sessions.has(id),
                Container::Named(_) => false,
            });
        self.waiting = named.into();
        for waiting in &new {
            ctx.cancel_future(waiting.watch);
        }
        new
    }
}
