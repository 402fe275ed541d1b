//! Every rule of supervision, with scripted children and a paused clock.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, MessageResult};
use futures_util::future::LocalBoxFuture;
use tokio::sync::watch;
use tokio::time::{pause, sleep};

use super::actor::{ChildActor, ChildSettings, FirstStart, Launch, Running};
use super::messages::{ChildStatus, Observe, Phase, PhaseChanged, Start, Stop};
use super::readiness::{Answer, HealthSettings, Probe, ReadySettings};
use super::spec::{ExitKind, ExitReport, SpawnError};
use crate::supervisor::restart::{OnExit, RestartSettings};

/// A child that ends when told, by the test or by its supervisor.
#[derive(Clone, Debug)]
struct Scripted {
    pid: u32,
    end: watch::Sender<Option<ExitReport>>,
    calls: Rc<RefCell<Vec<&'static str>>>,
    /// Does not hear SIGTERM.
    deaf: bool,
}

impl Scripted {
    fn end(&self, kind: ExitKind) {
        self.end.send_replace(Some(ExitReport {
            kind,
            last_lines: Vec::new(),
        }));
    }
}

impl Running for Scripted {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn last_lines(&self) -> Vec<String> {
        vec![format!("line of {}", self.pid)]
    }

    fn wait(&self) -> LocalBoxFuture<'static, Option<ExitReport>> {
        let mut end = self.end.subscribe();
        Box::pin(async move { end.wait_for(Option::is_some).await.ok()?.clone() })
    }

    fn stop(&self) -> LocalBoxFuture<'static, Option<ExitReport>> {
        self.calls.borrow_mut().push("stop");
        if !self.deaf {
            self.end(ExitKind::Signal(15));
        }
        self.wait()
    }

    fn kill(&self) -> LocalBoxFuture<'static, Option<ExitReport>> {
        self.calls.borrow_mut().push("kill");
        self.end(ExitKind::Signal(9));
        self.wait()
    }
}

/// Starts scripted children and remembers them; start errors are given first.
#[derive(Default)]
struct Stage {
    errors: RefCell<VecDeque<SpawnError>>,
    started: RefCell<Vec<Scripted>>,
    calls: Rc<RefCell<Vec<&'static str>>>,
    serves: Cell<bool>,
    deaf: Cell<bool>,
}

impl Stage {
    fn newest(&self) -> Scripted {
        self.started.borrow().last().unwrap().clone()
    }
}

/// The stage as the actor sees it.
struct Entrance(Rc<Stage>);

impl Launch for Entrance {
    fn launch(&self) -> LocalBoxFuture<'static, Result<Rc<dyn Running>, SpawnError>> {
        let stage = Rc::clone(&self.0);
        Box::pin(async move {
            if let Some(error) = stage.errors.borrow_mut().pop_front() {
                return Err(error);
            }
            let pid = 100 + u32::try_from(stage.started.borrow().len()).unwrap();
            let calls = Rc::clone(&stage.calls);
            let child = Scripted {
                pid,
                end: watch::Sender::new(None),
                calls,
                deaf: stage.deaf.get(),
            };
            stage.started.borrow_mut().push(child.clone());
            let running: Rc<dyn Running> = Rc::new(child);
            Ok(running)
        })
    }
}

/// Collects phases with the exit that led to them.
#[derive(Default)]
struct Witness(Vec<(Phase, Option<ExitKind>)>);

impl Actor for Witness {
    type Context = Context<Self>;
}

impl Handler<PhaseChanged> for Witness {
    type Result = ();

    fn handle(&mut self, change: PhaseChanged, _: &mut Self::Context) {
        self.0.push((change.status.phase, change.exit));
    }
}

#[derive(actix::Message)]
#[rtype(result = "Vec<(Phase, Option<ExitKind>)>")]
struct Phases;

impl Handler<Phases> for Witness {
    type Result = MessageResult<Phases>;

    fn handle(&mut self, _: Phases, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.0.clone())
    }
}

fn settings() -> ChildSettings {
    ChildSettings {
        ready: ReadySettings {
            limit: Duration::from_secs(20),
            ..ReadySettings::default()
        },
        health: HealthSettings::default(),
        restart: RestartSettings {
            jitter_percent: 0,
            ..RestartSettings::default()
        },
        first_start: FirstStart::MayRetry,
    }
}

