//! What can end a turn from outside: its client, the gateway's stop, and a lack of memory.

use actix::{ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use vllm_responses_protocol::responses::event::Delivery;
use vllm_responses_protocol::turn::effect::Cancel;

use super::{Load, STORE_LIMIT, TurnActor};
use crate::memory::weight;
use crate::store;
use crate::supervisor::messages::StopStage;

/// Answers are counted in steps, and small ones not at all.
const STEP: usize = 16 * 1024;

impl TurnActor {
    /// Watches for the supervisor's word that memory is short. A client that takes nothing is not
    /// waited for: it cannot be told.
    pub(super) fn watch_memory(&mut self, ctx: &mut Context<Self>) {
        let shed = self.permit.account.shed();
        let told = async move { shed.cancelled_owned().await };
        ctx.spawn(told.into_actor(self).map(|(), act, ctx| {
            act.cancel(Cancel::Overloaded, ctx);
            // What it has left to be stored and told.
            let last_words = STORE_LIMIT + store::patience(act.load.kept);
            ctx.run_later(last_words, |_, ctx| ctx.stop());
        }));
    }

    /// Holds at least so many bytes for what comes next.
    pub(super) fn hold_at_least(&mut self, bytes: usize) {
        let held = &mut self.load.held;
        held.grow(bytes.saturating_sub(held.bytes()));
    }

    /// Takes over what was read takes.
    pub(super) fn take_load(&mut self, load: Load) {
        self.load.kept += load.kept;
        self.load.held.absorb(load.held);
    }

    /// Holds so many more, to the end of the turn.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.load.kept += bytes;
        self.load.held.grow(bytes);
    }

    /// Holds what the answer takes by now. One that grows when there is nothing left at all ends: those
    /// whose clients are slow were ended before.
    pub(super) fn note_output(&mut self) {
        let output = match self.turn.delivery() {
            Delivery::Events => weight::output(self.turn.written()),
            Delivery::Whole => weight::whole(self.whole_read),
        };
        let Some(more) = output.checked_sub(self.output).filter(|more| *more >= STEP) else {
            return;
        };
        self.output = output;
        self.keep(more);
        if self.permit.account.memory().is_over() {
            self.permit.account.shed().cancel();
        }
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
