//! What `/proc` says, read independently of the code under test.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A process as its `status` and `stat` files describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) state: char,
    pub(crate) started: String,
    /// Its arguments behind the one that makes it a fake child.
    pub(crate) script: String,
}

pub(crate) fn process(pid: i32) -> Option<Seen> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1).map(str::to_owned)
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .ok()?
        .replace('\0', " ");
    let script = line
        .split_once("__fake ")
        .map_or("", |(_, script)| script.trim_end());
    Some(Seen {
        script: script.to_owned(),
        pid,
        parent: field("PPid:")?.parse().ok()?,
        state: field("State:")?.chars().next()?,
        started: stat
            .rsplit(')')
            .next()?
            .split_whitespace()
            .nth(19)?
            .to_owned(),
    })
}

fn everything() -> Vec<Seen> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|e| process(e.file_name().to_str()?.parse().ok()?))
        .collect()
}

pub(crate) fn children(parent: i32) -> Vec<Seen> {
    everything()
        .into_iter()
        .filter(|seen| seen.parent == parent)
        .collect()
}

/// All below `root`, dead ones included.
pub(crate) fn descendants(root: i32) -> Vec<Seen> {
    let all = everything();
    let mut found: Vec<Seen> = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for seen in all.iter().filter(|seen| seen.parent == parent) {
            open.push(seen.pid);
            found.push(seen.clone());
        }
    }
    found
}

/// Those that still run.
pub(crate) fn still_alive(processes: &[Seen]) -> Vec<Seen> {
    let same =
        |old: &Seen| process(old.pid).filter(|now| now.started == old.started && now.state != 'Z');
    processes.iter().filter_map(same).collect()
}

/// The living processes below `root` if they are `trees` finished trees of `gateway::TREE` and `others`.
///
/// While a tree grows, processes come and go, so that their number alone does not tell.
pub(crate) fn finished_trees(root: i32, trees: usize, others: usize) -> Option<Vec<Seen>> {
    let alive = still_alive(&descendants(root));
    let count = |script: &str| alive.iter().filter(|seen| seen.script == script).count();
    let is_finished = count("ignore-term live") == 3 * trees
        && count("setsid ignore-term fork live") == 2 * trees
        && alive.len() == 6 * trees + others;
    is_finished.then_some(alive)
}

/// Waits until `root` has `count` living descendants.
pub(crate) fn wait_for_tree(root: i32, count: usize) -> Vec<Seen> {
    let mut tree = Vec::new();
    wait_until("the tree has grown", || {
        tree = descendants(root);
        tree.len() >= count
    });
    tree
}

/// Waits long for something that should come soon.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Open descriptors of this process, without the one that reading them needs.
pub(crate) fn descriptors() -> Vec<i32> {
    let directory = fs::read_dir("/proc/self/fd").unwrap();
    let mut numbers: Vec<i32> = directory
        .flatten()
        .filter(|entry| {
            fs::read_link(entry.path())
                .is_ok_and(|target| !target.to_string_lossy().ends_with("/fd"))
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Peak memory of this process in KiB.
pub(crate) fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
