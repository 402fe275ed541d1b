//! The mark by which processes of ours are recognised when both gateway and guardian are gone.
//!
//! The environment cannot carry it: programs that change their title overwrite the memory that
//! `/proc/PID/environ` shows, and vLLM's engine processes do. A session id ends at `setsid`. What
//! every fork and exec hands on, no program touches, and everyone of the same user can read in
//! `/proc/PID/limits`, is a resource limit; and one of them, `RLIMIT_LOCKS`, has had no effect since
//! Linux 2.4.25. Its hard value names the owning process (pid and start time), its soft value the
//! child. A marked process whose owner is not alive is a leftover.

use std::fs;
use std::io;
use std::time::Duration;

use nix::unistd::Pid;

use super::sys;
use super::tree::{self, Process};

/// Top ten bits of an owner value, so that a limit someone else set is not taken for ours.
const MAGIC: u64 = 0b01_0111_0010;
/// Process ids have at most 22 bits on Linux.
const PID_BITS: u32 = 22;
/// Low bits of the start time in ticks; they repeat after 497 days.
const START_BITS: u32 = 32;
/// How long a sweep goes on killing before it gives up on processes that do not die.
const SWEEP_LIMIT: Duration = Duration::from_secs(2);
/// How long what was stopped may take to be gone.
const SETTLE: Duration = Duration::from_secs(1);
const SWEEP_PAUSE: Duration = Duration::from_millis(10);

/// Names a process of ours that owns others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(u64);

/// Names the tree of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    owner: Owner,
    child: u64,
}

impl Owner {
    /// This process as owner; or, if it is itself marked, the one that it belongs to, since a hard
    /// limit cannot be raised without privilege.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let pid = Pid::this().as_raw();
        if let Some(mark) = Mark::of(pid) {
            return Ok(mark.owner);
        }
        let me = Process::read(pid).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "cannot read /proc/self/stat; is /proc mounted",
            )
        })?;
        Ok(Self::encode(&me))
    }

    fn encode(process: &Process) -> Self {
        let pid = u64::try_from(process.pid).unwrap_or(0) & ((1 << PID_BITS) - 1);
        let start = process.started & ((1 << START_BITS) - 1);
        Self((MAGIC << (PID_BITS + START_BITS)) | (pid << START_BITS) | start)
    }

    fn decode(value: u64) -> Option<Self> {
        (value >> (PID_BITS + START_BITS) == MAGIC).then_some(Self(value))
    }

    /// Whether the owning process still runs.
    fn is_alive(self) -> bool {
        let pid = (self.0 >> START_BITS) & ((1 << PID_BITS) - 1);
        i32::try_from(pid)
            .ok()
            .and_then(Process::read)
            .is_some_and(|process| process.is_alive() && Self::encode(&process) == self)
    }
}

impl Mark {
    /// A fresh mark for one child.
    pub(super) fn new(owner: Owner) -> io::Result<Self> {
        // 48 random bits: not guessable from another launcher of the same owner, and always below
        // the owner value, as a soft limit must be.
        let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            owner,
            child: random >> 16,
        })
    }

    /// Soft and hard value of the limit.
    pub(super) fn limits(self) -> (u64, u64) {
        (self.child, self.owner.0)
    }

    /// The mark that a process carries, if it is one of ours.
    pub(super) fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
    }

    fn parse(limits: &str) -> Option<Self> {
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max file locks"))?;
        let mut values = line.split_ascii_whitespace();
        let child = values.next()?.parse().ok()?;
        let owner = Owner::decode(values.next()?.parse().ok()?)?;
        Some(Self { owner, child })
    }
}

/// Kills what remains of one child after its guardian was lost, and of every other child of this owner
/// whose guardian is gone: whoever ends one guardian may have ended several. Returns how many were found.
pub(super) async fn sweep_child(mark: Mark) -> usize {
    sweep(|found, all| found == mark || (found.owner == mark.owner && !is_guarded(found, all)))
        .await
}

/// Kills what earlier gateways left behind: marked processes whose owner no longer runs.
///
/// Called once at start-up, before any child is started. Only processes of this user (others cannot
/// be read) in this PID namespace are looked at, so a gateway on the host leaves those of containers
/// alone. Returns how many were found.
pub async fn sweep_leftovers() -> usize {
    sweep(|found, _| !found.owner.is_alive()).await
}

