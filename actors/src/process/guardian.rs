//! The guardian: a process of our own binary between the gateway and one child.
//!
//! It holds one end of a socket whose other end only the gateway holds. When that end closes, for
//! whatever reason, `kill -9` included, the guardian kills every descendant until none remains and
//! ends. It does the same when the child itself ends: what the child left behind is gone before
//! anybody hears of its exit. It is a subreaper, so descendants cannot leave it by `setsid` or by
//! losing their parent; the child in turn dies with the guardian.
//!
//! It runs on one thread, knows nothing of actors, and never logs: it reports on the socket.
//!
//! Lines to the gateway: `started PID`, `failed ERRNO`, `exited code N`, `exited signal N`.
//! Bytes from the gateway: [`TERMINATE`], [`KILL`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use super::group::{Bounds, Group};
use super::sandbox::{Prepared, Sandbox};
use super::spec::ChildSpec;
use super::sys::{self, ChildSetup, Confine, Limit, LimitKind};
use super::tree;

/// The first argument that makes the binary a guardian.
pub(super) const ARGUMENT: &str = "__guardian";
/// Asks for SIGTERM to the child's group.
pub(super) const TERMINATE: u8 = b'T';
/// Asks for SIGKILL to the child and everything below it.
pub(super) const KILL: u8 = b'K';
/// Exit code when the child could not be started or the command line is not ours.
const UNUSABLE: u8 = 125;

/// Says that the child is walled in; [`READ`] and [`EXECUTE`] follow.
const WALLED: &str = "walled";
/// A path that a walled child may read.
const READ: &str = "read=";
/// A program that a walled child may run.
const EXECUTE: &str = "execute=";

/// The command line that makes a guardian for the child of `spec`; [`Order::parse`] reads it back.
pub(super) fn arguments(control: i32, spec: &ChildSpec) -> Vec<OsString> {
    let mut line: Vec<OsString> = vec![
        ARGUMENT.into(),
        (&spec.name).into(),
        control.to_string().into(),
    ];
    line.extend(
        spec.limits
            .iter()
            .map(|l| format!("{}={}", l.kind.name(), l.value).into()),
    );
    if let Some(sandbox) = &spec.sandbox {
        line.push(WALLED.into());
        let named = |word: &str, path: &Path| {
            let mut word = OsString::from(word);
            word.push(path);
            word
        };
        line.extend(sandbox.read.iter().map(|path| named(READ, path)));
        line.extend(sandbox.execute.iter().map(|path| named(EXECUTE, path)));
    }
    line.push("--".into());
    line.push(spec.program.clone());
    line.extend_from_slice(&spec.args);
    line
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    name: String,
    control: i32,
    limits: Vec<Limit>,
    sandbox: Option<Sandbox>,
    program: OsString,
    args: Vec<OsString>,
}

impl Order {
    /// Reads the arguments behind [`ARGUMENT`].
    fn parse(mut line: impl Iterator<Item = OsString>) -> Option<Self> {
        let name = line.next()?.into_string().ok()?;
        let control = line.next()?.to_str()?.parse().ok()?;
        let mut limits = Vec::new();
        let mut sandbox: Option<Sandbox> = None;
        loop {
            let word = line.next()?;
            if word == "--" {
                break;
            }
            if word == WALLED {
                sandbox = Some(Sandbox::default());
            } else if let Some(walled) = &mut sandbox {
                if let Some(path) = path_behind(&word, READ) {
                    walled.read.push(path);
                } else {
                    walled.execute.push(path_behind(&word, EXECUTE)?);
                }
            } else {
                limits.push(limit(word.to_str()?)?);
            }
        }
        Some(Self {
            name,
            control,
            limits,
            sandbox,
            program: line.next()?,
            args: line.collect(),
        })
    }
}

fn limit(word: &str) -> Option<Limit> {
    let (kind, value) = word.split_once('=')?;
    let kind = LimitKind::ALL
        .into_iter()
        .find(|known| known.name() == kind)?;
    Some(Limit {
        kind,
        value: value.parse().ok()?,
    })
}

fn path_behind(word: &OsStr, name: &str) -> Option<PathBuf> {
    let path = word.as_bytes().strip_prefix(name.as_bytes())?;
    Some(OsStr::from_bytes(path).into())
}

