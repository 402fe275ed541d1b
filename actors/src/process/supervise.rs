//! The life of one supervised child, written as one flow: start, wait until ready, watch, restart.
//!
//! It knows children only by [`Launch`] and [`Running`], so tests script them. The actor owns the
//! flow and drops it when it is itself dropped; a running child is then killed by its handle.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use actix::Recipient;
use futures_util::future::LocalBoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::messages::{ChildStatus, Phase, PhaseChanged};
use super::readiness::{HealthSettings, Probe, ProbeCounter, ReadySettings, ask, wait_ready};
use super::spec::{ChildSpec, ExitKind, ExitReport, SpawnError};
use super::{Child, Launcher};
use crate::supervisor::restart::{Failure, RestartPolicy, RestartSettings, Verdict};

/// Grace of a child that is stopped before it was ever ready.
const LOADING_GRACE: Duration = Duration::from_secs(2);

/// Starts a child; called for every (re)start, so it may choose a fresh port or token.
pub trait Launch {
    /// Starts it and resolves when its program runs.
    fn launch(&self) -> LocalBoxFuture<'static, Result<Rc<dyn Running>, SpawnError>>;
}

/// A started child. Dropping it kills it.
pub trait Running: fmt::Debug {
    /// Its process id.
    fn pid(&self) -> u32;
    /// Its newest lines.
    fn last_lines(&self) -> Vec<String>;
    /// Its end; `None` when nothing can be known any more.
    fn wait(&self) -> LocalBoxFuture<'static, Option<ExitReport>>;
    /// Asks it to end, insists after its grace, and waits.
    fn stop(&self) -> LocalBoxFuture<'static, Option<ExitReport>>;
    /// Kills it and waits.
    fn kill(&self) -> LocalBoxFuture<'static, Option<ExitReport>>;
}

/// A real child as a [`Running`] one.
#[derive(Debug)]
pub struct Launched(pub Child);

impl Running for Launched {
    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn last_lines(&self) -> Vec<String> {
        self.0.last_lines()
    }

    fn wait(&self) -> LocalBoxFuture<'static, Option<ExitReport>> {
        let child = self.0.clone();
        Box::pin(async move { child.wait().await })
    }

    fn stop(&self) -> LocalBoxFuture<'static, Option<ExitReport>> {
        let child = self.0.clone();
        Box::pin(async move { child.stop().await })
    }

    fn kill(&self) -> LocalBoxFuture<'static, Option<ExitReport>> {
        let child = self.0.clone();
        Box::pin(async move { child.kill().await })
    }
}

/// Starts the same specification every time.
#[derive(Clone, Debug)]
pub struct SameSpec {
    /// Who starts it.
    pub launcher: Launcher,
    /// What to start. With [`super::Stdin::Piped`] or [`super::Output::Protocol`] the pipes are
    /// dropped: such children need a [`Launch`] of their own.
    pub spec: ChildSpec,
}

impl Launch for SameSpec {
    fn launch(&self) -> LocalBoxFuture<'static, Result<Rc<dyn Running>, SpawnError>> {
        let Self { launcher, spec } = self.clone();
        Box::pin(async move {
            let spawned = launcher.spawn(spec).await?;
            let child: Rc<dyn Running> = Rc::new(Launched(spawned.child));
            Ok(child)
        })
    }
}

/// What to do when a child fails before it was ever ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstStart {
    /// Give it up: its command line is probably wrong, and start-up should say so.
    MustSucceed,
    /// Treat it as any failure.
    MayRetry,
}

/// The numbers of a supervised child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildSettings {
    /// Waiting for it.
    pub ready: ReadySettings,
    /// Watching it.
    pub health: HealthSettings,
    /// Restarting it.
    pub restart: RestartSettings,
    /// Its first start.
    pub first_start: FirstStart,
}

/// What is known now; the running child is asked for its newest lines when somebody looks.
#[derive(Debug)]
pub(super) struct Live {
    status: ChildStatus,
    running: Option<(Rc<dyn Running>, Instant)>,
}

impl Live {
    pub(super) fn new(name: String) -> Self {
        let status = ChildStatus {
            name,
            phase: Phase::Stopped,
            pid: None,
            uptime: None,
            restarts: 0,
            was_ready: false,
            last_error: None,
            last_lines: Vec::new(),
        };
        Self {
            status,
            running: None,
        }
    }

    /// The state as others see it.
    pub(super) fn snapshot(&self) -> ChildStatus {
        let mut status = self.status.clone();
        if let Some((running, since)) = &self.running {
            status.pid = Some(running.pid());
            status.uptime = Some(since.elapsed());
            status.last_lines = running.last_lines();
        }
        status
    }
}

/// One flow from a start to the next stop or failure for good.
pub(super) struct Supervision {
    pub(super) launch: Rc<dyn Launch>,
    pub(super) probe: Rc<Probe>,
    pub(super) settings: ChildSettings,
    pub(super) observers: Rc<[Recipient<PhaseChanged>]>,
    pub(super) live: Rc<watch::Sender<Live>>,
    /// Turns true when the child is to stop.
    pub(super) stop: watch::Receiver<bool>,
    pub(super) random: fn() -> u32,
}

/// Why one run of a child ended.
enum End {
    /// It was asked to.
    Asked,
    /// It failed.
    Failed {
        reason: String,
        exit: Option<ExitKind>,
        ready_for: Duration,
    },
}

