//! The life of one built-in server, written as one flow: connect, list, watch, and again.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use vllm_responses_protocol::mcp::catalogue::{Catalogue, ToolEntry};
use vllm_responses_protocol::mcp::pins::{OnChange, Pins};
use vllm_responses_protocol::mcp::wire::ServerPhase;

use crate::mcp::session::{Deadlines, Endpoint, Failure, Phase, Reason, Session};

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// A session that held this long makes the next delay the first one again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How often it is looked whether the connection is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a silent server is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Notices of change within this time are one change.
const SETTLE: Duration = Duration::from_secs(1);
/// A list is read again after this long even without a notice: not every server sends them.
const RELIST_EVERY: Duration = Duration::from_secs(300);
/// And not sooner than this, whatever the server says of how long its list holds.
const RELIST_AT_MOST_EVERY: Duration = Duration::from_secs(30);
/// A failure that stays the same is told again after this long.
const TOLD_AGAIN: Duration = Duration::from_secs(900);

/// What is known of a server now.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) phase: ServerPhase,
    pub(super) session: Option<Arc<Session>>,
    /// By name; empty while it is not available.
    pub(super) tools: Vec<Arc<ToolEntry>>,
    /// What was left out of the list, and what has changed in it.
    pub(super) notices: Vec<String>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            phase: ServerPhase::Starting,
            session: None,
            tools: Vec::new(),
            notices: Vec::new(),
        }
    }
}

/// One server's flow.
pub(super) struct Keeper {
    pub(super) label: Box<str>,
    endpoint: Endpoint,
    deadlines: Deadlines,
    pub(super) live: Rc<watch::Sender<Live>>,
    pub(super) suspect: Rc<Notify>,
    revision: watch::Sender<u64>,
    pins: Pins,
    on_change: OnChange,
}

/// The delay after so many failures in a row.
fn delay_after(failures: u32) -> Duration {
    let doubled = FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_DELAY)
}

/// The failure, with the settings that help where more time would.
fn told_of(failure: &Failure) -> String {
    let is_start = failure.phase != Phase::Call;
    if is_start && matches!(failure.reason, Reason::TimedOut(_)) {
        return format!(
            "{failure}: give it longer with `startup_timeout_sec` of the server, or for all with \
             `VR_MCP_STDIO_STARTUP_TIMEOUT_SEC` (programs) and `VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC` (URLs)"
        );
    }
    failure.to_string()
}

impl Keeper {
    pub(super) fn new(
        label: &str,
        endpoint: Endpoint,
        (startup, call, on_change): (Duration, Duration, OnChange),
        revision: watch::Sender<u64>,
    ) -> Self {
        Self {
            label: label.into(),
            endpoint,
            deadlines: Deadlines {
                connect: startup,
                initialize: startup,
                list: startup,
                call,
            },
            live: Rc::new(watch::Sender::new(Live::default())),
            suspect: Rc::new(Notify::new()),
            revision,
            pins: Pins::default(),
            on_change,
        }
    }

    /// Runs for as long as the actor lives.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        let mut told: Option<(Box<str>, Instant)> = None;
        loop {
            let begin = Instant::now();
            let failure = self.one_session().await;
            if begin.elapsed() >= HEALTHY_AFTER {
                (failures, told) = (0, None);
            }
            failures += 1;
            let delay = delay_after(failures);
            let words: Box<str> = told_of(&failure).into();
            let is_news = told
                .as_ref()
                .is_none_or(|(told, when)| *told != words || when.elapsed() >= TOLD_AGAIN);
            if is_news {
                log::warn!(
                    "{words}; it is tried again, in {} s now and in up to {} s later",
                    delay.as_secs(),
                    LONGEST_DELAY.as_secs()
                );
                told = Some((words.clone(), Instant::now()));
            }
            self.publish(|live| {
                *live = Live {
                    phase: ServerPhase::Unavailable { reason: words },
                    ..Live::default()
                };
            });
            sleep(delay).await;
        }
    }

    /// From connecting to the end of the session; returns why it ended.
    async fn one_session(&mut self) -> Failure {
        let opened = Session::open(&self.label, &self.endpoint, self.deadlines).await;
        let session = match opened {
            Ok(session) => Arc::new(session),
            Err(failure) => return failure,
        };
        let mut changes = session.changes();
        let failure = loop {
            changes.mark_unchanged();
            let holds;
            match session.list().await {
                Ok(list) => {
                    holds = list.holds.unwrap_or(RELIST_EVERY);
                    self.take(&session, list.tools);
                }
                Err(failure) => break failure,
            }
            let holds = holds.clamp(RELIST_AT_MOST_EVERY, RELIST_EVERY);
            if let Err(failure) = self.watch(&session, &mut changes, holds).await {
                break failure;
            }
        };
        self.live.send_modify(|live| live.session = None);
        session.close().await;
        failure
    }

    /// Returns when the list is to be read again, or why the session is of no more use.
    async fn watch(
        &self,
        session: &Session,
        changes: &mut watch::Receiver<u64>,
        holds: Duration,
    ) -> Result<(), Failure> {
        let listed = Instant::now();
        let mut pinged = Instant::now();
        loop {
            let ask = tokio::select! {
                Ok(()) = changes.changed() => {
                    sleep(SETTLE).await;
                    return Ok(());
                }
                () = self.suspect.notified() => true,
                () = sleep(LOOK_EVERY) => pinged.elapsed() >= PING_EVERY,
            };
            if session.is_closed() || (ask && !session.is_alive().await) {
                return Err(session.lost().await);
            }
            if ask {
                pinged = Instant::now();
            }
            if listed.elapsed() >= holds {
                return Ok(());
            }
        }
    }

    /// Makes a fresh list known.
    fn take(&mut self, session: &Arc<Session>, catalogue: Catalogue) {
        let (tools, changes) = self.pins.keep(&self.label, catalogue.tools, self.on_change);
        let mut notices = catalogue.notices;
        notices.extend(changes);
        for notice in &notices {
            log::warn!("{notice}");
        }
        let count = tools.len();
        if self.live.borrow().phase != ServerPhase::Available {
            log::info!(
                "MCP server `{}` is available with {count} tools",
                self.label
            );
        }
        let session = Arc::clone(session);
        self.publish(|live| {
            *live = Live {
                phase: ServerPhase::Available,
                session: Some(session),
                tools,
                notices,
            };
        });
    }

    fn publish(&self, change: impl FnOnce(&mut Live)) {
        self.live.send_modify(change);
        self.revision.send_modify(|revision| *revision += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_half_a_minute() {
        let seconds: Vec<_> = (1..9)
            .map(|failures| delay_after(failures).as_secs())
            .collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(delay_after(u32::MAX), LONGEST_DELAY);
    }
}
