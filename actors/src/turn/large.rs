//! Large steps of the machine: on a thread that may block, since this one serves streams (fault B5).
//!
//! While the machine is away the actor waits: actix polls none of its futures and timers, so nobody
//! misses it. What happens meanwhile is seen afterwards.

use std::ops::{Deref, DerefMut};

use actix::{ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use bytes::Bytes;
use memchr::memmem;
use vllm_responses_protocol::turn::Turn;
use vllm_responses_protocol::turn::effect::{Effects, Input};

use super::TurnActor;
use crate::memory::LARGE;

/// The machine, or its empty place.
pub(super) struct Machine(Option<Turn>);

impl Machine {
    pub(super) fn new(turn: Turn) -> Self {
        Self(Some(turn))
    }

    /// Whether a step is made elsewhere. Whoever has fed it looks before it goes on.
    pub(super) fn is_away(&self) -> bool {
        self.0.is_none()
    }
}

#[expect(
    clippy::expect_used,
    reason = "while it is away the actor waits, and who has fed it looks"
)]
impl Deref for Machine {
    type Target = Turn;

    fn deref(&self) -> &Turn {
        self.0.as_ref().expect("the machine is here")
    }
}

#[expect(clippy::expect_used, reason = "as above")]
impl DerefMut for Machine {
    fn deref_mut(&mut self) -> &mut Turn {
        self.0.as_mut().expect("the machine is here")
    }
}

/// What the machine is fed with, and owns on another thread.
pub(super) enum Food {
    Input(Input<'static>),
    /// Of a streamed answer.
    Bytes(Bytes),
    /// A whole answer.
    Answer(Vec<u8>),
}

impl Food {
    pub(super) fn step(self, turn: &mut Turn, now_ms: i64, effects: &mut Effects) {
        match self {
            Self::Input(input) => turn.step(now_ms, input, effects),
            Self::Bytes(bytes) => turn.step(now_ms, Input::UpstreamBytes(&bytes), effects),
            Self::Answer(body) => turn.step(now_ms, Input::UpstreamAnswer(&body), effects),
        }
    }
}

impl TurnActor {
    /// Whether a step on this takes long: a request for the model, a record or a resource is written
    /// in it, and there is much to write.
    pub(super) fn is_large(&self, food: &Food) -> bool {
        /// What ends a stream, and begins the record.
        const END: &[u8] = b"[DONE]";
        let echoes = || self.turn.identity().settings.len() >= LARGE;
        let is_large = || self.load.kept >= LARGE || echoes();
        match food {
            Food::Bytes(bytes) => is_large() && memmem::find(bytes, END).is_some(),
            Food::Answer(body) => body.len() >= LARGE || is_large(),
            Food::Input(Input::UpstreamOpened | Input::HoldExpired) => echoes(),
            Food::Input(_) => is_large(),
        }
    }

    /// Makes this step on a thread that may block; nothing else happens here before it is made.
    pub(super) fn step_aside(&mut self, now_ms: i64, food: Food, ctx: &mut Context<Self>) {
        let Some(mut turn) = self.turn.0.take() else {
            return;
        };
        let mut effects = std::mem::take(&mut self.effects);
        let memory = self.permit.account.memory().clone();
        let step = move || {
            food.step(&mut turn, now_ms, &mut effects);
            (turn, effects)
        };
        let made = async move {
            match memory.place().await {
                Some(place) => place.work(step).await,
                None => Ok(step()),
            }
        };
        ctx.wait(made.into_actor(self).map(|made, act, ctx| match made {
            Ok((turn, effects)) => {
                act.turn.0 = Some(turn);
                act.effects = effects;
                act.do_as_told(ctx);
            }
            // There are no more threads, or it panicked: its client is told that it is gone.
            Err(_no_thread) => ctx.stop(),
        }));
    }
}
