//! The supervisor: who may run, what is up, and how everything stops.
//!
//! It hands out addresses and facts, never per-token work. It owns the number of running responses
//! (a semaphore whose permits travel with the turns), the limits, and the stop signal that all turns
//! watch.

mod admission;
pub mod gate;
pub mod messages;
pub mod restart;

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext as _, Context, Handler, MessageResult, ResponseFuture,
    WrapFuture,
};
use tokio::sync::{Semaphore, watch};

use crate::mcp;
use crate::process::messages::{Phase, PhaseChanged};
use admission::Admission;
pub use admission::AdmissionSettings;
use messages::{
    AwaitPhase, ChildSummary, Component, Drain, EndNow, Health, Leave, Observation, Observe,
    Opened, OwnProcess, Peers, Reached, Report, StopStage,
};

/// How long after [`StopStage::Ending`] turns may take to write their last events.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct SupervisorActor {
    peers: watch::Sender<Option<Arc<Peers>>>,
    places: Arc<Semaphore>,
    capacity: usize,
    stop: watch::Sender<StopStage>,
    store: Health,
    upstream: Health,
    vllm: watch::Sender<Option<PhaseChanged>>,
    mcp_runtime: watch::Sender<Option<PhaseChanged>>,
    admission: Admission,
}

impl SupervisorActor {
    /// A supervisor that refuses everything until [`Opened`]. To be called on the arbiter that it
    /// will live on.
    pub fn new(settings: &AdmissionSettings) -> Self {
        let capacity = settings.places;
        Self {
            admission: Admission::new(settings),
            peers: watch::Sender::new(None),
            places: Arc::new(Semaphore::new(capacity)),
            capacity,
            stop: watch::Sender::new(StopStage::Running),
            store: Health::Starting,
            upstream: Health::Starting,
            vllm: watch::Sender::new(None),
            mcp_runtime: watch::Sender::new(None),
        }
    }

    fn observe(&self) -> Observation {
        let stop = *self.stop.borrow();
        let up = self.store == Health::Ready && self.upstream == Health::Ready;
        Observation {
            ready: up && self.peers.borrow().is_some() && stop == StopStage::Running,
            stop,
            in_flight: self.capacity - self.places.available_permits(),
            capacity: self.capacity,
            store: self.store.clone(),
            upstream: self.upstream.clone(),
            vllm: self.vllm.borrow().as_ref().map(summary),
            mcp_runtime: self.mcp_runtime.borrow().as_ref().map(summary),
        }
    }

    /// Moves the stop forward, never back.
    fn advance(&self, stage: StopStage) {
        self.stop.send_if_modified(|current| {
            let forward = stage_order(stage) > stage_order(*current);
            if forward {
                *current = stage;
            }
            forward
        });
    }
}

fn summary(seen: &PhaseChanged) -> ChildSummary {
    ChildSummary {
        phase: seen.status.phase,
        restarts: seen.status.restarts,
    }
}

fn stage_order(stage: StopStage) -> u8 {
    match stage {
        StopStage::Running => 0,
        StopStage::Leaving => 1,
        StopStage::Draining => 2,
        StopStage::Ending => 3,
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // One message per request from every worker; the semaphore bounds what runs.
        ctx.set_mailbox_capacity(1024);
        ctx.run_interval(admission::LOOK_AT_MEMORY, |act, _| act.look_at_memory());
    }
}

/// Synchronous.
impl Handler<Opened> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, Opened(peers): Opened, _: &mut Self::Context) {
        self.peers.send_replace(Some(peers));
    }
}

/// Synchronous.
impl Handler<Report> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, report: Report, _: &mut Self::Context) {
        let slot = match report.component {
            Component::Store => &mut self.store,
            Component::Upstream => &mut self.upstream,
        };
        if *slot != report.health {
            log::info!("{} {}", report.component, report.health);
            *slot = report.health;
        }
    }
}

/// Synchronous.
impl Handler<Leave> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: Leave, _: &mut Self::Context) {
        self.advance(StopStage::Leaving);
    }
}

