//! How many interpreters there are and which one a call gets. Pure: time and chance come in.

use std::collections::BTreeMap;
use std::time::Duration;

/// The numbers of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Interpreters that wait for a call.
    pub idle: usize,
    /// All interpreters, those in sessions too.
    pub most_live: usize,
    /// Whether waiting ones import further packages.
    pub warms: bool,
    /// The delay after a failed start; it doubles with each.
    pub first_delay: Duration,
    /// No delay is longer, jitter apart.
    pub longest_delay: Duration,
    /// So many failed starts in a row open the circuit: calls are refused until a start succeeds.
    pub break_after: u32,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            idle: 2,
            most_live: 8,
            warms: false,
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(30),
            break_after: 3,
        }
    }
}

/// Names one interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(u64);

/// Where an interpreter is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not usable yet.
    Starting,
    /// Waits for its first call.
    Base,
    /// Imports packages.
    Warming,
    /// Waits for its first call with packages imported.
    Warm,
    /// Has a session.
    Taken,
    /// Is being ended; still holds its memory.
    Ending,
}

/// What a call would rather have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The standard library; a warm one would be wasted.
    Base,
    /// Packages imported.
    Warm,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start one, under this name.
    Start(WorkerId),
    /// Let this one import packages.
    Warm(WorkerId),
}

/// All interpreters of the actor.
#[derive(Clone, Debug)]
pub struct Pool {
    settings: PoolSettings,
    workers: BTreeMap<WorkerId, Phase>,
    next: u64,
    failed_in_a_row: u32,
    /// No start before this.
    start_from: Duration,
}

impl Pool {
    /// An empty pool.
    pub fn new(settings: PoolSettings) -> Self {
        Self {
            settings,
            workers: BTreeMap::new(),
            next: 0,
            failed_in_a_row: 0,
            start_from: Duration::ZERO,
        }
    }

    /// What to do at `now` while `waiting` calls have no interpreter. Called again after each step and
    /// each event, until it says `None`: one start and one warm-up go on at a time, so that they leave
    /// the processors to calls.
    pub fn plan(&mut self, now: Duration, waiting: usize) -> Option<Step> {
        if self.count(Phase::Starting) > 0 {
            return None;
        }
        let stocked = self.idle() + self.count(Phase::Warming) + self.warm();
        let wanted = self.settings.idle.saturating_add(waiting);
        if stocked < wanted && !self.is_full() && now >= self.start_from {
            let id = WorkerId(self.next);
            self.next += 1;
            self.workers.insert(id, Phase::Starting);
            return Some(Step::Start(id));
        }
        // One of the stock stays as it is, for calls that want no packages.
        let most_warm = self.settings.idle.saturating_sub(1).max(1);
        let room = self.warm() < most_warm && self.count(Phase::Warming) == 0;
        if self.settings.warms && waiting == 0 && room {
            let id = self.first(Phase::Base)?;
            self.workers.insert(id, Phase::Warming);
            return Some(Step::Warm(id));
        }
        None
    }

    /// Gives an interpreter to a session; `None` when none waits.
    pub fn take(&mut self, wish: Wish) -> Option<WorkerId> {
        let order = match wish {
            Wish::Base => [Phase::Base, Phase::Warm],
            Wish::Warm => [Phase::Warm, Phase::Base],
        };
        let id = order.into_iter().find_map(|phase| self.first(phase))?;
        self.workers.insert(id, Phase::Taken);
        Some(id)
    }

    /// A start has succeeded.
    pub fn started(&mut self, id: WorkerId) {
        self.failed_in_a_row = 0;
        self.start_from = Duration::ZERO;
        self.workers.insert(id, Phase::Base);
    }

    /// A start has failed; `random` is for the jitter.
    pub fn start_failed(&mut self, id: WorkerId, now: Duration, random: u32) {
        self.workers.remove(&id);
        let factor = 2_u32.checked_pow(self.failed_in_a_row).unwrap_or(u32::MAX);
        let plain = self
            .settings
            .first_delay
            .saturating_mul(factor)
            .min(self.settings.longest_delay);
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        // Up to a fifth longer, so that replicas do not move in step.
        let jitter = plain / 5 * (random % 1000) / 1000;
        self.start_from = now + plain + jitter;
    }

