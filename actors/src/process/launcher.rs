//! The thread that starts children and looks after them, and the handle to each.
//!
//! All process work of the gateway happens on this one thread with a runtime of its own: a child that
//! floods its output, or a slow fork of a large process, holds up no request.

use std::io::{self, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::guardian;
use super::mark::{Mark, Owner};
use super::output::{Pump, Sink};
use super::run::{Order, Run};
use super::spec::{ChildSpec, ExitReport, Output, SpawnError, Spawned, Stdin};
use super::{sys, tree};

/// Orders to one child that may wait: more than a stop and a kill make no sense.
const ORDERS: usize = 4;
/// Starts that may wait for the launcher.
const STARTS: usize = 16;
/// How long a guardian may take to report its child's start. It only forks, but on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Starts children. Clones share one thread, which lives until the last clone and the last child have
/// gone.
#[derive(Clone, Debug)]
pub struct Launcher {
    starts: mpsc::Sender<Start>,
}

#[derive(Debug)]
struct Start {
    spec: ChildSpec,
    reply: oneshot::Sender<Result<Spawned, SpawnError>>,
}

impl Launcher {
    /// Starts the thread. `binary` is run as guardian: `/proc/self/exe` for a program whose `main`
    /// calls [`super::entry`]. Prefixed output goes to `sink`, written by a thread that may block.
    pub fn start(binary: PathBuf, sink: Box<dyn Write + Send>) -> io::Result<Self> {
        let desk = Desk {
            binary,
            owner: Owner::of_this_process()?,
            sink: Sink::start(sink)?,
        };
        let (starts, orders) = mpsc::channel(STARTS);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new()
            .name("launcher".into())
            .spawn(move || runtime.block_on(serve(desk, orders)))?;
        Ok(Self { starts })
    }

    /// Starts a child and waits until its program runs.
    pub async fn spawn(&self, spec: ChildSpec) -> Result<Spawned, SpawnError> {
        let stopped = SpawnError::Stopped {
            name: spec.name.clone(),
        };
        let (reply, answer) = oneshot::channel();
        match self.starts.send(Start { spec, reply }).await {
            Ok(()) => answer.await.unwrap_or(Err(stopped)),
            Err(_) => Err(stopped),
        }
    }
}

/// Handle to a child. When the last clone is dropped, the child is killed.
#[derive(Clone, Debug)]
pub struct Child {
    pid: u32,
    orders: mpsc::Sender<Order>,
    lines: watch::Receiver<Vec<String>>,
    exit: watch::Receiver<Option<ExitReport>>,
}

impl Child {
    /// Process id of the child itself, which is also its group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Processor time that it has used; `None` once it is gone.
    pub fn cpu(&self) -> Option<Duration> {
        tree::cpu(i32::try_from(self.pid).ok()?)
    }

    /// Its threads; `None` once it is gone.
    pub fn tasks(&self) -> Option<u64> {
        tree::tasks(i32::try_from(self.pid).ok()?)
    }

    /// Its newest lines, oldest first.
    pub fn last_lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// Waits until the child and everything below it has ended. `None` only if the launcher was
    /// lost. Dropping the future loses nothing.
    pub async fn wait(&self) -> Option<ExitReport> {
        let mut exit = self.exit.clone();
        let report = exit.wait_for(Option::is_some).await.ok()?;
        report.clone()
    }

    /// As [`Child::wait`], without being a handle: who only waits does not keep it alive.
    pub fn ended(&self) -> impl Future<Output = ()> + 'static {
        let mut exit = self.exit.clone();
        async move {
            // An error means that the launcher was lost, and the child with it.
            drop(exit.wait_for(Option::is_some).await);
        }
    }

    /// Closes its held stdin, sends SIGTERM to its group, after the grace of its specification
    /// SIGKILL, and waits for the end.
    pub async fn stop(&self) -> Option<ExitReport> {
        self.order(Order::Stop).await
    }

    /// Kills its whole tree and waits for the end.
    pub async fn kill(&self) -> Option<ExitReport> {
        self.order(Order::Kill).await
    }

    async fn order(&self, order: Order) -> Option<ExitReport> {
        // A closed channel means that it has ended, which `wait` tells.
        self.orders.send(order).await.ok();
        self.wait().await
    }
}

/// The launcher thread: takes starts, owns the task of every child.
async fn serve(desk: Desk, mut starts: mpsc::Receiver<Start>) {
    let mut children = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = children.join_next(), if !children.is_empty() => {}
            start = starts.recv() => match start {
                Some(start) => { children.spawn(desk.clone().serve_start(start)); }
                None => break,
            },
        }
    }
    // Handles may outlive the launcher's own; their children go on being looked after.
    while children.join_next().await.is_some() {}
}

/// What every start needs.
#[derive(Clone, Debug)]
struct Desk {
    binary: PathBuf,
    owner: Owner,
    sink: Sink,
}

/// The gateway's ends of what a new guardian was given.
struct Ends {
    control: StdUnixStream,
    output: io::PipeReader,
    stdin: Option<io::PipeWriter>,
    stdout: Option<io::PipeReader>,
}

