//! Whether the store works: from what its reads and writes came to, and from probes where there were
//! none.

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{
    ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Recipient,
    WrapFuture as _,
};
use tokio::sync::oneshot;

use super::StoreActor;
use super::backend::Probe;
use super::messages::{ReportTo, StoreError};
use super::writer::{Care, Job};
use crate::supervisor::messages::{Component, Health, Report};

/// How often it is looked at.
const BEAT: Duration = Duration::from_millis(500);
/// How long nothing may be heard of reads before one is tried, and of what has failed.
const QUIET_READS: Duration = Duration::from_secs(1);
/// How long nothing may be heard of writes before one is tried.
const QUIET: Duration = Duration::from_secs(2);
/// What has failed for so long, without one success, does not work.
const PATIENCE: Duration = Duration::from_secs(2);
/// What the writer is at has failed, for the moment, when it takes longer than this and what its bytes
/// may take.
const WRITE_LIMIT: Duration = Duration::from_secs(3);

/// The two things that a store does. They fail apart: a full disk can still be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Reads,
    Writes,
}

/// What is known of one side.
#[derive(Debug, Default)]
struct Known {
    /// When the first attempt began of those that failed since the last success.
    failing_since: Option<Instant>,
    error: Option<String>,
    /// When an outcome was last heard of.
    heard: Option<Instant>,
    /// When it was last tried without being asked.
    probed: Option<Instant>,
}

/// What is known of both. Pure.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    reads: Known,
    writes: Known,
}

impl Pulse {
    fn side(&mut self, side: Side) -> &mut Known {
        match side {
            Side::Reads => &mut self.reads,
            Side::Writes => &mut self.writes,
        }
    }

    /// Something worked.
    pub(super) fn worked(&mut self, side: Side, now: Instant) {
        let known = self.side(side);
        known.failing_since = None;
        known.error = None;
        known.heard = Some(now);
    }

    /// Something that began then failed. Faults of single rows are none of the store's.
    pub(super) fn failed(&mut self, side: Side, began: Instant, now: Instant, error: &StoreError) {
        if matches!(
            error,
            StoreError::Corrupt | StoreError::Incomplete | StoreError::TooLong
        ) {
            return self.worked(side, now);
        }
        let known = self.side(side);
        known.failing_since.get_or_insert(began);
        known.error = Some(error.to_string());
        known.heard = Some(now);
    }

    /// Why something failed last that has not worked since.
    pub(super) fn last_error(&self) -> Option<&str> {
        let error = self.writes.error.as_deref();
        error.or(self.reads.error.as_deref())
    }

    /// Why the store does not work; `None` when it does.
    fn verdict(&self, now: Instant) -> Option<&str> {
        [&self.writes, &self.reads].into_iter().find_map(|known| {
            let since = known.failing_since?;
            let lasts = now.saturating_duration_since(since) >= PATIENCE;
            known.error.as_deref().filter(|_| lasts)
        })
    }

    /// Whether this side is to be tried now; it is not asked again before the next beat.
    fn wants_probe(&mut self, side: Side, now: Instant) -> bool {
        let quiet = match side {
            Side::Reads => QUIET_READS,
            Side::Writes => QUIET,
        };
        let known = self.side(side);
        let quiet = if known.failing_since.is_some() {
            QUIET_READS
        } else {
            quiet
        };
        let is_old =
            |at: Option<Instant>| at.is_none_or(|at| now.saturating_duration_since(at) >= quiet);
        let wants = is_old(known.heard) && is_old(known.probed);
        if wants {
            known.probed = Some(now);
        }
        wants
    }
}

/// What the writer is at.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay {
    began: Instant,
    /// How much longer than something small it may take.
    allowance: Duration,
}

impl UnderWay {
    /// It begins now.
    pub(super) fn begin(allowance: Duration) -> Self {
        Self {
            began: Instant::now(),
            allowance,
        }
    }

    /// Whether it takes longer than it may.
    fn is_late(self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) > WRITE_LIMIT + self.allowance
    }
}

impl StoreActor {
    /// Begins to look after itself.
    pub(super) fn begin_pulse(ctx: &mut Context<Self>) {
        ctx.run_interval(BEAT, Self::beat);
    }

    fn beat(&mut self, ctx: &mut Context<Self>) {
        // The beat alone would keep a store alive that nobody can ask any more.
        if !ctx.connected() {
            return ctx.stop();
        }
        let now = Instant::now();
        let (reads, writes) = {
            let mut pulse = self.shared.pulse.borrow_mut();
            let reads = pulse.wants_probe(Side::Reads, now);
            (reads, pulse.wants_probe(Side::Writes, now))
        };
        if reads {
            let readers = self.readers.clone();
            let read = self.noted(async move { readers.try_read().await });
            let probe = async move {
                // Its outcome has been noted.
                let _noted: Result<_, StoreError> = read.await;
            };
            let told = probe.into_actor(self);
            ctx.spawn(told.map(|(), store, _| store.tell(Instant::now())));
        }
        match self.shared.under_way.get() {
            Some(work) if work.is_late(now) => {
                let busy = Err::<(), _>(StoreError::Busy);
                self.shared.note(Side::Writes, work.began, &busy);
            }
            None if writes && self.writes.capacity() == self.writes.max_capacity() => {
                self.probe_writes(ctx);
            }
            // What is under way will tell, as what waits will.
            Some(_) | None => {}
        }
        self.tell(now);
    }

