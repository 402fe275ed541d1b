//! How the gateway stops: one sequence, each step with a deadline and a log line.
//!
//! First signal: readiness goes false for `drain_delay` while requests are still taken; then new
//! ones get 503 and running ones may finish within `shutdown_grace`; then the rest are ended
//! truthfully. Second signal: everything is ended at once, still with terminal events.

use std::time::Duration;

use actix::Addr;
use actix_web::dev::Server;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use vllm_responses_actors::ask::{ask, ask_actor};
use vllm_responses_actors::process;
use vllm_responses_actors::process::actor::ChildActor;
use vllm_responses_actors::process::messages::Stop;
use vllm_responses_actors::store::messages::Close;
use vllm_responses_actors::supervisor::SupervisorActor;
use vllm_responses_actors::supervisor::messages::{Drain, EndNow, Leave, Observe};
use vllm_responses_actors::terminal;

use crate::config::Lifecycle;
use crate::http::state::StoreDoors;
use crate::reload::Reload;

/// The supervisor answers from memory.
const TOLD: Duration = Duration::from_secs(1);
/// Beyond the grace: turns write their last events, the store commits them.
const BEYOND_GRACE: Duration = Duration::from_secs(10);

/// A child's grace, its kill and the end of what it started.
const CHILD_LIMIT: Duration = Duration::from_secs(20);

/// A moment where nothing is in the way; migrations of a large database, and a server that is down, take
/// longer, and are made again at the next start.
const OPEN_LIMIT: Duration = Duration::from_secs(3);

/// What is queued is written, and SQLite's log moved into its file.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How the gateway ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything ended in good order.
    Clean,
    /// A second signal cut it short; its exit code.
    Cut(u8),
}

/// The signals that stop the gateway, or a service of it.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Whether the gateway ends with the terminal that it was started at.
    terminal: Terminal,
    /// Run at SIGHUP; a service has nothing that it could read again.
    reload: Option<Reload>,
}

/// The terminal that the gateway was started at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Terminal {
    /// There was none, or the gateway has outlived it: SIGHUP is an operator's.
    None,
    /// It was there at the last look.
    Here,
    /// It was gone at the last look; its SIGHUP may be on its way.
    Missed,
    /// It was closed, and the gateway ends. Kernel and shell may both have sent their SIGHUP.
    Closed,
}

impl Terminal {
    fn at_start() -> Self {
        if terminal::is_controlled() && !process::outlives_terminal() {
            Self::Here
        } else {
            Self::None
        }
    }

    /// Whether a SIGHUP now ends the gateway.
    fn hung_up(&mut self, seen: Seen) -> Hangup {
        match self {
            Self::None => Hangup::Reload,
            Self::Here | Self::Missed if seen == Seen::There => Hangup::Reload,
            Self::Here | Self::Missed => {
                *self = Self::Closed;
                Hangup::End
            }
            Self::Closed => Hangup::Nothing,
        }
    }

    /// A look without a signal. Whoever finds it gone twice was left running on purpose (`disown`).
    fn look(&mut self, seen: Seen) {
        *self = match self {
            Self::Here | Self::Missed if seen == Seen::There => Self::Here,
            Self::Here => Self::Missed,
            Self::Missed => Self::None,
            Self::None | Self::Closed => *self,
        };
    }
}

/// Whether the terminal is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    There,
    Gone,
}

impl Seen {
    fn now() -> Self {
        if terminal::is_controlled() {
            Self::There
        } else {
            Self::Gone
        }
    }
}

/// What a SIGHUP asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hangup {
    Reload,
    End,
    Nothing,
}

/// How often it is looked whether the terminal is still there.
const LOOK: Duration = Duration::from_secs(2);

/// Exit code after a signal: 128 and its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caught(pub(crate) u8);

impl Signals {
    pub(crate) fn new(reload: Reload) -> Result<Self, String> {
        Self::with(Some(reload))
    }

    /// Of a service. Operators send SIGHUP to all that runs, for the gateway to read its files again.
    pub(crate) fn of_service() -> Result<Self, String> {
        Self::with(None)
    }

    fn with(reload: Option<Reload>) -> Result<Self, String> {
        let open =
            |kind| signal(kind).map_err(|error| format!("cannot listen for signals ({error})"));
        Ok(Self {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            hangup: open(SignalKind::hangup())?,
            terminal: Terminal::at_start(),
            reload,
        })
    }

    fn read_again(&self) {
        match &self.reload {
            Some(reload) => reload.run(),
            None => log::info!("SIGHUP: nothing is read again here; a restart does it"),
        }
    }

    /// The next one that stops the gateway. SIGHUP reads keys and logging again, unless it is the terminal
    /// that was closed: nobody sees the gateway any more, and its model server holds a GPU.
    pub(crate) async fn next(&mut self) -> Caught {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Caught(143),
                _ = self.interrupt.recv() => return Caught(130),
                _ = self.hangup.recv() => {
                    match self.terminal.hung_up(Seen::now()) {
                        Hangup::End => return Caught(129),
                        Hangup::Reload => self.read_again(),
                        Hangup::Nothing => {}
                    }
                }
                () = tokio::time::sleep(LOOK), if self.terminal != Terminal::None => {
                    self.terminal.look(Seen::now());
                }
            }
        }
    }
}

