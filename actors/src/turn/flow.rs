//! Moves bytes: upstream, machine, client. The only future on the token path.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use actix::{ActorContext, ActorFuture, AsyncContext as _, Context};
use bytes::Bytes;
use futures_util::StreamExt as _;
use vllm_responses_protocol::chat::fault::UpstreamFault;
use vllm_responses_protocol::responses::event::Delivery;
use vllm_responses_protocol::turn::effect::{Cancel, Input};

use super::large::Food;
use super::outlet::Piece;
use super::{TurnActor, call};
use crate::env::{Clock as _, SystemClock};

/// How many bytes are gathered before they are handed to the client. Beyond this one buffer gains
/// nothing, and it bounds what a full channel holds.
const GATHER: usize = 16 * 1024;
/// Room in a buffer that is not worth a copy to give it back.
const SPARE: usize = 4 * 1024;
/// How much of an answer's beginning is translated before the client is handed anything: a model
/// server may have much ready at once, and the first token is not to wait for the last.
const BEGINNING: usize = 1024;
/// A buffer beyond this will probably be filled.
const SMALL: usize = 2048;
/// How long the end of an answer's body is waited for once its last event was there.
const LINGER: Duration = Duration::from_millis(100);
/// Longest whole answer that is buffered.
const MAX_WHOLE: usize = 64 * 1024 * 1024;

/// Runs as long as the actor, in its context; see the module of [`TurnActor`].
pub(super) struct Flow;

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Of a stream: what is handed over before the rest is translated.
    Beginning,
    Rest,
    /// The client has everything; of the upstream's body only the end is waited for.
    Lingering,
}

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
        if act.part != Part::Lingering && act.outlet.poll_left(task).is_ready() {
            act.cancel(Cancel::ClientLeft, ctx);
        }
        let outcome = act.poll_flow(ctx, task);
        act.flow = Some(task.waker().clone());
        outcome
    }
}

