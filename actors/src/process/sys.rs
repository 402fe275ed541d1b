//! What must happen between fork and exec, and the one place of `unsafe` in this crate.
//!
//! Code that runs between fork and exec sees a copy of a process whose other threads are gone: a
//! lock that one of them held stays locked for ever. So nothing in the hooks below allocates, locks
//! or logs; they only make system calls and return raw error numbers. Callers are the launcher
//! (which starts guardians) and the guardian and init (which start programs).
#![expect(
    unsafe_code,
    reason = "pre_exec hooks, descriptors handed over by exec, FIONREAD, pidfds and the environment's memory have no safe interface"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

/// A resource limit that a program starts with; soft and hard limit are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Which resource.
    pub kind: LimitKind,
    /// The limit in the resource's own unit (bytes, seconds or a count).
    pub value: u64,
}

/// The resources that a child's specification can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Bytes of address space.
    AddressSpace,
    /// Bytes of data segment and private writable mappings.
    Data,
    /// Bytes of a core file.
    Core,
    /// Seconds of processor time.
    CpuSeconds,
    /// Bytes of the largest file that may be written.
    FileSize,
    /// Number of open descriptors.
    OpenFiles,
    /// Number of processes of this user.
    Processes,
    /// How readily the kernel ends it when memory is short, 0 to 1000.
    OomScore,
    /// How far it stands back from the processor, 0 to 19.
    Niceness,
    /// Bytes of memory of the child and all below it together, where a control group can be made.
    GroupMemory,
    /// Processes and threads of the child and all below it, likewise.
    GroupTasks,
    /// Hundredths of a processor for the child and all below it, likewise.
    GroupCpu,
}

impl LimitKind {
    /// All kinds, for the argument parser of the guardian.
    pub(super) const ALL: [Self; 12] = [
        Self::AddressSpace,
        Self::Data,
        Self::Core,
        Self::CpuSeconds,
        Self::FileSize,
        Self::OpenFiles,
        Self::Processes,
        Self::OomScore,
        Self::Niceness,
        Self::GroupMemory,
        Self::GroupTasks,
        Self::GroupCpu,
    ];

    /// The name on the guardian's command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AddressSpace => "as",
            Self::Data => "data",
            Self::Core => "core",
            Self::CpuSeconds => "cpu",
            Self::FileSize => "fsize",
            Self::OpenFiles => "nofile",
            Self::Processes => "nproc",
            Self::OomScore => "oom",
            Self::Niceness => "nice",
            Self::GroupMemory => "group-memory",
            Self::GroupTasks => "group-tasks",
            Self::GroupCpu => "group-cpu",
        }
    }

    /// The kernel's own name for it; `None` for the standing among other processes, and for what a control
    /// group bounds.
    fn resource(self) -> Option<Resource> {
        Some(match self {
            Self::AddressSpace => Resource::RLIMIT_AS,
            Self::Data => Resource::RLIMIT_DATA,
            Self::Core => Resource::RLIMIT_CORE,
            Self::CpuSeconds => Resource::RLIMIT_CPU,
            Self::FileSize => Resource::RLIMIT_FSIZE,
            Self::OpenFiles => Resource::RLIMIT_NOFILE,
            Self::Processes => Resource::RLIMIT_NPROC,
            Self::OomScore
            | Self::Niceness
            | Self::GroupMemory
            | Self::GroupTasks
            | Self::GroupCpu => return None,
        })
    }
}

/// A last restriction before exec (a file-system or system-call filter). Where the forking process has
/// other threads it runs under the rules at the head of this file: system calls only.
pub(super) type Confine = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// How a program is prepared between fork and exec.
pub(super) struct ChildSetup {
    /// The process that forks. If it is gone by the time the death signal is armed, the child gives
    /// up: that signal would never come.
    pub(super) parent: Pid,
    /// Limits to set.
    pub(super) limits: Vec<Limit>,
    /// Files of the control group that it enters.
    pub(super) entrances: Vec<File>,
    /// The last step, if any.
    pub(super) confine: Option<Confine>,
}

