//! One running child as the launcher sees it: output in, orders out, and the end.

use std::io::PipeWriter;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::guardian;
use super::mark::{self, Mark};
use super::output::Pump;
use super::spec::{ExitKind, ExitReport};

/// Bytes taken from the pipe at once; a pipe holds as many.
const READ: usize = 64 * 1024;
/// How long the guardian may take to kill the tree before it is taken for hung and killed itself.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How long the rest of the output is read after the end. All writers are gone, so it is only what
/// the pipe still holds, unless a process that escaped keeps it open.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// What a handle can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// SIGTERM, grace, SIGKILL.
    Stop,
    /// SIGKILL.
    Kill,
}

/// Everything that belongs to one child.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) guardian: tokio::process::Child,
    pub(super) control: BufReader<UnixStream>,
    pub(super) output: pipe::Receiver,
    pub(super) pump: Pump,
    /// The held end of its standard input; dropped to stop it.
    pub(super) stdin: Option<PipeWriter>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) report: watch::Sender<Option<ExitReport>>,
    pub(super) mark: Mark,
    pub(super) grace: Duration,
}

/// How far a stop has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Nobody asked.
    No,
    /// SIGTERM was sent; SIGKILL is due then.
    Asked(Instant),
    /// SIGKILL was sent; the guardian itself is killed then.
    Forced(Instant),
    /// Nothing more can be done than wait.
    Last,
}

impl Ending {
    fn due(self) -> Option<Instant> {
        match self {
            Self::Asked(at) | Self::Forced(at) => Some(at),
            Self::No | Self::Last => None,
        }
    }
}

impl Run {
    /// Stays with the child until nothing is left of it, then reports.
    pub(super) async fn drive(mut self) {
        let kind = self.watch().await.unwrap_or(ExitKind::GuardianLost);
        self.drain().await;
        let last_lines = self.pump.lines();
        self.report
            .send_replace(Some(ExitReport { kind, last_lines }));
    }

    /// Passes output and orders on until the guardian ends and nothing is left. What it reported, if
    /// it could.
    async fn watch(&mut self) -> Option<ExitKind> {
        let mut buffer = vec![0; READ];
        let mut ending = Ending::No;
        let mut heard = Vec::new();
        // Which of the control socket, the output and the handles still have somebody behind them.
        let (mut told, mut open, mut handled) = (true, true, true);
        loop {
            tokio::select! {
                read = self.output.read(&mut buffer), if open => {
                    open = self.take(&buffer, read.unwrap_or(0));
                }
                read = self.control.read_buf(&mut heard), if told => {
                    told = read.is_ok_and(|count| count > 0);
                }
                order = self.orders.recv(), if handled => {
                    handled = order.is_some();
                    // No handle left: nobody wants the child any more.
                    ending = self.obey(order.unwrap_or(Order::Kill), ending).await;
                }
                () = sleep_until(ending.due()), if ending.due().is_some() => {
                    ending = self.press(ending).await;
                }
                status = self.guardian.wait() => return self.last_word(status.ok(), heard).await,
            }
        }
    }

    /// Hands bytes to the pump; false at the end of the output.
    fn take(&mut self, buffer: &[u8], count: usize) -> bool {
        match buffer.get(..count) {
            Some(bytes) if !bytes.is_empty() => {
                self.pump.feed(bytes);
                true
            }
            _ => false,
        }
    }

    async fn obey(&mut self, order: Order, ending: Ending) -> Ending {
        drop(self.stdin.take());
        match (order, ending) {
            (Order::Stop, Ending::No) => {
                self.tell(guardian::TERMINATE).await;
                Ending::Asked(Instant::now() + self.grace)
            }
            (Order::Kill, Ending::No | Ending::Asked(_)) => {
                self.press(Ending::Asked(Instant::now())).await
            }
            (Order::Stop | Order::Kill, _) => ending,
        }
    }

    /// The next harder step.
    async fn press(&mut self, ending: Ending) -> Ending {
        match ending {
            Ending::No | Ending::Asked(_) => {
                self.tell(guardian::KILL).await;
                Ending::Forced(Instant::now() + KILL_LIMIT)
            }
            Ending::Forced(_) | Ending::Last => {
                // It does not answer; the child dies with it, the sweep takes the rest.
                drop(self.guardian.start_kill());
                Ending::Last
            }
        }
    }

    async fn tell(&mut self, byte: u8) {
        // An error means that the guardian is gone, which `wait` tells.
        drop(self.control.get_mut().write_all(&[byte]).await);
    }

    /// The guardian has ended; its report may still wait in the socket. A guardian that was killed
    /// while it ended the tree may have reported, but its work must be finished for it.
    async fn last_word(
        &mut self,
        status: Option<ExitStatus>,
        mut heard: Vec<u8>,
    ) -> Option<ExitKind> {
        let rest = self.control.read_to_end(&mut heard);
        drop(tokio::time::timeout(DRAIN_LIMIT, rest).await);
        if status.and_then(|status| status.code()).is_none() {
            mark::sweep_child(self.mark).await;
        }
        String::from_utf8_lossy(&heard).lines().find_map(parse_exit)
    }

    /// Reads what the pipe still holds.
    async fn drain(&mut self) {
        let until = Instant::now() + DRAIN_LIMIT;
        let mut buffer = vec![0; READ];
        while let Ok(Ok(count)) =
            tokio::time::timeout_at(until, self.output.read(&mut buffer)).await
        {
            if !self.take(&buffer, count) {
                break;
            }
        }
        self.pump.finish();
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

/// Reads `exited code N` or `exited signal N`.
fn parse_exit(line: &str) -> Option<ExitKind> {
    let (kind, number) = line.trim_end().strip_prefix("exited ")?.split_once(' ')?;
    let number = number.parse().ok()?;
    match kind {
        "code" => Some(ExitKind::Code(number)),
        "signal" => Some(ExitKind::Signal(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exit_line_is_an_exit() {
        assert_eq!(parse_exit("exited code 3\n"), Some(ExitKind::Code(3)));
        assert_eq!(parse_exit("exited signal 9"), Some(ExitKind::Signal(9)));
        for line in ["", "started 12\n", "exited", "exited code", "exited why 1"] {
            assert_eq!(parse_exit(line), None, "{line}");
        }
    }
}
