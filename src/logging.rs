//! The log: `env_logger` on stderr, as text or as JSON lines, key-values included.

use std::io::{self, Write};
use std::sync::Arc;

use env_logger::{Builder, Logger};
use log::kv::{self, Key, Value, VisitSource};
use log::{Log, Metadata, Record};
use serde::Serializer as _;
use serde::ser::SerializeMap;
use tokio::sync::watch;
use vllm_responses_actors::process::deceives;

use crate::config::{LogFormat, Logging};

/// What no filter lets through: messages of MCP servers, which the SDK quotes.
const SILENT: &str = "rmcp=off,sse_stream=off";

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
        self.logger().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.logger().log(record);
    }

    fn flush(&self) {
        self.logger().flush();
    }
}

/// Starts the log. `None` when there is one already, which stays as it is.
pub fn init(settings: &Logging) -> Option<LogHandle> {
    let logger = logger(settings);
    let level = logger.filter();
    let (handle, seen) = watch::channel(Arc::new(logger));
    log::set_boxed_logger(Box::new(Current(seen))).ok()?;
    log::set_max_level(level);
    Some(LogHandle(handle))
}

fn logger(settings: &Logging) -> Logger {
    let mut builder = Builder::new();
    // What actix says of its own start is no news to people; a filter that names it gets it.
    let quiet = "actix_server=warn,tracing::span=warn";
    builder.parse_filters(&format!("{quiet},{},{SILENT}", settings.filter));
    match settings.format {
        LogFormat::Text => builder.format(|out, record| {
            let time = out.timestamp_millis().to_string();
            text_line(out, &time, record)
        }),
        LogFormat::Json => builder.format(|out, record| {
            let time = out.timestamp_millis().to_string();
            json_line(out, &time, record)
        }),
    };
    builder.build()
}

/// `TIME LEVEL target: message key=value ...`; control characters are escaped, so that a line is a line.
fn text_line(out: &mut dyn Write, time: &str, record: &Record<'_>) -> io::Result<()> {
    let message = one_line(&record.args().to_string());
    write!(
        out,
        "{time} {:5} {}: {message}",
        record.level(),
        record.target()
    )?;
    let mut pairs = TextPairs(out);
    record
        .key_values()
        .visit(&mut pairs)
        .map_err(io::Error::other)?;
    writeln!(pairs.0)
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if deceives(letter) {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line
}

struct TextPairs<'a>(&'a mut dyn Write);

impl<'kvs> VisitSource<'kvs> for TextPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        write!(self.0, " {key}={}", one_line(&value.to_string()))?;
        Ok(())
    }
}

/// One object: `time`, `level`, `target`, `message`, then the key-values beside them.
fn json_line(out: &mut dyn Write, time: &str, record: &Record<'_>) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut bytes);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("time", time)?;
    map.serialize_entry("level", record.level().as_str())?;
    map.serialize_entry("target", record.target())?;
    map.serialize_entry("message", &record.args().to_string())?;
    record
        .key_values()
        .visit(&mut JsonPairs(&mut map))
        .map_err(io::Error::other)?;
    map.end()?;
    bytes.push(b'\n');
    out.write_all(&bytes)
}

struct JsonPairs<'a, M>(&'a mut M);

impl<'kvs, M: SerializeMap> VisitSource<'kvs> for JsonPairs<'_, M> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        // A pair must not repeat a name of the line itself.
        let name = match key.as_str() {
            own @ ("time" | "level" | "target" | "message") => format!("_{own}"),
            other => other.to_owned(),
        };
        let written = if let Some(number) = value.to_u64() {
            self.0.serialize_entry(&name, &number)
        } else if let Some(number) = value.to_i64() {
            self.0.serialize_entry(&name, &number)
        } else if let Some(number) = value.to_f64() {
            self.0.serialize_entry(&name, &number)
        } else if let Some(on) = value.to_bool() {
            self.0.serialize_entry(&name, &on)
        } else {
            self.0.serialize_entry(&name, &value.to_string())
        };
        written.map_err(|error| kv::Error::boxed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: fn(&mut dyn Write, &str, &Record<'_>) -> io::Result<()>) -> String {
        let pairs = [("level", Value::from("x\ny")), ("count", Value::from(3))];
        let mut out = Vec::new();
        let mut record = Record::builder();
        record
            .level(log::Level::Info)
            .target("t")
            .key_values(&pairs);
        format(&mut out, "now", &record.args(format_args!("a\nb")).build()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_keeps_to_one_line() {
        assert_eq!(line(text_line), "now INFO  t: a\\nb level=x\\ny count=3\n");
    }

    #[test]
    fn json_is_one_object() {
        let expected = r#"{"time":"now","level":"INFO","target":"t","message":"a\nb","_level":"x\ny","count":3}"#;
        assert_eq!(line(json_line), format!("{expected}\n"));
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
