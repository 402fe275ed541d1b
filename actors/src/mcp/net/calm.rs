//! Keeps a server's notices from costing us anything: beyond a rate they are not passed on.

use std::collections::HashSet;
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, JsonRpcMessage, RequestId, ServerJsonRpcMessage,
    ServerNotification,
};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::time::Instant;

/// Notices passed on in one second; a server with news has a few.
const PER_SECOND: u32 = 50;
/// Requests of the server that are answered in one second: all are pings or refused.
const REQUESTS_PER_SECOND: u32 = 50;

/// A transport with a limit on notices and on requests of the server. Answers are never dropped.
pub(in crate::mcp) struct Calm<T> {
    inner: T,
    since: Instant,
    notices: u32,
    requests: u32,
    /// That the tool list has changed is never lost, only told once.
    change_told: bool,
    /// Requests of ours that wait for their answers.
    waiting: HashSet<RequestId>,
}

impl<T> Calm<T> {
    pub(in crate::mcp) fn new(inner: T) -> Self {
        Self {
            inner,
            since: Instant::now(),
            notices: 0,
            requests: 0,
            change_told: false,
            waiting: HashSet::new(),
        }
    }

    fn note(&mut self, sent: &ClientJsonRpcMessage) {
        match sent {
            JsonRpcMessage::Request(request) => {
                self.waiting.insert(request.id.clone());
            }
            JsonRpcMessage::Notification(notice) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notice.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    self.waiting.remove(id);
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
    }

    /// An error that does not say what it answers is that of the only request that waits: whoever asked
    /// is told at once, and not after the time of a call.
    fn settle(&mut self, message: &mut ServerJsonRpcMessage) {
        match message {
            JsonRpcMessage::Response(response) => {
                self.waiting.retain(|id| !same(id, &response.id));
            }
            JsonRpcMessage::Error(error) => {
                let mut waiting = self.waiting.iter();
                if error.id.is_none()
                    && let (Some(only), None) = (waiting.next(), waiting.next())
                {
                    error.id = Some(only.clone());
                }
                if let Some(answered) = &error.id {
                    self.waiting.retain(|id| !same(id, answered));
                }
            }
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => {}
        }
    }

    fn passes(&mut self, message: &ServerJsonRpcMessage) -> bool {
        if self.since.elapsed() >= Duration::from_secs(1) {
            self.since = Instant::now();
            (self.notices, self.requests, self.change_told) = (0, 0, false);
        }
        match message {
            JsonRpcMessage::Request(_) => {
                self.requests += 1;
                self.requests <= REQUESTS_PER_SECOND
            }
            JsonRpcMessage::Notification(notice) => {
                self.notices += 1;
                let changed = matches!(
                    notice.notification,
                    ServerNotification::ToolListChangedNotification(_)
                );
                let first_change = changed && !std::mem::replace(&mut self.change_told, true);
                first_change || self.notices <= PER_SECOND
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => true,
        }
    }
}

/// Some servers write the number of a request as a string.
fn same(asked: &RequestId, answered: &RequestId) -> bool {
    asked == answered || asked.to_string() == answered.to_string()
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for Calm<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), T::Error>> + Send + 'static {
        self.note(&message);
        self.inner.send(message)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let mut message = self.inner.receive().await?;
            self.settle(&mut message);
            if self.passes(&message) {
                return Some(message);
            }
            // A flood that is always ready must not keep the thread.
            tokio::task::yield_now().await;
        }
    }

    async fn close(&mut self) -> Result<(), T::Error> {
        self.inner.close().await
    }
}
