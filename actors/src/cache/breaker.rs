//! When Redis is asked and when it is left alone: a circuit breaker, pure.
//!
//! ```text
//! Closed ──5 failures in a row──▶ Open ──1 s──▶ Probing ──success──▶ Closed
//!                                  ▲──────failure──┘
//! ```

use std::time::{Duration, Instant};

/// Failures in a row that open the breaker (fault D8).
const FAILURES: u32 = 5;
/// How far apart an open breaker lets one operation through (fault D8).
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Breaker(State);

#[derive(Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { since: Instant },
    Probing { since: Instant },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// What a report changed, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened,
    Closed,
}

impl Breaker {
    /// Whether an operation may begin now. One that may must be reported.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match self.0 {
            State::Closed { .. } => true,
            // A probe that was never reported must not keep the breaker open for ever.
            State::Open { since } | State::Probing { since } => {
                let due = now.duration_since(since) >= PAUSE;
                if due {
                    self.0 = State::Probing { since: now };
                }
                due
            }
        }
    }

    /// An operation was answered in time.
    pub(super) fn succeeded(&mut self) -> Change {
        match self.0 {
            State::Closed { .. } => {
                self.0 = State::default();
                Change::None
            }
            State::Probing { .. } => {
                self.0 = State::default();
                Change::Closed
            }
            // One that began before the breaker opened proves nothing about now.
            State::Open { .. } => Change::None,
        }
    }

    /// An operation was not answered, or too late.
    pub(super) fn failed(&mut self, now: Instant) -> Change {
        match self.0 {
            State::Closed { failures } if failures + 1 < FAILURES => {
                self.0 = State::Closed {
                    failures: failures + 1,
                };
                Change::None
            }
            State::Closed { .. } => {
                self.0 = State::Open { since: now };
                Change::Opened
            }
            State::Probing { .. } => {
                self.0 = State::Open { since: now };
                Change::None
            }
            State::Open { .. } => Change::None,
        }
    }

    /// The server said that it will not serve: more of the same is no use.
    pub(super) fn refused(&mut self, now: Instant) -> Change {
        let was_closed = self.is_closed();
        self.0 = State::Open { since: now };
        if was_closed {
            Change::Opened
        } else {
            Change::None
        }
    }

    /// Whether operations are let through freely.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.0, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES {
            assert_eq!(breaker.failed(now), Change::None);
        }
        assert!(breaker.admits(now));
        assert_eq!(breaker.failed(now), Change::Opened);
        breaker
    }

    #[test]
    fn d8_opens_after_five_failures_in_a_row() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            for _ in 1..FAILURES {
                breaker.failed(now);
            }
            breaker.succeeded();
            assert!(breaker.admits(now), "a success forgets what came before");
        }
        assert!(!opened(now).admits(now));
    }

    #[test]
    fn a_refusal_opens_at_once() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.refused(now), Change::Opened);
        assert!(!breaker.is_closed() && !breaker.admits(now));
        assert!(breaker.admits(now + PAUSE));
        assert_eq!(breaker.refused(now + PAUSE), Change::None);
        assert!(!breaker.admits(now + PAUSE));
    }

    #[test]
    fn d8_probes_once_a_second() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(!breaker.admits(now + PAUSE / 2));
        assert!(breaker.admits(now + PAUSE));
        assert!(!breaker.admits(now + PAUSE), "one probe, not two");
        assert_eq!(breaker.failed(now + PAUSE), Change::None);
        assert!(!breaker.admits(now + PAUSE * 3 / 2));
        assert!(breaker.admits(now + PAUSE * 2));
        assert_eq!(breaker.succeeded(), Change::Closed);
        assert!(breaker.is_closed() && breaker.admits(now + PAUSE * 2));
    }

    #[test]
    fn late_reports_change_nothing_while_open() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.succeeded(), Change::None);
        assert_eq!(breaker.failed(now + PAUSE / 2), Change::None);
        assert!(!breaker.admits(now + PAUSE * 9 / 10));
        assert!(breaker.admits(now + PAUSE));
    }

    #[test]
    fn a_probe_that_is_never_reported_is_followed_by_another() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(breaker.admits(now + PAUSE));
        assert!(breaker.admits(now + PAUSE * 2));
    }
}
