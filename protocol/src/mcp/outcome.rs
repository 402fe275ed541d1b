//! How a call of an MCP tool ended, as the model and the client are told.

use serde::{Deserialize, Serialize};

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The tool's answer as text, within the limit.
    Output {
        /// The text.
        text: Box<str>,
        /// Pictures beside it, as `data:` URLs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pictures: Vec<Box<str>>,
    },
    /// Something went wrong; the response goes on.
    Failed {
        /// What.
        error: CallError,
    },
}

/// The item's `error`, in the object forms of the API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CallError {
    /// The server, the connection to it, or the gateway's rules refused the call.
    #[serde(rename = "mcp_protocol_error")]
    Protocol {
        /// JSON-RPC code; -32602 for arguments that break the schema, -32601 for unknown tools.
        code: i64,
        /// One sentence.
        message: Box<str>,
    },
    /// The tool itself says that it failed.
    #[serde(rename = "mcp_tool_execution_error")]
    Tool {
        /// Its words.
        content: Vec<ErrorText>,
    },
    /// The server answered with an HTTP error.
    #[serde(rename = "http_error")]
    Http {
        /// Its status.
        code: u16,
        /// One sentence.
        message: Box<str>,
    },
}

/// One text of a failed tool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "type", rename = "text")]
pub struct ErrorText {
    /// The text.
    pub text: Box<str>,
}

/// JSON-RPC: the arguments do not fit.
pub const INVALID_PARAMS: i64 = -32602;
/// JSON-RPC: no such tool.
pub const UNKNOWN_TOOL: i64 = -32601;
/// JSON-RPC: the server cannot be reached or broke the protocol.
pub const SERVER_ERROR: i64 = -32000;

impl Outcome {
    /// A text alone.
    pub fn text(text: impl Into<Box<str>>) -> Self {
        Self::Output {
            text: text.into(),
            pictures: Vec::new(),
        }
    }
}

impl CallError {
    /// A failure that is no HTTP status and not the tool's own.
    pub fn protocol(code: i64, message: impl Into<Box<str>>) -> Self {
        Self::Protocol {
            code,
            message: message.into(),
        }
    }

    /// The tool's own words.
    pub fn tool(text: impl Into<Box<str>>) -> Self {
        let text = ErrorText { text: text.into() };
        Self::Tool {
            content: vec![text],
        }
    }

    /// What the model reads.
    pub fn for_model(&self) -> String {
        match self {
            Self::Protocol { message, .. } | Self::Http { message, .. } => {
                format!("error: {message}")
            }
            Self::Tool { content } => {
                let texts: Vec<&str> = content.iter().map(|part| &*part.text).collect();
                format!("error: {}", texts.join("\n"))
            }
        }
    }
}

/// What the visible mark of a cut begins with.
pub const CUT: &str = "\n[cut: ";

/// Cuts a text to `most` bytes, the visible mark included.
pub fn cap(text: &str, most: usize) -> Box<str> {
    cap_of(text, most, text.len())
}

/// The same for a text of which only the beginning is there: it had `whole` bytes.
pub fn cap_of(text: &str, most: usize, whole: usize) -> Box<str> {
    if whole.max(text.len()) <= most {
        return text.into();
    }
    let mark = format!("{CUT}{whole} bytes in all, {most} are shown]");
    let kept = crate::error::head(text, most.saturating_sub(mark.len()));
    format!("{kept}{mark}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_forms_of_the_api() {
        let texts = [
            CallError::protocol(INVALID_PARAMS, "no"),
            CallError::tool("boom"),
            CallError::Http {
                code: 502,
                message: "no".into(),
            },
        ]
        .map(|error| serde_json::to_string(&error).unwrap());
        assert_eq!(
            texts[0],
            r#"{"type":"mcp_protocol_error","code":-32602,"message":"no"}"#
        );
        assert_eq!(
            texts[1],
            r#"{"type":"mcp_tool_execution_error","content":[{"type":"text","text":"boom"}]}"#
        );
        assert_eq!(
            texts[2],
            r#"{"type":"http_error","code":502,"message":"no"}"#
        );
    }

    #[test]
    fn m3_a_cut_is_visible_and_within_the_limit() {
        let text = "\u{e4}".repeat(1000);
        let cut = cap(&text, 500);
        assert!(cut.len() <= 500);
        assert!(cut.ends_with("[cut: 2000 bytes in all, 500 are shown]"));
        assert_eq!(&*cap("short", 500), "short");
    }
}
