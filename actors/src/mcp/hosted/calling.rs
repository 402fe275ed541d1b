//! One call of a built-in server's tool: bounded, cancellable, repeated at most once and only where
//! that does no harm.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use vllm_responses_protocol::mcp::outcome::{CallError, Outcome, SERVER_ERROR};

use super::keep::Live;
use super::messages::Call;
use crate::mcp::session::{Failure, Session};

/// What a call needs of its actor.
pub(super) struct Calling {
    pub(super) live: Rc<watch::Sender<Live>>,
    pub(super) suspect: Rc<Notify>,
    /// How long a lost session may take to come back.
    pub(super) wait: Duration,
}

impl Calling {
    /// `None` when the server is not available.
    pub(super) async fn run(&self, call: &Call, places: &Semaphore) -> Option<Outcome> {
        let work = async {
            let _place = places.acquire().await.ok()?;
            self.perform(call).await
        };
        tokio::select! {
            outcome = work => outcome,
            () = call.cancel.cancelled() => Some(Outcome::Failed {
                error: CallError::protocol(SERVER_ERROR, "the call was cancelled"),
            }),
        }
    }

    async fn perform(&self, call: &Call) -> Option<Outcome> {
        let session = self.live.borrow().session.clone()?;
        let failure = match session
            .call(&call.tool, &call.arguments, call.trace.as_ref())
            .await
        {
            Ok(outcome) => return Some(outcome),
            Err(failure) => failure,
        };
        if failure.may_end_session() {
            self.suspect.notify_one();
        }
        drop(session);
        if !failure.lost_session() || !self.is_read_only(&call.tool) {
            return Some(failed(&failure));
        }
        let Some(again) = self.next_session().await else {
            return Some(failed(&failure));
        };
        let second = again
            .call(&call.tool, &call.arguments, call.trace.as_ref())
            .await;
        Some(second.unwrap_or_else(|failure| failed(&failure)))
    }

    /// The server says that the tool changes nothing, so a second call does no harm.
    fn is_read_only(&self, tool: &str) -> bool {
        let live = self.live.borrow();
        let mut tools = live.tools.iter();
        tools.any(|entry| *entry.name == *tool && entry.read_only)
    }

    /// The session after the lost one.
    async fn next_session(&self) -> Option<Arc<Session>> {
        let mut seen = self.live.subscribe();
        let is_fresh = |live: &Live| {
            let session = live.session.as_ref();
            session.is_some_and(|session| !session.is_closed())
        };
        let fresh = tokio::time::timeout(self.wait, seen.wait_for(is_fresh)).await;
        fresh.ok()?.ok()?.session.clone()
    }
}

fn failed(failure: &Failure) -> Outcome {
    Outcome::Failed {
        error: failure.to_call_error(),
    }
}
