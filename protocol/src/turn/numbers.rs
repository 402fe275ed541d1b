//! Which choices of a stream are the answer, and what of whole messages in it is new.
//!
//! One answer is asked for. Some servers write several side by side all the same: then one is read.
//! Others count something else in the number of a choice, tokens or parts: then all of them are one
//! answer. What tells them apart is whether a number comes back after another one, so what has another
//! number waits until that is known.

use std::borrow::Cow;

use crate::chat::chunk::{Choice, Delta};
use crate::chat::content::{Content, Thought};

/// Most chunks that wait, and most bytes of them: answers side by side change sooner.
const MAX_ASIDE: usize = 16;
const MAX_ASIDE_BYTES: usize = 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    own: Option<u64>,
    meaning: Meaning,
    /// Chunks with another number.
    aside: Vec<Box<[u8]>>,
}

/// What the numbers of choices mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Meaning {
    #[default]
    Unknown,
    /// Answers: one number is read.
    Answers,
    /// Nothing: all are read.
    Nothing,
}

/// Whether the answer has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Nothing,
    Something,
}

/// Where a message stands in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Within,
    Last,
}

impl Numbers {
    /// Whether this choice is read now. The chunk may wait.
    pub(super) fn takes(&mut self, choice: &Choice<'_>, spoken: Spoken, data: &[u8]) -> bool {
        let place = choice.place();
        if *self.own.get_or_insert(place) == place {
            self.comes_back();
            return true;
        }
        match self.meaning {
            Meaning::Nothing => true,
            Meaning::Answers => false,
            Meaning::Unknown if !choice.says_something() => false,
            Meaning::Unknown if spoken == Spoken::Nothing => {
                self.own = Some(place);
                true
            }
            Meaning::Unknown => {
                self.aside.push(data.into());
                false
            }
        }
    }

    /// The number that is read comes: what waits is of other answers.
    pub(super) fn comes_back(&mut self) {
        if !self.aside.is_empty() {
            self.aside.clear();
            self.meaning = Meaning::Answers;
        }
    }

    /// Whether so much waits that the answer must have gone on under other numbers.
    pub(super) fn has_moved(&self) -> bool {
        let bytes: usize = self.aside.iter().map(|chunk| chunk.len()).sum();
        self.aside.len() > MAX_ASIDE || bytes > MAX_ASIDE_BYTES
    }

    /// The chunks that wait, which are of the answer.
    pub(super) fn take_aside(&mut self) -> Vec<Box<[u8]>> {
        if !self.aside.is_empty() {
            self.meaning = Meaning::Nothing;
        }
        std::mem::take(&mut self.aside)
    }
}

/// What whole messages in a stream have said: servers send pieces as such, or all there is up to now,
/// or once more what was said in pieces.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Whether a delta has said anything: then messages say nothing new.
    pub(super) by_delta: bool,
    text: Told,
    thinking: Told,
}

#[derive(Debug, Default)]
struct Told {
    text: String,
    grows: bool,
}

impl Messages {
    /// Leaves of a message what is new in it.
    pub(super) fn reduce(&mut self, message: &mut Delta<'_>, stands: Standing) {
        if let Content::Text(text) = &mut message.content
            && let Some(rest) = self.text.rest(text.as_str(), stands)
        {
            text.0 = Cow::Owned(rest);
        }
        if let Some(rest) = self.thinking.rest(message.thinking().as_str(), stands) {
            message.set_thinking(Thought::of(rest));
        }
    }
}

impl Told {
    /// What is new in a text that begins with all that was told; `None` for a piece.
    fn rest(&mut self, text: &str, stands: Standing) -> Option<String> {
        let rest = text.strip_prefix(&*self.text).map(str::to_owned);
        let ends = stands == Standing::Last;
        let is_all = !self.text.is_empty() && (self.grows || ends || text.len() > self.text.len());
        let Some(rest) = rest.filter(|_| is_all) else {
            self.text.push_str(text);
            return None;
        };
        self.grows = true;
        self.text.push_str(&rest);
        Some(rest)
    }
}
