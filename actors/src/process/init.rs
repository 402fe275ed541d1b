//! A tiny init: what our binary is when it runs as process 1 of a container.
//!
//! Process 1 inherits every orphan. If the gateway itself collected them, it could take an exit
//! status that its runtime waits for; so process 1 only starts the gateway, hands signals on,
//! collects whatever ends, and ends with the gateway's exit code, taking the rest with it.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::{sys, tree};

/// The first argument that makes the binary an init even when it is not process 1.
pub(super) const ARGUMENT: &str = "__init";
/// Exit code when the gateway could not be started.
const UNUSABLE: u8 = 125;

/// Signals that are handed on.
const RELAYED: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Runs the gateway with `args` under this process until it ends.
pub(super) fn run(name: OsString, args: impl Iterator<Item = OsString>) -> ExitCode {
    match start(name, args) {
        Ok((signals, gateway)) => {
            let code = watch(&signals, gateway);
            tree::end_descendants();
            code
        }
        Err(error) => {
            let words = format!(
                "error: the gateway cannot be started below process 1 ({error}): mount `/proc`, and \
                 let the program be run from where it is\n"
            );
            // Where nothing can be written, the exit code has to do.
            drop(io::stderr().write_all(words.as_bytes()));
            ExitCode::from(UNUSABLE)
        }
    }
}

fn start(name: OsString, args: impl Iterator<Item = OsString>) -> io::Result<(SignalFd, Pid)> {
    prctl::set_child_subreaper(true)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    for signal in RELAYED {
        mask.add(signal);
    }
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(args);
    sys::prepare_gateway(&mut command);
    let gateway = command.spawn()?;
    let pid = i32::try_from(gateway.id()).map_err(io::Error::other)?;
    Ok((signals, Pid::from_raw(pid)))
}

/// Relays and collects until the gateway ends; its exit code, by the shell's custom.
fn watch(signals: &SignalFd, gateway: Pid) -> ExitCode {
    loop {
        if let Ok(Some(info)) = signals.read_signal()
            && let Ok(number) = i32::try_from(info.ssi_signo)
            && let Ok(signal) = Signal::try_from(number)
            && signal != Signal::SIGCHLD
            // A signal that the terminal sent to the whole foreground group has reached the gateway
            // already; twice would mean "stop at once".
            && info.ssi_code <= 0
        {
            kill(gateway, signal).ok();
        }
        let mut ended = None;
        if !tree::reap(|status| ended = code_of(status, gateway).or(ended)) {
            // The gateway was the last, and its status, if not seen, cannot be told.
            ended = ended.or(Some(UNUSABLE));
        }
        if let Some(code) = ended {
            return ExitCode::from(code);
        }
    }
}

fn code_of(status: WaitStatus, gateway: Pid) -> Option<u8> {
    if status.pid() != Some(gateway) {
        return None;
    }
    let number = if let WaitStatus::Signaled(_, signal, _) = status {
        128 + tree::number(signal)
    } else if let WaitStatus::Exited(_, code) = status {
        code
    } else {
        return None;
    };
    Some(u8::try_from(number).unwrap_or(UNUSABLE))
}
