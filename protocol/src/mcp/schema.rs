//! Are these arguments what the tool's schema asks for? A bounded subset of JSON Schema.
//!
//! Judged are types, required and forbidden members, enums, constants, ranges, lengths, items and
//! combinations, with references inside the schema. Anything else is left to the server: a keyword
//! that is not known here never refuses a call. Patterns are not run, since they are the server's
//! text, and nothing is fetched.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{Fields, Kind, Place, Problems, kind, read};

/// Schemas that are looked at for one call; a schema that refers to itself ends here.
const MAX_STEPS: usize = 10_000;
/// Deepest nesting of references and members that is followed.
const MAX_DEPTH: usize = 48;

/// Checks a call's arguments, which must be a JSON object.
///
/// # Errors
/// One sentence that names the member and the rule, not the value; it goes back to the model.
pub fn check(schema: &RawValue, arguments: &str) -> Result<(), String> {
    let arguments: &RawValue = serde_json::from_str(arguments)
        .map_err(|_malformed| "the arguments are not valid JSON".to_owned())?;
    if kind(arguments) != Kind::Object {
        return Err("the arguments must be a JSON object".to_owned());
    }
    let mut checker = Checker {
        root: schema,
        steps: MAX_STEPS,
    };
    checker.check(schema, arguments, "arguments", MAX_DEPTH)
}

/// The keywords that are judged.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node<'a> {
    #[serde(rename = "$ref", borrow)]
    reference: Option<Cow<'a, str>>,
    #[serde(rename = "type", borrow)]
    types: Option<&'a RawValue>,
    #[serde(rename = "enum", borrow)]
    words: Option<Vec<&'a RawValue>>,
    #[serde(rename = "const", borrow)]
    constant: Option<&'a RawValue>,
    #[serde(borrow)]
    properties: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    required: Option<Vec<String>>,
    #[serde(borrow)]
    additional_properties: Option<&'a RawValue>,
    #[serde(borrow)]
    pattern_properties: Option<&'a RawValue>,
    #[serde(borrow)]
    items: Option<&'a RawValue>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    #[serde(borrow)]
    all_of: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    any_of: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    one_of: Option<Vec<&'a RawValue>>,
}

struct Checker<'a> {
    root: &'a RawValue,
    steps: usize,
}

impl<'a> Checker<'a> {
    fn check(
        &mut self,
        schema: &'a RawValue,
        value: &RawValue,
        place: &str,
        depth: usize,
    ) -> Result<(), String> {
        if schema.get() == "false" {
            return Err(format!("`{place}` is not allowed"));
        }
        if kind(schema) != Kind::Object || depth == 0 || self.steps == 0 {
            return Ok(());
        }
        self.steps -= 1;
        // A schema with keywords of unexpected shape is the server's to judge.
        let Ok(node) = serde_json::from_str::<Node<'a>>(schema.get()) else {
            return Ok(());
        };
        if let Some(target) = node.reference.as_deref().and_then(|path| self.follow(path)) {
            self.check(target, value, place, depth - 1)?;
        }
        check_word(&node, value, place)?;
        match kind(value) {
            Kind::Object => self.members(&node, value, place, depth)?,
            Kind::Array => self.elements(&node, value, place, depth)?,
            Kind::String => check_length(&node, value, place)?,
            Kind::Number => check_range(&node, value, place)?,
            Kind::Null | Kind::Bool => {}
        }
        self.combinations(&node, value, place, depth)
    }

    fn members(
        &mut self,
        node: &Node<'a>,
        value: &RawValue,
        place: &str,
        depth: usize,
    ) -> Result<(), String> {
        let Ok(members) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(value.get())
        else {
            return Ok(());
        };
        for name in node.required.iter().flatten() {
            if !members.contains_key(name.as_str()) {
                return Err(format!("`{place}.{}` is required", shown(name)));
            }
        }
        for (name, member) in members {
            let at = format!("{place}.{}", shown(&name));
            let known = node.properties.as_ref().and_then(|all| all.get(&name));
            let schema = match (known, node.additional_properties) {
                (Some(schema), _) => schema,
                // Patterns are not run, so a member that may match one is let through.
                (None, Some(schema)) if node.pattern_properties.is_none() => schema,
                (None, _) => continue,
            };
            self.check(schema, member, &at, depth - 1)?;
        }
        Ok(())
    }

    fn elements(
        &mut self,
        node: &Node<'a>,
        value: &RawValue,
        place: &str,
        depth: usize,
    ) -> Result<(), String> {
        let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(value.get()) else {
            return Ok(());
        };
        let count = elements.len();
        if let Some(least) = node.min_items.filter(|least| count < *least) {
            return Err(format!("`{place}` must have at least {least} elements"));
        }
        if let Some(most) = node.max_items.filter(|most| count > *most) {
            return Err(format!("`{place}` must have at most {most} elements"));
        }
        if let Some(schema) = node.items {
            for (index, element) in elements.into_iter().enumerate() {
                self.check(schema, element, &format!("{place}[{index}]"), depth - 1)?;
            }
        }
        Ok(())
    }

    fn combinations(
        &mut self,
        node: &Node<'a>,
        value: &RawValue,
        place: &str,
        depth: usize,
    ) -> Result<(), String> {
        for schema in node.all_of.iter().flatten() {
            self.check(schema, value, place, depth - 1)?;
        }
        // That exactly one of `oneOf` fits is left to the server.
        for choices in [&node.any_of, &node.one_of].into_iter().flatten() {
            let fits = choices
                .iter()
                .any(|schema| self.check(schema, value, place, depth - 1).is_ok());
            if !fits && !choices.is_empty() {
                return Err(format!("`{place}` fits none of the allowed forms"));
            }
        }
        Ok(())
    }

    /// The schema that a reference within this schema names.
    fn follow(&self, path: &str) -> Option<&'a RawValue> {
        let mut at = self.root;
        for step in path.strip_prefix('#')?.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let members: BTreeMap<Cow<'a, str>, &'a RawValue> =
                serde_json::from_str(at.get()).ok()?;
            at = members.get(step.as_str())?;
        }
        Some(at)
    }
}

