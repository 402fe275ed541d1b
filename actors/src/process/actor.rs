//! An actor that keeps one child running: vLLM, the interpreter service, the MCP runtime.
//!
//! It owns the flow in `supervise` and answers for it. It is made on the thread it runs on, since
//! probes may use clients that are bound to a thread.

use std::fmt;
use std::rc::Rc;

use actix::fut::WrapFuture;
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, ResponseFuture, SpawnHandle,
};
use tokio::sync::watch;

use super::messages::{ChildStatus, Observe, Phase, PhaseChanged, Start, Stop};
use super::readiness::Probe;
use super::supervise::{Live, Supervision};

pub use super::supervise::{ChildSettings, FirstStart, Launch, Launched, Running, SameSpec};

/// Supervises one child.
pub struct ChildActor {
    launch: Rc<dyn Launch>,
    probe: Rc<Probe>,
    settings: ChildSettings,
    observers: Rc<[Recipient<PhaseChanged>]>,
    live: Rc<watch::Sender<Live>>,
    /// The running flow and the switch that stops it.
    flow: Option<(SpawnHandle, watch::Sender<bool>)>,
}

impl fmt::Debug for ChildActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildActor")
            .field("status", &self.live.borrow().snapshot())
            .finish_non_exhaustive()
    }
}

impl ChildActor {
    /// A supervisor for the child `name`, which waits for [`Start`].
    pub fn new(
        name: &str,
        launch: Rc<dyn Launch>,
        probe: Probe,
        settings: ChildSettings,
        observers: Vec<Recipient<PhaseChanged>>,
    ) -> Self {
        Self {
            launch,
            probe: Rc::new(probe),
            settings,
            observers: observers.into(),
            live: Rc::new(watch::Sender::new(Live::new(name.to_owned()))),
            flow: None,
        }
    }

    fn supervise(&self, stop: watch::Receiver<bool>) -> Supervision {
        Supervision {
            launch: Rc::clone(&self.launch),
            probe: Rc::clone(&self.probe),
            settings: self.settings,
            observers: Rc::clone(&self.observers),
            live: Rc::clone(&self.live),
            stop,
            random: || getrandom::u32().unwrap_or(u32::MAX / 2),
        }
    }
}

impl Actor for ChildActor {
    type Context = Context<Self>;
}

/// Answers at once; the flow runs beside the mailbox.
impl Handler<Start> for ChildActor {
    type Result = ();

    fn handle(&mut self, _: Start, ctx: &mut Self::Context) {
        // A flow that is stopping is not joined: the caller of `Stop` waits for its reply first.
        if self.flow.is_some() {
            return;
        }
        let (switch, stop) = watch::channel(false);
        let flow = self
            .supervise(stop)
            .run()
            .into_actor(self)
            .map(|(), actor, _| {
                actor.flow = None;
            });
        self.flow = Some((ctx.spawn(flow), switch));
    }
}

/// Overlaps with everything else, so that `Observe` is answered while a child takes its grace.
impl Handler<Stop> for ChildActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Stop, _: &mut Self::Context) -> Self::Result {
        let Some((_, switch)) = &self.flow else {
            return Box::pin(async {});
        };
        switch.send_replace(true);
        let mut live = self.live.subscribe();
        Box::pin(async move {
            let is_over =
                |live: &Live| matches!(live.snapshot().phase, Phase::Stopped | Phase::Failed);
            // An error means that the actor is gone, and the child with it.
            drop(live.wait_for(is_over).await);
        })
    }
}

/// Synchronous: a copy of what is known.
impl Handler<Observe> for ChildActor {
    type Result = ChildStatus;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> ChildStatus {
        self.live.borrow().snapshot()
    }
}
