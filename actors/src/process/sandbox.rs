//! The operating system's wall around a child that runs hostile code: Landlock and seccomp.
//!
//! The guardian prepares both before it forks and puts them on between fork and exec. What is let
//! through is written down; everything else fails: a file that is not named, a system call that is not
//! listed. So a new system call of a later kernel, or the second numbering that some kernels have for
//! the same calls, is closed without being known here.
//!
//! No Landlock (kernels before 5.13) or no seccomp is not an error unless it is asked for: see
//! [`Walls`], which says what this machine has.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use serde::{Deserialize, Serialize};

use super::group::{Bounds, Group, Held};
use super::sys;

/// What a walled child may reach. Everything else of the machine is closed to it: other files, every
/// socket, other processes, new processes, and whatever is not listed in this module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Files and folders it may read, with all below them. Those that do not exist are passed over.
    pub read: Vec<PathBuf>,
    /// Programs it may run in place of itself; they may be read too.
    pub execute: Vec<PathBuf>,
}

/// Which walls this machine's kernel offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls {
    /// Version of Landlock's interface; 0 where there is none.
    pub landlock: u32,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
    /// What a control group of a child's own bounds.
    #[serde(default)]
    pub group: Held,
}

impl Walls {
    /// Asks the kernel.
    pub fn of_this_machine() -> Self {
        let works = std::thread::spawn(restricts).join();
        Self {
            // A profile of a container may let the version be asked for and refuse the rest.
            landlock: if works.unwrap_or(false) {
                sys::landlock_version()
            } else {
                0
            },
            seccomp: sys::has_seccomp() && filter().is_ok(),
            group: Held::default(),
        }
    }

    /// The same, with whether a control group can be made, which is tried.
    #[must_use]
    pub fn with_group(self) -> Self {
        let bounds = Bounds {
            memory: Some(1 << 30),
            tasks: Some(64),
            cpu: None,
        };
        Self {
            group: Group::make(bounds).held(),
            ..self
        }
    }

    /// Whether both are there. The first version of Landlock is enough: what it leaves open (TCP,
    /// signals, truncation) needs system calls that the filter refuses.
    pub fn are_complete(self) -> bool {
        self.landlock > 0 && self.seccomp
    }
}

impl fmt::Display for Walls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |there| if there { "there" } else { "missing" };
        let (files, calls) = (word(self.landlock > 0), word(self.seccomp));
        write!(f, "Landlock {files}, seccomp {calls}")
    }
}

/// Both walls, ready to be put on.
pub(super) struct Prepared {
    files: Option<RulesetCreated>,
    calls: Option<BpfProgram>,
}

impl Prepared {
    /// Opens every named path and compiles the filter.
    pub(super) fn new(sandbox: &Sandbox) -> io::Result<Self> {
        let walls = Walls::of_this_machine();
        Ok(Self {
            files: if walls.landlock > 0 {
                Some(files(sandbox)?)
            } else {
                None
            },
            calls: if walls.seccomp { Some(filter()?) } else { None },
        })
    }

    /// Confines the calling process for good. Runs between fork and exec of the guardian, which has
    /// one thread: it may allocate.
    pub(super) fn put_on(&mut self) -> io::Result<()> {
        if let Some(files) = self.files.take() {
            files.restrict_self().map_err(other)?;
        }
        if let Some(calls) = &self.calls {
            seccompiler::apply_filter(calls).map_err(other)?;
        }
        Ok(())
    }
}

/// Whether this thread can restrict itself, tried. It stays restricted.
fn restricts() -> bool {
    files(&Sandbox::default()).is_ok_and(|rules| rules.restrict_self().is_ok())
}

/// What to call an error of the crates; its text never reaches anybody, only that it failed.
fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// Reading and running what is named, no writing anywhere, no TCP, no signal to the outside and no
/// abstract socket, as far as the kernel's Landlock goes.
fn files(sandbox: &Sandbox) -> io::Result<RulesetCreated> {
    let newest = ABI::V7;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(newest)))
        .and_then(|rules| rules.scope(Scope::from_all(newest)))
        .and_then(Ruleset::create)
        .map_err(other)?;
    let rules = allow(rules, &sandbox.read, read)?;
    allow(rules, &sandbox.execute, read | AccessFs::Execute)
}