/// Runs as guardian until nothing is left to guard. `line` is what follows [`ARGUMENT`].
pub(super) fn run(line: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(order) = Order::parse(line) else {
        return ExitCode::from(UNUSABLE);
    };
    let Ok(control) = sys::adopt_control(order.control) else {
        return ExitCode::from(UNUSABLE);
    };
    match Guardian::start(control, order) {
        Ok(guardian) => guardian.watch(),
        Err(()) => ExitCode::from(UNUSABLE),
    }
}

struct Guardian {
    control: UnixStream,
    signals: SignalFd,
    child: Pid,
    group: Group,
}

impl Guardian {
    /// Arms everything, then starts the child; a failure is told on the socket.
    fn start(mut control: UnixStream, order: Order) -> Result<Self, ()> {
        let started = arm(&order.name).and_then(|signals| Ok((signals, start_child(order)?)));
        match started {
            Ok((signals, (child, group))) => {
                release_standard_streams();
                tell(&mut control, &format!("started {child}\n"));
                Ok(Self {
                    control,
                    signals,
                    child,
                    group,
                })
            }
            Err(error) => {
                let number = error.raw_os_error().unwrap_or(0);
                tell(&mut control, &format!("failed {number}\n"));
                Err(())
            }
        }
    }

    /// Waits for the child's end, the gateway's end or an order, whichever comes.
    fn watch(mut self) -> ExitCode {
        loop {
            let (gateway, signal) = self.wait();
            if gateway && !self.obey() {
                break;
            }
            if signal && let Some(code) = self.on_signal() {
                self.end_all();
                return code;
            }
        }
        self.end_all();
        ExitCode::from(UNUSABLE)
    }

    /// Ends whatever is left below, at once where there is a group, and waits for each.
    fn end_all(&self) {
        self.group.kill();
        tree::end_descendants();
    }

    /// Blocks until the socket or a signal is ready and says which.
    fn wait(&self) -> (bool, bool) {
        let mut fds = [
            PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {
                let [control, signals] = fds;
                (control.any().unwrap_or(true), signals.any().unwrap_or(true))
            }
            Err(Errno::EINTR) => (false, false),
            // A guardian that cannot watch must not leave its child unguarded: as if all had come.
            Err(_) => (true, true),
        }
    }

