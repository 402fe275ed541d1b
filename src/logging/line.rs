//! One line of the log, as text or as a JSON object, key-values included.

use std::io::{self, Write};

use log::Record;
use log::kv::{self, Key, Value, VisitSource};
use serde::Serializer as _;
use serde::ser::SerializeMap;
use vllm_responses_actors::env::{Clock as _, SystemClock};
use vllm_responses_actors::process::deceives;

/// The time as the log writes it: UTC, to the millisecond.
pub(super) fn now() -> String {
    let millis = now_ms();
    stamp(millis / 1000, millis % 1000)
}

/// The time in milliseconds.
pub(super) fn now_ms() -> u64 {
    u64::try_from(SystemClock.now_ms()).unwrap_or_default()
}

/// Days to a date by Howard Hinnant's `civil_from_days`, for the years from 1970 on.
fn stamp(seconds: u64, millis: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{of_month:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        year + era * 400 + carry,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// `TIME LEVEL target: message key=value ...`; control characters are escaped, so that a line is a line.
pub(super) fn text_line(out: &mut dyn Write, time: &str, record: &Record<'_>) -> io::Result<()> {
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
pub(super) fn json_line(out: &mut dyn Write, time: &str, record: &Record<'_>) -> io::Result<()> {
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
    fn times_are_written_as_everywhere() {
        assert_eq!(stamp(0, 7), "1970-01-01T00:00:00.007Z");
        assert_eq!(stamp(951_827_696, 0), "2000-02-29T12:34:56.000Z");
        assert_eq!(stamp(1_796_000_000, 999), "2026-11-30T00:53:20.999Z");
        assert_eq!(stamp(4_107_542_399, 1), "2100-02-28T23:59:59.001Z");
    }

    #[test]
    fn letters_that_hide_others_are_escaped() {
        assert_eq!(
            one_line("a\u{202e}b\u{2028}c\u{2066}"),
            "a\\u{202e}b\\u{2028}c\\u{2066}"
        );
    }
}
