//! Reasoning items, with or without their raw text.

use super::Reader;
use crate::ids::Prefix;
use crate::json::{Fields, Problems, elements, read};
use crate::responses::item::{Item, Reasoning, ReasoningPart, SummaryPart};

/// Reads a reasoning item.
#[expect(
    clippy::unnecessary_wraps,
    reason = "one signature for the readers of all item types"
)]
pub(super) fn read(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::Reasoning);
    let status = reader.status(fields);
    let summary = texts(fields, "summary", reader.problems);
    let content = texts(fields, "content", reader.problems);
    let sealed = fields.string("encrypted_content", reader.problems);
    // Some servers write an empty one where there is none.
    let encrypted_content = sealed.filter(|sealed| !sealed.is_empty());
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

/// The texts of a member: a text, or parts that have one each. Gateways differ in what they call the
/// type of a part, and some write the text alone.
fn texts(fields: &mut Fields<'_, '_>, name: &str, problems: &mut Problems) -> Vec<Box<str>> {
    let Some(raw) = fields.take(name) else {
        return Vec::new();
    };
    if let Some(text) = read::text(raw) {
        return vec![text.into()];
    }
    let place = fields.place();
    let list = place.member(name);
    let raws = elements(raw, &list, problems).unwrap_or_default();
    let mut texts = Vec::with_capacity(raws.len());
    for (index, raw) in raws.into_iter().enumerate() {
        if let Some(text) = read::text(raw) {
            texts.push(text.into());
        } else if let Some(mut part) = Fields::of(raw, list.element(index), problems) {
            texts.extend(part.required_string("text", problems).map(Into::into));
        }
    }
    texts
}
