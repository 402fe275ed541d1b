//! The gateway, or its guardian, is killed.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::gateway::{self, TREES_SIZE};
use crate::look::{self, Seen};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "p4_kill_9_of_the_gateway_leaves_nothing",
            p4_kill_9_of_the_gateway_leaves_nothing,
        ),
        trial(
            "p4_leftovers_without_guardian_are_swept",
            p4_leftovers_without_guardian_are_swept,
        ),
    ]
}

/// 20 rounds, 200 with `VR_LONG=1`.
fn rounds() -> u32 {
    if is_long() { 200 } else { 20 }
}

fn is_long() -> bool {
    std::env::var_os("VR_LONG").is_some_and(|value| value == "1")
}

/// A gateway to be killed: at the latest when its test has failed.
struct Gateway(Child);

impl Gateway {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for guardian in look::children(self.pid()) {
            kill(Pid::from_raw(guardian.pid), Signal::SIGCONT).ok();
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start_trees() -> (Gateway, Vec<Seen>) {
    let mut command = gateway::command(&["trees"]);
    let gateway = Gateway(command.stderr(Stdio::null()).spawn().unwrap());
    let pid = gateway.pid();
    let mut tree = Vec::new();
    look::wait_until("both trees stand", || {
        tree = look::finished_trees(pid, 2, 2).unwrap_or_default();
        !tree.is_empty()
    });
    (gateway, tree)
}

fn send(process: &Seen, signal: Signal) {
    kill(Pid::from_raw(process.pid), signal).unwrap();
}

fn p4_kill_9_of_the_gateway_leaves_nothing() {
    // The target is 2 s; a test machine that does other work may take longer to schedule us.
    let limit = Duration::from_secs(if is_long() { 2 } else { 10 });
    let mut longest = Duration::ZERO;
    for round in 0..rounds() {
        let (mut gateway, tree) = start_trees();
        gateway.kill();
        let dead = Instant::now();
        while !look::still_alive(&tree).is_empty() {
            let left = look::still_alive(&tree);
            assert!(dead.elapsed() < limit, "round {round}: {left:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
        longest = longest.max(dead.elapsed());
    }
    println!("longest time to the last death: {} ms", longest.as_millis());
}

fn p4_leftovers_without_guardian_are_swept() {
    let (mut gateway, tree) = start_trees();
    // Stopped guardians cannot act on the gateway's death; then they are killed too.
    let own = gateway.pid();
    let guardians: Vec<&Seen> = tree.iter().filter(|seen| seen.parent == own).collect();
    assert_eq!(guardians.len(), 2);
    for guardian in &guardians {
        send(guardian, Signal::SIGSTOP);
    }

    // While the owner lives, a second gateway leaves its children alone.
    assert!(
        gateway::command(&["sweep"])
            .output()
            .unwrap()
            .status
            .success()
    );
    assert_eq!(look::still_alive(&tree).len(), TREES_SIZE);

    gateway.kill();
    for guardian in &guardians {
        send(guardian, Signal::SIGKILL);
    }
    let orphans = TREES_SIZE - 4;
    look::wait_until("guardians and their children are dead", || {
        look::still_alive(&tree).len() == orphans
    });
    let output = gateway::command(&["sweep"]).output().unwrap();
    let found: usize = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(found >= orphans, "{found} found");
    assert_eq!(look::still_alive(&tree), []);
}
