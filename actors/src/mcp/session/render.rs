//! A tool's result as the text that the model reads.
//!
//! Structured content stands for the whole result, as servers repeat it as text for those who do not
//! know it. Binary content is told of, not copied: its base64 would cost the model its context.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use vllm_responses_protocol::mcp::hidden::readable;
use vllm_responses_protocol::mcp::outcome::{CallError, Outcome, cap};

/// Longest error text.
const MAX_ERROR: usize = 4096;

/// The outcome of a finished call, its text cut to `most` bytes.
pub(super) fn outcome(result: &CallToolResult, most: usize) -> Outcome {
    let text = readable(&text(result));
    if result.is_error == Some(true) {
        let text = if text.is_empty() {
            "the tool failed without saying why"
        } else {
            &text
        };
        return Outcome::Failed {
            error: CallError::tool(cap(text, MAX_ERROR)),
        };
    }
    Outcome::Output {
        text: cap(&text, most),
    }
}

fn text(result: &CallToolResult) -> String {
    // An empty object says nothing, and must not hide what the content says.
    if let Some(structured) = result
        .structured_content
        .as_ref()
        .filter(|value| !value.is_null() && value.as_object().is_none_or(|it| !it.is_empty()))
    {
        return structured.to_string();
    }
    let parts: Vec<String> = result.content.iter().map(part).collect();
    parts.join("\n")
}

fn part(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(image) => binary("image", &image.mime_type, &image.data),
        ContentBlock::Audio(audio) => binary("audio", &audio.mime_type, &audio.data),
        ContentBlock::ResourceLink(link) => {
            let title = link.title.as_deref().unwrap_or(&link.name);
            format!("[{title}]({})", link.uri)
        }
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents { uri, text, .. } => {
                format!("[resource {uri}]\n{text}")
            }
            ResourceContents::BlobResourceContents {
                uri,
                mime_type,
                blob,
                ..
            } => {
                let kind = mime_type.as_deref().unwrap_or("application/octet-stream");
                format!("[resource {uri}] {}", binary("data", kind, blob))
            }
            _ => "[resource]".to_owned(),
        },
        _ => "[content of a kind that is not known]".to_owned(),
    }
}

fn binary(what: &str, kind: &str, base64: &str) -> String {
    format!("[{what} {kind}, {} bytes, not shown]", base64.len() / 4 * 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(json: &str) -> Outcome {
        outcome(&serde_json::from_str(json).unwrap(), 200)
    }

    fn output(json: &str) -> String {
        match render(json) {
            Outcome::Output { text } => text.into(),
            Outcome::Failed { error } => panic!("{error:?}"),
        }
    }

    #[test]
    fn every_kind_of_content_has_a_text() {
        let mixed = r#"{"content": [
            {"type": "text", "text": "a"},
            {"type": "image", "data": "QUJDRA==", "mimeType": "image/png"},
            {"type": "audio", "data": "QUJD", "mimeType": "audio/wav"},
            {"type": "resource_link", "uri": "file:///x", "name": "x", "title": "The x"},
            {"type": "resource", "resource": {"uri": "file:///y", "text": "why"}},
            {"type": "resource", "resource": {"uri": "file:///z", "blob": "QUJD"}}
        ]}"#;
        let all: CallToolResult = serde_json::from_str(mixed).unwrap();
        assert_eq!(
            text(&all),
            "a\n[image image/png, 6 bytes, not shown]\n[audio audio/wav, 3 bytes, not shown]\n\
             [The x](file:///x)\n[resource file:///y]\nwhy\n\
             [resource file:///z] [data application/octet-stream, 3 bytes, not shown]"
        );
        let structured =
            r#"{"content": [{"type":"text","text":"x"}], "structuredContent": {"b": 1, "a": [2]}}"#;
        assert_eq!(output(structured), r#"{"a":[2],"b":1}"#);
        assert_eq!(output(r#"{"content": []}"#), "");
        let nothing = r#"{"content": [{"type":"text","text":"x"}], "structuredContent": {}}"#;
        assert_eq!(output(nothing), "x");
    }

    #[test]
    fn m3_long_results_are_cut_and_errors_are_errors() {
        let long = format!(
            r#"{{"content":[{{"type":"text","text":"{}"}}]}}"#,
            "x".repeat(1000)
        );
        assert!(output(&long).ends_with("[cut: 1000 bytes in all, 200 are shown]"));
        let failed = r#"{"content":[{"type":"text","text":"boom"}],"isError":true}"#;
        assert_eq!(
            render(failed),
            Outcome::Failed {
                error: CallError::tool("boom")
            }
        );
    }
}
