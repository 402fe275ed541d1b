//! A question to a person at the terminal. Blocks: for a start or a command line that serves nobody yet.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Whether a person reads stderr and can answer.
pub fn has_person() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
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