impl Desk {
    /// Starts one child, answers, and stays with it until it has ended.
    async fn serve_start(self, Start { spec, reply }: Start) {
        let name = spec.name.clone();
        let program: String = spec.program.to_string_lossy().chars().take(200).collect();
        let started = tokio::time::timeout(START_LIMIT, self.launch(spec)).await;
        let refused = |reason: String| SpawnError::Refused {
            name: name.clone(),
            reason,
        };
        match started {
            Ok(Ok((run, spawned))) => {
                // A caller that is gone has dropped the handle: `drive` sees that and kills.
                drop(reply.send(Ok(spawned)));
                run.drive().await;
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                drop(reply.send(Err(SpawnError::NotFound { name, program })));
            }
            Ok(Err(error)) => drop(reply.send(Err(refused(format!("`{program}`: {error}"))))),
            Err(_) => drop(reply.send(Err(refused("its guardian does not answer".into())))),
        }
    }

    async fn launch(&self, spec: ChildSpec) -> io::Result<(Run, Spawned)> {
        let mark = Mark::new(self.owner)?;
        let (command, ends) = self.command(&spec, mark)?;
        let mut command = tokio::process::Command::from(command);
        let guardian = command.kill_on_drop(true).spawn()?;
        // The command owns the guardian's ends; ours would never see end-of-file while it lives.
        drop(command);
        ends.control.set_nonblocking(true)?;
        let mut control = BufReader::new(UnixStream::from_std(ends.control)?);
        let pid = read_start(&mut control).await?;

        let sink = match spec.output {
            Output::Prefixed | Output::PrefixedWithout(_) | Output::Protocol => {
                Some(self.sink.clone())
            }
            Output::Captured | Output::Exchange => None,
        };
        let (pump, lines) = Pump::new(&spec.name, sink);
        let pump = match spec.output {
            Output::PrefixedWithout(hidden) => pump.without(hidden),
            Output::Prefixed | Output::Captured | Output::Protocol | Output::Exchange => pump,
        };
        let pump = pump.masking(spec.secrets);
        let (orders, received) = mpsc::channel(ORDERS);
        let (report, exit) = watch::channel(None);
        let (held, given) = match spec.stdin {
            Stdin::Held => (ends.stdin, None),
            Stdin::Null | Stdin::Piped | Stdin::Listener(_) => (None, ends.stdin),
        };
        let run = Run {
            guardian,
            control,
            output: pipe::Receiver::from_owned_fd(ends.output.into())?,
            pump,
            stdin: held,
            orders: received,
            report,
            mark,
            grace: spec.grace,
        };
        let child = Child {
            pid,
            orders,
            lines,
            exit,
        };
        Ok((
            run,
            Spawned {
                child,
                stdin: given,
                stdout: ends.stdout,
            },
        ))
    }

    /// The guardian's command with its ends of all pipes, and ours.
    fn command(&self, spec: &ChildSpec, mark: Mark) -> io::Result<(Command, Ends)> {
        let (control, theirs) = StdUnixStream::pair()?;
        let (output, errors) = io::pipe()?;
        let mut command = Command::new(&self.binary);
        let number = std::os::fd::AsRawFd::as_raw_fd(&theirs);
        let line = guardian::arguments(number, spec);
        std::os::unix::process::CommandExt::arg0(&mut command, "guardian");
        command
            .args(line)
            .env_clear()
            .envs(spec.env.resolve(std::env::vars_os()));
        if let Some(directory) = &spec.directory {
            command.current_dir(directory);
        }
        let mut ends = Ends {
            control,
            output,
            stdin: None,
            stdout: None,
        };
        match &spec.stdin {
            Stdin::Null => {
                command.stdin(Stdio::null());
            }
            Stdin::Listener(listener) => {
                command.stdin(listener.duplicate()?);
            }
            Stdin::Held | Stdin::Piped => {
                let (reader, writer) = io::pipe()?;
                command.stdin(reader);
                ends.stdin = Some(writer);
            }
        }
        if matches!(spec.output, Output::Protocol | Output::Exchange) {
            let (reader, writer) = io::pipe()?;
            command.stdout(writer);
            ends.stdout = Some(reader);
        } else {
            command.stdout(errors.try_clone()?);
        }
        command.stderr(errors);
        sys::prepare_guardian(&mut command, theirs.into(), mark.limits());
        Ok((command, ends))
    }
}

/// Reads the guardian's first line: the child's pid, or why there is none.
async fn read_start(control: &mut BufReader<UnixStream>) -> io::Result<u32> {
    let mut line = String::new();
    control.read_line(&mut line).await?;
    match line.trim_end().split_once(' ') {
        Some(("started", pid)) => pid.parse().map_err(io::Error::other),
        Some(("failed", number)) => Err(io::Error::from_raw_os_error(
            number.parse().map_err(io::Error::other)?,
        )),
        _ => Err(io::Error::other("its guardian ended at once")),
    }
}
