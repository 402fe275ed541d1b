//! How bytes reach an MCP server: vetted connections, HTTP on them, and the three transports.
//!
//! `connect` dials what the guard has judged and nothing else. `http` sends requests and follows
//! redirects under the guard. `streamable`, `sse` and `stdio` are transports for the MCP SDK; `calm`
//! keeps a server from flooding us with notices.

pub(super) mod calm;
pub mod connect;
pub(super) mod events;
pub(super) mod http;
pub(super) mod sse;
pub(super) mod stdio;
pub(super) mod streamable;
#[cfg(test)]
mod tests;

use tokio::sync::watch;

/// Largest message taken whole from a server, in bytes. Of the result of a call that is larger the
/// beginning is taken, visibly cut; anything else that is larger fails.
pub(super) const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Why bytes did not get through. No text of the server is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The guard said no.
    #[error("its address is not allowed")]
    Refused,
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
    /// Something that is no MCP message where one was due.
    #[error("it did not answer with an MCP message")]
    NotMcp,
}

/// How far one session's connection has come. Clones share it.
#[derive(Clone, Debug)]
pub struct Progress(watch::Sender<(bool, Option<Trouble>)>);

impl Default for Progress {
    fn default() -> Self {
        Self(watch::Sender::new((false, None)))
    }
}

impl Progress {
    /// There is a connection.
    pub(super) fn connected(&self) {
        self.0.send_modify(|state| state.0 = true);
    }

    /// Notes the latest trouble and hands it back.
    pub(super) fn trouble(&self, trouble: Trouble) -> Trouble {
        self.0.send_modify(|state| state.1 = Some(trouble));
        trouble
    }

    /// The latest trouble.
    pub(super) fn last_trouble(&self) -> Option<Trouble> {
        self.0.borrow().1
    }

    /// Whether there ever was a connection.
    pub(super) fn has_connected(&self) -> bool {
        self.0.borrow().0
    }

    /// Resolves when there is a connection.
    pub(super) async fn until_connected(&self) {
        let mut seen = self.0.subscribe();
        // The sender is in `self`: it cannot be gone.
        drop(seen.wait_for(|state| state.0).await);
    }
}