/// Serves HTTP as long as `living` takes, and until the last connection is closed.
pub(crate) async fn serve_while<T>(
    server: Server,
    living: impl Future<Output = T>,
) -> Result<T, String> {
    let handle = server.handle();
    let (gone, server_gone) = oneshot::channel::<()>();
    let serving = async move {
        let ended = server.await;
        drop(gone);
        ended
    };
    let living = async {
        let outcome = tokio::select! {
            outcome = living => Some(outcome),
            _ = server_gone => None,
        };
        handle.stop(true).await;
        outcome
    };
    // The server closes its connections only while it is polled: it ends beside its stop.
    let (outcome, ended) = tokio::join!(living, serving);
    ended.map_err(|error| format!("the HTTP server failed: {error}"))?;
    outcome.ok_or_else(|| "the HTTP server ended by itself".to_owned())
}

/// Waits for a signal, then for the running responses.
pub(crate) async fn wait_and_drain(
    signals: &mut Signals,
    lifecycle: Lifecycle,
    supervisor: &Addr<SupervisorActor>,
) -> Outcome {
    let _first: Caught = signals.next().await;
    let seen = ask_actor(supervisor, Observe, TOLD).await;
    let running = seen.map_or(0, |seen| seen.in_flight);
    if running == 0 {
        log::info!("stopping; no response is running");
    } else {
        log::info!(
            "stopping: running responses ({running}) have {:?} to finish; a second signal (Ctrl-C) ends \
             them now",
            lifecycle.shutdown_grace
        );
    }
    let mut stop = std::pin::pin!(drain(lifecycle, supervisor));
    tokio::select! {
        () = &mut stop => {
            log::info!("all responses have ended");
            Outcome::Clean
        }
        Caught(code) = signals.next() => {
            log::warn!("second signal: ending all responses now");
            told(ask_actor(supervisor, EndNow, TOLD).await);
            stop.await;
            Outcome::Cut(code)
        }
    }
}

/// Stops a child with everything it started; a second signal does not wait for its grace.
pub(crate) async fn stop_child(child: &Addr<ChildActor>, signals: &mut Signals) -> Outcome {
    log::info!("stopping the child processes");
    tokio::select! {
        stopped = ask_actor(child, Stop, CHILD_LIMIT) => {
            told(stopped);
            Outcome::Clean
        }
        Caught(code) = signals.next() => {
            log::warn!("second signal: the child processes are killed");
            Outcome::Cut(code)
        }
    }
}

async fn drain(lifecycle: Lifecycle, supervisor: &Addr<SupervisorActor>) {
    let Lifecycle {
        drain_delay,
        shutdown_grace: grace,
    } = lifecycle;
    if !drain_delay.is_zero() {
        told(ask_actor(supervisor, Leave, TOLD).await);
        tokio::time::sleep(drain_delay).await;
    }
    told(
        ask_actor(
            supervisor,
            Drain { grace },
            grace.saturating_add(BEYOND_GRACE),
        )
        .await,
    );
}

fn told(answer: Result<(), vllm_responses_actors::ask::AskError>) {
    if let Err(error) = answer {
        log::error!("the supervisor did not take part in the stop: {error}");
    }
}

/// A store that is being opened can be closed only once it is open, and one that is not closed leaves files
/// beside the database. `opening` is what opens it, among others.
pub(crate) async fn let_store_open<T>(
    opening: impl Future<Output = T>,
    mut store: watch::Receiver<Option<StoreDoors>>,
    signals: &mut Signals,
) {
    tokio::select! {
        // What failed, or what is behind the store, is of no use any more.
        _ = opening => {}
        _ = store.wait_for(Option::is_some) => {}
        Caught(_) = signals.next() => {}
        () = tokio::time::sleep(OPEN_LIMIT) => {}
    }
}

/// Leaves the database as it may be copied.
pub(crate) async fn close_store(store: &watch::Receiver<Option<StoreDoors>>) {
    let Some(close) = store.borrow().as_ref().map(|doors| doors.close.clone()) else {
        return;
    };
    match ask(&close, Close, CLOSE_LIMIT).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::warn!("the store did not end in good order: {error}"),
        Err(error) => log::warn!("the store did not end in good order: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_terminal_ends_the_gateway_once() {
        let mut terminal = Terminal::Here;
        assert_eq!(
            terminal.hung_up(Seen::There),
            Hangup::Reload,
            "an operator's"
        );
        assert_eq!(terminal.hung_up(Seen::Gone), Hangup::End);
        assert_eq!(
            terminal.hung_up(Seen::Gone),
            Hangup::Nothing,
            "the shell's, after the kernel's"
        );
        terminal.look(Seen::Gone);
        assert_eq!(terminal.hung_up(Seen::Gone), Hangup::Nothing);
    }

    #[test]
    fn who_has_outlived_its_terminal_reads_again_at_sighup() {
        let mut terminal = Terminal::Here;
        terminal.look(Seen::There);
        terminal.look(Seen::Gone);
        assert_eq!(terminal, Terminal::Missed, "its SIGHUP may be on its way");
        terminal.look(Seen::Gone);
        assert_eq!(terminal.hung_up(Seen::Gone), Hangup::Reload);
        let mut none = Terminal::None;
        none.look(Seen::Gone);
        assert_eq!(none.hung_up(Seen::Gone), Hangup::Reload);
    }
}
