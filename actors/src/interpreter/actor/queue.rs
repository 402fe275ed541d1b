//! Calls that wait: for a fresh interpreter, or for the one of their container.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use actix::fut::WrapFuture as _;
use actix::{ActorFutureExt as _, AsyncContext as _, Context, SpawnHandle};
use tokio::sync::oneshot;
use vllm_responses_protocol::ids::Owner;

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
            let yields = self.place_to_yield(&execute.owner);
            yields.map_or(Some(ExecuteError::Busy), |number| {
                if let Some(watch) = self.refuse(number, ExecuteError::Busy) {
                    ctx.cancel_future(watch);
                }
                None
            })
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
        let watch = gave_up.into_actor(self).map(move |error, actor, _| {
            actor.refuse(number, error);
        });
        Waiting {
            number,
            since: Instant::now(),
            execute,
            attempts: 0,
            reply,
            watch: ctx.spawn(watch),
        }
    }

    /// A waiting call gets an error instead. Returns its watch, which has nothing left to watch.
    fn refuse(&mut self, number: u64, error: ExecuteError) -> Option<SpawnHandle> {
        let at = self.waiting.iter().position(|w| w.number == number)?;
        let waiting = self.waiting.remove(at)?;
        drop(waiting.reply.send(Err(error)));
        Some(waiting.watch)
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

    /// Begins every waiting call that can begin: those of existing containers in the order they came,
    /// and fresh interpreters by turns, so that many calls of one owner do not keep out the others.
    pub(super) fn serve_waiting(&mut self, ctx: &mut Context<Self>) {
        let waiting = std::mem::take(&mut self.waiting);
        let (new, old): (VecDeque<_>, VecDeque<_>) =
            waiting.into_iter().partition(|one| self.is_new(one));
        for waiting in old {
            self.serve(waiting, ctx);
        }
        self.waiting.extend(new);
        self.waiting
            .make_contiguous()
            .sort_by_key(|waiting| waiting.number);
        while self.pool.has_stock() {
            let Some(next) = self.next_in_turn() else {
                return;
            };
            if let Some(waiting) = self.waiting.remove(next) {
                self.serve(waiting, ctx);
            }
        }
    }

    /// Begins this call, puts it back, or refuses it.
    fn serve(&mut self, waiting: Waiting, ctx: &mut Context<Self>) {
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

    /// Whether a call needs a fresh interpreter.
    fn is_new(&self, waiting: &Waiting) -> bool {
        match &waiting.execute.container {
            Container::Shared(id) => !self.sessions.has(id),
            Container::Named(_) => false,
        }
    }

    /// Which of the calls that need a fresh interpreter is next: of the owner that has the fewest in
    /// use, the one that came first. One that comes back, since its interpreter was gone, has waited
    /// its turn.
    fn next_in_turn(&self) -> Option<usize> {
        let new = self.waiting.iter().enumerate();
        let new = new.filter(|(_, waiting)| self.is_new(waiting));
        let (at, _) = new.min_by_key(|(_, waiting)| {
            let in_use = self.sessions.held_by(&waiting.execute.owner);
            (waiting.attempts == 0, in_use, waiting.number)
        })?;
        Some(at)
    }

    /// Whose call gets the next fresh interpreter.
    pub(super) fn next_in_line(&self) -> Option<&Owner> {
        let next = self.waiting.get(self.next_in_turn()?)?;
        Some(&next.execute.owner)
    }

    /// The place in a full queue that a call of this owner may have: that of the newest call of the
    /// owner with most waiting, if that is more than its own.
    fn place_to_yield(&self, owner: &Owner) -> Option<u64> {
        let mut counts: HashMap<&Owner, (usize, u64)> = HashMap::new();
        for waiting in &self.waiting {
            let (count, newest) = counts.entry(&waiting.execute.owner).or_default();
            *count += 1;
            *newest = waiting.number.max(*newest);
        }
        let own = counts.get(owner).map_or(0, |(count, _)| *count);
        let (_, (most, newest)) = counts.iter().max_by_key(|(_, (count, _))| *count)?;
        (*most > own + 1).then_some(*newest)
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
