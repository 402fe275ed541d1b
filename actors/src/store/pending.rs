//! Which writes go next, and how many together. Pure.

use std::time::{Duration, Instant};

/// Most writes in one transaction; beyond this a group gains nothing and makes others wait.
pub(super) const GROUP: usize = 256;
/// Most bytes in one transaction, unless a single write has more.
pub(super) const GROUP_BYTES: usize = 8 << 20;
/// Any database takes so many bytes in a second; one that takes fewer is at fault.
const RATE: usize = 8 << 20;
/// Longest that a write waits for the bytes that came before it.
const QUEUE_LIMIT: Duration = Duration::from_secs(10);

/// How much longer so many bytes may take.
pub(super) fn allowance(bytes: usize) -> Duration {
    let millis = bytes.saturating_mul(1000) / RATE;
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// How much longer a write may wait because of what was queued before it.
pub(super) fn queue_allowance(bytes: usize) -> Duration {
    allowance(bytes).min(QUEUE_LIMIT)
}

/// A write, as the order sees it.
pub(super) trait Waiting {
    /// Bytes that it writes.
    fn bytes(&self) -> usize;
    /// When it was queued.
    fn since(&self) -> Instant;
    /// Whether nobody waits for it any more.
    fn is_dead(&self) -> bool;
}

/// When its turn comes: large ones let those pass that come in the time that they take.
fn turn(one: &impl Waiting) -> Instant {
    one.since() + allowance(one.bytes())
}

/// Takes the next group out of what waits. What is dead is dropped.
pub(super) fn next_group<W: Waiting>(pending: &mut Vec<W>) -> Vec<W> {
    pending.retain(|one| !one.is_dead());
    pending.sort_by_key(turn);
    let mut bytes: usize = 0;
    let taken = pending.iter().take(GROUP).take_while(|one| {
        let is_first = bytes == 0;
        bytes = bytes.saturating_add(one.bytes().max(1));
        is_first || bytes <= GROUP_BYTES
    });
    let taken = taken.count();
    pending.drain(..taken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct One(usize, Instant, bool);

    impl Waiting for One {
        fn bytes(&self) -> usize {
            self.0
        }
        fn since(&self) -> Instant {
            self.1
        }
        fn is_dead(&self) -> bool {
            self.2
        }
    }

    const MIB: usize = 1 << 20;

    fn sizes(group: &[One]) -> Vec<usize> {
        group.iter().map(One::bytes).collect()
    }

    #[test]
    fn groups_are_bounded_by_bytes_and_by_count() {
        let now = Instant::now();
        let mut pending = vec![One(3 * MIB, now, false); 5];
        assert_eq!(next_group(&mut pending).len(), 2);
        assert_eq!(pending.len(), 3);
        let mut pending = vec![One(24 * MIB, now, false); 2];
        assert_eq!(next_group(&mut pending).len(), 1);
        let mut pending = vec![One(10, now, false); GROUP + 1];
        assert_eq!(next_group(&mut pending).len(), GROUP);
        assert_eq!(next_group(&mut pending).len(), 1);
        assert_eq!(next_group(&mut pending).len(), 0);
        let mut pending = vec![One(0, now, false), One(24 * MIB, now, false)];
        assert_eq!(sizes(&next_group(&mut pending)), [0]);
    }

    #[test]
    fn small_writes_pass_large_ones_but_not_for_ever() {
        let began = Instant::now();
        let large = One(24 * MIB, began, false);
        let small = |after: u64| One(10, began + Duration::from_secs(after), false);
        let mut pending = vec![large, small(2), small(4)];
        assert_eq!(sizes(&next_group(&mut pending)), [10]);
        assert_eq!(sizes(&next_group(&mut pending)), [24 * MIB]);
        assert_eq!(sizes(&next_group(&mut pending)), [10]);
    }

    #[test]
    fn what_nobody_waits_for_is_dropped() {
        let now = Instant::now();
        let mut pending = vec![One(1, now, true), One(2, now, false), One(3, now, true)];
        assert_eq!(sizes(&next_group(&mut pending)), [2]);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn time_grows_with_bytes_and_waiting_is_bounded() {
        assert_eq!(allowance(24 * MIB), Duration::from_secs(3));
        assert_eq!(queue_allowance(24 * MIB), Duration::from_secs(3));
        assert_eq!(queue_allowance(usize::MAX), QUEUE_LIMIT);
    }
}
