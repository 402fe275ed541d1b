//! How a set-up is shown: a moving line on a terminal, one line a step elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use vllm_responses_actors::interpreter::setup::progress::Progress;

/// How often a moving line changes.
const EVERY: Duration = Duration::from_millis(100);
/// Most characters of a detail.
const WIDEST: usize = 60;

/// Shows a set-up on stderr.
pub(super) struct Shown {
    moving: bool,
    began: Instant,
    step: String,
    /// What stands behind the step.
    tail: String,
    drawn: Option<Instant>,
}

impl Shown {
    pub(super) fn on_stderr() -> Self {
        Self {
            moving: std::io::stderr().is_terminal(),
            began: Instant::now(),
            step: String::new(),
            tail: String::new(),
            drawn: None,
        }
    }

    /// Leaves the last step's line as it is.
    pub(super) fn end(&mut self) {
        if self.moving && !self.step.is_empty() {
            self.draw("");
            put("\n");
        }
        self.step.clear();
    }

    fn draw(&mut self, tail: &str) {
        let seconds = self.began.elapsed().as_secs();
        let tail: String = tail
            .chars()
            .filter(|character| !character.is_control())
            .take(WIDEST)
            .collect();
        // Without automatic margins for that long: a line that wraps cannot be overwritten, and a
        // terminal may be narrower than any line.
        put(&format!(
            "\x1b[?7l\r\x1b[K[{seconds:>3} s] {}{tail}\x1b[?7h",
            self.step
        ));
        self.tail = tail;
        self.drawn = Some(Instant::now());
    }

    fn is_due(&self) -> bool {
        self.moving && self.drawn.is_none_or(|drawn| drawn.elapsed() >= EVERY)
    }
}

impl Progress for Shown {
    fn step(&mut self, text: &str) {
        self.end();
        text.clone_into(&mut self.step);
        if self.moving {
            self.draw("");
        } else {
            let seconds = self.began.elapsed().as_secs();
            put(&format!("[{seconds:>3} s] {text}\n"));
        }
    }

    fn bytes(&mut self, done: u64, total: u64) {
        if self.is_due() || (self.moving && done == total) {
            let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
            self.draw(&format!(
                ": {percent} % of {}.{} MB",
                total / 1_000_000,
                total / 100_000 % 10
            ));
        }
    }

    fn detail(&mut self, text: &str) {
        if self.moving {
            self.draw(&format!(": {text}"));
        } else {
            let seconds = self.began.elapsed().as_secs();
            put(&format!("[{seconds:>3} s]   {text}\n"));
        }
    }

    fn tick(&mut self) {
        if self.moving {
            let tail = std::mem::take(&mut self.tail);
            self.draw(&tail);
        }
    }
}

/// When stderr is gone nobody is left to be shown anything.
fn put(text: &str) {
    let mut stderr = std::io::stderr();
    stderr.write_all(text.as_bytes()).unwrap_or_default();
    stderr.flush().unwrap_or_default();
}