impl Supervision {
    /// Runs until stopped or given up.
    pub(super) async fn run(mut self) {
        let begin = Instant::now();
        let mut policy = RestartPolicy::new(self.settings.restart);
        self.live.send_modify(|live| {
            live.status = ChildStatus {
                restarts: live.status.restarts,
                ..Live::new(live.status.name.clone()).status
            };
        });
        loop {
            let End::Failed {
                reason,
                exit,
                ready_for,
            } = self.run_once().await
            else {
                return self.enter(Phase::Stopped, None);
            };
            let at = begin.elapsed();
            let verdict = policy.failed(Failure {
                at,
                ready_for,
                random: (self.random)(),
            });
            let name = self.live.borrow().status.name.clone();
            self.live
                .send_modify(|live| live.status.last_error = Some(reason.clone()));
            let Verdict::RestartAfter(delay) = self.overrule(verdict) else {
                log::error!("{name} has failed and is not started again: {reason}");
                return self.enter(Phase::Failed, exit);
            };
            log::warn!(
                "{name} has failed and is started again in {} ms: {reason}",
                delay.as_millis()
            );
            self.enter(Phase::Backoff, exit);
            tokio::select! {
                () = stopped(&mut self.stop) => return self.enter(Phase::Stopped, None),
                () = sleep(delay) => {}
            }
            self.live.send_modify(|live| live.status.restarts += 1);
        }
    }

    /// A first start that must succeed is not repeated.
    fn overrule(&self, verdict: Verdict) -> Verdict {
        let was_ready = self.live.borrow().status.was_ready;
        match self.settings.first_start {
            FirstStart::MustSucceed if !was_ready => Verdict::GiveUp,
            FirstStart::MustSucceed | FirstStart::MayRetry => verdict,
        }
    }

    /// One process from start to end; nothing of it is left afterwards.
    async fn run_once(&mut self) -> End {
        self.enter(Phase::Starting, None);
        let running = match self.launch.launch().await {
            Ok(running) => running,
            Err(error) => {
                return End::Failed {
                    reason: error.to_string(),
                    exit: None,
                    ready_for: Duration::ZERO,
                };
            }
        };
        let since = Instant::now();
        self.live
            .send_modify(|live| live.running = Some((Rc::clone(&running), since)));
        let end = self.watch(&running).await;
        let lines = running.last_lines();
        self.live.send_modify(|live| {
            live.running = None;
            live.status.last_lines = lines;
        });
        end
    }

    /// Waits for readiness, then for trouble.
    async fn watch(&mut self, running: &Rc<dyn Running>) -> End {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return self.end_while_loading(running).await,
            report = running.wait() => return failed(report, "before it was ready", Duration::ZERO),
            ready = self.until_ready(running) => if let Err(reason) = ready {
                return self.end_as_failed(running, reason, Duration::ZERO).await;
            },
        }
        self.live.send_modify(|live| live.status.was_ready = true);
        self.enter(Phase::Ready, None);
        let since = Instant::now();
        tokio::select! {
            biased;
            () = stopped(&mut stop) => self.end_as_asked(running).await,
            report = running.wait() => failed(report, "while it was serving", since.elapsed()),
            reason = self.until_hung() => self.end_as_failed(running, reason, since.elapsed()).await,
        }
    }

    async fn until_ready(&self, running: &Rc<dyn Running>) -> Result<(), String> {
        let name = self.live.borrow().status.name.clone();
        let notice = |elapsed: Duration, reason: &str| {
            let line = running
                .last_lines()
                .pop()
                .unwrap_or_else(|| reason.to_owned());
            log::info!(
                "waiting for {name}, {} s so far; its last line: {line}",
                elapsed.as_secs()
            );
        };
        let waited = wait_ready(&self.probe, self.settings.ready, notice).await;
        waited.map_err(|error| error.to_string())
    }

    /// Probes at an even pace until too many in a row are missed; returns why it is taken for hung.
    async fn until_hung(&self) -> String {
        let HealthSettings { every, misses } = self.settings.health;
        let mut counter = ProbeCounter::new(misses);
        loop {
            let next = Instant::now() + every;
            let answer = ask(&self.probe, every).await;
            if counter.note(&answer) {
                return format!("it runs but has not answered {misses} probes in a row");
            }
            sleep_until(next).await;
        }
    }

    async fn end_as_asked(&self, running: &Rc<dyn Running>) -> End {
        self.enter(Phase::Stopping, None);
        running.stop().await;
        End::Asked
    }

    /// A child that serves nobody yet has nothing to finish: it gets less than its usual grace. (vLLM
    /// does not hear SIGTERM while its engine starts, measured.)
    async fn end_while_loading(&self, running: &Rc<dyn Running>) -> End {
        self.enter(Phase::Stopping, None);
        if timeout(LOADING_GRACE, running.stop()).await.is_err() {
            running.kill().await;
        }
        End::Asked
    }

    /// Kills a child that is no use; it had its chance, and a hung one would not hear SIGTERM.
    async fn end_as_failed(
        &self,
        running: &Rc<dyn Running>,
        reason: String,
        ready_for: Duration,
    ) -> End {
        let exit = running.kill().await.map(|report| report.kind);
        End::Failed {
            reason,
            exit,
            ready_for,
        }
    }

    fn enter(&self, phase: Phase, exit: Option<ExitKind>) {
        self.live.send_modify(|live| live.status.phase = phase);
        let status = self.live.borrow().snapshot();
        for observer in self.observers.iter() {
            // A notice: an observer that misses it sees the next one, or observes.
            observer.do_send(PhaseChanged {
                status: status.clone(),
                exit,
            });
        }
    }
}

/// Any end by itself is a failure, exit status 0 included.
fn failed(report: Option<ExitReport>, when: &str, ready_for: Duration) -> End {
    let kind = report.map_or(ExitKind::GuardianLost, |report| report.kind);
    End::Failed {
        reason: format!("it ended {when}: {kind}"),
        exit: Some(kind),
        ready_for,
    }
}

/// Resolves when the child is to stop, or when nobody is left who could say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
