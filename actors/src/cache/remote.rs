//! Redis behind a pool, a limit of 50 ms for every operation, and a circuit breaker.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::{ErrorSink, ManageConnection, Pool, QueueStrategy, RunError};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::sync::watch;

use super::breaker::{Breaker, Change};
use super::entry;
use super::facts::CacheFacts;
use super::settings::CacheSettings;

/// An operation takes about 0.1 ms, so a few connections carry thousands of turns a second.
const CONNECTIONS: u32 = 8;
/// How long the pool goes on with a connection that nobody waits for any more.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// What an operation moves in each millisecond that it has beyond its limit: 10 MiB a second, which a
/// busy thread's share of any network is above.
const BYTES_PER_MS: usize = 10 << 10;
/// The same reason is told again after this.
const SAID_FOR: Duration = Duration::from_secs(60);

/// Writes entries only while the head is as the writer saw it: `KEYS[1]` is the head, `ARGV[1]` what
/// it must be, `ARGV[2]` the life of the entries in milliseconds.
const FILL: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1], 'PX', ARGV[2]) end
return 1";

/// See the module.
pub(crate) struct Remote {
    pool: Pool<Manager>,
    limit: Duration,
    breaker: RefCell<Breaker>,
    facts: RefCell<CacheFacts>,
    /// Why it does not serve, in its own words where it has any.
    trouble: Arc<watch::Sender<Option<String>>>,
    /// What the log was told last, and when.
    said: RefCell<Option<(String, Instant)>>,
    /// The log has it that Redis is left alone.
    announced: Cell<bool>,
}

/// One connection, and the run of the server that it leads to.
pub(crate) struct Line {
    connection: MultiplexedConnection,
    run: Box<str>,
    /// An operation is under way. One that is given up leaves this set, and the connection is not
    /// used again: it may lead nowhere.
    busy: bool,
}

struct Manager(RedisConnectionManager);

impl ManageConnection for Manager {
    type Connection = Line;
    type Error = RedisError;

    async fn connect(&self) -> Result<Line, RedisError> {
        let mut connection = self.0.connect().await?;
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query_async(&mut connection)
            .await?;
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        let run = run.map(str::trim).filter(|run| !run.is_empty());
        Ok(Line {
            connection,
            run: run
                .ok_or((ErrorKind::Client, "`INFO server` names no run_id"))?
                .into(),
            busy: false,
        })
    }

    async fn is_valid(&self, line: &mut Line) -> Result<(), RedisError> {
        self.0.is_valid(&mut line.connection).await
    }

    fn has_broken(&self, line: &mut Line) -> bool {
        line.busy
    }
}

/// Keeps the last reason for the log.
#[derive(Clone, Debug)]
struct Trouble(Arc<watch::Sender<Option<String>>>);

impl ErrorSink<RedisError> for Trouble {
    fn sink(&self, error: RedisError) {
        self.0.send_replace(Some(words(&error)));
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<RedisError>> {
        Box::new(self.clone())
    }
}

impl Remote {
    /// Connects when it is first used; a Redis that is away is no reason not to start.
    ///
    /// # Errors
    /// When the URL is none that the client understands.
    pub(crate) fn new(settings: &CacheSettings) -> Result<Self, RedisError> {
        let manager = RedisConnectionManager::new(settings.url.expose())?;
        let trouble = Arc::new(watch::Sender::new(None));
        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            .min_idle(1)
            .test_on_check_out(false)
            .connection_timeout(CONNECT_LIMIT)
            // The connection used last is the one most likely to be alive.
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(Box::new(Trouble(Arc::clone(&trouble))))
            .build_unchecked(Manager(manager));
        Ok(Self {
            pool,
            limit: settings.limit,
            breaker: RefCell::default(),
            facts: RefCell::default(),
            trouble,
            said: RefCell::default(),
            announced: Cell::default(),
        })
    }

    /// Runs one operation; `None` when Redis was not asked, did not answer in time, or refused.
    pub(crate) async fn run<T>(
        &self,
        operation: impl AsyncFnOnce(&mut Line) -> RedisResult<T>,
    ) -> Option<T> {
        self.run_for(0, operation).await
    }

    /// As [`Self::run`], of an operation that moves so many bytes: it has longer.
    pub(crate) async fn run_for<T>(
        &self,
        bytes: usize,
        operation: impl AsyncFnOnce(&mut Line) -> RedisResult<T>,
    ) -> Option<T> {
        let millis = u64::try_from(bytes / BYTES_PER_MS).unwrap_or(u64::MAX);
        let limit = self.limit.saturating_add(Duration::from_millis(millis));
        let began = Instant::now();
        if !self.breaker.borrow_mut().admits(began) {
            return None;
        }
        let work = async {
            let mut line = self.pool.get().await?;
            line.busy = true;
            let outcome = operation(&mut line).await;
            line.busy = outcome.as_ref().is_err_and(|error| !was_answered(error));
            outcome.map_err(RunError::User)
        };
        let outcome = tokio::time::timeout(limit, work).await;
        self.count(|facts| facts.latency.record(began.elapsed()));
        let change = match &outcome {
            Ok(Ok(_)) => self.breaker.borrow_mut().succeeded(),
            Ok(Err(RunError::User(error))) if is_refusal(error) => {
                self.trouble.send_replace(Some(words(error)));
                self.breaker.borrow_mut().refused(Instant::now())
            }
            Ok(Err(RunError::User(error))) if was_answered(error) => {
                self.breaker.borrow_mut().succeeded()
            }
            Ok(Err(_)) | Err(_) => self.breaker.borrow_mut().failed(Instant::now()),
        };
        self.tell(change);
        let result = outcome.ok().and_then(Result::ok);
        if result.is_none() {
            self.count(|facts| facts.errors += 1);
        }
        result
    }

