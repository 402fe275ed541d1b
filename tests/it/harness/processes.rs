//! Processes below the gateway, or below a service: who they are, and their violent end.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// All living processes below this one whose command line is as wanted; a guardian is none.
pub(crate) fn below(ancestor: u32, wanted: impl Fn(&[u8]) -> bool) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        !line.starts_with(b"guardian") && wanted(&line) && is_below(pid, ancestor)
    })
    .collect()
}

/// All living processes below this one, guardians included.
pub(crate) fn descendants(ancestor: u32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| is_below(pid, ancestor)).collect()
}

/// The interpreters below this process.
pub(crate) fn interpreters(ancestor: u32) -> Vec<i32> {
    below(ancestor, |line| {
        line.windows(11).any(|part| part == b"harness.mjs")
    })
}

/// Waits until one of the interpreters below computes, and no other: one that starts or warms up does so
/// too, for as long as the machine's load lets it take.
///
/// Processor time says little here, since interpreters give way to whatever else runs.
#[track_caller]
pub(crate) fn busy_interpreter(ancestor: u32) -> i32 {
    const LOOKS: u32 = 15;
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let mut seen: BTreeMap<i32, u32> = interpreters(ancestor)
            .into_iter()
            .map(|pid| (pid, 0))
            .collect();
        for _ in 0..LOOKS {
            thread::sleep(Duration::from_millis(100));
            for (pid, running) in &mut seen {
                *running += u32::from(is_running(*pid));
            }
        }
        let known: Vec<i32> = seen.keys().copied().collect();
        let mut busy = seen.iter().filter(|(_, running)| **running > 2);
        if let (Some((pid, running)), None) = (busy.next(), busy.next())
            && *running >= LOOKS - 1
            && interpreters(ancestor) == known
        {
            return *pid;
        }
        assert!(
            Instant::now() < until,
            "no interpreter runs anything: {seen:?}"
        );
    }
}

/// Whether the process's first thread runs, or waits for a processor only.
fn is_running(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "R"))
}

/// Fields of a process from its state on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

fn is_below(pid: i32, ancestor: u32) -> bool {
    let parent = stat(pid).and_then(|fields| fields.get(1)?.parse::<i32>().ok());
    let parent = parent.unwrap_or(0);
    parent > 1 && (u32::try_from(parent) == Ok(ancestor) || is_below(parent, ancestor))
}

/// kill -9; one that is gone already is fine.
pub(crate) fn kill_hard(pids: &[i32]) {
    for pid in pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
}
