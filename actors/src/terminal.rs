//! A question to a person at the terminal. Blocks: for a start or a command line that serves nobody yet.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Whether a person reads stderr and can answer.
pub fn has_person() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Whether this process stands at a terminal that is still there. One that is closed sends SIGHUP, as does
/// whoever wants settings to be read again.
pub fn is_controlled() -> bool {
    let mut options = std::fs::File::options();
    let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let terminal = options
        .read(true)
        .custom_flags(flags.bits())
        .open("/dev/tty");
    terminal.is_ok()
}

/// The person's next line, without its end; `None` when none comes within the limit.
pub fn line_within(limit: Option<Duration>) -> Option<String> {
    let stdin = io::stdin();
    let wait = limit.map_or(PollTimeout::NONE, |limit| {
        PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)
    });
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    if !poll(&mut fds, wait).is_ok_and(|ready| ready > 0) {
        return None;
    }
    let mut line = String::new();
    stdin.read_line(&mut line).ok().filter(|read| *read > 0)?;
    Some(line.trim().to_owned())
}