/// Makes `command` start a program that dies with its parent **thread**, in a group of its own, with
/// descriptors 0, 1 and 2 only, and with no signal blocked or ignored.
pub(super) fn prepare_child(command: &mut Command, mut setup: ChildSetup) {
    command.process_group(0);
    let hook = move || {
        reset_signals();
        set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != setup.parent {
            return Err(Errno::ESRCH.into());
        }
        for entrance in &setup.entrances {
            enter(entrance);
        }
        for limit in &setup.limits {
            impose(*limit)?;
            if limit.kind == LimitKind::FileSize {
                // A write beyond the limit is then an error for the program instead of its death.
                // SAFETY: ignoring a signal runs no code of ours.
                unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            }
        }
        close_on_exec_from(3);
        setup.confine.as_mut().map_or(Ok(()), |confine| confine())
    };
    // SAFETY: the hook makes system calls only; its captures were allocated before the fork and are
    // only read.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Sets one limit of the calling process, which is about to become a child.
fn impose(limit: Limit) -> io::Result<()> {
    match limit.kind.resource() {
        Some(resource) => Ok(setrlimit(resource, limit.value, limit.value)?),
        None if limit.kind == LimitKind::OomScore => {
            stand_first_in_line(limit.value);
            Ok(())
        }
        None if limit.kind == LimitKind::Niceness => {
            let niceness = libc::c_int::try_from(limit.value).unwrap_or(19);
            // SAFETY: the call takes numbers only. To stand back further needs no privilege.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
            Ok(())
        }
        None => Ok(()),
    }
}

/// Makes the calling process a member of a control group; 0 stands for whoever writes it. A group that
/// takes nobody leaves the process where it was, under its resource limits.
fn enter(entrance: &File) {
    // SAFETY: the descriptor is open, and one byte is read from a text of one.
    unsafe { libc::write(entrance.as_raw_fd(), c"0".as_ptr().cast(), 1) };
}

/// Sends SIGKILL to a process if it still is the one that is meant: `is_meant` is asked while a
/// descriptor holds the process, so that the signal cannot go to a later one with the same number.
pub(super) fn kill_exactly(pid: Pid, is_meant: impl Fn() -> bool) {
    // SAFETY: the call takes numbers only.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let Ok(number) = RawFd::try_from(opened) else {
        return;
    };
    if number < 0 {
        // A kernel before 5.3 has no such descriptors; a process that is gone has none either.
        if Errno::last() == Errno::ENOSYS && is_meant() {
            kill(pid, Signal::SIGKILL).ok();
        }
        return;
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    let process = unsafe { OwnedFd::from_raw_fd(number) };
    if is_meant() {
        // SAFETY: no memory is given with the signal.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                process.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::c_void>(),
                0,
            )
        };
    }
}

/// Writes the kernel's order of ending processes when memory is short. A system whose `/proc` cannot
/// be written keeps its own order: that is no reason to start nothing.
fn stand_first_in_line(score: u64) {
    let score = score.min(1000);
    let digits = [score / 1000, score / 100 % 10, score / 10 % 10, score % 10];
    let text = digits.map(|digit| b'0' + u8::try_from(digit).unwrap_or(0));
    // The copy of a guardian belongs to root in `/proc` until it may be looked at; the program that it
    // is about to become may be looked at anyway.
    set_dumpable(true).ok();
    let path = c"/proc/self/oom_score_adj";
    // SAFETY: the path ends in a zero byte; the descriptor is ours from its opening to its closing.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, text.as_ptr().cast(), text.len());
            libc::close(file);
        }
    }
}

/// The soft limit of descriptors that this process was started with.
static STARTED_WITH: OnceLock<u64> = OnceLock::new();

/// Whether SIGHUP was ignored when this process was started.
static HANGUP_IGNORED: OnceLock<bool> = OnceLock::new();

/// What a process of ours does to itself first: nobody but root may read its memory, its environment
/// or its descriptors, and it leaves no core file. Its secrets would be in each of these.
pub(super) fn hide() {
    // Fails for no process.
    set_dumpable(false).ok();
}

unsafe extern "C" {
    /// The C library's list of this process's variables; it ends with a null pointer.
    static mut environ: *mut *mut libc::c_char;
}

/// Moves the environment to memory of our own and overwrites the place where the kernel put it at exec.
///
/// That place is what `/proc/PID/environ` shows, to root also where [`hide`] closes it to others, and
/// what tools copy into reports. The variables themselves stay: guardians hand them to their children,
/// and libraries look for those that are no secrets.
///
/// Called while this process has one thread: others could be reading what is overwritten.
pub(super) fn move_environment() {
    let on_the_stack = 0_u8;
    let frame = (&raw const on_the_stack).addr();
    let variables: Vec<_> = std::env::vars_os().collect();
    // SAFETY: nobody else reads or writes the list, since there is no other thread; its strings end
    // with a zero byte and the list with a null pointer. A string is written to only where it lies
    // above this frame, thus in the area that the kernel filled at exec and that is ours to write:
    // a library that ran before `main` may have put in others, from memory that cannot be written.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let text = *entry;
            if text.addr() > frame {
                std::ptr::write_bytes(text, 0, libc::strlen(text));
            }
            entry = entry.add(1);
        }
        libc::clearenv();
    }
    for (name, value) in variables {
        let (name, value) = (
            CString::new(name.into_vec()),
            CString::new(value.into_vec()),
        );
        if let (Ok(name), Ok(value)) = (name, value) {
            // SAFETY: both end with a zero byte, and are copied. A name that the C library does not
            // take, such as one with `=`, is refused and left out.
            unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 0) };
        }
    }
}

