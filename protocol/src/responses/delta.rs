//! Frames of deltas: the same bytes for every token of an item, but for a number and a string.

use memchr::memmem;

use super::event::{Event, append_head};
use crate::chat::template::needs_escape;
use crate::json_text;

/// An empty delta as an event writes it.
const EMPTY: &[u8] = b"\"delta\":\"\"";

/// The frame of an item's deltas without their two variable parts; empty until the first delta.
#[derive(Debug, Default)]
pub(crate) struct DeltaFrame {
    /// Up to the sequence number.
    head: Vec<u8>,
    /// From behind the number to the delta.
    middle: Vec<u8>,
    /// From behind the delta to the end.
    tail: Vec<u8>,
}

impl DeltaFrame {
    /// Cuts the frame of an event with an empty delta in three.
    pub(super) fn of(name: &'static str, event: &Event<'_>) -> Self {
        let mut head = Vec::with_capacity(128);
        append_head(&mut head, name);
        let mut body = Vec::with_capacity(256);
        json_text::append(&mut body, event);
        if let Some(brace) = body.first_mut() {
            *brace = b',';
        }
        body.extend_from_slice(b"\n\n");
        // Ids and names before it hold no such text; a delta event always has the member.
        let delta = memmem::find(&body, EMPTY).map_or(body.len(), |at| at + EMPTY.len() - 2);
        let tail = body.split_off(delta);
        Self {
            head,
            middle: body,
            tail: tail.get(2..).unwrap_or_default().to_vec(),
        }
    }

    /// Whether no event was cut yet.
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Appends the frame with its number and its delta.
    pub(super) fn write(&self, buffer: &mut Vec<u8>, sequence: u64, delta: &str) {
        let numbers_and_quotes = 24;
        let fixed = self.head.len() + self.middle.len() + self.tail.len() + numbers_and_quotes;
        buffer.reserve(fixed + delta.len());
        buffer.extend_from_slice(&self.head);
        append_number(buffer, sequence);
        buffer.extend_from_slice(&self.middle);
        if delta.bytes().any(needs_escape) {
            json_text::append(buffer, &delta);
        } else {
            buffer.push(b'"');
            buffer.extend_from_slice(delta.as_bytes());
            buffer.push(b'"');
        }
        buffer.extend_from_slice(&self.tail);
    }
}

/// Appends a number in decimal digits.
fn append_number(buffer: &mut Vec<u8>, mut number: u64) {
    // As many as the greatest number has.
    let mut digits = [0; 20];
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    buffer.extend_from_slice(digits.get(start..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::responses::event::{Delivery, ReasoningEvents, TextDelta, Writer};

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 99, 100, 12_345, u64::MAX] {
            let mut buffer = Vec::new();
            append_number(&mut buffer, number);
            assert_eq!(buffer, number.to_string().as_bytes());
        }
    }

    proptest! {
        /// A cut frame is byte for byte the event as it is written whole.
        #[test]
        fn frames_are_events(deltas in prop::collection::vec(any::<String>(), 1..5), id in "[a-z0-9_]{1,40}") {
            let event = |delta| Event::TextDelta(TextDelta {
                item_id: &id, output_index: 3, content_index: 0, delta, logprobs: &[],
            });
            let (mut whole, mut cut) = (Vec::new(), Vec::new());
            let mut writer = Writer::new(Delivery::Events, ReasoningEvents::OpenAi);
            for delta in &deltas {
                writer.event(&mut whole, &event(delta));
            }
            let mut writer = Writer::new(Delivery::Events, ReasoningEvents::OpenAi);
            let mut frame = DeltaFrame::default();
            for delta in &deltas {
                writer.delta(&mut cut, &mut frame, delta, || event(""));
            }
            prop_assert_eq!(whole, cut);
        }
    }
}