    fn tell(&self, change: Change) {
        match change {
            Change::None => {}
            Change::Opened => {
                let reason = self.trouble.borrow().clone();
                let reason = reason.as_deref().unwrap_or("no answer within 50 ms");
                // One that refuses some commands only opens the breaker again and again.
                if self.is_news(reason) {
                    self.announced.set(true);
                    log::warn!(
                        "Redis is left alone until it serves again, the store does its work: {reason}"
                    );
                }
            }
            Change::Closed => {
                self.trouble.send_replace(None);
                if self.announced.take() {
                    log::info!("Redis answers again");
                }
            }
        }
    }

    /// Whether this was not said a moment ago.
    fn is_news(&self, reason: &str) -> bool {
        let mut said = self.said.borrow_mut();
        let now = Instant::now();
        let is_old = said
            .as_ref()
            .is_some_and(|(words, at)| words == reason && now.duration_since(*at) < SAID_FOR);
        if !is_old {
            *said = Some((reason.to_owned(), now));
        }
        !is_old
    }

    /// Changes the counters.
    pub(super) fn count(&self, change: impl FnOnce(&mut CacheFacts)) {
        change(&mut self.facts.borrow_mut());
    }

    /// The counters of this moment.
    pub(super) fn facts(&self) -> CacheFacts {
        CacheFacts {
            breaker_open: !self.breaker.borrow().is_closed(),
            ..self.facts.borrow().clone()
        }
    }
}

/// What the server says when it will not serve these commands, whatever their keys.
const REFUSALS: [&str; 13] = [
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "MOVED",
    "ASK",
    "CROSSSLOT",
    "CLUSTERDOWN",
    "READONLY",
    "MISCONF",
    "OOM",
    "LOADING",
    "MASTERDOWN",
    "NOREPLICAS",
];

fn is_refusal(error: &RedisError) -> bool {
    error.code().is_some_and(|code| REFUSALS.contains(&code))
}

/// Longest words of a server that are told.
const WORDS: usize = 200;

/// What is wrong. The system's, the TLS library's and the server's own words have no secrets in them;
/// of other errors only the class is known to have none.
fn words(error: &RedisError) -> String {
    if error.is_io_error() {
        return error.to_string();
    }
    let Some(code) = error.code() else {
        return error.category().to_owned();
    };
    let said = format!("{code} {}", error.detail().unwrap_or_default());
    let told = said
        .trim_end()
        .chars()
        .filter(|letter| !letter.is_control());
    told.take(WORDS).collect()
}

/// Whether the server itself said this, so that the connection is in order.
fn was_answered(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType
    )
}

impl Line {
    /// Names this run of the server: after a restart it is another.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// What stands under these keys; what is no string reads as missing.
    pub(super) async fn get(&mut self, keys: &[String]) -> RedisResult<Vec<Option<Vec<u8>>>> {
        redis::cmd("MGET")
            .arg(keys)
            .query_async(&mut self.connection)
            .await
    }

    /// Sets a key that is not there; says whether it was not.
    pub(super) async fn place(
        &mut self,
        key: &str,
        value: &[u8],
        life: Duration,
    ) -> RedisResult<bool> {
        let placed: Option<String> = redis::cmd("SET")
            .arg(key)
            .arg(value)
            .arg("NX")
            .arg("PX")
            .arg(milliseconds(life))
            .query_async(&mut self.connection)
            .await?;
        Ok(placed.is_some())
    }

    /// Writes entries if `head` is still `expected`; says whether it was.
    pub(super) async fn fill(
        &mut self,
        (head, expected): (&str, &[u8]),
        life: Duration,
        entries: &[(String, Vec<u8>)],
    ) -> RedisResult<bool> {
        let mut command = redis::cmd("EVAL");
        command.arg(FILL).arg(entries.len() + 1).arg(head);
        for (key, _) in entries {
            command.arg(key);
        }
        command.arg(expected).arg(milliseconds(life));
        for (_, entry) in entries {
            command.arg(entry);
        }
        command.query_async(&mut self.connection).await
    }

    /// Lets nothing be filled under `head` for a while, and removes `others`.
    pub(super) async fn block(
        &mut self,
        head: &str,
        others: &[String],
        life: Duration,
    ) -> RedisResult<()> {
        redis::pipe()
            .cmd("SET")
            .arg(head)
            .arg(entry::BLOCKED)
            .arg("PX")
            .arg(milliseconds(life))
            .ignore()
            .cmd("DEL")
            .arg(others)
            .ignore()
            .query_async(&mut self.connection)
            .await
    }

    /// Runs a script that answers with numbers.
    pub(crate) async fn evaluate(
        &mut self,
        script: &str,
        keys: &[String],
        arguments: &[u64],
    ) -> RedisResult<Vec<i64>> {
        redis::cmd("EVAL")
            .arg(script)
            .arg(keys.len())
            .arg(keys)
            .arg(arguments)
            .query_async(&mut self.connection)
            .await
    }

    /// Removes a key.
    pub(super) async fn delete(&mut self, key: &str) -> RedisResult<()> {
        redis::cmd("DEL")
            .arg(key)
            .query_async(&mut self.connection)
            .await
    }
}

fn milliseconds(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1)
}