/// Takes as many descriptors as the system gives, and is not ended by signals that have no meaning.
/// Children get back what this process was started with: see [`prepare_guardian`].
pub(super) fn brace() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        STARTED_WITH.get_or_init(|| soft);
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
    for number in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGALRM] {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

/// Lets a terminal that closes, or a reload that comes too early, end nothing. Who handles the signal
/// later does so all the same.
pub fn ignore_hangup() {
    // SAFETY: ignoring a signal runs no code of ours.
    let before = unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    HANGUP_IGNORED.get_or_init(|| before == libc::SIG_IGN);
}

/// Whether whoever started this process wants it to outlive its terminal, as `nohup` does.
pub fn outlives_terminal() -> bool {
    HANGUP_IGNORED.get().copied().unwrap_or(false)
}

/// Makes `command` start the gateway under an init, which blocks the signals that it relays. What the
/// caller of the whole ignores (SIGHUP under `nohup`) stays ignored.
pub(super) fn prepare_gateway(command: &mut Command) {
    let hook = || {
        unblock_signals();
        Ok(())
    };
    // SAFETY: the hook makes system calls only.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Makes `command` start a guardian: it keeps `control` open under its present number, inherits no
/// other descriptor but 0, 1 and 2, and carries `mark` (soft, hard) in the limit that marks our own.
///
/// A guardian has **no** death signal: it must outlive the process that starts it.
pub(super) fn prepare_guardian(command: &mut Command, control: OwnedFd, mark: (u64, u64)) {
    let open_files = STARTED_WITH.get().copied();
    let hook = move || {
        reset_signals();
        if let (Some(soft), Ok((_, hard))) = (open_files, getrlimit(Resource::RLIMIT_NOFILE)) {
            setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard).ok();
        }
        // Raising a hard limit needs a privilege; then the mark of our own parent stays, which serves
        // as well: see `mark`.
        setrlimit(Resource::RLIMIT_LOCKS, mark.0, mark.1).ok();
        close_on_exec_from(3);
        // SAFETY: the descriptor is owned by this closure, hence open.
        if unsafe { libc::fcntl(control.as_raw_fd(), libc::F_SETFD, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Takes over the control socket whose number came on the guardian's command line.
///
/// The number is checked to be an open descriptor above 2; anything else is an error, because then
/// nobody sits at the other end and the guardian must not start.
pub(super) fn adopt_control(number: RawFd) -> io::Result<UnixStream> {
    // SAFETY: F_SETFD on an arbitrary number either works or fails with EBADF.
    if number <= 2 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: the descriptor is open (just checked) and nothing else in this fresh, single-threaded
    // process knows its number.
    Ok(UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Bytes that lie in a pipe unread, asked at either end.
///
/// # Errors
/// When the descriptor is no pipe.
pub fn unread(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one `int` at the address it is given, which is valid for that.
    let done = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    Errno::result(done)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The version of the kernel's Landlock; 0 when it has none, or none that we may use.
pub(super) fn landlock_version() -> u32 {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no memory and only returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// Whether a filter of system calls can refuse one with an error number.
pub(super) fn has_seccomp() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the call reads one number, which lives until it returns.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    answer == 0
}

/// Unblocks all signals and gives each its default action: a program started by `nohup` or by a
/// runtime that ignores SIGPIPE must not hand that on to its children.
fn reset_signals() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: setting a default action runs no code of ours; SIGKILL, SIGSTOP and numbers that
        // libc keeps to itself fail harmlessly.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    unblock_signals();
}

/// Unblocks all signals: a blocked set outlives exec, and the standard library leaves it as it is.
fn unblock_signals() {
    // SAFETY: an all-zero set is a valid value to be filled in by sigemptyset.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Marks every descriptor from `first` on as close-on-exec. They are not closed at once, because the
/// standard library reports a failed exec through one of them.
fn close_on_exec_from(first: RawFd) {
    let start = libc::c_uint::try_from(first).unwrap_or(3);
    // SAFETY: the call changes descriptor flags of this process only.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            start,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        return;
    }
    // Kernels before 5.11: one by one, up to the size of a generous descriptor table.
    for number in first..65_536 {
        // SAFETY: fails with EBADF where nothing is open.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
