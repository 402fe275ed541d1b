//! The log's way to stderr: a bounded queue, and a thread that may wait for whoever reads.
//!
//! A terminal that is stopped, or a pipe that nobody reads, must not stop requests. So a line that
//! finds no room is dropped and counted; the count is told once there is room, and in the metrics.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that may wait.
const LINES: usize = 4096;
/// Bytes that may wait.
const BYTES: usize = 2 * 1024 * 1024;
/// Written at once.
const BATCH: usize = 64 * 1024;
/// How often a full queue is looked at while it is waited for.
const PAUSE: Duration = Duration::from_millis(5);

enum Parcel {
    Lines(Vec<u8>),
    /// Answered once everything before it is written.
    Flush(SyncSender<()>),
}

/// Cloned for each writer.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    parcels: SyncSender<Parcel>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Bytes that wait.
    waiting: AtomicUsize,
    /// Lines dropped, ever.
    dropped: AtomicU64,
    /// Those of them that no line has told yet.
    untold: AtomicU64,
}

impl Queue {
    /// Starts the thread. It ends when the last clone is dropped, and is never waited for.
    pub(super) fn start(target: Box<dyn Write + Send>) -> io::Result<Self> {
        let (parcels, received) = sync_channel(LINES);
        let counts = Arc::new(Counts::default());
        let seen = Arc::clone(&counts);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(target, &received, &seen))?;
        Ok(Self { parcels, counts })
    }

    /// Never waits.
    fn offer(&self, line: &[u8]) {
        let waiting = self.counts.waiting.fetch_add(line.len(), Relaxed);
        let fits = waiting.saturating_add(line.len()) <= BYTES;
        if !fits || self.parcels.try_send(Parcel::Lines(line.to_vec())).is_err() {
            self.counts.waiting.fetch_sub(line.len(), Relaxed);
            self.counts.dropped.fetch_add(1, Relaxed);
            self.counts.untold.fetch_add(1, Relaxed);
        }
    }

    /// Lines dropped since this was asked last, once there is room to say so.
    pub(super) fn take_untold(&self) -> u64 {
        let is_idle = self.counts.waiting.load(Relaxed) < BYTES / 4;
        if is_idle && self.counts.untold.load(Relaxed) > 0 {
            self.counts.untold.swap(0, Relaxed)
        } else {
            0
        }
    }

    /// Lines dropped, ever.
    pub(super) fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }

    /// Waits until everything is written, but not for ever.
    pub(super) fn finish(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let (done, written) = sync_channel(1);
        while self.parcels.try_send(Parcel::Flush(done.clone())).is_err() {
            if Instant::now() >= until {
                return;
            }
            thread::sleep(PAUSE);
        }
        // Late or gone: nobody reads, so nobody misses it.
        written
            .recv_timeout(until.saturating_duration_since(Instant::now()))
            .unwrap_or_default();
    }
}

impl Write for Queue {
    /// One call is one line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.offer(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes until all senders are gone. A target that fails (a closed terminal) is written to no more,
/// but parcels are still taken, so that "full" keeps meaning "slow".
fn write_all(mut target: Box<dyn Write + Send>, parcels: &Receiver<Parcel>, counts: &Counts) {
    let mut works = true;
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(parcel) = parcels.recv() {
        batch.clear();
        let mut asked = None;
        let mut next = Some(parcel);
        while let Some(parcel) = next.take() {
            match parcel {
                Parcel::Lines(line) => batch.extend_from_slice(&line),
                Parcel::Flush(done) => asked = Some(done),
            }
            if asked.is_none() && batch.len() < BATCH {
                next = parcels.try_recv().ok();
            }
        }
        works = works
            && target
                .write_all(&batch)
                .and_then(|()| target.flush())
                .is_ok();
        counts.waiting.fetch_sub(batch.len(), Relaxed);
        if let Some(done) = asked {
            // Whoever asked may have stopped waiting.
            done.try_send(()).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Waits in each write until it is let go, then collects.
    struct Gate {
        gate: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.gate.recv().ok();
            drop(self.written.send(bytes.to_vec()));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_holds_nobody_up_and_every_line_is_written_or_counted() {
        let (release, gate) = channel();
        let (written, arrived) = channel();
        let mut queue = Queue::start(Box::new(Gate { gate, written })).unwrap();
        let line = [b"x".repeat(999).as_slice(), b"\n"].concat();
        let sent = 20_000;
        for _ in 0..sent {
            queue.write_all(&line).unwrap();
        }
        assert!(queue.dropped() > 0);
        assert!(queue.counts.waiting.load(Relaxed) <= BYTES);
        assert_eq!(queue.take_untold(), 0, "there is no room to say so");
        queue.finish(Duration::from_millis(20));
        drop(release);
        queue.finish(Duration::from_secs(60));
        let dropped = queue.dropped();
        assert_eq!(queue.take_untold(), dropped);
        assert_eq!(queue.take_untold(), 0);
        drop(queue);
        let shown: usize = arrived.iter().map(|bytes| bytes.len() / line.len()).sum();
        assert_eq!(u64::try_from(shown).unwrap() + dropped, sent);
    }

    #[test]
    fn what_was_written_before_the_end_is_there() {
        let (written, arrived) = channel();
        let (open, gate) = channel::<()>();
        drop(open);
        let mut queue = Queue::start(Box::new(Gate { gate, written })).unwrap();
        queue.write_all(b"one\n").unwrap();
        queue.finish(Duration::from_secs(60));
        let all: Vec<u8> = arrived.try_iter().flatten().collect();
        assert_eq!(all, b"one\n");
    }
}
