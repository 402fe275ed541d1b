//! When a failed child is started again, and when it is given up. Pure: time and chance come in.

use std::collections::VecDeque;
use std::time::Duration;

/// What a child's end means for it (`--on-vllm-exit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// Start it again, with back-off.
    Restart,
    /// Give it up at once; the gateway then stops too.
    Stop,
}

/// The numbers of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartSettings {
    /// Whether to restart at all.
    pub on_exit: OnExit,
    /// The first delay; it doubles with each failure.
    pub first_delay: Duration,
    /// No delay is longer, jitter apart.
    pub longest_delay: Duration,
    /// The delay varies by this share either way, in percent, so that replicas do not move in step.
    pub jitter_percent: u32,
    /// A child that was ready this long starts again from `first_delay`.
    pub healthy_after: Duration,
    /// This many failures within `window` are the last.
    pub most_failures: usize,
    /// See `most_failures`.
    pub window: Duration,
}

impl Default for RestartSettings {
    fn default() -> Self {
        Self {
            on_exit: OnExit::Restart,
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(30),
            jitter_percent: 20,
            healthy_after: Duration::from_secs(60),
            most_failures: 5,
            window: Duration::from_secs(300),
        }
    }
}

/// One failure of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When, on any clock that does not go back.
    pub at: Duration,
    /// How long it had been ready; zero when it never was.
    pub ready_for: Duration,
    /// A fresh random number for the jitter.
    pub random: u32,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after this time.
    RestartAfter(Duration),
    /// Leave it.
    GiveUp,
}

/// The memory of one child's failures.
#[derive(Clone, Debug)]
pub struct RestartPolicy {
    settings: RestartSettings,
    /// Failures since the last healthy time.
    in_a_row: u32,
    /// Times of failures within the window, oldest first, at most `most_failures`.
    recent: VecDeque<Duration>,
}

impl RestartPolicy {
    /// A policy without a past.
    pub fn new(settings: RestartSettings) -> Self {
        Self {
            settings,
            in_a_row: 0,
            recent: VecDeque::new(),
        }
    }

    /// Notes a failure and decides. Health resets the delay, never the count within the window: a
    /// child that fails once a minute is as useless as one that fails at once.
    pub fn failed(&mut self, failure: Failure) -> Verdict {
        if self.settings.on_exit == OnExit::Stop {
            return Verdict::GiveUp;
        }
        if failure.ready_for >= self.settings.healthy_after {
            self.in_a_row = 0;
        }
        self.recent.push_back(failure.at);
        while let Some(&oldest) = self.recent.front()
            && failure.at.saturating_sub(oldest) >= self.settings.window
        {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.settings.most_failures {
            return Verdict::GiveUp;
        }
        let delay = self.delay(failure.random);
        self.in_a_row = self.in_a_row.saturating_add(1);
        Verdict::RestartAfter(delay)
    }

    fn delay(&self, random: u32) -> Duration {
        let factor = 2_u32.checked_pow(self.in_a_row).unwrap_or(u32::MAX);
        let plain = self.settings.first_delay.saturating_mul(factor);
        let plain = plain.min(self.settings.longest_delay);
        // From -jitter to +jitter, evenly, in millionths.
        let span = u64::from(self.settings.jitter_percent) * 20_000;
        let offset = span * u64::from(random) / u64::from(u32::MAX);
        let millionths = (1_000_000 + offset).saturating_sub(span / 2);
        let scaled = plain.as_micros().saturating_mul(u128::from(millionths)) / 1_000_000;
        Duration::from_micros(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No jitter: the middle of the random range.
    const MIDDLE: u32 = u32::MAX / 2 + 1;

    fn settings(most_failures: usize) -> RestartSettings {
        RestartSettings {
            most_failures,
            ..RestartSettings::default()
        }
    }

    fn failure(at: u64, ready_for: u64) -> Failure {
        Failure {
            at: Duration::from_secs(at),
            ready_for: Duration::from_secs(ready_for),
            random: MIDDLE,
        }
    }

    fn after(seconds: u64) -> Verdict {
        Verdict::RestartAfter(Duration::from_secs(seconds))
    }

    /// To whole milliseconds: the middle of an even range lies between two numbers.
    fn rounded(verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::RestartAfter(delay) => {
                let millis = (delay.as_micros() + 500) / 1000;
                Verdict::RestartAfter(Duration::from_millis(u64::try_from(millis).unwrap()))
            }
            Verdict::GiveUp => Verdict::GiveUp,
        }
    }

    #[test]
    fn p1_delays_double_up_to_the_longest() {
        let mut policy = RestartPolicy::new(settings(usize::MAX));
        for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
            assert_eq!(rounded(policy.failed(failure(0, 0))), after(seconds));
        }
        for _ in 0..100 {
            assert_eq!(rounded(policy.failed(failure(0, 59))), after(30));
        }
    }

    #[test]
    fn p1_health_resets_the_delay() {
        let mut policy = RestartPolicy::new(settings(usize::MAX));
        for seconds in [1, 2, 4] {
            assert_eq!(rounded(policy.failed(failure(0, 0))), after(seconds));
        }
        assert_eq!(rounded(policy.failed(failure(100, 59))), after(8));
        assert_eq!(rounded(policy.failed(failure(200, 60))), after(1));
        assert_eq!(rounded(policy.failed(failure(201, 0))), after(2));
    }

    #[test]
    fn p1_jitter_is_a_fifth_either_way() {
        for (random, millis) in [(0, 800), (MIDDLE, 1000), (u32::MAX, 1200)] {
            let mut policy = RestartPolicy::new(RestartSettings::default());
            let verdict = policy.failed(Failure {
                random,
                ..failure(0, 0)
            });
            let expected = Verdict::RestartAfter(Duration::from_millis(millis));
            assert_eq!(rounded(verdict), expected, "{random}");
        }
    }

    #[test]
    fn p1_five_failures_in_five_minutes_are_the_last() {
        let mut policy = RestartPolicy::new(RestartSettings::default());
        for at in [0, 10, 20, 298] {
            assert_ne!(policy.failed(failure(at, 0)), Verdict::GiveUp, "{at}");
        }
        assert_eq!(policy.failed(failure(299, 0)), Verdict::GiveUp);
        assert_eq!(
            policy.failed(failure(299, 0)),
            Verdict::GiveUp,
            "and it stays so"
        );
    }

    #[test]
    fn p1_failures_leave_the_window_one_by_one() {
        let mut policy = RestartPolicy::new(RestartSettings::default());
        for at in [0, 100, 200, 299, 300, 400, 500] {
            assert_ne!(policy.failed(failure(at, 0)), Verdict::GiveUp, "{at}");
        }
        // 299 to 550: the fifth within five minutes.
        assert_eq!(policy.failed(failure(550, 0)), Verdict::GiveUp);
    }

    #[test]
    fn health_does_not_empty_the_window() {
        let mut policy = RestartPolicy::new(RestartSettings::default());
        for at in [61, 123, 185, 247] {
            assert_eq!(rounded(policy.failed(failure(at, 60))), after(1), "{at}");
        }
        assert_eq!(policy.failed(failure(309, 60)), Verdict::GiveUp);
    }

    #[test]
    fn stop_means_no_restart() {
        let on_stop = RestartSettings {
            on_exit: OnExit::Stop,
            ..RestartSettings::default()
        };
        let mut policy = RestartPolicy::new(on_stop);
        assert_eq!(policy.failed(failure(0, 3600)), Verdict::GiveUp);
    }
}
