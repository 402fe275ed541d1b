//! The child: does what its arguments say, one word after the other.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getppid, setsid};

use crate::look;

/// The first argument that makes the test binary a fake child.
pub(crate) const ARGUMENT: &str = "__fake";

/// Runs the script. Without `exit` at its end it returns 0.
pub(crate) fn run(script: &[String]) -> ExitCode {
    let mut words = script.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut argument = || words.next().expect("the action needs an argument");
        match word {
            "exit" => return ExitCode::from(argument().parse::<u8>().unwrap()),
            "print" => println!("{}", argument()),
            "touch" => fs::write(argument(), "").unwrap(),
            "load" => sleep(Duration::from_millis(argument().parse().unwrap())),
            "flood" => flood(argument().parse().unwrap()),
            "orphans" => orphans(argument().parse().unwrap()),
            // A blocked signal is never delivered: what a child that ignores it looks like.
            "ignore-term" => {
                let mut mask = SigSet::empty();
                mask.add(Signal::SIGTERM);
                mask.thread_block().unwrap();
            }
            "setsid" => {
                setsid().unwrap();
            }
            "fork" => fork(&["ignore-term", "live"]),
            "fork-setsid" => fork(&["setsid", "ignore-term", "fork", "live"]),
            // Its parent ends at once: the two below lose it.
            "fork-daemon" => fork(&["fork-setsid", "exit", "0"]),
            "environment" => {
                for (name, value) in std::env::vars() {
                    println!("{name}={value}");
                }
            }
            "descriptors" => println!("{:?}", look::descriptors()),
            "stdin" => {
                std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            }
            "stderr" => eprintln!("{}", argument()),
            "live" => loop {
                sleep(Duration::from_secs(3600));
            },
            other => panic!("unknown action {other}"),
        }
    }
    ExitCode::SUCCESS
}

/// Starts another fake child and does not wait for it.
fn fork(script: &[&str]) {
    let mut command = Command::new("/proc/self/exe");
    command.arg(ARGUMENT).args(script).stdin(Stdio::null());
    drop(command.spawn().unwrap());
}

/// Writes as fast as it can.
fn flood(megabytes: usize) {
    let block =
        b"a line of output like any other, with some length to it, as logs have\n".repeat(1000);
    let mut out = std::io::stdout().lock();
    for _ in 0..megabytes * 1_000_000 / block.len() {
        out.write_all(&block).unwrap();
    }
}

/// Makes `count` orphans that end at once, and fails if its own parent, the init, leaves one unreaped.
fn orphans(count: usize) {
    for _ in 0..count {
        let script = "sleep 0.01 & exit 0";
        assert!(
            Command::new("/bin/sh")
                .args(["-c", script])
                .status()
                .unwrap()
                .success()
        );
    }
    let parent = getppid().as_raw();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left: Vec<_> = look::children(parent)
            .into_iter()
            .filter(|p| p.state == 'Z')
            .collect();
        if left.is_empty() && look::children(parent).len() == 1 {
            return;
        }
        assert!(Instant::now() < deadline, "unreaped: {left:?}");
        sleep(Duration::from_millis(20));
    }
}
