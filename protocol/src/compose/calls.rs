//! The open calls of an answer: which piece belongs to which, and when each is told of.
//!
//! Calls keep the model's order. One that is shown only when it is whole keeps later ones waiting,
//! whose arguments are held meanwhile.

use super::call::{CallDraft, Closed, is_blank};
use super::client::Told;
use super::{Composer, Ending, Out, ParallelCalls, new_slot};
use crate::normalize::{CallPiece, LEGACY};
use crate::responses::alike::Mark;

/// Most calls of one answer: what is to be done for a piece of a call grows with the calls that are
/// open, and no client runs so many.
const MAX_CALLS: usize = 1024;

/// A call that came whole and under an id: it may be told of again.
#[derive(Debug)]
pub(super) struct WholeCall {
    pub(super) id: Box<str>,
    pub(super) name: Box<str>,
    pub(super) arguments: Mark,
}

impl WholeCall {
    fn mark_if(&self, piece: CallPiece<'_>) -> Option<Mark> {
        let same = *self.id == *piece.id && *self.name == *piece.name;
        same.then_some(self.arguments)
    }
}

impl Composer {
    /// Takes a piece of a call.
    pub(super) fn call(&mut self, piece: CallPiece<'_>, out: &mut Out<'_>) {
        let Some(call) = self.place_of(piece, out) else {
            return;
        };
        let Some(call) = self.calls.get_mut(call) else {
            return;
        };
        call.name(piece);
        if piece.arguments.is_empty() {
            return;
        }
        if call.is_announced() {
            call.arguments(piece.arguments, out);
            if self.calls.iter().any(is_held) {
                self.close_settled_calls(out);
                self.announce(is_held, out);
            }
        } else {
            call.hold(piece.arguments);
            self.announce(is_held, out);
        }
    }

    /// The place of the call that a piece belongs to; `None` when it is of a call that is over.
    fn place_of(&mut self, piece: CallPiece<'_>, out: &mut Out<'_>) -> Option<usize> {
        self.forget_placeholders(piece);
        if self.is_said_again(piece) {
            return None;
        }
        let mut calls = self.calls.iter();
        let last = calls.rposition(|call| call.is_at(piece.index));
        let open = last.and_then(|place| self.calls.get(place));
        match open {
            Some(call) if !call.is_followed_by(piece, out.catalogue) => return last,
            // Without a name it goes on with a call, and that one is over.
            None if piece.name.is_empty() && self.begun.contains(&piece.index) => return None,
            None if piece.name.is_empty() && piece.id.is_empty() && is_blank(piece.arguments) => {
                return None;
            }
            Some(_) | None => {}
        }
        let is_new = self.begun.insert(piece.index);
        if self.begun_calls == MAX_CALLS {
            self.lost += usize::from(is_new || !piece.name.is_empty());
            return None;
        }
        Some(self.start_call(piece, out))
    }

    /// Whether calls have begun in the old way to write one, and in the usual one.
    fn ways(&self) -> (bool, bool) {
        let legacy = self.begun.contains(&LEGACY);
        (legacy, self.begun.len() > usize::from(legacy))
    }

    /// Forgets calls of the other way to write one of which nothing has come that could be run: servers
    /// that know one way only write the other one too, with nothing in it.
    fn forget_placeholders(&mut self, piece: CallPiece<'_>) {
        let (legacy, usual) = self.ways();
        let has_other = if piece.index == LEGACY { usual } else { legacy };
        if piece.name.is_empty() || !has_other {
            return;
        }
        let is_other = |index: u32| (index == LEGACY) != (piece.index == LEGACY);
        for call in std::mem::take(&mut self.calls) {
            let other = call.index().filter(|index| is_other(*index));
            match other.filter(|_| !call.is_announced() && call.says_nothing()) {
                None => self.calls.push(call),
                Some(index) => {
                    self.begun.remove(&index);
                    self.begun_calls = self.begun_calls.saturating_sub(1);
                }
            }
        }
    }

