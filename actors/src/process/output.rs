//! A child's output: read without pause, cut into lines, kept in part, passed on when there is room.
//!
//! The child must never wait for our own output. So lines go to one writer thread through a queue of
//! at most 1 MiB; when it is full they are dropped and counted, and the count is told later. So are the
//! lines of a child that writes more than a log can be expected to take.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::lines::{Splitter, Tail, is_hidden, told};
use crate::mask::Mask;

/// One parcel to the writer; 15 of them in the queue and one being written are 1 MiB.
const PARCEL: usize = 64 * 1024;
const PARCELS: usize = 15;
/// Bytes that a child may write to our output in a second, for long: ten times a busy server's log.
const RATE: u64 = 1024 * 1024;
/// And at once, after a silence: a traceback of every worker, a listing.
const BURST: u64 = 4 * RATE;

/// Makes a writer of lines.
type Outlet = fn() -> Box<dyn Write + Send>;

/// Where this process writes its children's lines; like stderr, there is one.
static OUTLET: OnceLock<Outlet> = OnceLock::new();

/// Children's lines go to what this makes from the next launcher on; the first call counts. Each write
/// has whole lines, `NAME| ` before each.
pub fn write_lines_to(outlet: Outlet) {
    OUTLET.get_or_init(|| outlet);
}

/// A writer of children's lines.
pub fn outlet() -> Box<dyn Write + Send> {
    let stderr: Outlet = || Box::new(io::stderr());
    OUTLET.get().unwrap_or(&stderr)()
}

/// The queue to the writer thread; cloned for each child.
#[derive(Clone, Debug)]
pub(super) struct Sink(SyncSender<Vec<u8>>);

impl Sink {
    /// Starts the writer thread. It ends when the last clone is dropped and is never waited for: a
    /// terminal that nobody reads may hold it for ever.
    pub(super) fn start(target: Box<dyn Write + Send>) -> io::Result<Self> {
        let (sender, parcels) = sync_channel(PARCELS);
        thread::Builder::new()
            .name("child-output".into())
            .spawn(move || write_parcels(target, &parcels))?;
        Ok(Self(sender))
    }

    /// False when the parcel was dropped.
    fn offer(&self, parcel: Vec<u8>) -> bool {
        match self.0.try_send(parcel) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Writes until all senders are gone. A target that fails (a closed terminal) is written to no more,
/// but parcels are still taken, so that "full" keeps meaning "slow".
fn write_parcels(mut target: Box<dyn Write + Send>, parcels: &Receiver<Vec<u8>>) {
    let mut works = true;
    while let Ok(parcel) = parcels.recv() {
        works = works
            && target
                .write_all(&parcel)
                .and_then(|()| target.flush())
                .is_ok();
    }
}

/// One child's output on its way.
#[derive(Debug)]
pub(super) struct Pump {
    prefix: Vec<u8>,
    splitter: Splitter,
    tail: Tail,
    kept: watch::Sender<Vec<String>>,
    outgoing: Outgoing,
    hidden: &'static [&'static str],
    /// Taken out of every line.
    secrets: Mask,
}

#[derive(Debug)]
struct Outgoing {
    sink: Option<Sink>,
    parcel: Vec<u8>,
    lines: u64,
    dropped: u64,
    allowance: Allowance,
}

/// How much may be written yet: [`RATE`], after a silence [`BURST`].
#[derive(Debug)]
struct Allowance {
    bytes: u64,
    counted: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            bytes: BURST,
            counted: now,
        }
    }

    /// Whether so many bytes may be written now; then they are taken off.
    fn take(&mut self, bytes: usize, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.counted);
        // Pauses that are too short to bring a byte add up.
        if since >= Duration::from_millis(1) {
            let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            let more = millis.saturating_mul(RATE) / 1000;
            self.bytes = self.bytes.saturating_add(more).min(BURST);
            self.counted = now;
        }
        let left = u64::try_from(bytes)
            .ok()
            .and_then(|bytes| self.bytes.checked_sub(bytes));
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }
}

impl Pump {
    /// `sink` is `None` for a child whose output is only kept.
    pub(super) fn new(name: &str, sink: Option<Sink>) -> (Self, watch::Receiver<Vec<String>>) {
        let (kept, seen) = watch::channel(Vec::new());
        let pump = Self {
            prefix: format!("{name}| ").into_bytes(),
            splitter: Splitter::default(),
            tail: Tail::default(),
            kept,
            outgoing: Outgoing {
                sink,
                parcel: Vec::new(),
                lines: 0,
                dropped: 0,
                allowance: Allowance::new(Instant::now()),
            },
            hidden: &[],
            secrets: Mask::default(),
        };
        (pump, seen)
    }

    /// The same, without lines that hold one of these texts.
    pub(super) fn without(self, hidden: &'static [&'static str]) -> Self {
        Self { hidden, ..self }
    }

    /// The same, with stars where one of these secrets stood.
    pub(super) fn masking(self, secrets: Mask) -> Self {
        Self { secrets, ..self }
    }

    /// The lines kept so far, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        self.tail.lines()
    }

    /// Takes what was read. Never waits.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let Self {
            prefix,
            splitter,
            tail,
            outgoing,
            hidden,
            secrets,
            ..
        } = self;
        splitter.feed(bytes, |line| {
            if !is_hidden(line, hidden) {
                let line = told(line, secrets);
                tail.push(&line);
                outgoing.push(prefix, &line);
            }
        });
        self.publish();
    }

    /// The stream has ended.
    pub(super) fn finish(&mut self) {
        let Self {
            prefix,
            splitter,
            tail,
            outgoing,
            secrets,
            ..
        } = self;
        splitter.finish(|line| {
            let line = told(line, secrets);
            tail.push(&line);
            outgoing.push(prefix, &line);
        });
        self.publish();
        self.outgoing.tell_dropped(&self.prefix);
    }

    fn publish(&mut self) {
        self.outgoing.flush(&self.prefix);
        self.kept.send_replace(self.tail.lines());
    }
}

