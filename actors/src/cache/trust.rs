//! How long a replica may believe Redis: the store's cache epoch and when it was last read. Pure.
//!
//! See the cache's own page for why: a deletion that cannot reach Redis writes a new epoch into the
//! store and is acknowledged only after [`WAIT`], when every replica has read it or stopped believing.

use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long an epoch may be used, counted from before it was read.
const WINDOW: Duration = Duration::from_secs(2);
/// How often the epoch is read: a lost reading or two must not cost the cache.
pub(super) const REFRESH: Duration = Duration::from_millis(600);
/// How long a deletion waits after it wrote a new epoch: the window, and more for clocks that run
/// at slightly different speeds.
pub(super) const WAIT: Duration = Duration::from_millis(2_200);

/// The epoch this replica believes in, if any.
#[derive(Debug, Default)]
pub(super) struct Trust(Option<Known>);

#[derive(Debug)]
struct Known {
    epoch: Rc<str>,
    /// When this replica had it for the first time.
    first: Instant,
    /// When the question was asked whose answer it was last.
    asked: Instant,
}

impl Trust {
    /// The store says now that this is the epoch, to a question asked at `asked`.
    pub(super) fn learned(&mut self, epoch: &str, asked: Instant, now: Instant) {
        match &mut self.0 {
            Some(known) if &*known.epoch == epoch => known.asked = known.asked.max(asked),
            // Answers may overtake each other: the question asked last knows best.
            Some(known) if known.asked > asked => {}
            other => {
                *other = Some(Known {
                    epoch: epoch.into(),
                    first: now,
                    asked,
                });
            }
        }
    }

    /// The epoch to use, unless it is too long ago that it was read.
    pub(super) fn epoch(&self, now: Instant) -> Option<Rc<str>> {
        let known = self.0.as_ref()?;
        (now.duration_since(known.asked) < WINDOW).then(|| Rc::clone(&known.epoch))
    }

    /// How long another replica may still be using an older epoch than this one.
    pub(super) fn unsettled(&self, epoch: &str, now: Instant) -> Duration {
        match &self.0 {
            Some(known) if &*known.epoch == epoch => {
                WAIT.saturating_sub(now.duration_since(known.first))
            }
            Some(_) | None => WAIT,
        }
    }

    /// Whether what Redis said under this epoch may still be believed.
    pub(super) fn holds(&self, epoch: &str, now: Instant) -> bool {
        self.epoch(now).is_some_and(|known| &*known == epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_ends_with_its_window_and_before_a_deletion_is_acknowledged() {
        let start = Instant::now();
        let mut trust = Trust::default();
        assert_eq!(trust.epoch(start), None);
        trust.learned("a", start, start);
        assert!(trust.holds("a", start + WINDOW / 2));
        assert!(!trust.holds("a", start + WINDOW));
        assert!(WAIT > WINDOW && REFRESH * 3 < WINDOW);
    }

    #[test]
    fn a_new_epoch_replaces_the_old_one_at_once() {
        let start = Instant::now();
        let mut trust = Trust::default();
        trust.learned("a", start, start);
        trust.learned("b", start + REFRESH, start + REFRESH);
        assert!(!trust.holds("a", start + REFRESH));
        assert!(trust.holds("b", start + REFRESH));
    }

    #[test]
    fn an_answer_that_was_overtaken_neither_returns_nor_shortens() {
        let start = Instant::now();
        let mut trust = Trust::default();
        let later = start + REFRESH;
        trust.learned("b", later, later);
        trust.learned("a", start, later);
        assert!(trust.holds("b", later));
        trust.learned("b", start, later);
        assert!(trust.holds("b", start + WINDOW));
    }

    #[test]
    fn an_epoch_is_settled_when_no_replica_can_use_an_older_one() {
        let start = Instant::now();
        let mut trust = Trust::default();
        assert_eq!(trust.unsettled("a", start), WAIT);
        trust.learned("a", start, start + REFRESH);
        trust.learned("a", start + WINDOW, start + WINDOW);
        assert_eq!(trust.unsettled("a", start + REFRESH), WAIT);
        assert_eq!(trust.unsettled("a", start + REFRESH + WAIT), Duration::ZERO);
        assert_eq!(trust.unsettled("b", start + REFRESH + WAIT), WAIT);
    }
}
