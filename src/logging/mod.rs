//! The log: `env_logger` decides and shapes, as text or as JSON lines; a queue carries to stderr.

mod children;
mod line;
mod queue;
mod strangers;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use env_logger::{Builder, Logger, Target};
use log::{Level, Log, Metadata, Record};
use tokio::sync::watch;
use vllm_responses_actors::process;

use crate::config::{LogFormat, Logging};
use queue::Queue;
use strangers::Strangers;

/// Whom no filter lets through: the SDK quotes messages of MCP servers.
const SILENT: [&str; 2] = ["rmcp", "sse_stream"];
/// Whose lines below `info` may be seen. Other crates write what passes through them at `debug` and
/// `trace`: statements with their parameters, heads with their keys.
const OURS: [&str; 2] = ["vllm_responses", "access"];
/// Target of the lines of requests.
pub(crate) const ACCESS: &str = "access";
/// How long the end waits for whoever reads the log.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A log is a process's only one, as the `log` crate has it: so are its queue and its shape.
static QUEUE: OnceLock<Queue> = OnceLock::new();
static IS_JSON: AtomicBool = AtomicBool::new(false);
static STRANGERS: Strangers = Strangers::new();

/// The running log, whose settings can be changed.
#[derive(Debug)]
pub struct LogHandle(watch::Sender<Arc<Logger>>);

impl LogHandle {
    /// From the next line on these settings are in force.
    pub fn apply(&self, settings: &Logging) {
        let logger = logger(settings);
        log::set_max_level(logger.filter());
        self.0.send_replace(Arc::new(logger));
    }
}

/// What `log` calls: the logger of the moment.
struct Current(watch::Receiver<Arc<Logger>>);

impl Current {
    /// A copy of the pointer: a line is written while nothing is held.
    fn logger(&self) -> Arc<Logger> {
        Arc::clone(&self.0.borrow())
    }
}

impl Log for Current {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        may_be_seen(metadata) && self.logger().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !may_be_seen(record.metadata()) {
            return;
        }
        let logger = self.logger();
        let lost = QUEUE.get().map_or(0, Queue::take_untold);
        if lost > 0 {
            let mut notice = Record::builder();
            notice.level(Level::Warn).target(module_path!());
            let words = format_args!("[{lost} lines of the log dropped: stderr was not read]");
            logger.log(&notice.args(words).build());
        }
        if !STRANGERS.take(record, line::now_ms(), &*logger) {
            logger.log(record);
        }
    }

    fn flush(&self) {
        finish();
    }
}

fn may_be_seen(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_of = |names: &[&str]| names.iter().any(|name| target.starts_with(name));
    (metadata.level() <= Level::Info && !is_of(&SILENT)) || is_of(&OURS)
}

/// Starts the log. `None` when there is one already, which stays as it is.
pub fn init(settings: &Logging) -> Option<LogHandle> {
    if QUEUE.get().is_none()
        && let Ok(queue) = Queue::start(Box::new(io::stderr()))
    {
        // Set by another thread meanwhile: then that one's is used.
        QUEUE.set(queue).unwrap_or_default();
    }
    process::write_lines_to(|| Box::new(ChildLines));
    let logger = logger(settings);
    let level = logger.filter();
    let (handle, seen) = watch::channel(Arc::new(logger));
    log::set_boxed_logger(Box::new(Current(seen))).ok()?;
    log::set_max_level(level);
    Some(LogHandle(handle))
}

/// Words to people, in order with the lines of the log, and as little waited for.
pub(crate) fn say(text: &str) {
    match QUEUE.get() {
        // Neither can fail but by being dropped, which is counted.
        Some(queue) => queue.clone().write_all(text.as_bytes()).unwrap_or_default(),
        // When stderr is gone nobody is left to be told.
        None => io::stderr().write_all(text.as_bytes()).unwrap_or_default(),
    }
}

/// Waits until the log is written, a moment at most.
pub(crate) fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.finish(LAST_WORDS);
    }
}

/// Lines dropped so far, since nobody read them.
pub(crate) fn dropped() -> u64 {
    QUEUE.get().map_or(0, Queue::dropped)
}

fn logger(settings: &Logging) -> Logger {
    let mut builder = Builder::new();
    // What actix says of its own start is no news to people; a filter that names it gets it.
    let quiet = "actix_server=warn,tracing::span=warn";
    builder.parse_filters(&format!("{quiet},{}", settings.filter));
    IS_JSON.store(settings.format == LogFormat::Json, Relaxed);
    match settings.format {
        LogFormat::Text => builder.format(|out, record| line::text_line(out, &line::now(), record)),
        LogFormat::Json => builder.format(|out, record| line::json_line(out, &line::now(), record)),
    };
    if let Some(queue) = QUEUE.get() {
        builder.target(Target::Pipe(Box::new(queue.clone())));
    }
    builder.build()
}

/// Where children's lines go, from a thread that may wait.
struct ChildLines;

impl Write for ChildLines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if IS_JSON.load(Relaxed) {
            io::stderr().write_all(&children::json(lines))?;
        } else {
            io::stderr().write_all(lines)?;
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_crates_are_silent_below_info() {
        let seen = |target, level| {
            let metadata = Metadata::builder().target(target).level(level).build();
            may_be_seen(&metadata)
        };
        for target in [
            "tokio_postgres::query",
            "awc::client",
            "h2",
            "hyper",
            "rustls",
            "x",
        ] {
            assert!(
                !seen(target, Level::Debug) && !seen(target, Level::Trace),
                "{target}"
            );
            assert!(seen(target, Level::Info));
        }
        assert!(seen("vllm_responses_actors::turn", Level::Trace));
        for target in ["rmcp::service", "rmcp", "sse_stream"] {
            assert!(!seen(target, Level::Error), "{target}");
        }
    }

    #[test]
    fn a_second_start_is_refused_without_a_panic() {
        let settings = Logging {
            filter: "off".to_owned(),
            format: LogFormat::Text,
            timings: false,
            model_messages: false,
        };
        let first = init(&settings);
        assert!(init(&settings).is_none());
        drop(first);
    }
}
