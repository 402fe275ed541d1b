//! How often a stream of events is opened again: not at the pace of the server, which may ask for
//! hundreds of times a second, but slower each time, and not for ever.

use std::time::Duration;

/// So many are opened when the server asks for it (`retry`), as MCP wants it: a call may be answered
/// through two streams.
const AS_ASKED: u32 = 2;
/// Least time between two after those.
const LEAST: Duration = Duration::from_secs(1);
/// Most.
const MOST: Duration = Duration::from_secs(30);
/// So many are opened at the least distance: servers that are polled through short streams.
const BRISK: u32 = 10;
/// So many short ones in a row are the end.
const END: u32 = 40;
/// A stream that held this long was no short one.
const LONG: Duration = Duration::from_secs(20);

/// The streams of one session so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    short: u32,
}

impl Pace {
    /// How long after the last one began the next may be opened; `None` when none may be any more.
    /// `age` is how long ago the last one began.
    pub(super) fn next(&mut self, age: Option<Duration>) -> Option<Duration> {
        let Some(age) = age else {
            return Some(Duration::ZERO);
        };
        if age >= LONG.max(self.delay()) {
            self.short = 0;
        }
        self.short += 1;
        (self.short < END).then(|| self.delay().saturating_sub(age))
    }

    fn delay(self) -> Duration {
        if self.short <= AS_ASKED {
            return Duration::ZERO;
        }
        let doublings = self.short.saturating_sub(BRISK).min(16);
        LEAST.saturating_mul(1 << doublings).min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens streams that end after `each`; gives how many and how long it took.
    fn run(each: Duration, until: Duration) -> (u32, Duration) {
        let mut pace = Pace::default();
        let (mut opened, mut now, mut age) = (0, Duration::ZERO, None);
        while now < until {
            let Some(wait) = pace.next(age) else { break };
            opened += 1;
            now += wait + each;
            age = Some(each);
        }
        (opened, now)
    }

    #[test]
    fn a_server_that_ends_its_streams_at_once_is_asked_ever_less_and_then_no_more() {
        let (opened, took) = run(Duration::ZERO, Duration::from_secs(3600));
        assert_eq!(opened, END);
        assert!(took > Duration::from_secs(600), "{took:?}");
        let (first_minute, _) = run(Duration::ZERO, Duration::from_secs(60));
        assert!(first_minute < 20, "{first_minute}");
    }

    #[test]
    fn a_proxy_that_ends_streams_each_minute_is_no_reason_to_stop() {
        let (opened, _) = run(Duration::from_secs(60), Duration::from_secs(86_400));
        assert!(opened > 1400, "{opened}");
    }
}
