//! Content parts of messages and function outputs.

use serde_json::value::RawValue;

use super::message::text_part;
use crate::chat::lenient::List;
use crate::error::ApiErrorCode;
use crate::json::{Fields, Kind, Place, Problems, elements, kind};
use crate::responses::content::{ImageDetail, InputImage, LogProb, OutputText, Part};
use crate::responses::item::Role;

const KNOWN: &[&str] = &["input_text", "input_image", "output_text", "refusal"];

/// Reads the parts that `role` says.
pub(super) fn read_all(
    raw: &RawValue,
    place: &Place<'_>,
    role: Role,
    problems: &mut Problems,
) -> Vec<Part> {
    let raws = elements(raw, place, problems).unwrap_or_default();
    let mut parts = Vec::with_capacity(raws.len());
    for (index, raw) in raws.into_iter().enumerate() {
        if let Some(mut fields) = Fields::of(raw, place.element(index), problems) {
            parts.extend(read(&mut fields, role, problems));
        }
    }
    parts
}

fn read(fields: &mut Fields<'_, '_>, role: Role, problems: &mut Problems) -> Option<Part> {
    let kind = fields.required_word("type", problems)?;
    let place = fields.place();
    match &*kind {
        "output_text" if role == Role::Assistant => read_output_text(fields, problems),
        "input_text" | "output_text" => {
            let text = fields.required_string("text", problems)?;
            Some(text_part(role, &text))
        }
        "refusal" => {
            let refusal = fields.required_string("refusal", problems)?;
            Some(Part::Refusal {
                refusal: refusal.into(),
            })
        }
        "input_image" => read_image(fields, problems),
        "input_file" => {
            unsupported(&place.member("type"), "files are not supported", problems);
            None
        }
        _ => {
            problems.wrong_word(&place.member("type"), KNOWN);
            None
        }
    }
}

fn read_image(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Part> {
    const DETAILS: &[&str] = &["auto", "low", "high", "original"];
    let parse = |word: &str| match word {
        "auto" => Some(ImageDetail::Auto),
        "low" => Some(ImageDetail::Low),
        "high" => Some(ImageDetail::High),
        "original" => Some(ImageDetail::Original),
        _ => None,
    };
    let detail = fields.word("detail", DETAILS, parse, problems);
    if fields.take("file_id").is_some() {
        unsupported(
            &fields.place().member("file_id"),
            "files are not supported: give the picture as `image_url`",
            problems,
        );
        return None;
    }
    let image_url = fields.required_word("image_url", problems)?;
    Some(Part::InputImage(InputImage {
        image_url: image_url.into(),
        detail: detail.unwrap_or_default(),
    }))
}

fn read_output_text(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Part> {
    let text = fields.required_string("text", problems);
    let annotations = fields.array("annotations", problems).unwrap_or_default();
    let logprobs = match fields.take("logprobs") {
        Some(raw) => read_logprobs(raw, &fields.place().member("logprobs"), problems),
        None => Vec::new(),
    };
    Some(Part::OutputText(OutputText {
        text: text?.into(),
        annotations: annotations.into_iter().map(ToOwned::to_owned).collect(),
        logprobs,
    }))
}

fn read_logprobs(raw: &RawValue, place: &Place<'_>, problems: &mut Problems) -> Vec<LogProb> {
    match serde_json::from_str::<List<LogProb>>(raw.get()) {
        Ok(entries) if kind(raw) == Kind::Array => entries.0,
        Ok(_) | Err(_) => {
            problems.wrong_type(place, "an array of token probabilities");
            Vec::new()
        }
    }
}

fn unsupported(place: &Place<'_>, why: &str, problems: &mut Problems) {
    problems.add(
        place,
        ApiErrorCode::UnsupportedValue,
        format_args!("`{place}`: {why}"),
    );
}
