//! A message while it grows: text and refusal parts, one open at a time.

use super::{Ending, Out};
use crate::ids::{self, Prefix};
use crate::responses::content::{LogProb, OutputText, Part};
use crate::responses::delta::DeltaFrame;
use crate::responses::event::{
    ContentDelta, Event, ItemEvent, PartEvent, PartView, RefusalDone, TextDelta, TextDone,
    delta_logprobs,
};
use crate::responses::item::{Item, ItemStatus, Message, Role};

/// A message whose end is not known yet.
#[derive(Debug)]
pub(super) struct MessageDraft {
    index: usize,
    id: Box<str>,
    closed: Vec<Part>,
    open: OpenPart,
}

/// The part that deltas go to.
#[derive(Debug)]
enum OpenPart {
    None,
    Text {
        text: String,
        logprobs: Vec<LogProb>,
        frame: DeltaFrame,
    },
    Refusal(String),
}

impl MessageDraft {
    /// Announces an empty message.
    pub(super) fn open(index: usize, out: &mut Out<'_>) -> Self {
        let id = ids::fresh(Prefix::Message, out.ids);
        let item = Item::Message(Message {
            id: id.clone(),
            status: ItemStatus::InProgress,
            role: Role::Assistant,
            content: Vec::new(),
            phase: None,
        });
        out.emit(&Event::ItemAdded(ItemEvent {
            output_index: index,
            item: &item,
        }));
        Self {
            index,
            id,
            closed: Vec::new(),
            open: OpenPart::None,
        }
    }

    /// More text.
    pub(super) fn text(&mut self, delta: &str, logprobs: Vec<LogProb>, out: &mut Out<'_>) {
        if !matches!(self.open, OpenPart::Text { .. }) {
            self.close_part(out);
            self.announce_part(&Part::OutputText(OutputText::default()), out);
            self.open = OpenPart::Text {
                text: String::new(),
                logprobs: Vec::new(),
                frame: DeltaFrame::default(),
            };
        }
        let (item_id, output_index, content_index) = (&*self.id, self.index, self.closed.len());
        let event = |delta, logprobs| {
            Event::TextDelta(TextDelta {
                item_id,
                output_index,
                content_index,
                delta,
                logprobs,
            })
        };
        let OpenPart::Text {
            text,
            logprobs: all,
            frame,
        } = &mut self.open
        else {
            return;
        };
        if logprobs.is_empty() {
            out.delta(frame, delta, || event("", &[]));
        } else {
            out.emit(&event(delta, &delta_logprobs(&logprobs)));
        }
        text.push_str(delta);
        all.extend(logprobs);
    }

    /// More refusal.
    pub(super) fn refusal(&mut self, delta: &str, out: &mut Out<'_>) {
        if !matches!(self.open, OpenPart::Refusal(_)) {
            self.close_part(out);
            self.announce_part(
                &Part::Refusal {
                    refusal: Box::default(),
                },
                out,
            );
            self.open = OpenPart::Refusal(String::new());
        }
        out.emit(&Event::RefusalDelta(ContentDelta {
            item_id: &self.id,
            output_index: self.index,
            content_index: self.closed.len(),
            delta,
        }));
        if let OpenPart::Refusal(refusal) = &mut self.open {
            refusal.push_str(delta);
        }
    }

    /// The finished message and its place.
    pub(super) fn close(mut self, ending: Ending, out: &mut Out<'_>) -> (usize, Item) {
        self.close_part(out);
        let item = Item::Message(Message {
            id: self.id,
            status: ending.item_status(),
            role: Role::Assistant,
            content: self.closed,
            phase: None,
        });
        (self.index, item)
    }

    fn announce_part(&self, part: &Part, out: &mut Out<'_>) {
        out.emit(&Event::PartAdded(self.part_event(part)));
    }

    fn part_event<'a>(&'a self, part: &'a Part) -> PartEvent<'a> {
        PartEvent {
            item_id: &self.id,
            output_index: self.index,
            content_index: self.closed.len(),
            part: PartView::Content(part),
        }
    }

    fn close_part(&mut self, out: &mut Out<'_>) {
        let (item_id, output_index, content_index) = (&*self.id, self.index, self.closed.len());
        let part = match std::mem::replace(&mut self.open, OpenPart::None) {
            OpenPart::None => return,
            OpenPart::Text { text, logprobs, .. } => {
                out.emit(&Event::TextDone(TextDone {
                    item_id,
                    output_index,
                    content_index,
                    text: &text,
                    logprobs: delta_logprobs(&logprobs),
                }));
                Part::OutputText(OutputText {
                    text: text.into(),
                    annotations: Vec::new(),
                    logprobs,
                })
            }
            OpenPart::Refusal(refusal) => {
                out.emit(&Event::RefusalDone(RefusalDone {
                    item_id,
                    output_index,
                    content_index,
                    refusal: &refusal,
                }));
                Part::Refusal {
                    refusal: refusal.into(),
                }
            }
        };
        out.emit(&Event::PartDone(self.part_event(&part)));
        self.closed.push(part);
    }
}
