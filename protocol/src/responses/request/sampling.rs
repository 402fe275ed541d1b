//! Sampling: the parameters of the API, and those of vLLM that are passed on.

use serde_json::value::RawValue;

use crate::json::{Fields, Kind, Problems, kind};
use crate::responses::settings::Settings;

/// Reads temperature, penalties and `top_logprobs`.
pub(super) fn decode(
    fields: &mut Fields<'_, '_>,
    settings: &mut Settings,
    problems: &mut Problems,
) {
    settings.temperature = fields.number("temperature", 0.0..=2.0, problems);
    settings.top_p = fields.number("top_p", 0.0..=1.0, problems);
    settings.presence_penalty = fields.number("presence_penalty", -2.0..=2.0, problems);
    settings.frequency_penalty = fields.number("frequency_penalty", -2.0..=2.0, problems);
    settings.top_logprobs = fields
        .integer("top_logprobs", 0..=20, problems)
        .and_then(|count| u8::try_from(count).ok());
}

/// What a passed-on value may be; vLLM checks the rest.
const NUMBER: &[Kind] = &[Kind::Number];
const BOOLEAN: &[Kind] = &[Kind::Bool];
const OBJECT: &[Kind] = &[Kind::Object];
const ARRAY: &[Kind] = &[Kind::Array];
const STOP: &[Kind] = &[Kind::String, Kind::Array];

/// vLLM's own parameters, accepted at top level as its chat endpoint takes them.
///
/// `priority` and `cache_salt` are not among them: those are for the operator to decide.
const PASSED_ON: &[(&str, &[Kind], &str)] = &[
    ("top_k", NUMBER, "a number"),
    ("min_p", NUMBER, "a number"),
    ("repetition_penalty", NUMBER, "a number"),
    ("length_penalty", NUMBER, "a number"),
    ("seed", NUMBER, "a number"),
    ("min_tokens", NUMBER, "a number"),
    ("stop", STOP, "a string or an array of strings"),
    ("stop_token_ids", ARRAY, "an array of numbers"),
    ("bad_words", ARRAY, "an array of strings"),
    ("allowed_token_ids", ARRAY, "an array of numbers"),
    ("ignore_eos", BOOLEAN, "a boolean"),
    ("include_stop_str_in_output", BOOLEAN, "a boolean"),
    ("skip_special_tokens", BOOLEAN, "a boolean"),
    ("spaces_between_special_tokens", BOOLEAN, "a boolean"),
    ("logit_bias", OBJECT, "an object"),
    ("structured_outputs", OBJECT, "an object"),
    ("chat_template_kwargs", OBJECT, "an object"),
];

/// Takes vLLM's parameters as they came.
pub(super) fn passed_on(
    fields: &mut Fields<'_, '_>,
    problems: &mut Problems,
) -> Vec<(&'static str, Box<RawValue>)> {
    let mut taken = Vec::new();
    for (name, kinds, wanted) in PASSED_ON {
        let Some(raw) = fields.take(name) else {
            continue;
        };
        if kinds.contains(&kind(raw)) {
            taken.push((*name, raw.to_owned()));
        } else {
            problems.wrong_type(&fields.place().member(name), wanted);
        }
    }
    taken
}
