//! What a model server says when it fails, in all the shapes that servers say it in.

use std::borrow::Cow;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::chunk::{Chunk, read};
use super::lenient::{Text, Words, object, or_nothing};

/// An error as the model server told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaint<'a> {
    /// Its words.
    pub words: Cow<'a, str>,
    /// Code and kind, whichever of the two is a word.
    pub codes: [Cow<'a, str>; 2],
    /// The HTTP status that it names.
    pub status: Option<u16>,
}

/// `error` of an answer or a chunk: an object, a text, or a list of either.
#[derive(Clone, Debug, Default)]
pub struct ErrorObject<'a>(Told<'a>);

object! {
    /// The members of an error object.
    #[derive(Clone)]
    struct Told<'a> {
        "message" message: Words<'a>,
        "detail" detail: Words<'a>,
        "error" error: Words<'a>,
        "code" code: Text<'a>,
        "type" kind: Text<'a>,
        "status" status: Text<'a>,
        "metadata" metadata: Metadata<'a>,
    }
}

object! {
    /// `OpenRouter`'s `metadata`.
    #[derive(Clone)]
    struct Metadata<'a> {
        "raw" raw: Text<'a>,
    }
}

impl<'de> Deserialize<'de> for ErrorObject<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = ErrorObject<'de>;
            or_nothing!(unit number);
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(said(Words(Cow::Borrowed(text))))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(said(Words(Cow::Owned(text.to_owned()))))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let first = seq.next_element::<ErrorObject<'de>>()?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(first.unwrap_or_default())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Told::deserialize(MapAccessDeserializer::new(map)).map(ErrorObject)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Words of errors that are none.
const NO_ERROR: [&str; 5] = ["none", "null", "ok", "success", "no error"];

fn said(message: Words<'_>) -> ErrorObject<'_> {
    ErrorObject(Told {
        message,
        ..Told::default()
    })
}

impl ErrorObject<'_> {
    fn complaint(&self) -> Option<Complaint<'_>> {
        let Told {
            message,
            detail,
            error,
            code,
            kind,
            status,
            metadata,
        } = &self.0;
        let all = [message, detail, error];
        let words = all.iter().map(|words| words.as_str());
        let words = words.clone().find(|words| !words.is_empty());
        // Some servers write an error of theirs that says that there is none.
        let says_none = |text: &&Text<'_>| matches!(text.as_str(), "" | "0" | "200");
        let named = ![code, kind, status].iter().all(says_none);
        let is_none = |words: &str| NO_ERROR.iter().any(|none| none.eq_ignore_ascii_case(words));
        if !named && words.is_none_or(is_none) {
            return None;
        }
        let mut words = Cow::Borrowed(words.unwrap_or_default());
        if !metadata.raw.is_empty() {
            let behind = complaint_in(metadata.raw.as_str().as_bytes());
            words = Cow::Owned([&words, ": ", &behind.words].concat());
        }
        Some(Complaint {
            words,
            ..coded(code, kind, status)
        })
    }
}

fn coded<'a>(code: &'a Text<'_>, kind: &'a Text<'_>, status: &'a Text<'_>) -> Complaint<'a> {
    Complaint {
        words: Cow::Borrowed(""),
        codes: [code, kind].map(|text| Cow::Borrowed(text.as_str())),
        status: number(code).or_else(|| number(status)),
    }
}

/// An HTTP status of an error, from `400`, `"400"` or `400.0`.
fn number(text: &Text<'_>) -> Option<u16> {
    let whole = text.as_str().split('.').next().unwrap_or_default();
    whole
        .parse()
        .ok()
        .filter(|status| (400..600).contains(status))
}

impl Chunk<'_> {
    /// The error that this is, or carries.
    pub fn complaint(&self) -> Option<Complaint<'_>> {
        let nested = self.error.complaint();
        let choice = self.choices.0.as_ref();
        nested
            .or_else(|| choice.and_then(|choice| choice.error.complaint()))
            .or_else(|| self.x_groq.error.complaint())
            .or_else(|| self.flat())
    }

    /// An error whose members are not nested.
    fn flat(&self) -> Option<Complaint<'_>> {
        if self.choices.0.is_some() {
            return None;
        }
        let all = [self.message.as_str(), self.detail.as_str()];
        let words = all.into_iter().find(|words| !words.is_empty())?;
        Some(Complaint {
            words: Cow::Borrowed(words),
            ..coded(&self.code, &self.kind, &self.status)
        })
    }
}