/// Type, enum and constant.
fn check_word(node: &Node<'_>, value: &RawValue, place: &str) -> Result<(), String> {
    if let Some(types) = node.types {
        let words: Vec<Cow<'_, str>> = match read::text(types) {
            Some(word) => vec![word],
            None => serde_json::from_str(types.get()).unwrap_or_default(),
        };
        if !words.is_empty() && !words.iter().any(|word| is_of_type(word, value)) {
            return Err(format!("`{place}` must be of type {}", words.join(" or ")));
        }
    }
    if let Some(words) = &node.words
        && !words.iter().any(|word| same(word, value))
    {
        let words: Vec<&str> = words.iter().take(16).map(|word| word.get()).collect();
        return Err(format!("`{place}` must be one of {}", words.join(", ")));
    }
    if let Some(constant) = node.constant
        && !same(constant, value)
    {
        return Err(format!("`{place}` must be {}", constant.get()));
    }
    Ok(())
}

fn is_of_type(word: &str, value: &RawValue) -> bool {
    match (word, kind(value)) {
        ("object", found) => found == Kind::Object,
        ("array", found) => found == Kind::Array,
        ("string", found) => found == Kind::String,
        ("boolean", found) => found == Kind::Bool,
        ("null", found) => found == Kind::Null,
        ("number", found) => found == Kind::Number,
        ("integer", Kind::Number) => value
            .get()
            .parse::<f64>()
            .is_ok_and(|number| number.fract() == 0.0),
        ("integer", _) => false,
        _ => true,
    }
}

/// Whether two values are equal: numbers by value, strings by text, objects in any order of their
/// members.
pub(super) fn same(a: &RawValue, b: &RawValue) -> bool {
    match (kind(a), kind(b)) {
        (Kind::String, Kind::String) => read::text(a) == read::text(b),
        (Kind::Number, Kind::Number) => a.get().parse::<f64>().ok() == b.get().parse::<f64>().ok(),
        (Kind::Array, Kind::Array) => {
            let elements = |raw| read::elements(raw, &Place::Root, &mut Problems::default());
            let (a, b) = (elements(a), elements(b));
            let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| same(a, b))
        }
        (Kind::Object, Kind::Object) => {
            let fields = |raw| Fields::of(raw, Place::Root, &mut Problems::default());
            let (Some(a), Some(b)) = (fields(a), fields(b)) else {
                return false;
            };
            let b: BTreeMap<_, _> = b.into_members().collect();
            let a: BTreeMap<_, _> = a.into_members().collect();
            a.len() == b.len()
                && a.iter()
                    .all(|(name, raw)| b.get(name).is_some_and(|other| same(raw, other)))
        }
        (x, y) => x == y && a.get() == b.get(),
    }
}

fn check_length(node: &Node<'_>, value: &RawValue, place: &str) -> Result<(), String> {
    let length = read::text(value).map_or(0, |text| text.chars().count());
    if let Some(least) = node.min_length.filter(|least| length < *least) {
        return Err(format!("`{place}` must have at least {least} characters"));
    }
    if let Some(most) = node.max_length.filter(|most| length > *most) {
        return Err(format!("`{place}` must have at most {most} characters"));
    }
    Ok(())
}

