//! The init of a container.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::look;
use crate::{fake, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "p9_init_reaps_orphans_and_hands_the_code_on",
            p9_init_reaps_orphans,
        ),
        trial("p9_process_1_is_an_init", p9_process_1_is_an_init),
        trial("init_hands_signals_on", init_hands_signals_on),
    ]
}

fn p9_init_reaps_orphans() {
    let script = [
        "__init",
        fake::ARGUMENT,
        "orphans",
        "50",
        "fork-daemon",
        "exit",
        "7",
    ];
    let mut init = Command::new("/proc/self/exe").args(script).spawn().unwrap();
    assert_eq!(init.wait().unwrap().code(), Some(7));
    let pid = i32::try_from(init.id()).unwrap();
    assert_eq!(look::descendants(pid), []);
}

fn p9_process_1_is_an_init() {
    let namespace = ["--pid", "--fork", "--mount-proc"];
    let may = Command::new("unshare")
        .args(namespace)
        .arg("true")
        .stderr(Stdio::null())
        .status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: no PID namespace can be made here");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command
        .args(namespace)
        .arg(program)
        .args([fake::ARGUMENT, "orphans", "20", "exit", "7"]);
    assert_eq!(command.status().unwrap().code(), Some(7));
}

fn init_hands_signals_on() {
    let script = ["__init", fake::ARGUMENT, "live"];
    let mut init = Command::new("/proc/self/exe").args(script).spawn().unwrap();
    let pid = i32::try_from(init.id()).unwrap();
    look::wait_for_tree(pid, 1);
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert_eq!(init.wait().unwrap().code(), Some(128 + 15));
}
