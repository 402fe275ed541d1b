//! One process of Deno and Pyodide, behind the operating system's wall.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout, timeout_at};

use super::backend::{Call, End, InterpreterBackend, Ran, Session};
use super::bundle::{Bundle, BundleError, HOST_FLAGS, Held};
use super::frames::{Decoder, Ended, FromWorker, Gathered, ToWorker, encode};
use super::limits::{self, MIB};
use super::settings::Limits;
use crate::mask::Mask;
use crate::process::sandbox::Sandbox;
use crate::process::{
    Child, ChildSpec, EnvPolicy, Launcher, Limit, LimitKind, Output, Stdin, unread,
};

/// Starts workers from one bundle.
#[derive(Clone, Debug)]
pub struct PyodideBackend {
    launcher: Launcher,
    spec: ChildSpec,
    imports: Vec<String>,
    /// Keeps the bundle from being pruned.
    _held: Option<Held>,
}

impl PyodideBackend {
    /// A back end that runs what `bundle` has.
    pub fn new(launcher: Launcher, bundle: &Bundle, limits: &Limits) -> Self {
        Self {
            launcher,
            spec: spec(bundle, limits),
            imports: bundle.manifest().imports.clone(),
            _held: None,
        }
    }

    /// The same back end, with its bundle kept from being pruned while it lives.
    ///
    /// # Errors
    /// When the bundle is just being removed.
    pub fn holding(self, bundle: &Bundle) -> Result<Self, BundleError> {
        Ok(Self {
            _held: Some(bundle.hold()?),
            ..self
        })
    }

    /// A back end for any program that speaks the protocol, for tests of what a worker may do wrong.
    pub fn scripted(launcher: Launcher, spec: ChildSpec) -> Self {
        Self {
            launcher,
            spec,
            imports: Vec::new(),
            _held: None,
        }
    }
}

impl InterpreterBackend for PyodideBackend {
    fn start(&self) -> LocalBoxFuture<'static, Result<Box<dyn Session>, String>> {
        let (launcher, spec) = (self.launcher.clone(), self.spec.clone());
        async move {
            let worker = timeout(limits::START, Worker::start(&launcher, spec))
                .await
                .map_err(|_elapsed| format!("not ready within {} s", limits::START.as_secs()))??;
            let session: Box<dyn Session> = Box::new(worker);
            Ok(session)
        }
        .boxed_local()
    }

    fn imports(&self) -> &[String] {
        &self.imports
    }
}

/// How a worker is started: the whole closed configuration.
pub fn spec(bundle: &Bundle, limits: &Limits) -> ChildSpec {
    let limit = |kind, value| Limit { kind, value };
    let data = u64::try_from(limits.process_memory).unwrap_or(u64::MAX);
    ChildSpec {
        name: "interpreter".to_owned(),
        program: bundle.deno().into(),
        args: arguments(bundle, limits),
        directory: Some("/".into()),
        env: EnvPolicy::Only(environment()),
        stdin: Stdin::Piped,
        output: Output::Exchange,
        grace: Duration::ZERO,
        secrets: Mask::default(),
        limits: vec![
            limit(
                LimitKind::Data,
                data.saturating_add(limits::RESERVED_CODE_MIB * MIB),
            ),
            limit(LimitKind::FileSize, 0),
            limit(LimitKind::Core, 0),
            limit(LimitKind::OpenFiles, limits::OPEN_FILES),
            // Where memory or the processor is short, model code gives way.
            limit(LimitKind::OomScore, 1000),
            limit(LimitKind::Niceness, 10),
            // What no limit of one process holds, where a group can be made.
            limit(LimitKind::GroupMemory, data),
            limit(LimitKind::GroupTasks, limits::TASKS),
            limit(LimitKind::GroupCpu, limits::CPU_HUNDREDTHS),
        ],
        sandbox: Some(sandbox(bundle)),
    }
}

/// The command line that every worker has. It holds nothing of the gateway's but the bundle's place.
fn arguments(bundle: &Bundle, limits: &Limits) -> Vec<OsString> {
    let mut args: Vec<OsString> = HOST_FLAGS.iter().map(OsString::from).collect();
    let mut readable = OsString::from("--allow-read=");
    readable.push(bundle.root());
    args.extend([
        readable,
        "--deny-write".into(),
        format!(
            "--v8-flags=--max-old-space-size={},--disallow-code-generation-from-strings",
            limits.v8_heap >> 20
        )
        .into(),
        bundle.harness().into(),
        configuration(bundle.root(), limits).into(),
    ]);
    args
}