    /// Whether a piece tells of a call that the answer has already: in the other of the two ways that
    /// there are to write one, or whole once more, as some servers do in their last chunk.
    fn is_said_again(&mut self, piece: CallPiece<'_>) -> bool {
        let (legacy, usual) = self.ways();
        if piece.index == LEGACY && usual {
            return true;
        }
        // The old way has one call only: of several in the new way it is the first.
        if piece.index != LEGACY && legacy && !usual {
            self.mirrored.get_or_insert(piece.index);
        }
        if self.mirrored == Some(piece.index) {
            return true;
        }
        if piece.id.is_empty() || piece.name.is_empty() {
            return false;
        }
        let open = self.calls.iter().filter(|call| call.is_at(piece.index));
        let told = self.told.get(&piece.index).into_iter().flatten();
        // Marks are made once for each call and each piece, since both may be long and many.
        let open = open.filter_map(|call| call.mark_if(piece));
        let mut same = open
            .chain(told.filter_map(|call| call.mark_if(piece)))
            .peekable();
        if same.peek().is_none() || is_blank(piece.arguments) {
            return same.peek().is_some();
        }
        let plain = Mark::of_json(piece.arguments);
        let quoted = serde_json::from_str::<String>(piece.arguments).ok();
        let quoted = quoted.map(|text| Mark::of_json(&text));
        same.any(|mark| mark == plain || Some(mark) == quoted)
    }

    /// Makes room for a new call; the others of this answer are closed as far as they are whole.
    fn start_call(&mut self, piece: CallPiece<'_>, out: &mut Out<'_>) -> usize {
        self.close_message(Ending::Whole, out);
        self.close_reasoning(Ending::Whole, out);
        self.announce(CallDraft::has_name, out);
        self.close_settled_calls(out);
        self.announce(CallDraft::has_name, out);
        self.begun_calls += 1;
        self.calls.push(CallDraft::new(piece.index));
        self.calls.len() - 1
    }

    /// Announces the calls that are ready, up to the first that waits for one before it.
    fn announce(&mut self, is_ready: impl Fn(&CallDraft) -> bool, out: &mut Out<'_>) {
        let mut calls = std::mem::take(&mut self.calls);
        for call in calls.iter_mut().take_while(|call| !call.is_late()) {
            if !call.is_announced() && call.has_name() && is_ready(call) {
                self.announce_one(call, out);
                if call.is_late() {
                    break;
                }
            }
        }
        self.calls = calls;
    }

    /// Fixes how a call is shown. Its name is whole by now: arguments have begun, or the
    /// answer has ended.
    pub(super) fn announce_one(&mut self, call: &mut CallDraft, out: &mut Out<'_>) {
        if self.parallel == ParallelCalls::FirstOnly && self.kept_calls > 0 {
            return call.drop();
        }
        let slots = &mut self.slots;
        call.announce(&mut self.call_ids, || new_slot(slots), out);
        self.kept_calls += usize::from(call.is_kept());
    }

    /// Closes the calls that are whole; one that is shown late, only in the model's order.
    pub(super) fn close_settled_calls(&mut self, out: &mut Out<'_>) {
        let mut waits = false;
        for call in std::mem::take(&mut self.calls) {
            let whole = call.is_object() && call.is_announced();
            if whole && !(waits && call.is_late()) {
                self.close_call(call, Ending::Whole, out);
            } else {
                waits |= call.is_late() || !call.is_announced();
                self.calls.push(call);
            }
        }
    }

    /// Closes all calls: the answer is over.
    pub(super) fn close_calls(&mut self, ending: Ending, out: &mut Out<'_>) {
        for mut call in std::mem::take(&mut self.calls) {
            if !call.is_announced() && call.has_name() {
                self.announce_one(&mut call, out);
            }
            self.close_call(call, ending, out);
        }
        self.begun.clear();
        self.mirrored = None;
        self.told.clear();
        self.begun_calls = 0;
        self.kept_calls = 0;
    }

    fn close_call(&mut self, call: CallDraft, ending: Ending, out: &mut Out<'_>) {
        self.lost += usize::from(call.is_nameless());
        if let Some((index, whole)) = call.index().zip(call.whole()) {
            self.told.entry(index).or_default().push(whole);
        }
        match call.close(ending, out) {
            Some(Closed::Item(index, item)) => {
                self.client_called = true;
                self.put(index, item, out);
            }
            Some(Closed::Late(late)) => {
                let index = self.new_slot();
                match late.show(index, out) {
                    Told::Item(item) => {
                        self.client_called = true;
                        self.put(index, item, out);
                    }
                    Told::Pending(call) => self.pending.push(call),
                }
            }
            Some(Closed::Pending(call)) => self.pending.push(call),
            None => {}
        }
    }
}

/// Whether arguments wait for their call to be announced.
fn is_held(call: &CallDraft) -> bool {
    !call.is_announced() && call.has_name() && call.has_arguments()
}
