//! The summary of the thinking, where one was asked for: its beginning, as it is written.
//!
//! A vLLM makes no summaries, and a second model call for one would cost more than it gives. So the
//! summary is the first paragraph, or with `detailed` all of them, up to a limit.

use super::Out;
use crate::responses::event::{Event, SummaryDelta, SummaryDone, SummaryPartEvent};
use crate::responses::item::SummaryPart;
use crate::responses::settings::SummaryMode;

/// Characters of a summary, ellipsis not counted.
fn limit(mode: SummaryMode) -> usize {
    match mode {
        SummaryMode::Concise => 300,
        SummaryMode::Auto => 1000,
        SummaryMode::Detailed => 4000,
    }
}

/// A summary while it grows.
#[derive(Debug)]
pub(super) struct SummaryDraft {
    mode: SummaryMode,
    /// Characters that may still come.
    left: usize,
    text: String,
    /// White space that waits for what follows it.
    space: String,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was said.
    Fresh,
    /// Its part is open.
    Open,
    /// Its part is done.
    Done,
}

impl SummaryDraft {
    pub(super) fn new(mode: SummaryMode) -> Self {
        Self {
            mode,
            left: limit(mode),
            text: String::new(),
            space: String::new(),
            phase: Phase::Fresh,
        }
    }

    /// More thinking.
    pub(super) fn text(&mut self, item_id: &str, index: usize, delta: &str, out: &mut Out<'_>) {
        if self.phase == Phase::Done {
            return;
        }
        let before = self.text.len();
        let ended = delta.chars().any(|character| self.take(character));
        let fresh = self.text.get(before..).unwrap_or_default();
        if !fresh.is_empty() {
            if self.phase == Phase::Fresh {
                self.phase = Phase::Open;
                let part = SummaryPart::SummaryText {
                    text: Box::default(),
                };
                out.emit(&Event::SummaryPartAdded(SummaryPartEvent {
                    item_id,
                    output_index: index,
                    summary_index: 0,
                    part: &part,
                }));
            }
            out.emit(&Event::SummaryDelta(SummaryDelta {
                item_id,
                output_index: index,
                summary_index: 0,
                delta: fresh,
            }));
        }
        if ended {
            self.finish(item_id, index, out);
        }
    }

    /// Takes one character; says whether the summary ends with it.
    fn take(&mut self, character: char) -> bool {
        if character.is_whitespace() {
            self.space.push(character);
            return false;
        }
        if self.text.is_empty() {
            self.space.clear();
        }
        let paragraph = self.space.matches('\n').count() > 1;
        if paragraph && self.mode != SummaryMode::Detailed {
            return true;
        }
        let needed = self.space.chars().count() + 1;
        if needed > self.left {
            self.text.push('…');
            return true;
        }
        self.left -= needed;
        self.text.push_str(&self.space);
        self.space.clear();
        self.text.push(character);
        false
    }

    /// Closes the part, if one is open.
    fn finish(&mut self, item_id: &str, index: usize, out: &mut Out<'_>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        if phase != Phase::Open {
            return;
        }
        out.emit(&Event::SummaryDone(SummaryDone {
            item_id,
            output_index: index,
            summary_index: 0,
            text: &self.text,
        }));
        let part = self.part();
        out.emit(&Event::SummaryPartDone(SummaryPartEvent {
            item_id,
            output_index: index,
            summary_index: 0,
            part: &part,
        }));
    }

    fn part(&self) -> SummaryPart {
        SummaryPart::SummaryText {
            text: self.text.as_str().into(),
        }
    }

    /// The parts of the finished item.
    pub(super) fn close(
        mut self,
        item_id: &str,
        index: usize,
        out: &mut Out<'_>,
    ) -> Vec<SummaryPart> {
        self.finish(item_id, index, out);
        if self.text.is_empty() {
            return Vec::new();
        }
        vec![self.part()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(mode: SummaryMode, text: &str) -> String {
        let mut draft = SummaryDraft::new(mode);
        let _ended = text.chars().any(|character| draft.take(character));
        draft.text
    }

    #[test]
    fn the_first_paragraph_or_all_of_them() {
        let text = "\n First line,\nsecond line. \n\nNext paragraph.\n";
        let first = "First line,\nsecond line.";
        assert_eq!(summary(SummaryMode::Auto, text), first);
        assert_eq!(summary(SummaryMode::Concise, text), first);
        let all = summary(SummaryMode::Detailed, text);
        assert_eq!(all, "First line,\nsecond line. \n\nNext paragraph.");
        assert_eq!(summary(SummaryMode::Auto, " \n\n "), "");
    }

    #[test]
    fn summaries_are_bounded() {
        for mode in [
            SummaryMode::Auto,
            SummaryMode::Concise,
            SummaryMode::Detailed,
        ] {
            let text = summary(mode, &"wörd ".repeat(5000));
            assert!(text.ends_with('…'), "{mode:?}");
            assert!(text.chars().count() <= limit(mode) + 1, "{mode:?}");
        }
    }
}
