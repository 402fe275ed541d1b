//! What the actor does with each message.

use actix::{Handler, MessageResult, ResponseFuture};
use tokio::sync::oneshot;

use super::{Answer, CodeInterpreterActor};
use crate::interpreter::messages::{Execute, ExecuteError, Observe, Release, Stop};

/// Many at once: the queue and the number of live interpreters bound them.
impl Handler<Execute> for CodeInterpreterActor {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, execute: Execute, ctx: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.enqueue(execute, reply, ctx);
        Box::pin(async move {
            let stopped = || ExecuteError::Unavailable("it has stopped".to_owned());
            answer.await.unwrap_or_else(|_lost| Err(stopped()))
        })
    }
}

/// Synchronous: what is over is told to end, which is not waited for.
impl Handler<Release> for CodeInterpreterActor {
    type Result = ();

    fn handle(&mut self, release: Release, ctx: &mut Self::Context) {
        let now = self.now();
        for worker in self
            .sessions
            .release(&release.container_id, &release.owner, now)
        {
            self.end(worker);
        }
        self.advance(ctx);
    }
}

/// Synchronous: a copy of what is known.
impl Handler<Observe> for CodeInterpreterActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.status())
    }
}

/// Synchronous: everything is told to end, which is not waited for.
impl Handler<Stop> for CodeInterpreterActor {
    type Result = ();

    fn handle(&mut self, _: Stop, _: &mut Self::Context) {
        self.stop.cancel();
        self.resting.clear();
        for waiting in std::mem::take(&mut self.waiting) {
            let stopping = ExecuteError::Unavailable("it is stopping".to_owned());
            drop(waiting.reply.send(Err(stopping)));
        }
    }
}
