//! A child's standard input and output as a transport: one message a line.
//!
//! The child runs under the process plumbing: its group is stopped with it and nothing it starts
//! outlives us.

use std::io;

use rmcp::RoleClient;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use vllm_responses_protocol::mcp::salvage::salvage;

use super::intake::Intake;
use super::{MAX_MESSAGE, Progress, Trouble};
use crate::process::{Child, Spawned};

/// Messages that may wait for a child that does not read.
const WAITING: usize = 64;
/// Lines in a row that are no message, after which the child is taken for something else.
const MAX_NOISE: usize = 1000;

/// The pipes of a started child.
pub(in crate::mcp) struct StdioTransport {
    child: Child,
    output: pipe::Receiver,
    lines: mpsc::Sender<Vec<u8>>,
    /// The task that writes; ended with the transport.
    writer: JoinSet<()>,
    buffer: Vec<u8>,
    /// How far the buffer has been searched for a line end.
    searched: usize,
    noise: usize,
    /// The rest of a line that was cut is passed over.
    skipping: bool,
    progress: Progress,
    intake: Intake,
    /// A line that is being read.
    reading: Option<Vec<u8>>,
}

impl StdioTransport {
    /// Takes the pipes of a child that was started with both.
    pub(in crate::mcp) fn new(spawned: Spawned, progress: Progress) -> io::Result<Self> {
        let missing = || io::Error::other("the child has no pipes");
        let input = spawned.stdin.ok_or_else(missing)?;
        let output = spawned.stdout.ok_or_else(missing)?;
        let mut input = pipe::Sender::from_owned_fd(input.into())?;
        let (lines, mut waiting) = mpsc::channel::<Vec<u8>>(WAITING);
        let mut writer = JoinSet::new();
        writer.spawn(async move {
            while let Some(line) = waiting.recv().await {
                if input.write_all(&line).await.is_err() {
                    return;
                }
            }
        });
        progress.connected();
        Ok(Self {
            child: spawned.child,
            output: pipe::Receiver::from_owned_fd(output.into())?,
            lines,
            writer,
            buffer: Vec::new(),
            searched: 0,
            noise: 0,
            skipping: false,
            progress,
            intake: Intake::default(),
            reading: None,
        })
    }

    fn forget(&mut self) {
        self.buffer.clear();
        self.searched = 0;
    }

    /// The next whole line, or what is kept of one that is too large. Dropping the future loses nothing.
    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                self.searched = 0;
                let line = std::mem::replace(&mut self.buffer, rest);
                if !std::mem::take(&mut self.skipping) {
                    return Some(line);
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.skipping {
                self.forget();
            } else if self.buffer.len() > MAX_MESSAGE {
                let Some(kept) = salvage(&self.buffer, None) else {
                    self.progress.trouble(Trouble::TooLarge);
                    return None;
                };
                self.skipping = true;
                self.forget();
                return Some(kept.into());
            }
            // A partial line at the end is no message.
            if self.output.read_buf(&mut self.buffer).await.ok()? == 0 {
                self.progress.trouble(Trouble::Broken);
                return None;
            }
        }
    }
}

impl Transport<RoleClient> for StdioTransport {
    type Error = Trouble;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Trouble>> + Send + 'static {
        let lines = self.lines.clone();
        async move {
            let mut line = serde_json::to_vec(&message).map_err(|_never| Trouble::NotMcp)?;
            line.push(b'\n');
            lines.send(line).await.map_err(|_ended| Trouble::Broken)
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let line = match self.reading.take() {
                Some(line) => line,
                None => self.line().await?,
            };
            // Dropping the future must not lose the line: it is read again then.
            self.reading = Some(line.clone());
            let message = self.intake.tame(line, None).await;
            self.reading = None;
            let message = message.and_then(|text| serde_json::from_str(&text).ok());
            if let Some(message) = message {
                self.noise = 0;
                return Some(message);
            }
            // Servers print banners on standard output, though they should not.
            self.noise += 1;
            if self.noise > MAX_NOISE {
                self.progress.trouble(Trouble::NotMcp);
                return None;
            }
        }
    }

    async fn close(&mut self) -> Result<(), Trouble> {
        // Ending the writer closes its input, by which a well-behaved server ends.
        self.writer.shutdown().await;
        self.child.stop().await;
        Ok(())
    }
}
