//! The body of a streamed response, on its way from a turn to the HTTP layer of the same thread.
//!
//! A channel of two places whose ends live on one thread: a held stream is thousands of them, and one
//! for many threads takes 2 KiB each and a task's worth of bookkeeping per token.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::memory::Held;

/// Buffers that wait for the HTTP layer. Each holds what one wake-up brought, about 16 KiB or one read
/// of the upstream, which bounds what a client that does not read can make us keep (fault B1).
const PLACES: usize = 2;

/// The HTTP layer copies what it is given: a piece that is larger goes in parts of this size, and what
/// it takes of the budget is given back with the last.
const PART: usize = 32 * 1024;

/// Bytes for the client, and their part of the memory budget until the HTTP layer takes them.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    pub(super) held: Held,
}

/// The turn's end. Dropped or closed, the body ends behind what was put in.
#[derive(Debug)]
pub(super) struct Outlet(Rc<RefCell<Channel>>);

/// The HTTP layer's end: the pieces of a streamed response. Dropped, the turn learns that its client
/// left.
#[derive(Debug)]
pub struct Pieces(Rc<RefCell<Channel>>);

#[derive(Debug)]
struct Channel {
    waiting: VecDeque<Piece>,
    ended: bool,
    left: bool,
    /// Waits for a piece or the end.
    reader: Option<Waker>,
    /// Waits for room, or for the client to leave; both are the turn's one task.
    writer: Option<Waker>,
}

/// Both ends.
pub(super) fn channel() -> (Outlet, Pieces) {
    let channel = Rc::new(RefCell::new(Channel {
        waiting: VecDeque::new(),
        ended: false,
        left: false,
        reader: None,
        writer: None,
    }));
    (Outlet(Rc::clone(&channel)), Pieces(channel))
}

impl Outlet {
    /// Ready when a piece may be put in, or when nobody is there to take it.
    pub(super) fn poll_room(&self, task: &mut Context<'_>) -> Poll<()> {
        let mut channel = self.0.borrow_mut();
        if channel.left || channel.waiting.len() < PLACES {
            return Poll::Ready(());
        }
        wait(&mut channel.writer, task);
        Poll::Pending
    }

    /// Puts a piece in, for which there was room. Says whether somebody is there to take it.
    pub(super) fn put(&self, piece: Piece) -> bool {
        let mut channel = self.0.borrow_mut();
        if channel.left {
            return false;
        }
        channel.waiting.push_back(piece);
        wake(channel.reader.take());
        true
    }

    /// Ready when the client has left.
    pub(super) fn poll_left(&self, task: &mut Context<'_>) -> Poll<()> {
        let mut channel = self.0.borrow_mut();
        if channel.left {
            return Poll::Ready(());
        }
        wait(&mut channel.writer, task);
        Poll::Pending
    }

    /// Nothing more will be put in.
    pub(super) fn close(&self) {
        let mut channel = self.0.borrow_mut();
        channel.ended = true;
        wake(channel.reader.take());
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.close();
    }
}

impl Pieces {
    /// The next piece, or a part of it, whose part of the memory budget is given back; `None` at the
    /// end.
    pub fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut channel = self.0.borrow_mut();
        if let Some(first) = channel.waiting.front_mut()
            && first.bytes.len() > PART
        {
            return Poll::Ready(Some(first.bytes.split_to(PART)));
        }
        if let Some(piece) = channel.waiting.pop_front() {
            wake(channel.writer.take());
            drop(piece.held);
            return Poll::Ready(Some(piece.bytes));
        }
        if channel.ended {
            return Poll::Ready(None);
        }
        wait(&mut channel.reader, task);
        Poll::Pending
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        let mut channel = self.0.borrow_mut();
        channel.left = true;
        channel.waiting.clear();
        wake(channel.writer.take());
    }
}

fn wait(place: &mut Option<Waker>, task: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(task.waker()),
        None => *place = Some(task.waker().clone()),
    }
}

/// Waking only puts a task on this thread's queue: it does not run before the borrow has ended.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use bytes::Bytes;

    use super::{Outlet, PART, PLACES, Piece, channel};
    use crate::memory::Memory;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn put(outlet: &Outlet, memory: &Memory, bytes: &'static [u8]) -> bool {
        let held = memory.hold(bytes.len());
        let bytes = Bytes::from_static(bytes);
        outlet.put(Piece { bytes, held })
    }

    #[test]
    fn pieces_come_in_order_and_give_their_memory_back() {
        let (memory, count) = (Memory::new(1000), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut task = Context::from_waker(&waker);
        let (outlet, mut pieces) = channel();
        assert!(pieces.poll_next(&mut task).is_pending());
        assert!(outlet.poll_room(&mut task).is_ready());
        assert!(put(&outlet, &memory, b"one"));
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "the reader is woken");
        assert!(put(&outlet, &memory, b"two"));
        assert_eq!((PLACES, memory.used()), (2, 6));
        assert!(outlet.poll_room(&mut task).is_pending());
        let one = pieces.poll_next(&mut task);
        assert_eq!(one, Poll::Ready(Some(Bytes::from_static(b"one"))));
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "the writer is woken");
        assert_eq!(memory.used(), 3);
        drop(outlet);
        let two = pieces.poll_next(&mut task);
        assert_eq!(two, Poll::Ready(Some(Bytes::from_static(b"two"))));
        assert_eq!(pieces.poll_next(&mut task), Poll::Ready(None));
    }

    #[test]
    fn a_large_piece_goes_in_parts_and_is_held_to_the_last() {
        let memory = Memory::new(1 << 20);
        let mut task = Context::from_waker(Waker::noop());
        let (outlet, mut pieces) = channel();
        let bytes = Bytes::from(vec![7; 2 * PART + 1]);
        let held = memory.hold(bytes.len());
        outlet.put(Piece { bytes, held });
        let mut next = || {
            let piece = pieces.poll_next(&mut task);
            let length = piece.map(|piece| piece.map_or(0, |piece| piece.len()));
            (length, memory.used())
        };
        let (all, ready) = (2 * PART + 1, Poll::Ready);
        assert_eq!(
            [next(), next(), next()],
            [(ready(PART), all), (ready(PART), all), (ready(1), 0)]
        );
    }

    #[test]
    fn a_reader_that_leaves_is_noticed_and_what_waits_for_it_is_freed() {
        let (memory, count) = (Memory::new(1000), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut task = Context::from_waker(&waker);
        let (outlet, pieces) = channel();
        put(&outlet, &memory, b"one");
        put(&outlet, &memory, b"two");
        assert!(outlet.poll_left(&mut task).is_pending());
        drop(pieces);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(memory.used(), 0);
        assert!(outlet.poll_left(&mut task).is_ready());
        assert!(outlet.poll_room(&mut task).is_ready(), "it does not wait");
        assert!(!put(&outlet, &memory, b"three"));
        assert_eq!(memory.used(), 0);
    }
}
