//! What can end a turn from outside: its client, the gateway's stop, and a lack of memory.

use std::time::Duration;

use actix::{ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use vllm_responses_protocol::turn::effect::Cancel;

use super::{STORE_LIMIT, TurnActor};
use crate::supervisor::messages::StopStage;

/// What a response that is ended for lack of memory has left to be stored and told.
const LAST_WORDS: Duration = STORE_LIMIT;

impl TurnActor {
    /// Watches for the supervisor's word that memory is short. A client that takes nothing is not
    /// waited for: it cannot be told.
    pub(super) fn watch_memory(&mut self, ctx: &mut Context<Self>) {
        let shed = self.permit.account.shed();
        let told = async move { shed.cancelled_owned().await };
        ctx.spawn(told.into_actor(self).map(|(), act, ctx| {
            act.cancel(Cancel::Overloaded, ctx);
            ctx.run_later(LAST_WORDS, |_, ctx| ctx.stop());
        }));
    }

    /// Watches the gateway's own stop.
    pub(super) fn watch_stop(&mut self, ctx: &mut Context<Self>) {
        let mut stop = self.permit.stop.clone();
        let ending = async move {
            stop.wait_for(|stage| *stage == StopStage::Ending)
                .await
                .is_ok()
        };
        ctx.spawn(ending.into_actor(self).map(|ending, act, ctx| {
            if ending {
                act.cancel(Cancel::Shutdown, ctx);
            }
        }));
    }
}
