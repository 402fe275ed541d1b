//! What JSON becomes in memory: the factors of the budget.
//!
//! Measured on the real program, from a request's first byte to its answer (`tests/it/faults/memory`
//! measures again): a long string takes about four times its length (the body, what is read out of
//! it, the model server's request, the record), an item of the smallest kind 700 bytes beside its own.

use vllm_responses_protocol::weigh::Weight;

/// Copies of a text that exist at once at most, from a body to the model server's request.
const COPIES: usize = 4;
/// The same for what is read from the store: the texts, the items, the model server's request.
const READ_COPIES: usize = 3;
/// Copies that are left while the model answers, and when the record is made.
const KEPT: usize = 2;
/// Copies of the settings in what is written for the client.
const ECHOES: usize = 2;
/// An item's own size, its identifier, its parts, its stored form.
const ITEM: usize = 640;
/// Any other value.
const VALUE: usize = 32;

/// What an answer takes while it grows: its text in a string that doubles, and the record of it.
const GROWING: usize = 3;
/// The same with the last events, each of which repeats it.
const ENDING: usize = 8;
/// Answers up to here end so fast that the last events need no place of their own.
const SMALL_ANSWER: usize = 1 << 20;
/// A whole answer: read, parsed, composed, written, recorded.
const WHOLE: usize = 5;

/// Bytes to reserve for a request of this weight before it is read.
#[must_use]
pub fn request(weight: Weight) -> usize {
    of(weight, COPIES)
}

/// Bytes that are left of it once the model answers.
#[must_use]
pub fn kept(weight: Weight) -> usize {
    of(weight, KEPT)
}

/// Bytes to hold through a response whose settings are echoed with so many: two events have them at its
/// beginning, one at its end.
#[must_use]
pub fn settings(bytes: usize) -> usize {
    bytes.saturating_mul(ECHOES)
}

/// Bytes to reserve for rows of so many bytes before they are read from the store.
#[must_use]
pub fn rows(bytes: usize) -> usize {
    bytes.saturating_mul(READ_COPIES)
}

/// Bytes to reserve for a conversation of this weight before its items are read out of its rows.
#[must_use]
pub fn history(weight: Weight) -> usize {
    of(weight, READ_COPIES)
}

/// Bytes that are left of it once the model answers.
#[must_use]
pub fn kept_history(weight: Weight) -> usize {
    of(weight, 1)
}

/// What an answer of so many bytes takes that is gathered whole.
#[must_use]
pub fn whole(bytes: usize) -> usize {
    bytes.saturating_mul(WHOLE)
}

/// What a streamed answer takes whose text has so many bytes up to now.
#[must_use]
pub fn output(bytes: usize) -> usize {
    let factor = if bytes > SMALL_ANSWER {
        ENDING
    } else {
        GROWING
    };
    bytes.saturating_mul(factor)
}

fn of(weight: Weight, copies: usize) -> usize {
    let Weight {
        bytes,
        items,
        values,
    } = weight;
    bytes
        .saturating_mul(copies)
        .saturating_add(items.saturating_mul(ITEM))
        .saturating_add(values.saturating_mul(VALUE))
}
