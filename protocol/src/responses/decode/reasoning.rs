//! Reasoning items, with or without their raw text.

use super::Reader;
use crate::ids::Prefix;
use crate::json::{Fields, Problems};
use crate::responses::item::{Item, Reasoning, ReasoningPart, SummaryPart};

/// Reads a reasoning item.
#[expect(
    clippy::unnecessary_wraps,
    reason = "one signature for the readers of all item types"
)]
pub(super) fn read(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::Reasoning);
    let status = reader.status(fields);
    let summary = texts(fields, "summary", "summary_text", reader.problems);
    let content = texts(fields, "content", "reasoning_text", reader.problems);
    let encrypted_content = fields.string("encrypted_content", reader.problems);
    Some(Item::Reasoning(Reasoning {
        id,
        status,
        summary: summary
            .into_iter()
            .map(|text| SummaryPart::SummaryText { text })
            .collect(),
        content: content
            .into_iter()
            .map(|text| ReasoningPart::ReasoningText { text })
            .collect(),
        encrypted_content: encrypted_content.map(Into::into),
    }))
}

/// The texts of the parts in a member; all parts have the same type.
fn texts(
    fields: &mut Fields<'_, '_>,
    name: &str,
    word: &str,
    problems: &mut Problems,
) -> Vec<Box<str>> {
    let raws = fields.array(name, problems).unwrap_or_default();
    let (list, mut texts) = (fields.place(), Vec::with_capacity(raws.len()));
    let list = list.member(name);
    for (index, raw) in raws.into_iter().enumerate() {
        let place = list.element(index);
        let Some(mut part) = Fields::of(raw, place, problems) else {
            continue;
        };
        match part.required_word("type", problems) {
            Some(kind) if kind == word => {
                texts.extend(part.required_string("text", problems).map(Into::into));
            }
            Some(_) => problems.wrong_word(&place.member("type"), &[word]),
            None => {}
        }
    }
    texts
}