    fn probe_writes(&self, ctx: &mut Context<Self>) {
        let (reply, answer) = oneshot::channel();
        let how = match self.shared.pulse.borrow().writes.failing_since {
            Some(_) => Probe::Write,
            None => Probe::Commit,
        };
        let queued = self.writes.try_send(Job::Care(Care::Probe { how, reply }));
        let shared = Rc::clone(&self.shared);
        let probe = async move {
            // The writer notes what it came to; a hang is seen by the time that the writer takes.
            let error = match queued {
                Err(_full) => StoreError::Busy,
                Ok(()) => match answer.await {
                    Ok(_noted) => return,
                    Err(_gone) => StoreError::Unavailable("its writer ended".to_owned()),
                },
            };
            shared.note(Side::Writes, Instant::now(), &Err::<(), _>(error));
        };
        let told = probe.into_actor(self);
        ctx.spawn(told.map(|(), store, _| store.tell(Instant::now())));
    }

    /// Tells how it stands where that has changed.
    fn tell(&mut self, now: Instant) {
        let down = self.shared.pulse.borrow().verdict(now).map(str::to_owned);
        if down != self.told {
            if self.told.is_some() != down.is_some() {
                match &down {
                    Some(reason) => log::error!("responses are not stored or not read: {reason}"),
                    None => log::info!("responses are stored and read again"),
                }
            }
            self.told = down;
            self.report();
        }
    }

    fn report(&self) {
        if let Some(reports) = &self.reports {
            reports.do_send(Report {
                component: Component::Store,
                health: match self.told.clone() {
                    None => Health::Ready,
                    Some(reason) => Health::Down { reason },
                },
            });
        }
    }
}

/// Synchronous: the first report comes at once.
impl Handler<ReportTo> for StoreActor {
    type Result = ();

    fn handle(&mut self, ReportTo(reports): ReportTo, _: &mut Self::Context) {
        self.reports = Some(reports);
        self.report();
    }
}

/// Who is told of the store's health.
pub(super) type Reports = Option<Recipient<Report>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(pulse: &mut Pulse, side: Side, began: Instant, now: Instant) {
        pulse.failed(side, began, now, &StoreError::Busy);
    }

    #[test]
    fn what_fails_for_long_is_down_until_it_works() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut pulse = Pulse::default();
        assert_eq!(pulse.verdict(at(0)), None);
        busy(&mut pulse, Side::Writes, at(1), at(2));
        assert_eq!(pulse.verdict(at(2)), None);
        assert_eq!(pulse.last_error(), Some("the response store is busy"));
        busy(&mut pulse, Side::Writes, at(2), at(3));
        assert!(pulse.verdict(at(3)).is_some());
        // Reads that work are no excuse for writes.
        pulse.worked(Side::Reads, at(4));
        assert!(pulse.verdict(at(4)).is_some());
        pulse.worked(Side::Writes, at(5));
        assert_eq!(pulse.verdict(at(9)), None);
        assert_eq!(pulse.last_error(), None);
    }

    #[test]
    fn one_failure_that_took_long_is_enough_and_rows_are_no_fault_of_the_store() {
        let began = Instant::now();
        let mut pulse = Pulse::default();
        busy(&mut pulse, Side::Reads, began, began + PATIENCE);
        assert!(pulse.verdict(began + PATIENCE).is_some());
        let corrupt = StoreError::Corrupt;
        pulse.failed(Side::Reads, began, began + PATIENCE, &corrupt);
        assert_eq!(pulse.verdict(began + PATIENCE), None);
    }

    #[test]
    fn what_is_large_may_take_longer_before_it_is_late() {
        let mut work = UnderWay::begin(Duration::ZERO);
        let at = |millis| work.began + Duration::from_millis(millis);
        let (soon, later) = (at(2900), at(5800));
        assert!(!work.is_late(soon));
        assert!(work.is_late(later));
        // 24 MB.
        work.allowance = Duration::from_millis(2900);
        assert!(!work.is_late(later));
        assert!(work.is_late(later + Duration::from_millis(200)));
    }

    #[test]
    fn probes_come_where_nothing_is_heard_and_sooner_after_a_fault() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let mut pulse = Pulse::default();
        pulse.worked(Side::Writes, at(0));
        assert!(!pulse.wants_probe(Side::Writes, at(1500)));
        assert!(pulse.wants_probe(Side::Writes, at(2000)));
        assert!(!pulse.wants_probe(Side::Writes, at(3000)));
        busy(&mut pulse, Side::Writes, at(2000), at(4000));
        assert!(!pulse.wants_probe(Side::Writes, at(4500)));
        assert!(pulse.wants_probe(Side::Writes, at(5000)));
    }
}
