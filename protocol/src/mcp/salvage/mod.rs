//! What is kept of a tool's result that is larger than what is taken (fault M3).
//!
//! The end of such a message is not read, and it may have none. Its beginning is closed as if the
//! server had stopped there, and a last block says so: a model can use the first lines of a log, and
//! the client sees that there was more. Only results of calls are treated so: half a list of tools
//! would be taken for a whole one.

mod repair;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::head;

/// Bytes of the message that are kept. With the mark, and rendered, this is within the limit of a
/// result.
pub const KEPT: usize = 1024 * 1024 - 4096;

/// The last block of what is kept.
const MARK: &str = r#"{"type":"text","text":"[cut: the result is more than 4 MiB, of which the first 1 MiB is shown]"}"#;

/// A whole message that says what `prefix`, the beginning of one, says; `None` when that is not the
/// result of a call, or does not say which. `id` is the request's, where the connection tells: JSON.
pub fn salvage(prefix: &[u8], id: Option<&str>) -> Option<String> {
    let prefix = head(valid_text(prefix), KEPT);
    let closed = repair::close(prefix)?;
    let message: Partial<'_> = serde_json::from_str(&closed).ok()?;
    let result = message.result?;
    if result.content.is_none() && result.structured_content.is_none() {
        return None;
    }
    let mark = raw(MARK.to_owned())?;
    let mut content = result.content.unwrap_or_default();
    content.retain(|block| serde_json::from_str::<Block<'_>>(block.get()).is_ok());
    // Cut as it is, it would stand for the whole result.
    let structured = result.structured_content.map(|cut| cut.get().to_owned());
    let structured = structured.and_then(|text| {
        let block = Block::Text { text: text.into() };
        serde_json::value::to_raw_value(&block).ok()
    });
    let blocks = content.into_iter().chain(structured.as_deref());
    let whole = Whole {
        jsonrpc: "2.0",
        id: raw(message.id.map(RawValue::get).or(id)?.to_owned())?,
        result: WholeResult {
            content: blocks.chain(std::iter::once(&*mark)).collect(),
            is_error: result.is_error.unwrap_or(false),
        },
    };
    serde_json::to_string(&whole).ok()
}

fn raw(text: String) -> Option<Box<RawValue>> {
    RawValue::from_string(text).ok()
}

/// The text before the first byte that is none; a character that was cut is none.
fn valid_text(bytes: &[u8]) -> &str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            str::from_utf8(valid).unwrap_or_default()
        }
    }
}

#[derive(Deserialize)]
struct Partial<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<PartialResult<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialResult<'a> {
    #[serde(borrow, default)]
    content: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    structured_content: Option<&'a RawValue>,
    #[serde(default)]
    is_error: Option<bool>,
}

/// Blocks that are whole enough to be read; the last one may not be.
#[derive(Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text {
        text: std::borrow::Cow<'a, str>,
    },
    #[serde(rename_all = "camelCase")]
    Image {
        data: std::borrow::Cow<'a, str>,
        mime_type: std::borrow::Cow<'a, str>,
    },
    #[serde(rename_all = "camelCase")]
    Audio {
        data: std::borrow::Cow<'a, str>,
        mime_type: std::borrow::Cow<'a, str>,
    },
    ResourceLink {
        uri: std::borrow::Cow<'a, str>,
        name: std::borrow::Cow<'a, str>,
    },
    Resource {
        resource: Resource<'a>,
    },
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Resource<'a> {
    Text {
        uri: std::borrow::Cow<'a, str>,
        text: std::borrow::Cow<'a, str>,
    },
    Blob {
        uri: std::borrow::Cow<'a, str>,
        blob: std::borrow::Cow<'a, str>,
    },
}

#[derive(Serialize)]
struct Whole<'a> {
    jsonrpc: &'static str,
    id: Box<RawValue>,
    result: WholeResult<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WholeResult<'a> {
    content: Vec<&'a RawValue>,
    is_error: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn kept(prefix: &str, id: Option<&str>) -> Option<Value> {
        let text = salvage(prefix.as_bytes(), id)?;
        assert!(text.len() < 1024 * 1024, "{}", text.len());
        Some(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn m3_the_beginning_of_a_long_text_is_kept_with_a_mark() {
        let long = "x".repeat(2 * KEPT);
        let prefix = format!(
            r#"{{"jsonrpc":"2.0","id":7,"result":{{"content":[{{"type":"text","text":"{long}"#
        );
        let message = kept(&prefix, None).unwrap();
        assert_eq!(message["id"], 7);
        let blocks = message["result"]["content"].as_array().unwrap();
        assert_eq!(blocks.len(), 2);
        assert!(blocks[0]["text"].as_str().unwrap().len() > KEPT - 100);
        assert!(blocks[1]["text"].as_str().unwrap().starts_with("[cut: "));
    }

    #[test]
    fn m3_whole_blocks_are_kept_and_the_one_that_was_cut_is_if_it_can_be() {
        let begin = r#"{"result":{"isError":true,"content":[{"type":"text","text":"a"},"#;
        for (cut, blocks) in [
            (r#"{"type":"text","text":"b\u00"#, 3),
            (r#"{"type":"text","te"#, 2),
            (r#"{"type":"image","data":"QUJ"#, 2),
            (r#"{"type":"resource","resource":{"uri":"u","text":"t"#, 3),
            (r#"{"type":"tex"#, 2),
            ("{", 2),
            ("", 2),
        ] {
            let message = kept(&format!("{begin}{cut}"), Some("\"id-1\"")).unwrap();
            assert_eq!(message["id"], "id-1");
            assert_eq!(message["result"]["isError"], true);
            let content = message["result"]["content"].as_array().unwrap();
            assert_eq!(content.len(), blocks, "{cut}: {message}");
            assert_eq!(content[0], json!({"type": "text", "text": "a"}));
        }
    }

    #[test]
    fn m3_structured_content_that_was_cut_becomes_text() {
        let prefix = r#"{"id":1,"result":{"structuredContent":{"rows":[1,2,{"a":"b"#;
        let message = kept(prefix, None).unwrap();
        let content = &message["result"]["content"];
        assert_eq!(content[0]["text"], r#"{"rows":[1,2,{"a":"b"}]}"#);
        assert!(message["result"].get("structuredContent").is_none());
    }

    #[test]
    fn m3_nothing_else_is_guessed_at() {
        for prefix in [
            r#"{"id":1,"result":{"tools":[{"name":"a"}"#,
            r#"{"result":{"content":[{"type":"text","text":"a"#,
            r#"{"id":1,"error":{"message":"a"#,
            r#"{"id":1,"method":"sampling/createMessage","params":{"content":["#,
            r#"[{"id":1,"result":{"content":["#,
            "<html>",
            "",
        ] {
            assert_eq!(kept(prefix, None), None, "{prefix}");
        }
        let deep = r#"{"id":1,"result":{"structuredContent":"#.to_owned() + &"[".repeat(5000);
        assert_eq!(kept(&deep, None), None);
    }
}
