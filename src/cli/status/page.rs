//! The status page as text for a terminal. Pure.

use std::fmt::Write as _;

use vllm_responses_actors::process::messages::Phase;
use vllm_responses_actors::store::messages::Backend;
use vllm_responses_actors::supervisor::messages::StopStage;

use super::Lines;
use crate::status::{
    CacheStatus, ChildView, InterpreterView, Standing, Status, StoreStatus, ToolState,
    UpstreamStatus, printable,
};

/// The whole page.
pub(super) fn page(base: &str, status: &Status, lines: Lines) -> String {
    let ready = match (status.ready, status.stop) {
        (_, StopStage::Leaving | StopStage::Draining | StopStage::Ending) => "stopping",
        (true, StopStage::Running) => "ready",
        (false, StopStage::Running) => "not ready",
    };
    let mut text = format!(
        "vllm-responses {} at {base}: {ready}\n",
        printable(&status.version)
    );
    row(
        &mut text,
        "gateway",
        &format!(
            "up {}, pid {}, {} of {} responses running",
            time(status.uptime_ms),
            status.pid,
            status.in_flight,
            status.capacity
        ),
    );
    upstream(&mut text, &status.upstream);
    for child in &status.children {
        show_child(&mut text, child, lines);
    }
    store(&mut text, &status.store);
    cache(&mut text, &status.cache);
    if let Some(python) = &status.code_interpreter {
        interpreter(&mut text, python);
    }
    for tool in &status.tools {
        let state = match tool.state {
            ToolState::Offered => "on offer",
            ToolState::Off => "off",
            ToolState::Missing => "missing",
        };
        row(&mut text, "tool", &format!("{}: {state}", tool.name));
        note(&mut text, "remedy", tool.remedy.as_deref());
    }
    text
}

fn interpreter(text: &mut String, python: &InterpreterView) {
    let service = python.service.as_deref();
    let line = format!(
        "{}{}, {} processes, {} of them idle, {} calls waiting",
        standing(python.phase),
        service
            .map(|url| format!(", service {url}"))
            .unwrap_or_default(),
        python.live,
        python.idle,
        python.waiting
    );
    row(text, "python", &line);
    note(text, "last error", python.last_error.as_deref());
    let gaps = python.walls.filter(|walls| !walls.are_complete());
    let gaps = gaps.map(|walls| walls.to_string());
    note(text, "walls", gaps.as_deref());
}

fn upstream(text: &mut String, upstream: &UpstreamStatus) {
    let model = upstream
        .model
        .as_deref()
        .map(|model| format!(", model {model}"));
    row(
        text,
        "upstream",
        &format!(
            "{}, {}{}",
            standing(upstream.phase),
            upstream.url,
            model.unwrap_or_default()
        ),
    );
    note(text, "last error", upstream.last_error.as_deref());
}

fn store(text: &mut String, store: &StoreStatus) {
    let what = match store.backend {
        Some(Backend::Sqlite) => "SQLite, ",
        Some(Backend::Postgres) => "PostgreSQL, ",
        None => "",
    };
    row(
        text,
        "store",
        &format!(
            "{}, {what}{} of {} places for writes taken",
            standing(store.phase),
            store.queued_writes,
            store.queue_capacity
        ),
    );
    note(text, "last error", store.last_error.as_deref());
}

fn show_child(text: &mut String, child: &ChildView, lines: Lines) {
    let phase = match child.phase {
        None => "gives no answer",
        Some(Phase::Stopped) => "stopped",
        Some(Phase::Starting) => "starting",
        Some(Phase::Ready) => "ready",
        Some(Phase::Backoff) => "to be started again",
        Some(Phase::Failed) => "failed",
        Some(Phase::Stopping) => "stopping",
    };
    let pid = child.pid.map(|pid| format!(", pid {pid}"));
    let uptime = child.uptime_ms.map(|ms| format!(", up {}", time(ms)));
    let times = if child.restarts == 1 { "time" } else { "times" };
    let line = format!(
        "{phase}{}{}, started again {} {times}",
        pid.unwrap_or_default(),
        uptime.unwrap_or_default(),
        child.restarts
    );
    row(text, &child.name, &line);
    note(text, "last error", child.last_error.as_deref());
    if lines == Lines::OfFailed && child.phase == Some(Phase::Ready) {
        return;
    }
    for line in &child.last_lines {
        note(text, "log", Some(line));
    }
}

