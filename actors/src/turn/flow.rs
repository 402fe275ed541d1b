//! Moves bytes: upstream, machine, client. The only future on the token path.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Instant;

use actix::{ActorContext, ActorFuture, Context};
use bytes::Bytes;
use futures_util::StreamExt as _;
use vllm_responses_protocol::chat::fault::UpstreamFault;
use vllm_responses_protocol::responses::event::Delivery;
use vllm_responses_protocol::turn::effect::Input;

use super::TurnActor;

/// How many bytes are gathered before they are handed to the client. Beyond this one buffer gains
/// nothing, and it bounds what a full channel holds.
const GATHER: usize = 32 * 1024;
/// How much of an answer's beginning is translated before the client is handed anything: a model
/// server may have much ready at once, and the first token is not to wait for the last.
const BEGINNING: usize = 1024;
/// Longest whole answer that is buffered.
const MAX_WHOLE: usize = 64 * 1024 * 1024;

/// Runs as long as the actor, in its context; see the module of [`TurnActor`].
pub(super) struct Flow;

/// What one read of the upstream brought.
enum Read {
    Bytes(Bytes),
    Ended,
    Broken,
}

impl ActorFuture<TurnActor> for Flow {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        act: &mut TurnActor,
        ctx: &mut Context<TurnActor>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        // Set before anything is fed, and taken out while polling: steps made here need no wake-up.
        act.flow = None;
        let outcome = act.poll_flow(ctx, task);
        act.flow = Some(task.waker().clone());
        outcome
    }
}

impl TurnActor {
    fn poll_flow(&mut self, ctx: &mut Context<Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            let more = self.gather(ctx, task);
            if !self.effects.bytes.is_empty() {
                ready!(self.hand_over(task));
                if !self.unread.is_empty() {
                    // The HTTP layer is to write the beginning before the rest is translated.
                    task.waker().wake_by_ref();
                    return Poll::Pending;
                }
            } else if self.turn.is_over() {
                ctx.stop();
                return Poll::Ready(());
            } else if !more {
                return Poll::Pending;
            }
        }
    }

    /// Feeds the machine with what the upstream has ready, up to one buffer's worth. Says whether
    /// the upstream may have more ready. Nothing is read while the client owes a read.
    fn gather(&mut self, ctx: &mut Context<Self>, task: &mut TaskContext<'_>) -> bool {
        if !self.unread.is_empty() {
            let rest = std::mem::take(&mut self.unread);
            self.take(Read::Bytes(rest), ctx);
        }
        while self.effects.bytes.len() < GATHER && !self.turn.is_over() {
            let Some(upstream) = &mut self.upstream else {
                return false;
            };
            let read = match upstream.poll_next_unpin(task) {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok(bytes))) if self.begins(&bytes) => {
                    let mut beginning = bytes;
                    self.unread = beginning.split_off(BEGINNING);
                    self.take(Read::Bytes(beginning), ctx);
                    return true;
                }
                Poll::Ready(Some(Ok(bytes))) => Read::Bytes(bytes),
                Poll::Ready(Some(Err(_broken))) => Read::Broken,
                Poll::Ready(None) => Read::Ended,
            };
            self.take(read, ctx);
        }
        true
    }

    /// Whether these bytes begin a stream's answer and are more than its beginning.
    fn begins(&mut self, bytes: &Bytes) -> bool {
        let first = !std::mem::replace(&mut self.begun, true);
        first && bytes.len() > BEGINNING && self.turn.delivery() == Delivery::Events
    }

    fn take(&mut self, read: Read, ctx: &mut Context<Self>) {
        self.heard = Instant::now();
        match (read, self.turn.delivery()) {
            (Read::Bytes(bytes), Delivery::Events) => {
                self.note_read();
                self.feed(Input::UpstreamBytes(&bytes), ctx);
            }
            (Read::Bytes(bytes), Delivery::Whole) => self.keep_whole(&bytes, ctx),
            (Read::Ended, Delivery::Events) => {
                self.upstream = None;
                self.feed(Input::UpstreamEnded, ctx);
            }
            (Read::Ended, Delivery::Whole) => {
                self.upstream = None;
                let whole = std::mem::take(&mut self.whole);
                self.feed(Input::UpstreamAnswer(&whole), ctx);
            }
            (Read::Broken, _) => {
                self.upstream = None;
                self.upstream_broke(UpstreamFault::Reset, ctx);
            }
        }
    }

    /// Counts the time since the last read.
    fn note_read(&mut self) {
        self.timings.first_read.get_or_insert(self.heard);
        if let Some(before) = self.last_read.replace(self.heard) {
            let turns = self.permit.peers.metrics.turns();
            turns.gap(self.heard - before);
        }
    }

    /// An answer ends in a fault.
    pub(super) fn upstream_broke(&mut self, fault: UpstreamFault, ctx: &mut Context<Self>) {
        self.permit.peers.metrics.turns().upstream_broke(&fault);
        self.feed(Input::UpstreamFailed(fault), ctx);
    }

    fn keep_whole(&mut self, bytes: &[u8], ctx: &mut Context<Self>) {
        if self.whole.len() + bytes.len() > MAX_WHOLE {
            self.upstream = None;
            self.upstream_broke(UpstreamFault::TooLong, ctx);
        } else {
            self.whole.extend_from_slice(bytes);
        }
    }

    /// Hands everything written so far to the client, when it has room.
    fn hand_over(&mut self, task: &mut TaskContext<'_>) -> Poll<()> {
        let room = ready!(self.outlet.poll_reserve(task));
        let bytes = Bytes::from(std::mem::take(&mut self.effects.bytes));
        // A client that left is noticed by the watch on the channel; its bytes go nowhere.
        if room.is_ok() && self.outlet.send_item(bytes).is_ok() {
            self.spoke = Instant::now();
            self.timings.first_byte.get_or_insert(self.spoke);
        }
        Poll::Ready(())
    }
}
