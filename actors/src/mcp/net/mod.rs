//! How bytes reach an MCP server: vetted connections, HTTP on them, and the three transports.
//!
//! `connect` dials what the guard has judged and nothing else. `http` sends requests and follows
//! redirects under the guard. `streamable`, `sse` and `stdio` are transports for the MCP SDK; `intake`
//! counts and reads what servers send, `calm` keeps a server from flooding us with notices, `pace` from
//! being asked without end.

pub(super) mod calm;
pub mod connect;
pub(super) mod events;
pub(super) mod http;
pub mod intake;
mod pace;
pub(super) mod sse;
pub(super) mod stdio;
pub(super) mod streamable;
#[cfg(test)]
mod tests;

use tokio::sync::watch;
use vllm_responses_protocol::mcp::inbound::known_versions;

/// Largest message taken whole from a server, in bytes. Of the result of a call that is larger the
/// beginning is taken, visibly cut; anything else that is larger fails.
pub(super) const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Why bytes did not get through. No text of the server is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The guard said no.
    #[error("its address is not allowed")]
    Refused,
    /// The name has no address.
    #[error("its host name cannot be found")]
    NoName,
    /// No connection in time.
    #[error("no connection in time")]
    ConnectTimedOut,
    /// No connection.
    #[error("it cannot be reached ({0})")]
    Unreachable(std::io::ErrorKind),
    /// No TLS session: certificate, name or protocol.
    #[error("its TLS certificate or handshake is not acceptable")]
    Tls,
    /// An HTTP status that is an error.
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    /// More bytes in one message than are taken.
    #[error("it sent a message of more than 4 MiB")]
    TooLarge,
    /// The connection ended in the middle, or what came was no HTTP.
    #[error("the connection broke off")]
    Broken,
    /// The memory budget is spent.
    #[error("the gateway is short of memory; try again")]
    NoRoom,
    /// The server does not know the session any more, and gave no new one.
    #[error("its session has ended")]
    SessionLost,
    /// Something that is no MCP message where one was due.
    #[error("it did not answer with an MCP message")]
    NotMcp,
}

/// How far one session's connection has come. Clones share it.
#[derive(Clone, Debug)]
pub struct Progress {
    state: watch::Sender<(bool, Option<Trouble>)>,
    /// Protocol versions that the server named when it refused ours.
    versions: watch::Sender<Vec<&'static str>>,
    /// Counts what may have changed the list: the server's notices, and sessions made anew.
    changes: watch::Sender<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            state: watch::Sender::new((false, None)),
            versions: watch::Sender::new(Vec::new()),
            changes: watch::Sender::new(0),
        }
    }
}

/// Protocol versions that can be spoken, newest first.
pub(super) const VERSIONS: [&str; 5] = [
    "2026-07-28",
    "2025-11-25",
    "2025-06-18",
    "2025-03-26",
    "2024-11-05",
];

impl Progress {
    /// There is a connection.
    pub(super) fn connected(&self) {
        self.state.send_modify(|state| state.0 = true);
    }

    /// Notes the latest trouble and hands it back.
    pub(super) fn trouble(&self, trouble: Trouble) -> Trouble {
        self.state.send_modify(|state| state.1 = Some(trouble));
        trouble
    }

    /// The latest trouble.
    pub(super) fn last_trouble(&self) -> Option<Trouble> {
        self.state.borrow().1
    }

    /// Whether there ever was a connection.
    pub(super) fn has_connected(&self) -> bool {
        self.state.borrow().0
    }

    /// The server refused, in these words: it may have named versions.
    pub(super) fn refused(&self, words: &str) {
        self.versions.send_replace(known_versions(words, &VERSIONS));
    }

    /// Versions that the last refusal named, newest first.
    pub(super) fn named_versions(&self) -> Vec<&'static str> {
        self.versions.borrow().clone()
    }

    /// The list may be another now.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Counts such news.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Resolves when there is a connection.
    pub(super) async fn until_connected(&self) {
        let mut seen = self.state.subscribe();
        // The sender is in `self`: it cannot be gone.
        drop(seen.wait_for(|state| state.0).await);
    }
}