/// Atomic would block `Acquire`; the wait for the places therefore runs beside the mailbox.
impl Handler<Drain> for SupervisorActor {
    type Result = actix::ResponseActFuture<Self, ()>;

    fn handle(&mut self, Drain { grace }: Drain, _: &mut Self::Context) -> Self::Result {
        self.advance(StopStage::Draining);
        let all = all_places(Arc::clone(&self.places), self.capacity);
        let mut stage = self.stop.subscribe();
        let drained = async move {
            tokio::select! {
                () = all => true,
                () = tokio::time::sleep(grace) => false,
                _ = stage.wait_for(|stage| *stage == StopStage::Ending) => false,
            }
        };
        Box::pin(drained.into_actor(self).then(|drained, act, _| {
            if !drained {
                act.advance(StopStage::Ending);
            }
            let all = all_places(Arc::clone(&act.places), act.capacity);
            let last = async move {
                if tokio::time::timeout(LAST_WORDS, all).await.is_err() {
                    log::warn!("some responses did not end in time and are cut off");
                }
            };
            last.into_actor(act)
        }))
    }
}

/// Waits until no response runs.
async fn all_places(places: Arc<Semaphore>, capacity: usize) {
    let all = u32::try_from(capacity).unwrap_or(u32::MAX);
    // An error means that the semaphore was closed, which nobody does.
    drop(places.acquire_many(all).await);
}

/// Synchronous. A vLLM that is not ready is not asked whether it is. Readiness does not depend on the
/// MCP runtime: without it only its tools are missing.
impl Handler<PhaseChanged> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, change: PhaseChanged, _: &mut Self::Context) {
        if change.status.name == mcp::runtime::NAME {
            self.mcp_runtime.send_replace(Some(change));
            return;
        }
        let status = &change.status;
        self.upstream = match status.phase {
            Phase::Ready => Health::Ready,
            Phase::Starting if !status.was_ready => Health::Starting,
            Phase::Starting | Phase::Backoff | Phase::Failed | Phase::Stopping | Phase::Stopped => {
                let reason = status.last_error.clone();
                Health::Down {
                    reason: reason.unwrap_or_else(|| "not running".to_owned()),
                }
            }
        };
        self.vllm.send_replace(Some(change));
    }
}

/// Waits beside the mailbox.
impl Handler<AwaitPhase> for SupervisorActor {
    type Result = ResponseFuture<Reached>;

    fn handle(&mut self, ask: AwaitPhase, _: &mut Self::Context) -> Self::Result {
        let AwaitPhase(process, phase) = ask;
        let mut seen = match process {
            OwnProcess::Vllm => self.vllm.subscribe(),
            OwnProcess::McpRuntime => self.mcp_runtime.subscribe(),
        };
        Box::pin(async move {
            let reached = |seen: &Option<PhaseChanged>| {
                seen.as_ref().is_some_and(|seen| seen.status.phase == phase)
            };
            let seen = seen.wait_for(reached).await.ok();
            let seen = seen.and_then(|seen| seen.clone());
            Reached {
                exit: seen.as_ref().and_then(|seen| seen.exit),
                last_error: last_words(seen.as_ref(), process),
                last_lines: seen.map_or_else(Vec::new, |seen| seen.status.last_lines),
            }
        })
    }
}

fn last_words(seen: Option<&PhaseChanged>, process: OwnProcess) -> String {
    let status = seen.map(|seen| &seen.status);
    let error = status.and_then(|status| status.last_error.clone());
    match process {
        OwnProcess::Vllm => error.unwrap_or_else(|| "vLLM has ended".to_owned()),
        // It says on its last line why it cannot start.
        OwnProcess::McpRuntime => {
            let line = status.and_then(|status| status.last_lines.last());
            let line = line.map(|line| line.trim_start_matches("error: ").to_owned());
            let error = error.unwrap_or_else(|| "it has ended".to_owned());
            format!("the MCP runtime: {}", line.unwrap_or(error))
        }
    }
}

/// Synchronous.
impl Handler<EndNow> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: EndNow, _: &mut Self::Context) {
        self.advance(StopStage::Ending);
    }
}

/// Synchronous.
impl Handler<Observe> for SupervisorActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.observe())
    }
}