struct Play {
    stage: Rc<Stage>,
    actor: Addr<ChildActor>,
    witness: Addr<Witness>,
}

impl Play {
    /// Starts an actor under a paused clock, on a stage where children serve from the start.
    fn new(settings: ChildSettings) -> Self {
        pause();
        let stage = Rc::new(Stage::default());
        stage.serves.set(true);
        let probed = Rc::clone(&stage);
        let probe: Probe = Box::new(move || {
            let serves = probed.serves.get();
            Box::pin(async move {
                if serves {
                    Answer::Ready
                } else {
                    Answer::NotYet("no".into())
                }
            })
        });
        let witness = Witness::default().start();
        let observers = vec![witness.clone().recipient()];
        let launch = Rc::new(Entrance(Rc::clone(&stage)));
        let actor = ChildActor::new("child", launch, probe, settings, observers).start();
        Self {
            stage,
            actor,
            witness,
        }
    }

    async fn start(&self) {
        self.actor.send(Start).await.unwrap();
        self.after(1).await;
    }

    /// Lets time pass and looks.
    async fn after(&self, millis: u64) -> ChildStatus {
        sleep(Duration::from_millis(millis)).await;
        self.actor.send(Observe).await.unwrap()
    }

    async fn phases(&self) -> Vec<(Phase, Option<ExitKind>)> {
        self.witness.send(Phases).await.unwrap()
    }
}

#[actix::test]
async fn a_child_becomes_ready_and_is_stopped() {
    let play = Play::new(settings());
    play.start().await;
    let status = play.after(9_999).await;
    let expected = ChildStatus {
        name: "child".into(),
        phase: Phase::Ready,
        pid: Some(100),
        uptime: status.uptime,
        restarts: 0,
        was_ready: true,
        last_error: None,
        last_lines: vec!["line of 100".into()],
    };
    assert_eq!(status, expected);
    assert!(status.uptime.unwrap() >= Duration::from_secs(10));
    play.actor.send(Stop).await.unwrap();
    let status = play.after(0).await;
    assert_eq!(
        (status.phase, status.pid, status.last_error),
        (Phase::Stopped, None, None)
    );
    let phases = [
        Phase::Starting,
        Phase::Ready,
        Phase::Stopping,
        Phase::Stopped,
    ];
    assert_eq!(play.phases().await, phases.map(|phase| (phase, None)));
    assert_eq!(*play.stage.calls.borrow(), ["stop"]);
}

#[actix::test]
async fn p1_exit_status_0_is_a_failure_and_the_child_comes_back() {
    let play = Play::new(settings());
    play.start().await;
    play.stage.newest().end(ExitKind::Code(0));
    let status = play.after(1).await;
    assert_eq!((status.phase, status.pid), (Phase::Backoff, None));
    assert_eq!(
        status.last_error.unwrap(),
        "it ended while it was serving: exit status 0"
    );
    assert_eq!(status.last_lines, ["line of 100"]);
    assert_eq!(play.after(990).await.phase, Phase::Backoff);
    let status = play.after(20).await;
    assert_eq!(
        (status.phase, status.pid, status.restarts),
        (Phase::Ready, Some(101), 1)
    );
    let exits = play.phases().await;
    assert_eq!(exits[2], (Phase::Backoff, Some(ExitKind::Code(0))));
}

#[actix::test]
async fn p1_the_fifth_failure_is_the_last_until_started_again() {
    let play = Play::new(settings());
    play.start().await;
    for backoff in [1, 2, 4, 8] {
        play.stage.newest().end(ExitKind::Signal(9));
        assert_eq!(
            play.after(backoff * 1000 - 5).await.phase,
            Phase::Backoff,
            "{backoff}"
        );
        assert_eq!(play.after(20).await.phase, Phase::Ready, "{backoff}");
    }
    play.stage.newest().end(ExitKind::Signal(9));
    assert_eq!(play.after(1).await.phase, Phase::Failed);
    assert_eq!(play.after(600_000).await.restarts, 4);
    play.start().await;
    assert_eq!(play.after(1).await.phase, Phase::Ready);
}