    /// Imports are done.
    pub fn warmed(&mut self, id: WorkerId) {
        if self.workers.get(&id) == Some(&Phase::Warming) {
            self.workers.insert(id, Phase::Warm);
        }
    }

    /// It has been told to end.
    pub fn ending(&mut self, id: WorkerId) {
        if let Some(phase) = self.workers.get_mut(&id) {
            *phase = Phase::Ending;
        }
    }

    /// Nothing of it is left.
    pub fn gone(&mut self, id: WorkerId) {
        self.workers.remove(&id);
    }

    /// Whether something of it is left.
    pub fn has(&self, id: WorkerId) -> bool {
        self.workers.contains_key(&id)
    }

    /// Whether calls that wait are to be refused.
    pub fn is_broken(&self) -> bool {
        self.failed_in_a_row >= self.settings.break_after && self.stock() == 0
    }

    /// Whether no further one may be started.
    pub fn is_full(&self) -> bool {
        self.workers.len() >= self.settings.most_live
    }

    /// Whether [`Pool::take`] gives one.
    pub fn has_stock(&self) -> bool {
        self.idle() + self.warm() > 0
    }

    /// Interpreters that wait without packages.
    pub fn idle(&self) -> usize {
        self.count(Phase::Base)
    }

    /// Interpreters that wait with packages.
    pub fn warm(&self) -> usize {
        self.count(Phase::Warm)
    }

    /// All interpreters.
    pub fn live(&self) -> usize {
        self.workers.len()
    }

    fn stock(&self) -> usize {
        self.idle() + self.warm() + self.count(Phase::Warming)
    }

    fn count(&self, phase: Phase) -> usize {
        self.workers.values().filter(|&&p| p == phase).count()
    }

    fn first(&self, phase: Phase) -> Option<WorkerId> {
        self.workers
            .iter()
            .find(|(_, p)| **p == phase)
            .map(|(id, _)| *id)
    }
}

/// What a call with this code would rather have: `modules` are what a warm interpreter has imported.
pub fn wish(code: &str, modules: &[String]) -> Wish {
    let is_import = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("import ") || line.starts_with("from ")
    };
    let names_one = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| modules.iter().any(|module| root(module) == word))
    };
    if code.split(['\n', ';']).filter(is_import).any(names_one) {
        Wish::Warm
    } else {
        Wish::Base
    }
}

