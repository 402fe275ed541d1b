//! The one timer of a turn: deadlines of the upstream and of the tool loop, and signs of life for the
//! client.

use std::time::{Duration, Instant};

use actix::{AsyncContext as _, Context};
use vllm_responses_protocol::chat::fault::{UpstreamFault, Waited};
use vllm_responses_protocol::responses::event::Delivery;
use vllm_responses_protocol::sse::KEEP_ALIVE;
use vllm_responses_protocol::turn::effect::{Cancel, Input};

use super::TurnActor;
use crate::env::{Clock as _, SystemClock};

/// A look that comes a hair early must not spin.
const SHORTEST: Duration = Duration::from_millis(10);

impl TurnActor {
    /// Looks at the clock, acts on what is due, and sets the next look. One timer serves all
    /// deadlines; nothing is re-armed per token.
    pub(super) fn look_at_clock(&mut self, ctx: &mut Context<Self>) {
        let limits = self.deadlines();
        if self.turn.is_over() {
            return;
        }
        if self.head.is_some() && self.spoke.elapsed() >= limits.hold_status {
            self.feed(Input::HoldExpired, ctx);
        }
        // A large step that has just begun is made elsewhere, and the machine with it.
        if !self.turn.is_away()
            && let Some(waited) = self.overdue_silence()
        {
            self.upstream_broke(UpstreamFault::TimedOut(waited), ctx);
        }
        if self.turn.is_away() {
            // What else is due is seen as soon as the machine is back.
            ctx.run_later(SHORTEST, Self::look_at_clock);
            return;
        }
        if self.until_overdue().is_some_and(|left| left.is_zero()) {
            self.cancel(Cancel::ToolTimeSpent, ctx);
            ctx.run_later(SHORTEST, Self::look_at_clock);
            return;
        }
        let streaming = self.head.is_none() && self.turn.delivery() == Delivery::Events;
        if streaming && self.spoke.elapsed() >= limits.keep_alive && self.effects.bytes.is_empty() {
            self.effects.bytes.extend_from_slice(KEEP_ALIVE);
            if let Some(flow) = &self.flow {
                flow.wake_by_ref();
            }
        }
        ctx.run_later(self.next_look(), Self::look_at_clock);
    }

    /// What the upstream has let pass: a limit of its silence, or of signs of life without a word.
    fn overdue_silence(&mut self) -> Option<Waited> {
        if self.listens() && self.heard.elapsed() >= self.silence_limit() {
            return Some(self.silence());
        }
        self.says_nothing()
    }

    /// Whether the upstream's silence is its own: while the client owes a read, it is not read.
    fn listens(&self) -> bool {
        self.upstream.is_some() && !self.blocked
    }

    /// Whether a stream has sent nothing but signs of life for as long as a whole call may take: proxies
    /// go on sending them before a model server that is gone.
    fn says_nothing(&mut self) -> Option<Waited> {
        let written = self.turn.written();
        if written != self.gained.0 || !self.listens() {
            self.gained = (written, Instant::now());
        }
        let limit = self.deadlines().whole.max(self.deadlines().idle);
        let is_stream = self.turn.delivery() == Delivery::Events;
        (is_stream && self.gained.1.elapsed() >= limit).then_some(Waited::Idle(limit))
    }

    fn silence(&self) -> Waited {
        match self.turn.delivery() {
            Delivery::Events => Waited::Idle(self.deadlines().idle),
            Delivery::Whole => Waited::Whole(self.deadlines().whole),
        }
    }

    fn silence_limit(&self) -> Duration {
        match self.silence() {
            Waited::Idle(limit) | Waited::Whole(limit) | Waited::Head(limit) => limit,
        }
    }

    /// How long the tool loop may still go on.
    fn until_overdue(&self) -> Option<Duration> {
        let left = self
            .turn
            .overdue_at_ms()?
            .saturating_sub(SystemClock.now_ms());
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    pub(super) fn next_look(&self) -> Duration {
        const HELD_LONGER: Duration = Duration::from_millis(250);
        let limits = self.deadlines();
        let client = match (self.turn.delivery(), &self.head) {
            (Delivery::Events, Some(_)) => {
                match limits.hold_status.saturating_sub(self.spoke.elapsed()) {
                    // The turn may hold its status longer, while MCP servers are asked.
                    Duration::ZERO => HELD_LONGER,
                    left => left,
                }
            }
            (Delivery::Events, None) => limits.keep_alive.saturating_sub(self.spoke.elapsed()),
            (Delivery::Whole, _) => limits.keep_alive,
        };
        let silent = if self.listens() {
            self.heard.elapsed()
        } else {
            Duration::ZERO
        };
        let upstream = self.silence_limit().saturating_sub(silent);
        let look = client.min(upstream);
        let look = self.until_overdue().map_or(look, |left| left.min(look));
        look.max(SHORTEST)
    }
}
