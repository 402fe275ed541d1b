//! When to ask whether a component is ready, and when silence means that it hangs.
//!
//! The schedule and the counter are pure; [`wait_ready`] asks a closure by them, so the same code
//! waits for a spawned child and for an external server.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::time::{Instant, sleep, timeout};

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It serves.
    Ready,
    /// Not yet, or not now; the reason, for people.
    NotYet(String),
    /// It never will, e.g. because it refuses our key; the reason with its remedy.
    Refused(String),
}

/// Asks once. It should give up by itself in the time it is given; it is cut off then anyway.
pub type Probe = Box<dyn Fn() -> LocalBoxFuture<'static, Answer>>;

/// How start-up is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadySettings {
    /// Pause between two probes.
    pub pause: Duration,
    /// Longest time of one probe.
    pub probe_limit: Duration,
    /// Longest time in all.
    pub limit: Duration,
    /// Time between two notices.
    pub notice_every: Duration,
}

impl Default for ReadySettings {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(250),
            probe_limit: Duration::from_secs(2),
            limit: Duration::from_secs(1800),
            notice_every: Duration::from_secs(5),
        }
    }
}

/// Why waiting ended without success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Time is up.
    #[error("not ready after {} s: {reason}", .limit.as_secs())]
    TimedOut {
        /// How long it was waited.
        limit: Duration,
        /// What the last probe found.
        reason: String,
    },
    /// It will never be.
    #[error("{0}")]
    Refused(String),
}

/// Probes until the answer is final, calling `notice` with the elapsed time and the latest reason
/// every [`ReadySettings::notice_every`].
pub async fn wait_ready(
    probe: &Probe,
    settings: ReadySettings,
    mut notice: impl FnMut(Duration, &str),
) -> Result<(), NotReady> {
    let start = Instant::now();
    let mut next_notice = settings.notice_every;
    loop {
        let left = settings.limit.saturating_sub(start.elapsed());
        let reason = match ask(probe, settings.probe_limit.min(left)).await {
            Answer::Ready => return Ok(()),
            Answer::Refused(reason) => return Err(NotReady::Refused(reason)),
            Answer::NotYet(reason) => reason,
        };
        let elapsed = start.elapsed();
        if elapsed >= settings.limit {
            return Err(NotReady::TimedOut {
                limit: settings.limit,
                reason,
            });
        }
        if elapsed >= next_notice {
            notice(elapsed, &reason);
            next_notice = following_notice(next_notice, elapsed, settings.notice_every);
        }
        sleep(settings.pause.min(settings.limit.saturating_sub(elapsed))).await;
    }
}

/// The next multiple of `every` after `elapsed`: a slow probe skips notices, it does not queue them.
fn following_notice(mut next: Duration, elapsed: Duration, every: Duration) -> Duration {
    // A pause of zero would never get past `elapsed`.
    let every = every.max(Duration::from_millis(1));
    while next <= elapsed {
        next += every;
    }
    next
}

/// Asks once, at most for `limit`.
pub async fn ask(probe: &Probe, limit: Duration) -> Answer {
    timeout(limit, probe())
        .await
        .unwrap_or_else(|_| Answer::NotYet(format!("no answer within {} ms", limit.as_millis())))
}

/// How a ready component is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Time from one probe's start to the next, and the longest time of one.
    pub every: Duration,
    /// So many misses in a row mean that it hangs.
    pub misses: u32,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5),
            misses: 3,
        }
    }
}

/// Counts missed probes in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeCounter {
    allowed: u32,
    missed: u32,
}

impl ProbeCounter {
    /// A counter that calls a component hung at the `allowed`th miss in a row.
    pub fn new(allowed: u32) -> Self {
        Self { allowed, missed: 0 }
    }

    /// Notes one answer. True when the component hangs.
    pub fn note(&mut self, answer: &Answer) -> bool {
        match answer {
            Answer::Ready => self.missed = 0,
            Answer::NotYet(_) | Answer::Refused(_) => self.missed += 1,
        }
        self.missed >= self.allowed
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    fn not_yet() -> Answer {
        Answer::NotYet("loading".into())
    }

    /// Answers by the number of the call, counted from 0.
    fn scripted(answer: impl Fn(u32) -> Answer + 'static) -> (Probe, Rc<Cell<u32>>) {
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let probe: Probe = Box::new(move || {
            let answer = answer(count.replace(count.get() + 1));
            Box::pin(async move { answer })
        });
        (probe, calls)
    }

    #[tokio::test(start_paused = true)]
    async fn polls_every_pause_and_tells_every_interval() {
        let (probe, calls) = scripted(|call| if call == 60 { Answer::Ready } else { not_yet() });
        let mut notices = Vec::new();
        let result = wait_ready(&probe, ReadySettings::default(), |at, reason| {
            notices.push((at.as_secs(), reason.to_owned()));
        });
        assert_eq!(result.await, Ok(()));
        assert_eq!(calls.get(), 61);
        assert_eq!(notices, [(5, "loading".into()), (10, "loading".into())]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_is_cut_off_and_time_runs_out() {
        let probe: Probe = Box::new(|| Box::pin(std::future::pending()));
        let settings = ReadySettings {
            limit: Duration::from_secs(5),
            ..Default::default()
        };
        let start = Instant::now();
        let error = wait_ready(&probe, settings, |_, _| ()).await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        assert_eq!(
            error.to_string(),
            "not ready after 5 s: no answer within 500 ms"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_ends_the_wait_at_once() {
        let (probe, calls) = scripted(|_| Answer::Refused("set the key".into()));
        let error = wait_ready(&probe, ReadySettings::default(), |_, _| ())
            .await
            .unwrap_err();
        assert_eq!(error, NotReady::Refused("set the key".into()));
        assert_eq!(calls.get(), 1);
    }

    #[test]
    fn p6_three_misses_in_a_row_are_a_hang() {
        let mut counter = ProbeCounter::new(3);
        let script = [
            (not_yet(), false),
            (not_yet(), false),
            (Answer::Ready, false),
            (not_yet(), false),
            (Answer::Refused(String::new()), false),
            (not_yet(), true),
            (not_yet(), true),
            (Answer::Ready, false),
        ];
        for (step, (answer, hangs)) in script.into_iter().enumerate() {
            assert_eq!(counter.note(&answer), hangs, "step {step}");
        }
    }
}
