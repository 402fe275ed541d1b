//! The process tree as `/proc` shows it, and how a subreaper ends everything below it.
//!
//! Used by the guardian and by init, which are subreapers: a descendant whose parent dies becomes
//! their child, `setsid` or not. So "no child left to wait for" means "no descendant left".

use std::collections::{HashMap, HashSet};
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp};

use super::sys;

/// One line of the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Process id.
    pub(super) pid: i32,
    /// State letter; `Z` and `X` are dead.
    pub(super) state: char,
    /// Parent's process id.
    pub(super) parent: i32,
    /// Process group.
    pub(super) group: i32,
    /// Start time in clock ticks since boot: with the pid it names a process for good.
    pub(super) started: u64,
}

impl Process {
    /// Reads one process; `None` when it is gone.
    pub(super) fn read(pid: i32) -> Option<Self> {
        parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Whether this is the process that was seen before, and not a later one with its number.
    pub(super) fn is_same(&self, seen: &Self) -> bool {
        (self.pid, self.started) == (seen.pid, seen.started)
    }

    /// True until the process has ended, reaped or not.
    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// Parses `/proc/PID/stat`. The name in parentheses may itself hold spaces and parentheses, so the
/// fields are counted from the last closing one.
fn parse_stat(text: &str) -> Option<Process> {
    let (head, tail) = text.rsplit_once(')')?;
    let (pid, _) = head.split_once(' ')?;
    let mut fields = tail.split_ascii_whitespace();
    Some(Process {
        pid: pid.parse().ok()?,
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        // Field 22 of the line; 3, 4 and 5 are taken above.
        started: fields.nth(16)?.parse().ok()?,
    })
}

/// Processor time of a process with all its threads; `None` when it is gone.
pub(super) fn cpu(pid: i32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, tail) = text.rsplit_once(')')?;
    // Fields 14 and 15 of the line; the state is field 3.
    let mut fields = tail.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // A tick is a hundredth of a second on every machine that Linux runs on today.
    Some(Duration::from_millis(
        user.saturating_add(system).saturating_mul(10),
    ))
}

/// Threads of a process; `None` when it is gone.
pub(super) fn tasks(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, tail) = text.rsplit_once(')')?;
    // Field 20 of the line; the state is field 3.
    tail.split_ascii_whitespace().nth(17)?.parse().ok()
}

/// Every process that can be seen.
pub(super) fn all() -> Vec<Process> {
    numbers().into_iter().filter_map(Process::read).collect()
}

fn numbers() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Every process below `root`, itself not included. A tree that changes while it is read can hide a
/// process for one call, so callers look again.
pub(super) fn descendants(root: i32) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for process in children.remove(&parent).unwrap_or_default() {
            open.push(process.pid);
            found.push(process);
        }
    }
    found
}

/// Kills every descendant of this process and waits for each, until none remains.
///
/// Whole groups are signalled first: that cannot be outrun by forking. A process stuck in the kernel
/// keeps this waiting, rightly, since it still holds its memory and devices.
pub(super) fn end_descendants() {
    let mut pause = Duration::from_millis(1);
    loop {
        let killed = kill_descendants();
        if !reap(|_| ()) {
            return;
        }
        // Processes that fork as fast as they are killed would use every pause.
        if killed == 0 {
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// Goes through the process table once and kills each descendant the moment it is found, with its
/// group. Returns how many were alive. Ids grow, so a child mostly comes after its parent and is found
/// in the same pass; whose parent has ended is a child of this process, which is a subreaper.
fn kill_descendants() -> usize {
    let own_group = getpgrp();
    let own_pid = Pid::this().as_raw();
    let mut doomed = HashSet::from([own_pid]);
    let mut groups = HashSet::new();
    let mut killed = 0;
    let mut numbers = numbers();
    numbers.sort_unstable();
    for process in numbers.into_iter().filter_map(Process::read) {
        if process.pid == own_pid || !doomed.contains(&process.parent) {
            continue;
        }
        doomed.insert(process.pid);
        if !process.is_alive() {
            continue;
        }
        killed += 1;
        let group = Pid::from_raw(process.group);
        let is_meant = || Process::read(process.pid).is_some_and(|now| now.is_same(&process));
        if group != own_group && process.group > 1 && groups.insert(process.group) && is_meant() {
            // It may have ended meanwhile; the next pass looks again.
            killpg(group, Signal::SIGKILL).ok();
        }
        sys::kill_exactly(Pid::from_raw(process.pid), is_meant);
    }
    killed
}

/// Collects every child that has ended, calling `seen` for each. False when there is no child left.
pub(super) fn reap(mut seen: impl FnMut(WaitStatus)) -> bool {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(status) => seen(status),
            Err(Errno::ECHILD) => return false,
            // Interrupted, or a child that ended by a signal without a name: collected all the same.
            Err(_) => {}
        }
    }
}

/// The number of a signal.
#[expect(
    clippy::as_conversions,
    reason = "the enum is its number, and offers no other way to it"
)]
pub(super) fn number(signal: Signal) -> i32 {
    signal as i32
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_killed_only_if_it_is_the_one_that_is_meant() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let seen = Process::read(pid).unwrap();
        let later = Process {
            started: seen.started + 1,
            ..seen.clone()
        };
        let is = |meant: &Process| Process::read(pid).is_some_and(|now| now.is_same(meant));
        sys::kill_exactly(Pid::from_raw(pid), || is(&later));
        assert!(child.try_wait().unwrap().is_none());
        sys::kill_exactly(Pid::from_raw(pid), || is(&seen));
        assert!(!child.wait().unwrap().success());
        sys::kill_exactly(Pid::from_raw(pid), || true);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "42 (a) b (c) S 7 9 9 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 1 0 123456 1 1 1";
        let expected = Process {
            pid: 42,
            state: 'S',
            parent: 7,
            group: 9,
            started: 123_456,
        };
        assert_eq!(parse_stat(line), Some(expected));
    }

    #[test]
    fn a_cut_line_is_no_process() {
        assert_eq!(parse_stat("42 (a) S 7"), None);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let me = i32::try_from(std::process::id()).unwrap();
        let process = Process::read(me).unwrap();
        assert!(process.is_alive());
        assert!(all().contains(&process));
    }
}