    /// Carries out one order. False when the gateway is gone.
    fn obey(&mut self) -> bool {
        let mut order = [0];
        match self.control.read(&mut order) {
            Ok(0) => false,
            Ok(_) if order == [KILL] => {
                self.kill_child();
                true
            }
            Ok(_) => {
                self.terminate();
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    /// SIGTERM to the child's group, in which it may no longer be the only one.
    fn terminate(&self) {
        // An error means that the group is empty: the exit is on its way.
        killpg(self.child, Signal::SIGTERM).ok();
    }

    /// SIGKILL to the child, which may have moved to another group, and to its group. The rest of the
    /// tree follows when the child's end is seen.
    fn kill_child(&self) {
        kill(self.child, Signal::SIGKILL).ok();
        killpg(self.child, Signal::SIGKILL).ok();
    }

    /// Takes one signal; the exit code when the child has ended.
    fn on_signal(&mut self) -> Option<ExitCode> {
        let info = self.signals.read_signal().ok()??;
        let is_child = i32::try_from(info.ssi_signo) == Ok(tree::number(Signal::SIGCHLD));
        if !is_child {
            self.terminate();
            return None;
        }
        let mut ended = None;
        let some_left = tree::reap(|status| {
            if status.pid() == Some(self.child) {
                ended = Some(status);
            }
        });
        if !some_left {
            // Collected without a status that can be told: see `reap`.
            ended = ended.or(Some(WaitStatus::Signaled(
                self.child,
                Signal::SIGKILL,
                false,
            )));
        }
        let (report, code) = describe(ended?);
        tell(&mut self.control, &report);
        Some(code)
    }
}

/// The line for the gateway and the guardian's own exit code, which follows the shell's custom.
fn describe(status: WaitStatus) -> (String, ExitCode) {
    if let WaitStatus::Signaled(_, signal, _) = status {
        let number = tree::number(signal);
        let code = u8::try_from(128 + number).unwrap_or(UNUSABLE);
        return (format!("exited signal {number}\n"), ExitCode::from(code));
    }
    let number = if let WaitStatus::Exited(_, code) = status {
        code
    } else {
        UNUSABLE.into()
    };
    (
        format!("exited code {number}\n"),
        ExitCode::from(u8::try_from(number).unwrap_or(UNUSABLE)),
    )
}

/// Becomes subreaper and session leader, and routes signals to a descriptor.
fn arm(name: &str) -> io::Result<SignalFd> {
    prctl::set_child_subreaper(true)?;
    // Another name than the gateway's, so that `killall -9` of the gateway does not hit its guardians.
    if let Ok(title) = std::ffi::CString::new(format!("guard:{name}")) {
        prctl::set_name(&title)?;
    }
    // Fails only for a group leader, which the launcher does not make of us.
    setsid().ok();
    let mut mask = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        mask.add(signal);
    }
    mask.thread_block()?;
    Ok(SignalFd::with_flags(
        &mask,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// Starts the child from this, the only thread, to which its death signal is tied.
fn start_child(order: Order) -> io::Result<(Pid, Group)> {
    let mut command = Command::new(order.program);
    command.args(order.args);
    let confine = match &order.sandbox {
        Some(sandbox) => {
            let mut walls = Prepared::new(sandbox)?;
            let put_on: Confine = Box::new(move || walls.put_on());
            Some(put_on)
        }
        None => None,
    };
    let group = Group::make(bounds(&order.limits));
    let setup = ChildSetup {
        parent: Pid::this(),
        limits: order.limits,
        entrances: group.entrances(),
        confine,
    };
    sys::prepare_child(&mut command, setup);
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok((Pid::from_raw(pid), group))
}

/// What of the limits a group has to hold.
fn bounds(limits: &[Limit]) -> Bounds {
    let of = |kind| {
        let limit = limits.iter().find(|limit| limit.kind == kind);
        limit.map(|limit| limit.value)
    };
    Bounds {
        memory: of(LimitKind::GroupMemory),
        tasks: of(LimitKind::GroupTasks),
        cpu: of(LimitKind::GroupCpu),
    }
}

/// Lets go of the child's streams: the gateway must see end-of-file when the child's tree is gone.
fn release_standard_streams() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        dup2_stdin(&null).ok();
        dup2_stdout(&null).ok();
        dup2_stderr(&null).ok();
    }
}

/// Reports to the gateway; if it is gone, the next poll shows that.
fn tell(control: &mut UnixStream, line: &str) {
    drop(control.write_all(line.as_bytes()));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mask::Mask;
    use crate::process::spec::{EnvPolicy, Output, Stdin};

    #[test]
    fn the_command_line_reads_back() {
        let walls = Sandbox {
            read: vec!["/a=b".into(), "/c".into()],
            execute: vec!["/bin/x".into()],
        };
        for sandbox in [None, Some(Sandbox::default()), Some(walls)] {
            let spec = ChildSpec {
                name: "vllm".into(),
                program: "/bin/vllm".into(),
                args: vec!["serve".into(), "--".into(), "core=1".into()],
                directory: None,
                env: EnvPolicy::Only(Vec::new()),
                stdin: Stdin::Null,
                output: Output::Captured,
                grace: Duration::ZERO,
                secrets: Mask::default(),
                limits: LimitKind::ALL
                    .map(|kind| Limit { kind, value: 12 })
                    .to_vec(),
                sandbox,
            };
            let line = arguments(7, &spec);
            let order = Order::parse(line.into_iter().skip(1)).unwrap();
            let expected = Order {
                name: spec.name,
                control: 7,
                limits: spec.limits,
                sandbox: spec.sandbox,
                program: spec.program,
                args: spec.args,
            };
            assert_eq!(order, expected);
        }
    }

    #[test]
    fn a_foreign_command_line_is_refused() {
        for line in [
            vec![],
            vec!["n", "x", "--", "p"],
            vec!["n", "3", "what=1", "--", "p"],
            vec!["n", "3", "read=/", "--", "p"],
            vec!["n", "3", "walled", "core=1", "--", "p"],
        ] {
            assert_eq!(Order::parse(line.iter().map(OsString::from)), None);
        }
    }
}
