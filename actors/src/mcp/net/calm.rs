//! Keeps a server's notices from costing us anything: beyond a rate they are not passed on.

use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::{JsonRpcMessage, ServerJsonRpcMessage, ServerNotification};
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
}

impl<T> Calm<T> {
    pub(in crate::mcp) fn new(inner: T) -> Self {
        Self {
            inner,
            since: Instant::now(),
            notices: 0,
            requests: 0,
            change_told: false,
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

impl<T: Transport<RoleClient>> Transport<RoleClient> for Calm<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), T::Error>> + Send + 'static {
        self.inner.send(message)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let message = self.inner.receive().await?;
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