impl TurnActor {
    fn poll_flow(&mut self, ctx: &mut Context<Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            // A large step is made elsewhere; it goes on here when that is done.
            if self.turn.is_away() {
                return Poll::Pending;
            }
            let more = self.gather(ctx, task);
            if self.turn.is_away() {
                return Poll::Pending;
            }
            self.note_output();
            if !self.effects.bytes.is_empty() {
                ready!(self.hand_over(task));
                let goes_on = more && !self.turn.is_over();
                if goes_on && std::mem::replace(&mut self.part, Part::Rest) == Part::Beginning {
                    // The HTTP layer is to write the beginning before the rest is translated.
                    task.waker().wake_by_ref();
                    return Poll::Pending;
                }
            } else if self.turn.is_over() {
                return self.linger(ctx, task);
            } else if !more {
                return Poll::Pending;
            }
        }
    }

    /// Feeds the machine with what the upstream has ready, up to one buffer's worth. Says whether
    /// the upstream may have more ready. Nothing is read while the client owes a read.
    fn gather(&mut self, ctx: &mut Context<Self>, task: &mut TaskContext<'_>) -> bool {
        let mut beginning = BEGINNING;
        let mut now: Option<i64> = None;
        while self.effects.bytes.len() < GATHER && !self.turn.is_over() {
            let read = match self.read(task) {
                Poll::Pending => return false,
                Poll::Ready(read) => read,
            };
            // One look at the clock for all that is ready: there may be hundreds of tokens.
            let now_ms = match now {
                Some(now_ms) => now_ms,
                None => *now.insert(self.note_read(&read)),
            };
            match read {
                Read::Bytes(mut bytes) if self.part == Part::Beginning => {
                    if bytes.len() > beginning {
                        self.unread = bytes.split_off(beginning);
                    }
                    beginning -= bytes.len();
                    self.take(Read::Bytes(bytes), now_ms, ctx);
                }
                Read::Bytes(_) | Read::Ended | Read::Broken => self.take(read, now_ms, ctx),
            }
            if beginning == 0 || self.turn.is_away() {
                return true;
            }
            self.make_room();
        }
        true
    }

    /// The next bytes of the answer.
    fn read(&mut self, task: &mut TaskContext<'_>) -> Poll<Read> {
        if !self.unread.is_empty() {
            return Poll::Ready(Read::Bytes(std::mem::take(&mut self.unread)));
        }
        let Some(upstream) = &mut self.upstream else {
            return Poll::Pending;
        };
        let uncharged = &mut self.uncharged;
        upstream.body.poll_next_unpin(task).map(|read| match read {
            Some(Ok(bytes)) => {
                if let Some(seen) = uncharged {
                    seen.saw(&bytes);
                }
                Read::Bytes(bytes)
            }
            Some(Err(_broken)) => Read::Broken,
            None => Read::Ended,
        })
    }

    /// A buffer that fills grows to its full size at once, instead of by doubling. One that does not,
    /// because the upstream writes a token at a time, stays small.
    fn make_room(&mut self) {
        let bytes = &mut self.effects.bytes;
        if bytes.len() > SMALL && bytes.capacity() < GATHER {
            bytes.reserve_exact(GATHER + SMALL - bytes.len());
        }
    }

    fn take(&mut self, read: Read, now_ms: i64, ctx: &mut Context<Self>) {
        match (read, self.turn.delivery()) {
            (Read::Bytes(bytes), Delivery::Events) => {
                self.feed_at(now_ms, Food::Bytes(bytes), ctx);
            }
            (Read::Bytes(bytes), Delivery::Whole) => self.keep_whole(&bytes, ctx),
            (Read::Ended, Delivery::Events) => {
                self.upstream = None;
                self.feed(Input::UpstreamEnded, ctx);
            }
            (Read::Ended, Delivery::Whole) => {
                self.upstream = None;
                let whole = std::mem::take(&mut self.whole);
                self.feed_at(now_ms, Food::Answer(whole), ctx);
            }
            (Read::Broken, _) => {
                self.upstream_broke(UpstreamFault::Reset, ctx);
            }
        }
    }

    /// Looks at the clock, and counts the time since the last read of a stream; gives Unix
    /// milliseconds.
    fn note_read(&mut self, read: &Read) -> i64 {
        let now = Instant::now();
        let bytes = matches!(read, Read::Bytes(_));
        if bytes {
            self.timings.first_token.get_or_insert(now);
        }
        if self.turn.delivery() == Delivery::Whole {
            return SystemClock.now_ms();
        }
        self.heard = now;
        if bytes && let Some(before) = self.last_read.replace(now) {
            let turns = self.permit.peers.metrics.turns();
            turns.gap(now - before);
        }
        SystemClock.now_ms()
    }

    /// An answer ends in a fault.
    pub(super) fn upstream_broke(&mut self, fault: UpstreamFault, ctx: &mut Context<Self>) {
        self.permit.peers.metrics.turns().upstream_broke(&fault);
        if let Some(mut answer) = self.upstream.take() {
            answer.span.fail(call::words(&fault));
        }
        self.feed(Input::UpstreamFailed(fault), ctx);
    }

    fn keep_whole(&mut self, bytes: &[u8], ctx: &mut Context<Self>) {
        if self.whole.len() + bytes.len() > MAX_WHOLE {
            self.upstream_broke(UpstreamFault::TooLong, ctx);
        } else {
            self.whole_read += bytes.len();
            self.whole.extend_from_slice(bytes);
        }
    }

    /// Hands everything written so far to the client, when it has room.
    fn hand_over(&mut self, task: &mut TaskContext<'_>) -> Poll<()> {
        let account = &self.permit.account;
        if self.outlet.poll_room(task).is_pending() {
            account.note_waiting();
            self.blocked = true;
            return Poll::Pending;
        }
        account.note_taken();
        if std::mem::replace(&mut self.blocked, false) {
            // Its silence counts from here: it was not listened to.
            self.heard = Instant::now();
        }
        let mut bytes = std::mem::take(&mut self.effects.bytes);
        // It grew by doubling, and may lie in the channel for long.
        if bytes.capacity() > bytes.len() + SPARE {
            bytes.shrink_to_fit();
        }
        let bytes = Bytes::from(bytes);
        let held = account.hold(bytes.len());
        // The bytes of a client that has left go nowhere.
        if self.outlet.put(Piece { bytes, held }) {
            self.spoke = Instant::now();
        }
        Poll::Ready(())
    }

    /// Ends the client's body, then waits a moment for the end of the upstream's: only a connection
    /// that was read to its end is used again, and servers write that end apart from the last event.
    fn linger(&mut self, ctx: &mut Context<Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        if let Some(upstream) = &mut self.upstream
            && upstream.body.poll_next_unpin(task).is_pending()
        {
            if std::mem::replace(&mut self.part, Part::Lingering) != Part::Lingering {
                self.timings.ended = Some(Instant::now());
                self.outlet.close();
                ctx.run_later(LINGER, |_, ctx| ctx.stop());
            }
            return Poll::Pending;
        }
        ctx.stop();
        Poll::Ready(())
    }
}