#[actix::test]
async fn stop_policy_fails_at_the_first_exit_and_tells_it() {
    let mut settings = settings();
    settings.restart.on_exit = OnExit::Stop;
    let play = Play::new(settings);
    play.start().await;
    play.stage.newest().end(ExitKind::Code(3));
    assert_eq!(play.after(1).await.phase, Phase::Failed);
    assert_eq!(
        play.phases().await[2],
        (Phase::Failed, Some(ExitKind::Code(3)))
    );
}

#[actix::test]
async fn p6_a_hung_child_is_killed_after_three_probes_and_restarted() {
    let play = Play::new(settings());
    play.start().await;
    play.after(12_000).await;
    play.stage.serves.set(false);
    assert_eq!(play.after(9_000).await.phase, Phase::Ready);
    play.stage.serves.set(true);
    assert_eq!(play.after(60_000).await.restarts, 0, "two misses are none");
    play.stage.serves.set(false);
    let status = play.after(16_000).await;
    assert_eq!(
        status.last_error.unwrap(),
        "it runs but has not answered 3 probes in a row"
    );
    assert_eq!(*play.stage.calls.borrow(), ["kill"]);
    play.stage.serves.set(true);
    let status = play.after(5_000).await;
    assert_eq!((status.phase, status.restarts), (Phase::Ready, 1));
}

#[actix::test]
async fn a_child_that_loads_for_ever_is_killed_when_its_time_is_up() {
    let play = Play::new(settings());
    play.stage.serves.set(false);
    play.start().await;
    assert_eq!(play.after(19_900).await.phase, Phase::Starting);
    let status = play.after(200).await;
    assert_eq!((status.phase, status.was_ready), (Phase::Backoff, false));
    assert_eq!(status.last_error.unwrap(), "not ready after 20 s: no");
    assert_eq!(*play.stage.calls.borrow(), ["kill"]);
}

#[actix::test]
async fn a_first_start_that_must_succeed_is_not_repeated_but_later_ones_are() {
    let play = Play::new(ChildSettings {
        first_start: FirstStart::MustSucceed,
        ..settings()
    });
    play.stage.serves.set(false);
    play.start().await;
    play.stage.newest().end(ExitKind::Code(1));
    let status = play.after(1).await;
    assert_eq!(status.phase, Phase::Failed);
    assert_eq!(
        status.last_error.unwrap(),
        "it ended before it was ready: exit status 1"
    );
    play.stage.serves.set(true);
    play.start().await;
    play.stage.newest().end(ExitKind::Code(1));
    assert_eq!(play.after(1).await.phase, Phase::Backoff);
}

#[actix::test]
async fn a_program_that_cannot_be_started_is_tried_again() {
    let play = Play::new(settings());
    let error = SpawnError::NotFound {
        name: "child".into(),
        program: "no-such-program".into(),
    };
    play.stage.errors.borrow_mut().push_back(error.clone());
    play.start().await;
    let status = play.after(1).await;
    assert_eq!(
        (status.phase, status.last_error),
        (Phase::Backoff, Some(error.to_string()))
    );
    assert_eq!(play.after(1_000).await.phase, Phase::Ready);
}

#[actix::test]
async fn stop_ends_a_load_and_a_backoff() {
    let play = Play::new(settings());
    play.stage.serves.set(false);
    play.start().await;
    play.actor.send(Stop).await.unwrap();
    assert_eq!(play.after(0).await.phase, Phase::Stopped);
    play.start().await;
    play.stage.newest().end(ExitKind::Signal(11));
    assert_eq!(play.after(1).await.phase, Phase::Backoff);
    play.actor.send(Stop).await.unwrap();
    assert_eq!(play.after(60_000).await.phase, Phase::Stopped);
    assert_eq!(play.stage.started.borrow().len(), 2);
}

#[actix::test]
async fn a_deaf_child_is_killed_soon_while_it_loads() {
    let play = Play::new(settings());
    play.stage.serves.set(false);
    play.stage.deaf.set(true);
    play.start().await;
    let begin = tokio::time::Instant::now();
    play.actor.send(Stop).await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 2);
    assert_eq!(*play.stage.calls.borrow(), ["stop", "kill"]);
    assert_eq!(play.after(0).await.phase, Phase::Stopped);
}
