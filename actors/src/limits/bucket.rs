//! A token bucket in which every unit comes back one window after it was spent. Pure.
//!
//! So no window, wherever it begins, sees more than the bucket holds, and a bucket that was left
//! alone can be emptied at once. (A bucket that is refilled steadily would let twice its size
//! through in its first window.)
//!
//! What is only known afterwards, as tokens are, may overdraw the bucket. A unit that is overdrawn
//! comes back one window after the unit it would have had to wait for, so a debt is paid off at the
//! rate of the limit, whatever caused it.
//!
//! Redis runs the same rules: `shared.lua` is this file in Lua, and a test compares the two.

use std::collections::VecDeque;
use std::time::Duration;

/// Parts of a window in which returns are gathered: a unit comes back up to one part late, so a
/// limit admits at most this fraction less than it says.
pub(super) const PARTS: u64 = 100;

/// Windows that a debt may take to be paid off; more is forgiven.
pub(super) const LONGEST_DEBT: u64 = 10;

/// So many units in any window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units, at least one.
    pub amount: u64,
    /// The window.
    pub window: Duration,
}

impl Rate {
    pub(super) fn window_ms(self) -> u64 {
        u64::try_from(self.window.as_millis())
            .unwrap_or(u64::MAX)
            .clamp(1, 1 << 40)
    }

    pub(super) fn part_ms(self) -> u64 {
        (self.window_ms() / PARTS).max(1)
    }
}

/// How a bucket stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What the bucket holds when it is full.
    pub limit: u64,
    /// What can be spent now.
    pub remaining: u64,
    /// Until it is full again, if nothing more is spent.
    pub full_after: Duration,
    /// Until something can be spent; zero when something can be now.
    pub wait: Duration,
}

/// What was spent and has not come back. Times are milliseconds of one clock that never goes back.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    /// When how much comes back; soonest first.
    returns: VecDeque<(u64, u64)>,
    spent: u64,
}

impl Bucket {
    /// Takes back what is due.
    fn settle(&mut self, now: u64) {
        while let Some((at, amount)) = self.returns.front().copied() {
            if at > now {
                return;
            }
            self.spent -= amount;
            self.returns.pop_front();
        }
    }

    /// How the bucket stands.
    pub fn standing(&mut self, rate: Rate, now: u64) -> Standing {
        self.settle(now);
        let until = |at: Option<u64>| Duration::from_millis(at.map_or(0, |at| at - now));
        Standing {
            limit: rate.amount,
            remaining: rate.amount.saturating_sub(self.spent),
            full_after: until(self.returns.back().map(|(at, _)| *at)),
            wait: until(self.next_at(rate)),
        }
    }

    /// When something can be spent; `None` when something can be now.
    fn next_at(&self, rate: Rate) -> Option<u64> {
        let mut needed = (self.spent + 1).checked_sub(rate.amount)?;
        let mut returns = self.returns.iter();
        while needed > 0 {
            let (at, amount) = returns.next()?;
            needed = needed.saturating_sub(*amount);
            if needed == 0 {
                return Some(*at);
            }
        }
        None
    }

    /// Spends, whether it is there or not.
    pub fn spend(&mut self, rate: Rate, now: u64, amount: u64) {
        self.settle(now);
        let most = rate.amount.saturating_mul(LONGEST_DEBT + 1);
        let amount = amount.min(most.saturating_sub(self.spent));
        let covered = amount.min(rate.amount.saturating_sub(self.spent));
        let mut ahead = self.spent.saturating_sub(rate.amount);
        let part = rate.part_ms();
        let back_at = (now + rate.window_ms()).div_ceil(part) * part;
        self.push(back_at, covered);
        let mut overdrawn = amount - covered;
        let mut place = 0;
        while overdrawn > 0 {
            let Some((at, there)) = self.returns.get(place).copied() else {
                return;
            };
            let here = there.saturating_sub(ahead).min(overdrawn);
            self.push(at + rate.window_ms(), here);
            overdrawn -= here;
            ahead = ahead.saturating_sub(there);
            place += 1;
        }
    }

