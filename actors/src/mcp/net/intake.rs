//! What servers send, counted while it arrives and made small before anybody parses it.
//!
//! Bytes of a message that is not whole yet are held in the memory budget; while that is tight no
//! large message is taken. Large messages are read on the threads for blocking work, few at a time, so
//! that a hostile server costs neither memory nor the time of others' calls.

use std::sync::Arc;

use tokio::sync::Semaphore;
use vllm_responses_protocol::mcp::inbound::tame;

use super::Trouble;
use crate::memory::{Held, Memory};

/// Smaller messages are taken and read at once.
const SMALL: usize = 64 * 1024;
/// Large messages that are read at the same time.
const READERS: usize = 2;
/// What reading a message takes: itself, what is made of it, and that once more as the SDK's.
const FACTOR: usize = 4;
/// Of a process that has no budget of its own: the runtime of the operator's servers.
const DEFAULT_BUDGET: usize = 256 * 1024 * 1024;

/// See the module. Clones share the budget.
#[derive(Clone, Debug)]
pub struct Intake {
    memory: Memory,
    readers: Arc<Semaphore>,
}

impl Default for Intake {
    fn default() -> Self {
        Self::within(Memory::new(DEFAULT_BUDGET))
    }
}

impl Intake {
    /// Counts in this budget.
    pub fn within(memory: Memory) -> Self {
        Self {
            memory,
            readers: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// For a message that begins to arrive.
    pub(super) fn arriving(&self) -> Arriving {
        Arriving(self.memory.hold(0))
    }

    /// Holds what is kept of a server.
    pub(in crate::mcp) fn keep(&self, bytes: usize) -> Held {
        self.memory.hold(bytes)
    }

    /// The message as the SDK may read it; `None` for what is no message.
    pub(super) async fn tame(&self, message: Vec<u8>, asked: Option<String>) -> Option<String> {
        if message.len() <= SMALL {
            return tame(&message, asked.as_deref());
        }
        let _held = self.memory.hold(message.len() * FACTOR);
        let _reader = self.readers.acquire().await.ok()?;
        let read = tokio::task::spawn_blocking(move || tame(&message, asked.as_deref()));
        read.await.ok()?
    }
}

/// Bytes of one message so far.
#[derive(Debug)]
pub(super) struct Arriving(Held);

impl Arriving {
    /// The message has so many bytes now.
    pub(super) fn reaches(&mut self, bytes: usize) -> Result<(), Trouble> {
        self.0.set(bytes);
        if bytes > SMALL && self.0.memory().is_tight() {
            return Err(Trouble::NoRoom);
        }
        Ok(())
    }
}
