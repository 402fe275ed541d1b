//! The way to the MCP runtime: a URL, or a socket that only a child of ours can answer.

use std::time::Duration;

use awc::{Client, ClientRequest};
use tokio::sync::watch;

use super::settings::RuntimeLink;
use crate::own_client;
use crate::process::socket::Address;
use crate::secret::Secret;
use crate::token;

/// How a runtime is reached.
#[derive(Clone, Debug)]
pub enum Way {
    /// One that others started.
    Attached(RuntimeLink),
    /// A child of ours; nothing while none runs.
    Own(watch::Receiver<Option<Meeting>>),
}

/// Where the present runtime listens, and what it asks for. Each start has its own.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// Its socket.
    pub address: Address,
    /// Its token.
    pub token: Secret,
}

impl Way {
    /// A client for this thread.
    pub(super) fn client(&self, connect: Duration) -> Client {
        match self {
            Self::Attached(link) => own_client::client(link.url.as_str(), connect),
            Self::Own(meeting) => {
                let meeting = meeting.clone();
                own_client::over_sockets(connect, move || {
                    meeting
                        .borrow()
                        .as_ref()
                        .map(|meeting| meeting.address.clone())
                })
            }
        }
    }

    /// URL of an endpoint, `path` beginning with a slash.
    pub(super) fn endpoint(&self, path: &str) -> String {
        match self {
            Self::Attached(link) => format!("{}{path}", link.url.as_str().trim_end_matches('/')),
            Self::Own(_) => format!("http://localhost{path}"),
        }
    }

    /// Adds the token to a request.
    pub(super) fn authorize(&self, request: ClientRequest) -> ClientRequest {
        let token = match self {
            Self::Attached(link) => {
                let left = || token::find(super::runtime::NAME, &link.url);
                link.token.clone().or_else(left)
            }
            Self::Own(meeting) => meeting
                .borrow()
                .as_ref()
                .map(|meeting| meeting.token.clone()),
        };
        match token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }
}