fn root(module: &str) -> &str {
    module.split('.').next().unwrap_or(module)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn pool(idle: usize, most_live: usize) -> Pool {
        Pool::new(PoolSettings {
            idle,
            most_live,
            ..PoolSettings::default()
        })
    }

    fn warming_pool(idle: usize, most_live: usize) -> Pool {
        Pool::new(PoolSettings {
            warms: true,
            ..pool(idle, most_live).settings
        })
    }

    /// Carries out whatever is planned until nothing is.
    fn settle(pool: &mut Pool, waiting: usize) {
        while let Some(step) = pool.plan(NOW, waiting) {
            match step {
                Step::Start(id) => pool.started(id),
                Step::Warm(id) => pool.warmed(id),
            }
        }
    }

    #[test]
    fn one_start_at_a_time_until_the_stock_is_there() {
        let mut pool = pool(2, 8);
        let Some(Step::Start(first)) = pool.plan(NOW, 0) else {
            panic!("nothing started")
        };
        assert_eq!(pool.plan(NOW, 0), None);
        pool.started(first);
        settle(&mut pool, 0);
        assert_eq!((pool.idle(), pool.live()), (2, 2));
    }

    #[test]
    fn what_is_taken_is_replaced_up_to_the_most() {
        let mut pool = pool(2, 3);
        settle(&mut pool, 0);
        let taken = pool.take(Wish::Base).unwrap();
        settle(&mut pool, 0);
        assert_eq!((pool.idle(), pool.live()), (2, 3));
        pool.take(Wish::Base).unwrap();
        settle(&mut pool, 5);
        assert_eq!(pool.live(), 3);
        // An ending one holds its memory until it is gone.
        pool.ending(taken);
        assert_eq!(pool.plan(NOW, 5), None);
        pool.gone(taken);
        assert!(matches!(pool.plan(NOW, 5), Some(Step::Start(_))));
    }

    #[test]
    fn those_who_wait_are_started_for_beside_the_stock() {
        let mut pool = pool(1, 8);
        settle(&mut pool, 3);
        assert_eq!(pool.idle(), 4);
    }

    #[test]
    fn one_of_the_stock_stays_plain() {
        let mut pool = warming_pool(2, 8);
        settle(&mut pool, 0);
        assert_eq!((pool.idle(), pool.warm()), (1, 1));
        let warm = pool.take(Wish::Warm).unwrap();
        assert_eq!((pool.idle(), pool.warm()), (1, 0));
        let base = pool.take(Wish::Base).unwrap();
        assert_ne!(warm, base);
        settle(&mut pool, 0);
        // Without the wished kind, the other will do.
        pool.take(Wish::Warm).unwrap();
        pool.take(Wish::Warm).unwrap();
        assert_eq!(pool.take(Wish::Warm), None);
    }

    #[test]
    fn a_stock_of_one_is_warmed() {
        let mut pool = warming_pool(1, 8);
        settle(&mut pool, 0);
        assert_eq!((pool.idle(), pool.warm()), (0, 1));
    }

    #[test]
    fn failed_starts_are_tried_again_ever_later() {
        let mut pool = pool(1, 8);
        let mut now = NOW;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let Some(Step::Start(id)) = pool.plan(now, 1) else {
                panic!("not tried again")
            };
            pool.start_failed(id, now, 999);
            let delay = Duration::from_secs(seconds);
            assert_eq!(pool.plan(now + delay, 1), None, "jitter only adds");
            now += delay + delay / 5;
        }
        assert!(pool.is_broken());
        let Some(Step::Start(id)) = pool.plan(now, 1) else {
            panic!("not tried again")
        };
        pool.started(id);
        assert!(!pool.is_broken());
        assert!(matches!(pool.plan(now, 1), Some(Step::Start(_))));
    }

    #[test]
    fn the_circuit_opens_after_three_failures() {
        let mut pool = pool(1, 8);
        for (attempt, seconds) in [1, 2, 4].into_iter().enumerate() {
            assert!(!pool.is_broken(), "attempt {attempt}");
            let Some(Step::Start(id)) = pool.plan(NOW * 10 * seconds, 1) else {
                panic!("not tried again")
            };
            pool.start_failed(id, NOW * 10 * seconds, 0);
        }
        assert!(pool.is_broken());
    }

    #[test]
    fn code_that_imports_what_is_warm_wishes_for_it() {
        let modules = ["numpy", "matplotlib.pyplot"].map(str::to_owned);
        for code in [
            "import numpy as np",
            "x = 1\nfrom matplotlib import pyplot",
            "if True:\n    import json, numpy",
            "x = 1; import numpy",
        ] {
            assert_eq!(wish(code, &modules), Wish::Warm, "{code}");
        }
        for code in ["print('numpy')", "import numpyro", "numpy = 1", ""] {
            assert_eq!(wish(code, &modules), Wish::Base, "{code}");
        }
        assert_eq!(wish("import numpy", &[]), Wish::Base);
    }

    proptest! {
        #[test]
        fn never_more_than_allowed(events in proptest::collection::vec(0_u8..6, 0..200)) {
            let mut pool = warming_pool(2, 4);
            let mut taken = Vec::new();
            let mut pending = Vec::new();
            let mut now = NOW;
            for event in events {
                now += Duration::from_secs(1);
                match event {
                    0 => pending.extend(pool.plan(now, taken.len())),
                    1 => match pending.pop() {
                        Some(Step::Start(id)) => pool.started(id),
                        Some(Step::Warm(id)) => pool.warmed(id),
                        None => {}
                    },
                    2 => match pending.pop() {
                        Some(Step::Start(id)) => pool.start_failed(id, now, 7),
                        Some(Step::Warm(id)) => pool.gone(id),
                        None => {}
                    },
                    3 => taken.extend(pool.take(Wish::Warm)),
                    4 => taken.extend(pool.take(Wish::Base)),
                    _ => if let Some(id) = taken.pop() { pool.gone(id) },
                }
                prop_assert!(pool.live() <= 4);
                prop_assert!(pending.len() <= 2, "one start and one warm-up at a time");
                let unique: std::collections::HashSet<_> = taken.iter().collect();
                prop_assert_eq!(unique.len(), taken.len(), "nobody shares");
            }
        }
    }
}