fn allow(
    mut rules: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> io::Result<RulesetCreated> {
    for path in paths {
        let Ok(opened) = PathFd::new(path) else {
            continue;
        };
        // The right to list folders has no meaning for a file and would be refused for one.
        let access = if path.is_dir() {
            access
        } else {
            access & AccessFs::from_file(ABI::V1)
        };
        rules = rules
            .add_rule(PathBeneath::new(opened, access))
            .map_err(other)?;
    }
    Ok(rules)
}

/// Calls that are let through whatever their arguments: memory, threads, time, reading, waiting, and
/// facts about oneself.
const FREE: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    // The walls are put on before the program is: it must be let through once. A second time it could
    // only become what the file rules name.
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The same, under the names that only this processor has.
#[cfg(target_arch = "x86_64")]
const FREE_HERE: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const FREE_HERE: &[libc::c_long] = &[];

/// Terminal and descriptor questions that runtimes ask of their standard streams.
const IOCTLS: [u64; 5] = [
    0x5401, // TCGETS
    0x5413, // TIOCGWINSZ
    0x5421, // FIONBIO
    0x5451, // FIOCLEX
    0x541b, // FIONREAD
];

/// Descriptor commands, without those that make the kernel send signals to somebody.
const FCNTLS: [libc::c_int; 7] = [
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETLK,
];

/// Options that name threads and memory.
const PRCTLS: [libc::c_int; 3] = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];

/// Opening to write, to create or to cut short.
const OPEN_TO_WRITE: libc::c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;

/// Every way to a namespace, and the mark of a thread: `clone` may make threads and nothing else.
const CLONE_KINDS: libc::c_int = libc::CLONE_THREAD
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// The filter. A call that is not let through fails as if the kernel did not have it, which is what
/// libraries are ready for: `clone3` falls back to `clone`, whose flags can be looked at.
fn filter() -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FREE
        .iter()
        .chain(FREE_HERE)
        .map(|call| (*call, Vec::new()))
        .collect();
    rules.insert(
        libc::SYS_clone,
        all_of(vec![masked(0, CLONE_KINDS, libc::CLONE_THREAD)?])?,
    );
    // Memory that is shared and has no file, and memory that grows by itself, are in no limit of data.
    let growing = libc::MAP_GROWSDOWN;
    rules.insert(
        libc::SYS_mmap,
        vec![
            rule(vec![masked(3, libc::MAP_SHARED | growing, 0)?])?,
            rule(vec![masked(3, libc::MAP_ANONYMOUS | growing, 0)?])?,
        ],
    );
    rules.insert(libc::SYS_ioctl, any_of(1, IOCTLS)?);
    rules.insert(libc::SYS_fcntl, any_of(1, FCNTLS.map(bits))?);
    rules.insert(libc::SYS_prctl, any_of(0, PRCTLS.map(bits))?);
    rules.insert(
        libc::SYS_openat,
        all_of(vec![masked(2, OPEN_TO_WRITE, libc::O_RDONLY)?])?,
    );
    #[cfg(target_arch = "x86_64")]
    rules.insert(
        libc::SYS_open,
        all_of(vec![masked(1, OPEN_TO_WRITE, libc::O_RDONLY)?])?,
    );
    // One's own limits, to be read.
    rules.insert(
        libc::SYS_prlimit64,
        all_of(vec![equal(0, 0)?, not_given(2)?])?,
    );
    // Two ends that know only each other, which the runtime wakes itself by. Stream sockets cannot be
    // pointed elsewhere; datagram sockets could.
    rules.insert(
        libc::SYS_socketpair,
        all_of(vec![
            equal(0, bits(libc::AF_UNIX))?,
            masked(1, 0xf, libc::SOCK_STREAM)?,
        ])?,
    );
    rules.insert(libc::SYS_sendto, all_of(vec![not_given(4)?])?);
    let arch = std::env::consts::ARCH.try_into().map_err(other)?;
    let refuse = SeccompAction::Errno(bits_of_errno(libc::ENOSYS));
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)
        .and_then(TryInto::try_into)
        .map_err(other)
}

fn bits_of_errno(number: libc::c_int) -> u32 {
    number.unsigned_abs()
}

/// A flag or number as the filter compares it.
fn bits(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

fn equal(argument: u8, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).map_err(other)
}

/// An address that is not given.
fn not_given(argument: u8) -> io::Result<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0).map_err(other)
}

fn masked(argument: u8, mask: libc::c_int, value: libc::c_int) -> io::Result<SeccompCondition> {
    SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(bits(mask)),
        bits(value),
    )
    .map_err(other)
}

fn rule(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(other)
}

fn all_of(conditions: Vec<SeccompCondition>) -> io::Result<Vec<SeccompRule>> {
    Ok(vec![rule(conditions)?])
}

fn any_of(argument: u8, values: impl IntoIterator<Item = u64>) -> io::Result<Vec<SeccompRule>> {
    values
        .into_iter()
        .map(|value| SeccompRule::new(vec![equal(argument, value)?]).map_err(other))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_within_the_kernels_limit() {
        assert!(filter().unwrap().len() < 4096);
    }

    #[test]
    fn both_walls_are_wanted() {
        let walls = |landlock, seccomp| Walls {
            landlock,
            seccomp,
            group: Held::default(),
        };
        assert!(walls(1, true).are_complete());
        assert!(!walls(0, true).are_complete());
        assert!(!walls(7, false).are_complete());
    }
}
