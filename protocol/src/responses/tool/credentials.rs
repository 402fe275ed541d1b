//! What must not be echoed or stored of tools: credentials.
//!
//! A credential is a member of a tool, by its name. What a schema, a grammar or a function of the
//! client calls `headers` is a parameter, and none of ours to take away.

use serde::Serialize;
use serde::ser::Serializer;
use serde_json::value::RawValue;

use crate::json::{Fields, Kind, Place, Problems, kind, read};

/// Members of tools that carry credentials. Clients that write them otherwise mean the same.
pub(super) const CREDENTIALS: [&str; 2] = ["authorization", "headers"];

/// How the names of other members end that carry some, without what joins their words: tools of types
/// that are not known here are echoed with whatever they have.
const SECRETS: [&str; 12] = [
    "apikey",
    "accesskey",
    "accesskeyid",
    "privatekey",
    "subscriptionkey",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "credentials",
    "cookie",
];

/// Whether a member of this name carries credentials.
pub(super) fn is_credential(name: &str) -> bool {
    let joined = |character: &char| !matches!(character, '_' | '-' | ' ' | '.');
    let plain: String = name.chars().filter(joined).collect();
    let plain = plain.to_ascii_lowercase();
    CREDENTIALS.contains(&&*plain) || SECRETS.iter().any(|secret| plain.ends_with(secret))
}

/// Members that hold what a tool takes or gives, hence no credentials, whatever names are in them.
const SCHEMAS: [&str; 6] = [
    "parameters",
    "input_schema",
    "output_schema",
    "format",
    "schema",
    "properties",
];

/// A tool's members in their order, without credentials at any depth but in schemas.
pub(super) fn members_without(fields: Fields<'_, '_>) -> Vec<(Box<str>, Box<RawValue>)> {
    fields
        .into_members()
        .filter(|(name, _)| !is_credential(name))
        .map(|(name, raw)| {
            let kept = SCHEMAS.contains(&&*name).then(|| raw.to_owned());
            (name.into(), kept.unwrap_or_else(|| without(raw)))
        })
        .collect()
}

/// A value without credentials at any depth; one that has none stays as it came, byte for byte.
pub(super) fn without(raw: &RawValue) -> Box<RawValue> {
    cleaned(raw).unwrap_or_else(|| raw.to_owned())
}

/// An object's members, written in their order.
struct Object<'a>(Vec<(&'a str, &'a RawValue)>);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// The value without credentials; `None` when it has none. Nesting is bounded by the scan of the
/// whole body.
fn cleaned(raw: &RawValue) -> Option<Box<RawValue>> {
    match kind(raw) {
        Kind::Object => {
            let fields = Fields::of(raw, Place::Root, &mut Problems::default())?;
            let members: Vec<_> = fields.into_members().collect();
            let kept = members.iter().filter(|(name, _)| !is_credential(name));
            let kept = kept.map(|(name, raw)| {
                let is_schema = SCHEMAS.contains(&&**name);
                (name, raw, cleaned(raw).filter(|_| !is_schema))
            });
            let kept: Vec<_> = kept.collect();
            let unchanged = kept.iter().all(|(_, _, cleaned)| cleaned.is_none());
            if unchanged && kept.len() == members.len() {
                return None;
            }
            let object = kept
                .iter()
                .map(|(name, raw, cleaned)| (&***name, cleaned.as_deref().unwrap_or(raw)));
            serde_json::value::to_raw_value(&Object(object.collect())).ok()
        }
        Kind::Array => {
            let elements = read::elements(raw, &Place::Root, &mut Problems::default())?;
            let parts: Vec<_> = elements.iter().map(|raw| (raw, cleaned(raw))).collect();
            if parts.iter().all(|(_, cleaned)| cleaned.is_none()) {
                return None;
            }
            let array = parts
                .iter()
                .map(|(raw, cleaned)| cleaned.as_deref().unwrap_or(raw));
            serde_json::value::to_raw_value(&array.collect::<Vec<_>>()).ok()
        }
        Kind::Null | Kind::Bool | Kind::Number | Kind::String => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned_text(text: &str) -> String {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        without(raw).get().to_owned()
    }

    #[test]
    fn credentials_go_at_any_depth_and_in_any_spelling() {
        for (given, expected) in [
            (r#"{"a":1,"authorization":"S"}"#, r#"{"a":1}"#),
            (r#"{"Headers":{"x":"S"},"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"\u0061uthorization":"S"}"#, "{}"),
            (
                r#"{"type":"x","api_key":"S","X-Api-Key":"S","auth":{"accessToken":"S","client_secret":"S","kind":"k"}}"#,
                r#"{"type":"x","auth":{"kind":"k"}}"#,
            ),
            (
                r#"{"max_tokens":5,"tokenizer":"t","key":"k","parameters":{"token":{}}}"#,
                r#"{"max_tokens":5,"tokenizer":"t","key":"k","parameters":{"token":{}}}"#,
            ),
            (r#"[1,{"a":{"headers":"S"}}, 2]"#, r#"[1,{"a":{}},2]"#),
            (
                r#"{"headers":1,"tools":[{"parameters":{"properties":{"headers":{}}}}]}"#,
                r#"{"tools":[{"parameters":{"properties":{"headers":{}}}}]}"#,
            ),
        ] {
            assert_eq!(cleaned_text(given), expected);
        }
    }

    #[test]
    fn what_has_none_stays_as_it_came() {
        for text in [
            r#"{ "a" : [ 1.0e3, "authorization" ], "b":{"header":null} }"#,
            "[]",
            "null",
            r#""headers""#,
        ] {
            assert_eq!(cleaned_text(text), text);
        }
    }
}