fn check_range(node: &Node<'_>, value: &RawValue, place: &str) -> Result<(), String> {
    let Ok(number) = value.get().parse::<f64>() else {
        return Ok(());
    };
    if let Some(least) = node.minimum.filter(|least| number < *least) {
        return Err(format!("`{place}` must be at least {least}"));
    }
    if let Some(most) = node.maximum.filter(|most| number > *most) {
        return Err(format!("`{place}` must be at most {most}"));
    }
    Ok(())
}

fn shown(name: &str) -> &str {
    crate::json::problems::shown(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(schema: &str, arguments: &str) -> Result<(), String> {
        let schema = RawValue::from_string(schema.to_owned()).unwrap();
        check(&schema, arguments)
    }

    const SCHEMA: &str = r##"{
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 1, "maximum": 9},
            "b": {"type": ["string", "null"], "minLength": 2, "maxLength": 4},
            "c": {"enum": ["x", 1, true]},
            "d": {"type": "array", "items": {"$ref": "#/$defs/point"}, "maxItems": 2},
            "e": {"anyOf": [{"type": "string"}, {"type": "boolean"}]},
            "f": {"const": {"k": [1, 2]}},
            "g": false
        },
        "required": ["a"],
        "additionalProperties": false,
        "$defs": {"point": {"type": "object", "required": ["x"], "properties": {"x": {"type": "number"}}}}
    }"##;

    #[test]
    fn what_fits_is_let_through() {
        for arguments in [
            r#"{"a": 1}"#,
            r#"{"a": 2.0, "b": null, "c": 1.0, "d": [{"x": 1.5}], "e": true, "f": {"k":[1,2]}}"#,
            r#"{"a": 9, "b": "\u00e4\u00e4", "c": "\u0078"}"#,
        ] {
            assert_eq!(check_text(SCHEMA, arguments), Ok(()), "{arguments}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_by_place_and_rule() {
        for (arguments, wanted) in [
            ("{}", "`arguments.a` is required"),
            (
                r#"{"a": "SECRET"}"#,
                "`arguments.a` must be of type integer",
            ),
            (r#"{"a": 1.5}"#, "`arguments.a` must be of type integer"),
            (r#"{"a": 0}"#, "`arguments.a` must be at least 1"),
            (
                r#"{"a": 1, "b": "x"}"#,
                "`arguments.b` must have at least 2 characters",
            ),
            (
                r#"{"a": 1, "b": 5}"#,
                "`arguments.b` must be of type string or null",
            ),
            (
                r#"{"a": 1, "c": "y"}"#,
                "`arguments.c` must be one of \"x\", 1, true",
            ),
            (r#"{"a": 1, "d": [{}]}"#, "`arguments.d[0].x` is required"),
            (
                r#"{"a": 1, "d": [{"x":1},{"x":1},{"x":1}]}"#,
                "`arguments.d` must have at most 2 elements",
            ),
            (
                r#"{"a": 1, "e": 5}"#,
                "`arguments.e` fits none of the allowed forms",
            ),
            (
                r#"{"a": 1, "f": {}}"#,
                "`arguments.f` must be {\"k\": [1, 2]}",
            ),
            (r#"{"a": 1, "g": 1}"#, "`arguments.g` is not allowed"),
            (r#"{"a": 1, "z": 1}"#, "`arguments.z` is not allowed"),
            ("[]", "the arguments must be a JSON object"),
            ("{", "the arguments are not valid JSON"),
        ] {
            let error = check_text(SCHEMA, arguments).unwrap_err();
            assert_eq!(error, wanted, "{arguments}");
        }
    }

    #[test]
    fn m4_schemas_that_refer_to_themselves_or_elsewhere_end() {
        let recursive = r##"{"type":"object","properties":{"a":{"$ref":"#"}},"allOf":[{"$ref":"#"},{"$ref":"#"}]}"##;
        assert_eq!(check_text(recursive, r#"{"a":{"a":{"a":{}}}}"#), Ok(()));
        let remote = r#"{"properties":{"a":{"$ref":"https://evil.example/s"}}}"#;
        assert_eq!(check_text(remote, r#"{"a":1}"#), Ok(()));
        let strange = r#"{"properties":5,"required":"a","pattern":"(a+)+$"}"#;
        assert_eq!(
            check_text(strange, r#"{"a":"aaaaaaaaaaaaaaaaaaaaaaaaaaaa!"}"#),
            Ok(())
        );
    }
}
