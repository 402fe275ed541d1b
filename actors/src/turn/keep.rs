//! The record of a turn on its way to the store.

use std::time::Instant;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use vllm_responses_protocol::record::Record;
use vllm_responses_protocol::turn::effect::{Input, Kept};

use super::{STORE_LIMIT, TurnActor, room};
use crate::ask::ask;
use crate::store;
use crate::store::messages::{Commit, StoreError};
use crate::trace::Side;

impl TurnActor {
    pub(super) fn persist(&mut self, record: Box<Record>, ctx: &mut Context<Self>) {
        self.timings.decided = Some(Instant::now());
        // The record, and its way into the database: PostgreSQL is sent a copy, in a buffer that doubles.
        let bytes = record.input_items.len() + record.response.len() + record.settings.len();
        self.hold_at_least(self.load.kept + 3 * bytes);
        let limit = STORE_LIMIT + store::patience(bytes);
        let span = self.span.scope().span(Side::Internal, "store commit");
        let commits = self.permit.peers.commits.clone();
        let memory = self.permit.account.memory().clone();
        let marks = self.permit.peers.blobs.marks;
        let commit = async move {
            let stored = room::stored(record, marks, &memory).await;
            ask(&commits, Commit(stored?), limit)
                .await
                .map_err(|error| StoreError::Unavailable(error.to_string()))?
        };
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| {
            act.timings.stored = Some(Instant::now());
            let mut span = span;
            let kept = match outcome {
                Ok(()) => Kept::Yes,
                Err(error) => act.not_kept(&error),
            };
            if kept == Kept::No {
                span.fail("the response was not stored");
            }
            drop(span);
            act.feed(Input::Stored(kept), ctx);
        }));
    }

    fn not_kept(&self, error: &dyn std::error::Error) -> Kept {
        self.permit.peers.metrics.turns().not_stored();
        log::warn!(request_id = &*self.origin.request_id, response_id = &*self.origin.response_id;
            "response not stored: {error}");
        Kept::No
    }
}