/// The error that the body of a failed answer tells of, whatever kind of text it is.
pub fn complaint_in(body: &[u8]) -> Complaint<'static> {
    let mut spare = Vec::new();
    if let Ok(chunk) = read(body, &mut spare) {
        return chunk
            .complaint()
            .map(Complaint::into_owned)
            .unwrap_or_default();
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let words = if text.starts_with(['{', '[']) {
        cut_json(text)
    } else if text.starts_with('<') {
        without_tags(text)
    } else {
        text.trim_matches('"').to_owned()
    };
    Complaint {
        words: Cow::Owned(words),
        ..Complaint::default()
    }
}

/// The words of a JSON text that is cut or otherwise broken.
fn cut_json(text: &str) -> String {
    let places = ["\"message\"", "\"detail\"", "\"error\""];
    let words = places.iter().find_map(|name| {
        let (_, rest) = text.split_once(name)?;
        let rest = rest.trim_start().strip_prefix(':')?.trim_start();
        string_at(rest.strip_prefix('"')?)
    });
    words.unwrap_or_default()
}

/// A string's text up to its end, or to where it is cut.
fn string_at(rest: &str) -> Option<String> {
    let mut escaped = false;
    let end = rest.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    });
    let mut text = rest.get(..end.unwrap_or(rest.len()))?;
    // A cut escape is at most six characters long.
    for _ in 0..7 {
        if let Ok(read) = serde_json::from_str::<String>(&format!("\"{text}\"")) {
            return Some(read);
        }
        text = text.get(..text.char_indices().next_back()?.0)?;
    }
    None
}

/// The text of a page: its title where it has one, since proxies say everything there.
fn without_tags(page: &str) -> String {
    let title = page
        .split_once("<title>")
        .and_then(|(_, rest)| rest.split_once("</title>"));
    let mut text = String::new();
    let mut inside = false;
    for character in title.map_or(page, |(title, _)| title).chars() {
        match character {
            '<' => inside = true,
            '>' if inside => {
                inside = false;
                text.push(' ');
            }
            _ if inside => {}
            _ => text.push(character),
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Complaint<'_> {
    /// The same, kept.
    pub fn into_owned(self) -> Complaint<'static> {
        Complaint {
            words: Cow::Owned(self.words.into_owned()),
            codes: self.codes.map(|code| Cow::Owned(code.into_owned())),
            status: self.status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s2_1_words_are_found_in_every_body() {
        let page = "<html>\n<head><title>413 Request Entity Too Large</title></head><body>nginx";
        for (body, words) in [
            (r#"{"error":{"message":"no"}}"#, "no"),
            (r#"{"error":{"message":"no","code":400.0}}"#, "no"),
            (r#"{"object":"error","message":"no","code":400}"#, "no"),
            (r#"{"error":"no"}"#, "no"),
            (r#"{"error":["no","or"]}"#, "no"),
            (r#"{"detail":"no"}"#, "no"),
            (
                r#"{"detail":[{"loc":["body","x"],"msg":"no","input":"secret"}]}"#,
                "at body.x: no",
            ),
            (
                r#"[{"error":{"code":400,"message":"no","status":"INVALID"}}]"#,
                "no",
            ),
            (r#"{"code":"InvalidParameter","message":"no"}"#, "no"),
            (
                r#"{"object":"error","message":{"detail":[{"msg":"no"}]}}"#,
                "no",
            ),
            (r#"{"error":{"message":"one \"two\" thr"#, "one \"two\" thr"),
            (r#"{"error":{"message":"cut \u00"#, "cut "),
            (r#"{"error":{"code":400,"message":"no","x":"#, "no"),
            ("no", "no"),
            (page, "413 Request Entity Too Large"),
            ("<b>not</b> here", "not here"),
            ("", ""),
            ("{}", ""),
            ("[]", ""),
            ("null", "null"),
        ] {
            assert_eq!(complaint_in(body.as_bytes()).words, words, "{body}");
        }
    }

    #[test]
    fn a_status_is_a_number_however_it_is_written() {
        for (body, status) in [
            (r#"{"error":{"message":"no","code":400}}"#, Some(400)),
            (r#"{"error":{"message":"no","code":400.0}}"#, Some(400)),
            (r#"{"error":{"message":"no","code":"429"}}"#, Some(429)),
            (
                r#"{"error":{"message":"no","code":"x","status":422}}"#,
                Some(422),
            ),
            (r#"{"error":{"message":"no","code":7}}"#, None),
        ] {
            assert_eq!(complaint_in(body.as_bytes()).status, status, "{body}");
        }
    }
}
