//! `text` and `reasoning`: the shape of the answer, and of the thinking before it.

use super::object;
use crate::json::{Fields, Place, Problems};
use crate::responses::settings::{
    Effort, JsonSchema, ReasoningContext, Settings, SummaryMode, TextFormat, Verbosity,
};

/// Reads both.
pub(super) fn decode(
    fields: &mut Fields<'_, '_>,
    settings: &mut Settings,
    problems: &mut Problems,
) {
    let place = Place::Root.member("text");
    if let Some(raw) = fields.take("text")
        && let Some(mut text) = Fields::of(raw, place, problems)
    {
        settings.verbosity = text.word("verbosity", Verbosity::WORDS, Verbosity::parse, problems);
        let place = place.member("format");
        if let Some(raw) = text.take("format")
            && let Some(format) = Fields::of(raw, place, problems)
        {
            settings.format = decode_format(format, problems).unwrap_or_default();
        }
    }
    let place = Place::Root.member("reasoning");
    if let Some(raw) = fields.take("reasoning")
        && let Some(mut reasoning) = Fields::of(raw, place, problems)
    {
        settings.effort = reasoning.word("effort", Effort::WORDS, Effort::parse, problems);
        let mut summary =
            |name| reasoning.word(name, SummaryMode::WORDS, SummaryMode::parse, problems);
        // The second is the old name of the first.
        let (new, old) = (summary("summary"), summary("generate_summary"));
        settings.summary = new.or(old);
        settings.reasoning_context = reasoning.word(
            "context",
            ReasoningContext::WORDS,
            ReasoningContext::parse,
            problems,
        );
    }
}

/// Longest schema name, in characters.
const MAX_NAME: usize = 64;

/// Reads a shape of the answer's text.
pub(crate) fn decode_format(
    mut format: Fields<'_, '_>,
    problems: &mut Problems,
) -> Option<TextFormat> {
    const WORDS: &[&str] = &["text", "json_object", "json_schema"];
    let kind = format.required_word("type", problems)?;
    match &*kind {
        "text" => Some(TextFormat::Text),
        "json_object" => Some(TextFormat::JsonObject),
        "json_schema" => decode_schema(format, problems).map(TextFormat::JsonSchema),
        _ => {
            problems.wrong_word(&format.place().member("type"), WORDS);
            None
        }
    }
}

fn decode_schema(mut format: Fields<'_, '_>, problems: &mut Problems) -> Option<JsonSchema> {
    let name = format.required_word("name", problems);
    let place = format.place();
    let fits = |name: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        name.len() <= MAX_NAME && name.bytes().all(allowed)
    };
    if let Some(name) = &name
        && !fits(name)
    {
        problems.invalid(
            &place.member("name"),
            format_args!("at most {MAX_NAME} letters, digits, `_` or `-`"),
        );
    }
    let description = format.string("description", problems);
    let strict = format.boolean("strict", problems);
    let schema = format.required("schema", problems);
    let schema = schema.filter(|raw| object(raw, &place.member("schema"), problems));
    Some(JsonSchema {
        name: name?.into(),
        description: description.map(Into::into),
        schema: schema?.to_owned(),
        strict,
    })
}
