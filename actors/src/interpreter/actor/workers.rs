//! The lives of interpreters, from their start to their end.

use actix::fut::WrapFuture as _;
use actix::{ActorFutureExt as _, AsyncContext as _, Context};

use super::{CodeInterpreterActor, Resting};
use crate::interpreter::backend::Session;
use crate::interpreter::pool::WorkerId;

impl CodeInterpreterActor {
    pub(super) fn start_one(&mut self, id: WorkerId, ctx: &mut Context<Self>) {
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
                self.resting.insert(id, Resting::new(session));
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

    pub(super) fn warm_one(&mut self, id: WorkerId, ctx: &mut Context<Self>) {
        let Some(Resting { mut session, .. }) = self.resting.remove(&id) else {
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
                        actor.resting.insert(id, Resting::new(session));
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
    pub(super) fn end(&mut self, worker: WorkerId) {
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
}
