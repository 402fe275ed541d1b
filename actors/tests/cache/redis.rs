//! Redis servers of the tests' own, so that they can be stopped, flushed and damaged; and a relay
//! that stands between a replica and its Redis.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// The password of all servers, to look for where it must not be.
pub(crate) const PASSWORD: &str = "canary-redis-password";

/// A server with its own folder, gone with the value.
pub(crate) struct Redis {
    child: Child,
    port: u16,
    folder: TempDir,
    options: Vec<String>,
}

impl Redis {
    /// `None`, with a word about it, where there is no Redis.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let port = free_port();
        let Some(child) = spawn(port, &folder, &options) else {
            #[expect(clippy::disallowed_methods, reason = "the tests' own switch")]
            let expected = ["TEST_REDIS_URL", "CI"].map(|name| std::env::var(name).is_ok());
            assert_eq!(expected, [false, false], "`redis-server` is missing");
            eprintln!("skipped: there is no `redis-server`");
            return None;
        };
        let server = Self {
            child,
            port,
            folder,
            options,
        };
        server.wait_until_it_answers();
        Some(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// A connection of the test's own.
    pub(crate) fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).unwrap();
        let connection = client.get_connection().unwrap();
        connection
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        connection
    }

    /// Runs a command that is one line of words.
    pub(crate) fn command<T: redis::FromRedisValue>(&self, line: &str) -> T {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query(&mut self.connect()).unwrap()
    }

    /// All keys of the cache.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.command("KEYS vllm-responses:*")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// kill -9, without a chance to save anything.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again on the same port, with what the folder has.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.port, &self.folder, &self.options).unwrap();
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let client = redis::Client::open(self.url()).unwrap();
            let answer = client
                .get_connection()
                .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
            match answer {
                Ok(_pong) => return,
                Err(error) => assert!(Instant::now() < until, "Redis does not answer: {error}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn url(port: u16) -> String {
    format!("redis://:{PASSWORD}@127.0.0.1:{port}/0")
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn spawn(port: u16, folder: &TempDir, options: &[String]) -> Option<Child> {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args([
            "--requirepass",
            PASSWORD,
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .args(options)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

/// A way to Redis that can be slow or closed.
pub(crate) struct Relay {
    port: u16,
    delay_ms: Arc<AtomicU64>,
}

/// The delay that means closed.
const CLOSED: u64 = u64::MAX;

impl Relay {
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let shared = Arc::clone(&delay_ms);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.load(Ordering::SeqCst) == CLOSED {
                    continue;
                }
                let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (one, other) = (Arc::clone(&shared), Arc::clone(&shared));
                thread::spawn(move || pump(client, server, &one));
                thread::spawn(move || pump(back, forth, &other));
            }
        });
        Self {
            port: own,
            delay_ms,
        }
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    pub(crate) fn delay(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap();
        self.delay_ms.store(delay_ms, Ordering::SeqCst);
    }

    /// Ends all connections with the next byte, and takes no new ones.
    pub(crate) fn close(&self) {
        self.delay_ms.store(CLOSED, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, delay_ms: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let delay = delay_ms.load(Ordering::SeqCst);
        if delay == CLOSED {
            break;
        }
        thread::sleep(Duration::from_millis(delay));
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // The other half may have done it.
        let _done: std::io::Result<()> = stream.shutdown(Shutdown::Both);
    }
}