impl Outgoing {
    fn push(&mut self, prefix: &[u8], line: &[u8]) {
        if self.sink.is_none() {
            return;
        }
        if self.parcel.len() + prefix.len() + line.len() + 1 > PARCEL {
            self.flush(prefix);
        }
        self.parcel.extend_from_slice(prefix);
        self.parcel.extend_from_slice(line);
        self.parcel.push(b'\n');
        self.lines += 1;
    }

    fn flush(&mut self, prefix: &[u8]) {
        let Some(sink) = &self.sink else {
            return;
        };
        if self.parcel.is_empty() {
            return;
        }
        let parcel = std::mem::take(&mut self.parcel);
        let lines = std::mem::take(&mut self.lines);
        let sink = sink.clone();
        if !self.allowance.take(parcel.len(), Instant::now()) {
            self.dropped += lines;
            return;
        }
        self.tell_dropped(prefix);
        if !sink.offer(parcel) {
            self.dropped += lines;
        }
    }

    /// Says how many lines are missing, as soon as there is room for it.
    fn tell_dropped(&mut self, prefix: &[u8]) {
        let Some(sink) = self.sink.as_ref().filter(|_| self.dropped > 0) else {
            return;
        };
        let mut notice = prefix.to_vec();
        notice.extend_from_slice(format!("[{} lines not shown]\n", self.dropped).as_bytes());
        if sink.offer(notice) {
            self.dropped = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::process::LAST_LINES;

    #[test]
    fn the_last_lines_are_kept() {
        let (mut pump, kept) = Pump::new("n", None);
        for number in 0..120 {
            pump.feed(format!("line {number}\n").as_bytes());
        }
        pump.feed(b"bad \xff byte");
        pump.finish();
        let lines = kept.borrow().clone();
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines[0], "line 71");
        assert_eq!(lines[LAST_LINES - 1], "bad \u{fffd} byte");
    }

    /// Blocks in its first write until released, then collects.
    struct Gate {
        gate: Receiver<()>,
        written: std::sync::mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            // Once the test has dropped its end, nothing blocks any more.
            self.gate.recv().ok();
            drop(self.written.send(buf.to_vec()));
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn p7_a_slow_sink_drops_lines_and_says_how_many() {
        let (release, gate) = channel();
        let (written, arrived) = channel();
        let sink = Sink::start(Box::new(Gate { gate, written })).unwrap();
        let (mut pump, _kept) = Pump::new("n", Some(sink));
        let sent: u64 = 100_000;
        for _ in 0..sent / 100 {
            pump.feed(&b"a line of forty bytes, to make it plenty\n".repeat(100));
        }
        drop(release);
        let mut fed = sent;
        let mut counts = Counts::default();
        // Room comes as the writer catches up; the next lines then tell the loss.
        while counts.told == 0 {
            pump.feed(b"more\n");
            fed += 1;
            thread::sleep(Duration::from_millis(1));
            for parcel in arrived.try_iter() {
                counts.add(parcel);
            }
        }
        let untold = pump.outgoing.dropped;
        drop(pump);
        for parcel in &arrived {
            counts.add(parcel);
        }
        assert_eq!(
            counts.told + counts.shown + untold,
            fed,
            "every line is shown or counted"
        );
        assert!(counts.shown < fed / 2, "{} lines were queued", counts.shown);
    }

    /// The fault: `yes 1>&2` of a child wrote 281 MB a second into the log file.
    #[test]
    fn a_child_that_never_stops_writing_is_shown_at_a_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut shown = 0;
        for millis in 0..10_000_u64 {
            for _ in 0..10 {
                let now = start + Duration::from_millis(millis);
                shown += u64::from(allowance.take(PARCEL, now)) * u64::try_from(PARCEL).unwrap();
            }
        }
        assert!(shown > 10 * RATE, "{shown}");
        assert!(shown <= 14 * RATE, "{shown}");
    }

    #[test]
    fn what_was_not_shown_is_told_at_the_end() {
        let (written, arrived) = channel();
        let (release, gate) = channel();
        drop(release);
        let sink = Sink::start(Box::new(Gate { gate, written })).unwrap();
        let (mut pump, _kept) = Pump::new("n", Some(sink));
        pump.outgoing.allowance.bytes = 0;
        pump.feed(b"one\ntwo\n");
        pump.finish();
        drop(pump);
        let mut counts = Counts::default();
        for parcel in &arrived {
            counts.add(parcel);
        }
        assert_eq!((counts.told, counts.shown), (2, 0));
    }

    #[test]
    fn hidden_lines_are_neither_shown_nor_kept() {
        let (pump, kept) = Pump::new("n", None);
        let mut pump = pump.without(&["GET /v1/models HTTP/1.1\" 200"]);
        pump.feed(b"INFO: 127.0.0.1:1 - \"GET /v1/models HTTP/1.1\" 200 OK\nloading\n");
        assert_eq!(*kept.borrow(), ["loading"]);
    }

    #[derive(Default)]
    struct Counts {
        shown: u64,
        told: u64,
    }

    impl Counts {
        fn add(&mut self, parcel: Vec<u8>) {
            for line in String::from_utf8(parcel).unwrap().lines() {
                match line
                    .strip_prefix("n| [")
                    .and_then(|rest| rest.split_once(' '))
                {
                    Some((number, _)) => self.told += number.parse::<u64>().unwrap(),
                    None => self.shown += 1,
                }
            }
        }
    }
}