fn standing(phase: Standing) -> &'static str {
    match phase {
        Standing::Off => "off",
        Standing::Starting => "starting",
        Standing::Ready => "ready",
        Standing::Down => "down",
    }
}

/// Names are at most `mcp-runtime`.
fn row(text: &mut String, name: &str, line: &str) {
    // Writing to a string does not fail.
    writeln!(text, "  {:11} {}", printable(name), printable(line)).unwrap_or_default();
}

fn note(text: &mut String, name: &str, line: Option<&str>) {
    if let Some(line) = line {
        writeln!(text, "  {:11}   {name}: {}", "", printable(line)).unwrap_or_default();
    }
}

/// `12 s`, `5 min`, `3 h 4 min`, `2 d 5 h`.
fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

fn cache(text: &mut String, status: &CacheStatus) {
    let phase = standing(status.phase);
    let line = match &status.redis {
        None => phase.to_owned(),
        Some(redis) => format!(
            "{phase}, {} hits, {} misses, {} errors",
            redis.hits, redis.misses, redis.errors
        ),
    };
    row(text, "cache", &line);
}

#[cfg(test)]
mod tests {
    use vllm_responses_actors::process::sandbox::Walls;

    use super::*;
    use crate::status::{CacheStatus, InterpreterView, ToolStatus};

    fn status() -> Status {
        Status {
            version: "1.2.3".to_owned(),
            pid: 11,
            uptime_ms: 3_600_000 + 240_000,
            ready: false,
            stop: StopStage::Running,
            in_flight: 2,
            capacity: 64,
            upstream: UpstreamStatus {
                phase: Standing::Down,
                url: "http://127.0.0.1:8457/v1".to_owned(),
                model: Some("small".to_owned()),
                last_error: Some("cannot be reached".to_owned()),
            },
            store: StoreStatus {
                phase: Standing::Ready,
                backend: Some(Backend::Sqlite),
                queued_writes: 1,
                queue_capacity: 4096,
                last_error: None,
            },
            cache: CacheStatus {
                phase: Standing::Off,
                redis: None,
            },
            children: vec![ChildView {
                name: "vllm".to_owned(),
                phase: Some(Phase::Backoff),
                pid: None,
                uptime_ms: None,
                restarts: 1,
                last_error: Some("it ended while it was serving: signal 9".to_owned()),
                last_lines: vec!["loading\u{1b}[2J weights".to_owned()],
            }],
            code_interpreter: Some(InterpreterView {
                service: None,
                phase: Standing::Ready,
                live: 3,
                idle: 2,
                waiting: 0,
                failures: 1,
                last_error: None,
                walls: Some(Walls {
                    landlock: 0,
                    seccomp: true,
                    group: vllm_responses_actors::process::Held::default(),
                }),
            }),
            tools: vec![ToolStatus {
                name: "code_interpreter".to_owned(),
                state: ToolState::Missing,
                remedy: Some("install it".to_owned()),
            }],
        }
    }

    #[test]
    fn the_page_says_everything_and_moves_no_cursor() {
        let expected = "\
vllm-responses 1.2.3 at http://h: not ready
  gateway     up 1 h 4 min, pid 11, 2 of 64 responses running
  upstream    down, http://127.0.0.1:8457/v1, model small
                last error: cannot be reached
  vllm        to be started again, started again 1 time
                last error: it ended while it was serving: signal 9
                log: loading\u{fffd}[2J weights
  store       ready, SQLite, 1 of 4096 places for writes taken
  cache       off
  python      ready, 3 processes, 2 of them idle, 0 calls waiting
                walls: Landlock missing, seccomp there
  tool        code_interpreter: missing
                remedy: install it
";
        assert_eq!(page("http://h", &status(), Lines::OfFailed), expected);
        let mut ready = status();
        ready.children[0].phase = Some(Phase::Ready);
        assert!(!page("http://h", &ready, Lines::OfFailed).contains("log: "));
        assert!(page("http://h", &ready, Lines::OfAll).contains("log: loading"));
    }

    #[test]
    fn times_are_short() {
        for (ms, expected) in [
            (999, "0 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (7_260_000, "2 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(time(ms), expected);
        }
    }
}
