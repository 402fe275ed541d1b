//! PostgreSQL for the cases: a fresh database on the server of `TEST_DATABASE_URL`, or a whole server
//! of a case's own, which may be stopped, frozen and started again.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::BigInt;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _};
use diesel_async::AsyncPgConnection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

/// A connection of the test itself.
pub(crate) struct Sql(AsyncConnectionWrapper<AsyncPgConnection>);

impl Sql {
    pub(crate) fn connect(url: &str) -> Self {
        Self(AsyncConnectionWrapper::establish(url).expect("connect to PostgreSQL"))
    }

    pub(crate) fn run(&mut self, statements: &str) {
        self.0.batch_execute(statements).expect("statements");
    }

    /// The numbers that a statement gives in a column `n`.
    pub(crate) fn numbers(&mut self, statement: &str) -> Vec<i64> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            n: i64,
        }
        let rows: Vec<Row> = diesel::sql_query(statement)
            .load(&mut self.0)
            .expect("numbers");
        rows.into_iter().map(|row| row.n).collect()
    }
}

/// A fresh database, gone with the case.
pub(crate) struct FreshDatabase {
    home: String,
    name: String,
}

impl FreshDatabase {
    /// None, and a line that says so, where no server is named.
    pub(crate) fn make() -> Option<Self> {
        let Ok(home) = std::env::var("TEST_DATABASE_URL") else {
            eprintln!("SKIPPED: TEST_DATABASE_URL names no PostgreSQL server");
            return None;
        };
        let name = format!("it_{:016x}", rand());
        Sql::connect(&home).run(&format!("CREATE DATABASE {name}"));
        Some(Self { home, name })
    }

    pub(crate) fn url(&self) -> String {
        let (server, _database) = self.home.rsplit_once('/').expect("a database in the URL");
        format!("{server}/{}", self.name)
    }
}

impl Drop for FreshDatabase {
    fn drop(&mut self) {
        Sql::connect(&self.home).run(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

fn rand() -> u64 {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits).expect("random bits");
    u64::from_le_bytes(bits)
}

/// A server of the case's own. Passwords are checked, so that its URL holds a secret.
pub(crate) struct OwnServer {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
}

/// Stands in every URL, and nowhere else.
pub(crate) const PASSWORD: &str = "CANARY-password";

impl OwnServer {
    /// None, and a line that says so, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("SKIPPED: PostgreSQL's own programs are not installed");
            return None;
        };
        let folder = tempfile::Builder::new()
            .prefix("it-pg-")
            .tempdir()
            .expect("folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("port")
            .port();
        let server = Self {
            programs,
            folder,
            port,
        };
        let secret = server.folder.path().join("password");
        std::fs::write(&secret, PASSWORD).expect("password");
        for path in [server.folder.path(), &secret] {
            give_away(path);
        }
        let pwfile = format!("--pwfile={}", secret.display());
        server.program(
            "initdb",
            &[
                "-U",
                "tests",
                &pwfile,
                "-A",
                "scram-sha-256",
                "-E",
                "UTF8",
                "--no-sync",
            ],
        );
        server.start_again();
        Some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "postgresql://tests:{PASSWORD}@127.0.0.1:{}/postgres",
            self.port
        )
    }

    /// As a crash would: sessions are cut, and the log is replayed at the next start.
    pub(crate) fn stop_at_once(&self) {
        self.program("pg_ctl", &["-m", "immediate", "-w", "stop"]);
    }

    pub(crate) fn start_again(&self) {
        let folder = self.folder.path().display();
        let log = format!("{folder}/log");
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories={folder} -c fsync=off",
            self.port
        );
        self.program(
            "pg_ctl",
            &["-w", "-t", "60", "-l", &log, "-o", &options, "start"],
        );
    }

    /// Stops every process of the server where it is, until what is given back is dropped.
    pub(crate) fn freeze(&self) -> Frozen {
        let file = self.folder.path().join("data/postmaster.pid");
        let text = std::fs::read_to_string(file).expect("postmaster.pid");
        let master = text.lines().next().and_then(|line| line.parse().ok());
        let mut pids = vec![master.expect("pid")];
        let sessions = "SELECT pid::bigint AS n FROM pg_stat_activity";
        pids.extend(Sql::connect(&self.url()).numbers(sessions));
        let frozen = Frozen(pids);
        frozen.signal(Signal::SIGSTOP);
        frozen
    }

    fn program(&self, name: &str, arguments: &[&str]) {
        let mut command = Command::new(self.programs.join(name));
        command
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(arguments)
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        if let Some(user) = server_user() {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let status = command.status().expect("run PostgreSQL's program");
        assert!(status.success(), "{name}: {status}");
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let mut stop = Command::new(self.programs.join("pg_ctl"));
        stop.arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-m", "immediate", "-w", "stop"])
            .current_dir("/");
        if let Some(user) = server_user() {
            stop.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let _ = stop.output();
    }
}

/// A server that is stopped where it is.
pub(crate) struct Frozen(Vec<i64>);

impl Frozen {
    fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            let pid = Pid::from_raw(i32::try_from(*pid).expect("pid"));
            // One that ended meanwhile needs no signal.
            let _ = kill(pid, signal);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
    }
}

/// PostgreSQL does not run as root.
fn server_user() -> Option<User> {
    if !geteuid().is_root() {
        return None;
    }
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
}

fn give_away(path: &Path) {
    if let Some(user) = server_user() {
        std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .expect("chown");
    }
}

/// The folder of the newest PostgreSQL's programs, where Debian keeps them.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    folders
        .filter(|bin| bin.join("initdb").exists())
        .max_by_key(|bin| {
            bin.parent()
                .and_then(Path::file_name)
                .map(std::ffi::OsStr::to_owned)
        })
}