/// What the host program is told at its start.
#[derive(Serialize)]
struct Configuration {
    bundle: String,
    memory_mib: usize,
    output_bytes: usize,
    images: usize,
    image_bytes: usize,
}

fn configuration(root: &Path, limits: &Limits) -> String {
    let configuration = Configuration {
        bundle: root.display().to_string(),
        memory_mib: limits.python_memory >> 20,
        output_bytes: limits.output,
        images: limits.images,
        image_bytes: limits.image,
    };
    serde_json::to_string(&configuration).unwrap_or_default()
}

/// Nothing of ours. The folders cannot exist, not even for root, so that nothing is kept in them.
fn environment() -> Vec<(OsString, OsString)> {
    [
        ("PATH", "/usr/bin:/bin"),
        ("NO_COLOR", "1"),
        ("DENO_NO_UPDATE_CHECK", "1"),
        ("DENO_DIR", "/proc/none"),
        ("HOME", "/proc/none"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .to_vec()
}

/// The bundle, what the loader of a program needs, and the random source. No `/proc`: it would show
/// the process its own environment, which is empty, and its memory.
fn sandbox(bundle: &Bundle) -> Sandbox {
    let libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];
    let files = [
        "/etc/ld.so.cache",
        "/dev/null",
        "/dev/urandom",
        "/etc/localtime",
        "/usr/share/zoneinfo",
    ];
    let mut read = vec![
        bundle.pyodide(),
        bundle.site(),
        bundle.snapshot(),
        bundle.harness(),
    ];
    read.extend(libraries.iter().chain(&files).map(PathBuf::from));
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let mut execute = vec![bundle.deno()];
    execute.extend(loaders.map(PathBuf::from));
    Sandbox { read, execute }
}

/// A running process and the gateway's ends of its pipes.
#[derive(Debug)]
struct Worker {
    child: Child,
    stdin: pipe::Sender,
    stdout: pipe::Receiver,
    decoder: Decoder,
    calls: u64,
}

impl Worker {
    async fn start(launcher: &Launcher, spec: ChildSpec) -> Result<Self, String> {
        let spawned = launcher
            .spawn(spec)
            .await
            .map_err(|error| error.to_string())?;
        let (Some(stdin), Some(stdout)) = (spawned.stdin, spawned.stdout) else {
            return Err("it has no pipes".to_owned());
        };
        let pipes = pipe::Sender::from_owned_fd(stdin.into())
            .and_then(|stdin| Ok((stdin, pipe::Receiver::from_owned_fd(stdout.into())?)));
        let (stdin, stdout) = pipes.map_err(|error| error.to_string())?;
        let mut worker = Self {
            child: spawned.child,
            stdin,
            stdout,
            decoder: Decoder::default(),
            calls: 0,
        };
        match worker.receive().await {
            Ok(FromWorker::Ready { .. }) => Ok(worker),
            Ok(FromWorker::Fatal { reason }) => Err(reason),
            Ok(_) => Err("it does not speak our protocol".to_owned()),
            Err(reason) => Err(worker.with_last_lines(reason).await),
        }
    }

    /// The reason with what the process wrote last, which no model code has had a part in yet.
    async fn with_last_lines(&self, reason: String) -> String {
        let report = timeout(LAST_WORDS, self.child.kill()).await;
        match report {
            Ok(Some(report)) => {
                let lines = report.last_lines.join("; ");
                format!("{reason}, {}: {lines}", report.kind)
            }
            _ => reason,
        }
    }

    /// Whether the process has closed its end. The kernel does that while it ends a process, before
    /// the guardian can report it; it is asked, since the runtime's own view is a little old.
    fn is_gone(&self) -> bool {
        let mut ends = [PollFd::new(self.stdout.as_fd(), PollFlags::empty())];
        // Errors and hang-ups are reported without being asked for.
        poll(&mut ends, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Whether bytes of ours lie in the pipe.
    fn has_unread(&self) -> bool {
        unread(self.stdin.as_fd()).is_ok_and(|count| count > 0)
    }

    async fn send(&mut self, message: &ToWorker<'_>) -> Result<(), String> {
        let frame = encode(message).map_err(|error| error.to_string())?;
        self.stdin
            .write_all(&frame)
            .await
            .map_err(|error| ended(&error))
    }

    /// The next frame.
    async fn receive(&mut self) -> Result<FromWorker, String> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(violation) => return Err(violation.to_string()),
            }
            let buffer = self.decoder.buffer();
            buffer.reserve(READ);
            match self.stdout.read_buf(buffer).await {
                Ok(0) => return Err("it ended".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(ended(&error)),
            }
        }
    }

    /// Asks for a sign of life after a call has completed. Code may have left work behind that begins
    /// with the call's end; the host program answers this in one piece and then waits in its read, so
    /// that nothing of that work is left to run until the next call.
    async fn rests(&mut self) -> bool {
        self.decoder.begin();
        let sign = async {
            self.send(&ToWorker::Warm { modules: &[] }).await?;
            self.receive().await
        };
        let answered = matches!(
            timeout(limits::REST, sign).await,
            Ok(Ok(FromWorker::Warmed { .. }))
        );
        // Where no group bounds them, native code that broke out could leave threads behind.
        let tasks = self.child.tasks();
        answered && tasks.is_none_or(|tasks| tasks <= limits::TASKS)
    }

    /// Sends the call and gathers what comes until its end. Interrupting this loses nothing gathered.
    async fn converse(&mut self, call: &Call<'_>, gathered: &mut Gathered) -> End {
        self.calls += 1;
        let id = self.calls;
        self.decoder.begin();
        if self.is_gone() {
            return End::NotBegun("it had ended before the call".to_owned());
        }
        let run = ToWorker::Run {
            id,
            code: call.code,
        };
        // A frame that was not written whole is never run.
        if let Err(reason) = self.send(&run).await {
            return End::NotBegun(reason);
        }
        loop {
            let frame = match self.receive().await {
                Ok(frame) => frame,
                // One that was being ended as it was given the code: it has not read all of it, and
                // so has run none of it.
                Err(reason) if self.has_unread() => return End::NotBegun(reason),
                Err(reason) => return End::Died(reason),
            };
            match gathered.take(id, frame, &call.limits) {
                Ok(None) => {}
                Ok(Some(Ended::Completed(error))) => return End::Completed(error),
                Ok(Some(Ended::Fatal(reason))) => return End::Died(reason),
                Err(violation) => return End::Died(violation.to_string()),
            }
        }
    }
}

/// Bytes taken from the pipe at once; a pipe holds as many.
const READ: usize = 64 * 1024;
/// How long an end is waited for, to say how it was.
const LAST_WORDS: Duration = Duration::from_secs(5);

fn ended(error: &io::Error) -> String {
    format!("its pipe failed ({})", error.kind())
}

impl Session for Worker {
    fn warm<'a>(&'a mut self, modules: &'a [String]) -> LocalBoxFuture<'a, Result<(), String>> {
        async move {
            self.decoder.begin();
            self.send(&ToWorker::Warm { modules }).await?;
            match timeout(limits::WARM, self.receive()).await {
                Ok(Ok(FromWorker::Warmed { .. })) => Ok(()),
                Ok(Ok(_)) => Err("a frame is out of place".to_owned()),
                Ok(Err(reason)) => Err(reason),
                Err(_) => Err("its imports take too long".to_owned()),
            }
        }
        .boxed_local()
    }

    fn run<'a>(&'a mut self, call: Call<'a>) -> LocalBoxFuture<'a, Ran> {
        async move {
            let mut gathered = Gathered::default();
            let deadline = Instant::now() + call.limits.wall;
            let end = tokio::select! {
                biased;
                () = call.cancel.cancelled() => End::Cancelled,
                end = timeout_at(deadline, self.converse(&call, &mut gathered)) => {
                    end.unwrap_or(End::TimedOut)
                }
            };
            let rests = matches!(end, End::Completed(_)) && self.rests().await;
            Ran {
                gathered,
                end,
                rests,
            }
        }
        .boxed_local()
    }

    fn cpu(&self) -> Option<Duration> {
        self.child.cpu()
    }

    fn gone(&self) -> LocalBoxFuture<'static, ()> {
        self.child.ended().boxed_local()
    }
}
