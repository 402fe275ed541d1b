//! The real executable as a child process, one per case or shared.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::{NamedTempFile, TempDir};

use super::client::Client;
use super::knobs;

/// A gateway that runs until it is dropped.
pub(crate) struct TestGateway {
    child: Child,
    address: SocketAddr,
    settings: Builder,
    /// What the process writes: a file, so that a written line can be read at once.
    log: NamedTempFile,
    /// Holds the database; removed with the gateway.
    folder: TempDir,
}

/// How a gateway is started.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    upstream: String,
    host: &'static str,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    db: Option<PathBuf>,
    open_files: Option<u32>,
}

impl Builder {
    /// Lets the gateway open only so many files.
    pub(crate) fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    pub(crate) fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn envs(mut self, pairs: &[(&str, String)]) -> Self {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        self.env.extend(pairs);
        self
    }

    /// Listens elsewhere than on the loopback address.
    pub(crate) fn host(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }

    /// A database elsewhere than in the gateway's own folder.
    pub(crate) fn db(mut self, path: &Path) -> Self {
        self.db = Some(path.to_owned());
        self
    }

    #[track_caller]
    pub(crate) fn start(self) -> TestGateway {
        let mut gateway = self.begin();
        gateway.wait_ready();
        gateway
    }

    /// Starts the process and does not wait until it is ready.
    pub(crate) fn begin(mut self) -> TestGateway {
        let folder = TempDir::new().expect("folder");
        self.db.get_or_insert_with(|| folder.path().join("it.db"));
        let log = NamedTempFile::new().expect("log");
        let (child, address) = spawn(&self, log.path());
        TestGateway {
            child,
            address,
            settings: self,
            log,
            folder,
        }
    }
}

impl TestGateway {
    /// Settings of a gateway before this upstream.
    pub(crate) fn on(upstream: &str) -> Builder {
        Builder {
            upstream: upstream.to_owned(),
            host: "127.0.0.1",
            flags: Vec::new(),
            env: Vec::new(),
            db: None,
            open_files: None,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client {
            address: self.address,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.settings
            .db
            .clone()
            .unwrap_or_else(|| self.folder.path().join("it.db"))
    }

    /// Everything the process wrote so far.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.log.path()).expect("log");
        String::from_utf8_lossy(&log).into_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("pid"));
        nix::sys::signal::kill(pid, signal).expect("signal");
    }

    /// kill -9 of the whole group, reaped.
    pub(crate) fn kill(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).expect("pid"));
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Starts again on the same database, on a fresh port.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.kill();
        (self.child, self.address) = spawn(&self.settings, self.log.path());
        self.wait_ready();
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(
                Instant::now() < until,
                "still running after {limit:?}:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(reply) = self.client().try_send("GET", "/health/ready", &[], b"")
                && reply.status == 200
            {
                return;
            }
            let ended = self.child.try_wait().expect("wait");
            assert!(
                ended.is_none(),
                "gateway ended with {ended:?}:\n{}",
                self.log()
            );
            assert!(
                Instant::now() < until,
                "gateway not ready in 30 s:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        if thread::panicking() {
            let ended = self.child.try_wait();
            eprintln!("--- gateway log, ended {ended:?} ---\n{}", self.log());
        }
        self.kill();
    }
}

fn spawn(settings: &Builder, log: &Path) -> (Child, SocketAddr) {
    let log = File::options().append(true).open(log).expect("log");
    let free = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("port");
    let program = env!("CARGO_BIN_EXE_vllm-responses");
    let mut command = match settings.open_files {
        None => Command::new(program),
        Some(limit) => {
            let mut shell = Command::new("sh");
            let line = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
            shell.args(["-c", &line, program]);
            shell
        }
    };
    command
        .args([
            "serve",
            "--upstream",
            &settings.upstream,
            "--gateway-host",
            settings.host,
        ])
        .args(["--gateway-port", &free.port().to_string()])
        .args(&settings.flags)
        .envs(settings.env.iter().map(|(name, value)| (name, value)))
        .env(
            knobs::DB_PATH,
            settings.db.as_deref().unwrap_or(Path::new("it.db")),
        )
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("log"))
        .stderr(log)
        .process_group(0);
    (command.spawn().expect("start the gateway"), free)
}
