//! The model's thinking while it grows: one part of raw text, and a summary where one was asked for.

use super::summary::SummaryDraft;
use super::{Ending, Out};
use crate::ids::{self, Prefix};
use crate::responses::delta::DeltaFrame;
use crate::responses::event::{ContentDelta, ContentDone, Event, ItemEvent, PartEvent, PartView};
use crate::responses::item::{Item, ItemStatus, Reasoning, ReasoningPart};

/// Thinking whose end is not known yet.
#[derive(Debug)]
pub(super) struct ReasoningDraft {
    index: usize,
    id: Box<str>,
    text: String,
    frame: DeltaFrame,
    summary: Option<SummaryDraft>,
}

impl ReasoningDraft {
    /// Announces an empty item and its part.
    pub(super) fn open(index: usize, out: &mut Out<'_>) -> Self {
        let draft = Self {
            index,
            id: ids::fresh(Prefix::Reasoning, out.ids),
            text: String::new(),
            frame: DeltaFrame::default(),
            summary: out.summary.map(SummaryDraft::new),
        };
        let item = draft.item(ItemStatus::InProgress, Vec::new());
        let item = Item::Reasoning(item);
        out.emit(&Event::ItemAdded(ItemEvent {
            output_index: index,
            item: &item,
        }));
        let part = ReasoningPart::ReasoningText {
            text: Box::default(),
        };
        out.emit(&Event::PartAdded(draft.part_event(&part)));
        draft
    }

    /// More thinking.
    pub(super) fn text(&mut self, delta: &str, out: &mut Out<'_>) {
        let (item_id, output_index) = (&*self.id, self.index);
        out.delta(&mut self.frame, delta, || {
            Event::ReasoningDelta(ContentDelta {
                item_id,
                output_index,
                content_index: 0,
                delta: "",
            })
        });
        if let Some(summary) = &mut self.summary {
            summary.text(&self.id, self.index, delta, out);
        }
        self.text.push_str(delta);
    }

    /// The finished item and its place.
    pub(super) fn close(mut self, ending: Ending, out: &mut Out<'_>) -> (usize, Item) {
        out.emit(&Event::ReasoningDone(ContentDone {
            item_id: &self.id,
            output_index: self.index,
            content_index: 0,
            text: &self.text,
        }));
        let sealed = out.seal.and_then(|seal| seal.seal(&self.text, out.ids));
        let part = ReasoningPart::ReasoningText {
            text: std::mem::take(&mut self.text).into(),
        };
        out.emit(&Event::PartDone(self.part_event(&part)));
        let summary = self.summary.take();
        let summary = summary.map(|summary| summary.close(&self.id, self.index, out));
        let item = Reasoning {
            summary: summary.unwrap_or_default(),
            encrypted_content: sealed.map(Into::into),
            ..self.item(ending.item_status(), vec![part])
        };
        (self.index, Item::Reasoning(item))
    }

    fn item(&self, status: ItemStatus, content: Vec<ReasoningPart>) -> Reasoning {
        Reasoning {
            id: self.id.clone(),
            status,
            summary: Vec::new(),
            content,
            encrypted_content: None,
        }
    }

    fn part_event<'a>(&'a self, part: &'a ReasoningPart) -> PartEvent<'a> {
        PartEvent {
            item_id: &self.id,
            output_index: self.index,
            content_index: 0,
            part: PartView::Reasoning(part),
        }
    }
}