    fn push(&mut self, at: u64, amount: u64) {
        if amount == 0 {
            return;
        }
        self.spent += amount;
        match self.returns.back_mut() {
            Some((last, there)) if at <= *last => *there += amount,
            _ => self.returns.push_back((at, amount)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: u64 = 60_000;

    fn rate(amount: u64) -> Rate {
        Rate {
            amount,
            window: Duration::from_millis(WINDOW),
        }
    }

    /// What happens to a bucket: time passes, then somebody asks, or tokens are charged.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Ask { after: u64 },
        Charge { after: u64, amount: u64 },
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let after = prop_oneof![Just(0), 0..2_000u64, 0..100_000u64];
        let event = (after, 0..60u64).prop_map(|(after, amount)| {
            if amount < 40 {
                Event::Ask { after }
            } else {
                Event::Charge { after, amount }
            }
        });
        prop::collection::vec(event, 1..200)
    }

    proptest! {
        #[test]
        fn t6_no_window_sees_more_than_the_limit(events in events(), amount in 1..30u64) {
            let (mut bucket, mut now, mut admitted) = (Bucket::default(), 1, Vec::new());
            for event in events {
                let (Event::Ask { after } | Event::Charge { after, .. }) = event;
                now += after;
                if bucket.standing(rate(amount), now).wait.is_zero() {
                    bucket.spend(rate(amount), now, 1);
                    admitted.push(now);
                }
                let inside = admitted.iter().filter(|at| **at > now.saturating_sub(WINDOW));
                prop_assert!(u64::try_from(inside.count()).unwrap() <= amount);
            }
        }

        #[test]
        fn t6_who_waits_as_told_is_admitted_and_not_before(events in events(), amount in 1..30u64) {
            let (mut bucket, mut now) = (Bucket::default(), 1);
            for event in events {
                match event {
                    Event::Ask { after } => {
                        now += after;
                        let standing = bucket.standing(rate(amount), now);
                        prop_assert_eq!(standing.wait.is_zero(), standing.remaining > 0);
                        let wait = u64::try_from(standing.wait.as_millis()).unwrap();
                        let mut later = bucket.clone();
                        prop_assert!(wait == 0 || !later.standing(rate(amount), now + wait - 1).wait.is_zero());
                        prop_assert!(later.standing(rate(amount), now + wait).wait.is_zero());
                        if wait == 0 {
                            bucket.spend(rate(amount), now, 1);
                        }
                    }
                    Event::Charge { after, amount: charged } => {
                        now += after;
                        bucket.spend(rate(amount), now, charged);
                    }
                }
                let full = bucket.standing(rate(amount), now).full_after;
                let full_at = now + u64::try_from(full.as_millis()).unwrap();
                prop_assert_eq!(bucket.clone().standing(rate(amount), full_at).remaining, amount);
                prop_assert!(full <= Duration::from_millis(WINDOW + WINDOW / PARTS) * (1 + u32::try_from(LONGEST_DEBT).unwrap()));
            }
        }

        /// Units come back in the order in which they were spent, and each at least one window after
        /// the unit that many places before it: the definition in the module's own words.
        #[test]
        fn what_is_overdrawn_is_paid_at_the_rate_of_the_limit(charges in prop::collection::vec((0..90_000u64, 1..25u64), 1..20), amount in 1..20u64) {
            let (mut bucket, mut now, mut units) = (Bucket::default(), 1, Vec::<u64>::new());
            let most = amount * (LONGEST_DEBT + 1);
            for (after, charged) in charges {
                now += after;
                let there = u64::try_from(units.iter().filter(|back| **back > now).count()).unwrap();
                for _ in 0..charged.min(most.saturating_sub(there)) {
                    let fresh = (now + WINDOW).div_ceil(WINDOW / PARTS) * (WINDOW / PARTS);
                    let size = usize::try_from(amount).unwrap();
                    let blocked = units.len().checked_sub(size).map(|at| units[at]).filter(|back| *back > now);
                    units.push(blocked.map_or(fresh, |back| back + WINDOW));
                }
                bucket.spend(rate(amount), now, charged);
                let mut told = Vec::new();
                bucket.returns.iter().for_each(|(at, n)| told.extend((0..*n).map(|_| *at)));
                let expected: Vec<u64> = units.iter().copied().filter(|back| *back > now).collect();
                prop_assert_eq!(told, expected);
            }
        }
    }

    #[test]
    fn a_full_bucket_can_be_emptied_at_once_and_a_window_later_again() {
        let mut bucket = Bucket::default();
        let mut admitted = |now| {
            let mut count = 0;
            while bucket.standing(rate(60), now).wait.is_zero() {
                bucket.spend(rate(60), now, 1);
                count += 1;
            }
            count
        };
        assert_eq!(admitted(0), 60);
        assert_eq!(admitted(WINDOW - 1), 0);
        assert_eq!(admitted(WINDOW), 60);
    }

    #[test]
    fn a_lower_limit_counts_what_was_spent_under_the_higher_one() {
        let mut bucket = Bucket::default();
        bucket.spend(rate(100), 0, 50);
        assert_eq!(bucket.standing(rate(100), 1).remaining, 50);
        assert_eq!(bucket.standing(rate(10), 1).remaining, 0);
        bucket.spend(rate(10), 1, 100);
        assert!(bucket.standing(rate(10), 1).full_after > rate(10).window);
    }
}