/// Kills whatever this process still owns: the last thing a gateway does, once its children are stopped.
/// A process that belongs to another gateway itself owns nothing. Returns how many were found.
pub async fn sweep_own() -> usize {
    let pid = Pid::this().as_raw();
    if Mark::of(pid).is_some() {
        return 0;
    }
    let Some(own) = Process::read(pid).map(|me| Owner::encode(&me)) else {
        return 0;
    };
    let is_ours = |process: &Process| {
        let mark = Mark::of(process.pid);
        process.pid != pid && process.is_alive() && mark.is_some_and(|mark| mark.owner == own)
    };
    // Guardians that are just ending need no help.
    let settled = tokio::time::Instant::now() + SETTLE;
    while tree::all().iter().any(is_ours) {
        if tokio::time::Instant::now() >= settled {
            return sweep(|found, _| found.owner == own).await;
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
    0
}

/// A marked process.
type Marked = (Process, Mark);

/// Whether a guardian of this child is there. It carries the child's mark, and its parent, which started
/// it, does not: that is the owner, or a child of the owner's that has children itself.
fn is_guarded(mark: Mark, all: &[Marked]) -> bool {
    let starts = |pid: i32| {
        let of_owner = Process::read(pid).is_some_and(|it| Owner::encode(&it) == mark.owner);
        let other = all.iter().find(|(process, _)| process.pid == pid);
        of_owner || other.is_some_and(|(_, found)| found.owner == mark.owner && *found != mark)
    };
    let mut own = all.iter().filter(|(_, found)| *found == mark);
    own.any(|(process, _)| starts(process.parent))
}

async fn sweep(is_doomed: impl Fn(Mark, &[Marked]) -> bool) -> usize {
    let own = Pid::this().as_raw();
    let depth = depth(own);
    let deadline = tokio::time::Instant::now() + SWEEP_LIMIT;
    let mut most = 0;
    loop {
        let all = tree::all().into_iter().filter(|process| {
            process.pid != own && process.is_alive() && self::depth(process.pid) == depth
        });
        let all: Vec<Marked> = all
            .filter_map(|process| Mark::of(process.pid).map(|mark| (process, mark)))
            .collect();
        let doomed = all.iter().filter(|(_, mark)| is_doomed(*mark, &all));
        let doomed: Vec<&Marked> = doomed.collect();
        most = most.max(doomed.len());
        if doomed.is_empty() || tokio::time::Instant::now() >= deadline {
            return most;
        }
        for (process, mark) in doomed {
            // Gone already, or not ours to kill: the next look tells.
            sys::kill_exactly(Pid::from_raw(process.pid), || {
                let now = Process::read(process.pid);
                now.is_some_and(|now| now.is_same(process)) && Mark::of(process.pid) == Some(*mark)
            });
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
}

/// In how many nested PID namespaces a process has a number, seen from here. Of two that this `/proc`
/// shows, the same depth means the same namespace. The link to the namespace itself would say it too,
/// but that of a process which may not be looked at, as ours, cannot be read.
fn depth(pid: i32) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(numbers.split_ascii_whitespace().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, started: u64) -> Process {
        Process {
            pid,
            state: 'S',
            parent: 1,
            group: pid,
            started,
        }
    }

    #[test]
    fn a_mark_survives_the_limits_file() {
        let owner = Owner::encode(&process(4_194_303, 0x1_2345_6789));
        let mark = Mark { owner, child: 77 };
        let (soft, hard) = mark.limits();
        let text = format!(
            "Limit  Soft Limit  Hard Limit  Units\nMax file locks            {soft} {hard} locks\n"
        );
        assert_eq!(Mark::parse(&text), Some(mark));
        assert!(soft < hard, "a soft limit may not exceed the hard one");
    }

    #[test]
    fn limits_of_others_are_no_mark() {
        assert_eq!(
            Mark::parse("Max file locks  unlimited  unlimited  locks\n"),
            None
        );
        assert_eq!(Mark::parse("Max file locks  100  200  locks\n"), None);
        assert_eq!(Mark::parse(""), None);
    }

    #[test]
    fn an_owner_is_alive_only_with_its_start_time() {
        let me = Process::read(Pid::this().as_raw()).unwrap();
        assert!(Owner::encode(&me).is_alive());
        assert!(!Owner::encode(&process(me.pid, me.started + 1)).is_alive());
        assert!(!Owner::encode(&process(4_194_303, me.started)).is_alive());
    }

    #[test]
    fn a_child_is_guarded_while_one_of_its_processes_was_started_by_the_owner() {
        let me = Process::read(Pid::this().as_raw()).unwrap();
        let owner = Owner::encode(&me);
        let of = |child| Mark { owner, child };
        let under = |pid: i32, parent: i32| Process {
            parent,
            ..process(pid, 5)
        };
        let guardian = (under(4_194_001, me.pid), of(1));
        let child = (under(4_194_002, 4_194_001), of(1));
        let nested = (under(4_194_003, 4_194_002), of(2));
        let orphan = (under(4_194_004, 1), of(3));
        let all = [guardian, child, nested, orphan];
        assert!(is_guarded(of(1), &all), "the owner's own");
        assert!(is_guarded(of(2), &all), "one of a child that has children");
        assert!(!is_guarded(of(3), &all), "its guardian is gone");
        assert!(!is_guarded(of(1), &all[1..2]), "only the child is left");
    }

    #[test]
    fn every_child_gets_its_own_mark() {
        let owner = Owner::encode(&process(7, 8));
        assert_ne!(Mark::new(owner).unwrap(), Mark::new(owner).unwrap());
    }
}
