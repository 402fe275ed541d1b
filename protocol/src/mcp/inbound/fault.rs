//! Errors of servers in whatever shape they come, and what they say of sessions and versions.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::text;
use crate::error::head;
use crate::json::{Kind, kind};
use crate::mcp::outcome::SERVER_ERROR;

/// Longest words that are kept.
const MAX_WORDS: usize = 4096;
/// JSON-RPC code with which the official SDKs say that a session is not known.
const SESSION_NOT_FOUND: i64 = -32001;
/// JSON-RPC: no such method.
const METHOD_NOT_FOUND: i64 = -32601;

/// An error as far as it is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its JSON-RPC code.
    pub code: i64,
    /// Its words.
    pub message: String,
    /// What is beside them, JSON; dropped when it is long.
    pub data: Option<Box<str>>,
    /// Whether it says which request it answers.
    pub has_id: bool,
}

/// Reads an error object; a text alone is its words.
pub(super) fn read(raw: &RawValue) -> Fault {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow, default)]
        code: Option<&'a RawValue>,
        #[serde(borrow, default)]
        message: Option<&'a RawValue>,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    let members: Option<Members<'_>> = serde_json::from_str(raw.get()).ok();
    let (code, message, data) = match &members {
        Some(it) if kind(raw) == Kind::Object => (it.code, it.message, it.data),
        _ => (None, Some(raw), None),
    };
    let code = code.and_then(|code| code.get().trim_matches('"').parse::<i64>().ok());
    let words = match message {
        Some(message) => text::of(Some(message)).unwrap_or(Cow::Borrowed(message.get())),
        None => Cow::Borrowed("no reason given"),
    };
    Fault {
        code: code.unwrap_or(SERVER_ERROR),
        message: head(&words, MAX_WORDS).to_owned(),
        data: data
            .filter(|data| data.get().len() <= MAX_WORDS)
            .map(|data| data.get().into()),
        has_id: true,
    }
}

/// The error as a message; the SDK's codes have 32 bits.
pub(super) fn message(fault: &Fault, id: Option<&str>) -> String {
    #[derive(Serialize)]
    struct Error<'a> {
        code: i32,
        message: &'a str,
    }
    let error = Error {
        code: i32::try_from(fault.code).unwrap_or(-32000),
        message: &fault.message,
    };
    let mut error = serde_json::to_string(&error).unwrap_or_default();
    if let Some(data) = &fault.data {
        error.pop();
        error.push_str(",\"data\":");
        error.push_str(data);
        error.push('}');
    }
    let id = id.map_or_else(String::new, |id| format!(r#""id":{id},"#));
    format!(r#"{{"jsonrpc":"2.0",{id}"error":{error}}}"#)
}

/// The error in the body of a refusal, when there is one.
pub fn fault(body: &[u8]) -> Option<Fault> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow, default)]
        id: Option<&'a RawValue>,
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }
    let body = text::mended(body);
    let members: Members<'_> = serde_json::from_str(&body).ok()?;
    Some(Fault {
        has_id: members.id.is_some(),
        ..read(members.error?)
    })
}

/// Whether an answer with this HTTP status and error means that the session, which the request named,
/// is not known any more: then nothing was begun, and a new session may be asked.
pub fn forgets_session(status: u16, fault: Option<&Fault>) -> bool {
    let Some(fault) = fault else {
        return matches!(status, 404 | 410);
    };
    if fault.code == METHOD_NOT_FOUND {
        return false;
    }
    let names_it = fault.message.to_ascii_lowercase().contains("session");
    match status {
        404 | 410 => true,
        401 | 403 | 429 => false,
        200..=299 => fault.code == SESSION_NOT_FOUND && names_it,
        400 => names_it || fault.code == SESSION_NOT_FOUND || !fault.has_id,
        _ => names_it || fault.code == SESSION_NOT_FOUND,
    }
}

/// The protocol versions that a text names, as the texts of `known`, in its order.
pub fn known_versions<'a>(text: &str, known: &[&'a str]) -> Vec<&'a str> {
    let named = known.iter().filter(|version| text.contains(**version));
    named.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_session_is_known_in_any_shape() {
        let body = |code: i64, words: &str, id: &str| {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{words}"}}}}"#
            );
            fault(body.as_bytes())
        };
        for status in [400, 404, 410, 500, 503] {
            let told = body(-32001, "Session not found", "3");
            assert!(forgets_session(status, told.as_ref()), "{status}");
        }
        assert!(forgets_session(
            200,
            body(-32001, "no such session", "3").as_ref()
        ));
        assert!(forgets_session(
            400,
            body(-32000, "start anew", "null").as_ref()
        ));
        assert!(forgets_session(
            400,
            body(-32000, "No valid session ID", "null").as_ref()
        ));
        assert!(forgets_session(404, None) && forgets_session(410, None));
        assert!(!forgets_session(400, None) && !forgets_session(500, None));
        assert!(!forgets_session(
            400,
            body(-32602, "bad arguments", "3").as_ref()
        ));
        assert!(!forgets_session(
            404,
            body(-32601, "no such method", "3").as_ref()
        ));
        assert!(!forgets_session(401, body(-32001, "session", "3").as_ref()));
        assert!(!forgets_session(
            200,
            body(-32602, "browser session not found", "3").as_ref()
        ));
        assert!(!forgets_session(500, body(-32603, "boom", "3").as_ref()));
    }

    #[test]
    fn errors_of_any_shape_have_a_code_and_words() {
        for (written, code, words) in [
            (r#"{"code":-32602,"message":"no"}"#, -32602, "no"),
            (r#"{"code":"-5","message":"no"}"#, -5, "no"),
            (r#"{"message":{"a":1}}"#, SERVER_ERROR, r#"{"a":1}"#),
            (r#"{"code":1.5}"#, SERVER_ERROR, "no reason given"),
            (r#""just words""#, SERVER_ERROR, "just words"),
            ("[1]", SERVER_ERROR, "[1]"),
        ] {
            let body = format!(r#"{{"error":{written}}}"#);
            let fault = fault(body.as_bytes()).unwrap();
            assert_eq!((fault.code, &*fault.message), (code, words), "{written}");
            assert!(!fault.has_id);
        }
        assert_eq!(fault(b"<html>"), None);
        assert_eq!(fault(b"{\"detail\":\"x\"}"), None);
    }
}
