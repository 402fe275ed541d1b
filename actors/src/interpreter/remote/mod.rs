//! The code interpreter as a service elsewhere: the same messages as `CodeInterpreterActor` takes,
//! passed on over HTTP.
//!
//! The service owns interpreters and containers, so that several gateways share them; this actor owns
//! the way there. It looks at the service all the time, with pauses that grow while it is down. A call
//! does not wait for that: it is tried at once, and fails as an item when nobody answers.

mod link;

use std::rc::Rc;
use std::time::Duration;

use actix::fut::WrapFuture as _;
use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, MessageResult,
    ResponseActFuture,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use vllm_responses_protocol::ids::IdSource as _;

use super::limits;
use super::messages::{Execute, ExecuteError, Executed, InterpreterStatus, Observe, Release, Stop};
use super::settings::Service;
use super::wire::{GivenBack, Report, shown};
use crate::env::SystemIds;
use link::{Link, LinkError};

/// How often a service that is well is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// No pause is longer, jitter apart.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Calls that may be on their way; the service's own queue is shorter.
const MOST_CALLS: usize = 512;
/// Containers that may be on their way back.
const MOST_RELEASES: usize = 512;
/// More than may be on their way, so that refusals are heard.
const MAILBOX: usize = 1024;

/// The way to a service. It is made on the thread it runs on.
#[derive(Debug)]
pub struct RemoteInterpreterActor {
    link: Rc<Link>,
    ids: SystemIds,
    /// What the service said last, and whether it still holds.
    status: InterpreterStatus,
    problem: Option<LinkError>,
    /// Failures in a row.
    failures: u32,
    calls: usize,
    releases: usize,
    /// Ends every call when the actor is told to stop.
    stop: CancellationToken,
}

impl RemoteInterpreterActor {
    /// An actor that goes to this service once it runs.
    pub fn new(service: Service) -> Self {
        Self {
            link: Rc::new(Link::new(service)),
            ids: SystemIds,
            status: InterpreterStatus::default(),
            problem: None,
            failures: 0,
            calls: 0,
            releases: 0,
            stop: CancellationToken::new(),
        }
    }

    /// Looks at the service, then again after a pause, for as long as the actor lives.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let link = Rc::clone(&self.link);
        let looked = async move { link.report().await };
        ctx.spawn(looked.into_actor(self).map(|report, actor, ctx| {
            actor.note(report);
            let random = u32::try_from(actor.ids.next_bits() & 0xffff).unwrap_or(0);
            let pause = sleep(pause(actor.failures, random)).into_actor(actor);
            ctx.spawn(pause.map(|(), actor, ctx| actor.look(ctx)));
        }));
    }

    fn note(&mut self, report: Result<Report, LinkError>) {
        match report {
            Ok(report) => {
                if self.problem.take().is_some() {
                    log::info!("the code interpreter service is back");
                }
                self.failures = 0;
                self.status = InterpreterStatus {
                    last_error: report.status.last_error.map(|text| shown(&text)),
                    ..report.status
                };
            }
            Err(error) => {
                if self.problem != Some(error) {
                    log::warn!("{error}; calls of the code interpreter fail until that is over");
                }
                self.problem = Some(error);
                self.failures = self.failures.saturating_add(1);
            }
        }
    }

    fn status(&self) -> InterpreterStatus {
        match self.problem {
            None => self.status.clone(),
            Some(error) => InterpreterStatus {
                ready: false,
                last_error: Some(error.to_string()),
                walls: self.status.walls,
                starts: self.status.starts,
                failures: self.status.failures,
                ..InterpreterStatus::default()
            },
        }
    }
}

/// How long to wait before the service is looked at again.
fn pause(failures: u32, random: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return LOOK;
    };
    let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
    let plain = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
    // Up to a fifth longer, so that gateways do not come back in step.
    plain + plain / 5 * (random % 1000) / 1000
}

impl Actor for RemoteInterpreterActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.look(ctx);
    }
}

type Answer = Result<Executed, ExecuteError>;

/// Many at once, up to [`MOST_CALLS`]: the service's queue and interpreters bound them further.
impl Handler<Execute> for RemoteInterpreterActor {
    type Result = ResponseActFuture<Self, Answer>;

    fn handle(&mut self, execute: Execute, _: &mut Self::Context) -> Self::Result {
        let refused = if execute.code.len() > limits::CODE_BYTES {
            Some(ExecuteError::CodeTooLong)
        } else if self.calls >= MOST_CALLS {
            Some(ExecuteError::Busy)
        } else {
            None
        };
        if let Some(error) = refused {
            return Box::pin(actix::fut::ready(Err(error)));
        }
        self.calls += 1;
        let (link, stop) = (Rc::clone(&self.link), self.stop.clone());
        let called = async move {
            tokio::select! {
                biased;
                () = execute.cancel.cancelled() => (Err(ExecuteError::Cancelled), None),
                () = stop.cancelled() => {
                    (Err(ExecuteError::Unavailable("it is stopping".to_owned())), None)
                }
                answer = link.execute(&execute) => answer,
            }
        };
        Box::pin(called.into_actor(self).map(|(answer, problem), actor, _| {
            actor.calls -= 1;
            if let Some(error) = problem {
                // The next look says when it is over.
                actor.note(Err(error));
            }
            answer
        }))
    }
}

/// Goes on its way; nobody waits for it.
impl Handler<Release> for RemoteInterpreterActor {
    type Result = ();

    fn handle(&mut self, release: Release, ctx: &mut Self::Context) {
        if self.releases >= MOST_RELEASES {
            // The service gives up what nobody uses.
            return;
        }
        self.releases += 1;
        let link = Rc::clone(&self.link);
        let given = async move {
            let Release {
                owner,
                container_id,
            } = release;
            let given = GivenBack {
                owner,
                container_id,
            };
            link.release(&given).await;
        };
        let done = given.into_actor(self);
        ctx.spawn(done.map(|(), actor, _| actor.releases -= 1));
    }
}

/// Synchronous: a copy of what is known.
impl Handler<Observe> for RemoteInterpreterActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.status())
    }
}

/// Synchronous: calls are told to end, which is not waited for. The service goes on.
impl Handler<Stop> for RemoteInterpreterActor {
    type Result = ();

    fn handle(&mut self, _: Stop, _: &mut Self::Context) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_while_it_is_down() {
        let plain: Vec<u64> = (1..9)
            .map(|failures| u64::try_from(pause(failures, 0).as_millis()).unwrap())
            .collect();
        assert_eq!(plain, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(pause(0, 999), LOOK);
        assert!(pause(u32::MAX, 999) <= LONGEST_PAUSE * 6 / 5);
    }
}
