//! Child processes: started, watched, heard and stopped in one place.
//!
//! ```text
//! gateway ── launcher thread ──socket── guardian (our binary again) ── child ── whatever it starts
//!                  └───────────── output pipe, stdin pipe ────────────┘
//! ```
//!
//! - [`Launcher`] is one long-lived thread that starts guardians, reads all output and waits for ends.
//! - [`Child`] is the handle: `wait`, `stop`, `kill`. When the last handle is dropped, the child is killed.
//! - `guardian` and `init` are what our own binary becomes through [`entry`]; `tree` is their view of
//!   `/proc`, `mark` recognises what is left when a guardian is killed too, `sys` is the unsafe part.
//! - [`sandbox`] is the wall around a child that runs code of strangers.
//! - [`actor`] keeps one child running under a restart policy; [`readiness`] is its probing.
//!
//! When an [`ExitReport`] arrives, no process of that child's tree is left.

pub mod actor;
#[cfg(test)]
mod actor_tests;
mod group;
mod guardian;
mod init;
mod launcher;
mod lines;
mod mark;
pub mod messages;
mod output;
mod plain;
pub mod ports;
pub mod readiness;
mod run;
pub mod sandbox;
pub mod socket;
mod spec;
mod supervise;
mod sys;
mod tree;

use std::ffi::OsString;
use std::process::ExitCode;

pub use group::Held;
pub use launcher::{Child, Launcher};
pub use lines::LAST_LINES;
pub use mark::{sweep_leftovers, sweep_own};
pub use output::{outlet, write_lines_to};
pub use plain::deceives;
pub use spec::{ChildSpec, EnvPolicy, ExitKind, ExitReport, Output, SpawnError, Spawned, Stdin};
pub use sys::{Limit, LimitKind, ignore_hangup, outlives_terminal, unread};

/// The process that traces this one, and so reads and changes its memory, secrets included.
///
/// Between exec and [`entry`] any process of the same user can attach itself, and stays attached.
pub fn traced_by() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok().filter(|pid| *pid != 0)
}

/// Runs what our binary is besides a gateway, and returns its exit code; `None` for a gateway.
///
/// `main` calls this before anything else, with `std::env::args_os()`: no thread may exist yet.
/// `__guardian` makes it a guardian; `__init`, or being process 1, makes it the init of a container,
/// which starts the gateway with the same arguments.
pub fn entry(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    sys::hide();
    sys::move_environment();
    let mut args = args.into_iter().peekable();
    let name = args.next()?;
    if args.next_if(|first| first == guardian::ARGUMENT).is_some() {
        return Some(guardian::run(args));
    }
    let asked = args.next_if(|first| first == init::ARGUMENT).is_some();
    if asked || std::process::id() == 1 {
        return Some(init::run(name, args));
    }
    sys::brace();
    None
}
