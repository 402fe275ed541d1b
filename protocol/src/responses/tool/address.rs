//! What is shown and stored of an MCP server's address: scheme and host. Path, query and user name may
//! have a key in them, and do with many servers.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::read;

/// Scheme and host of a URL; `None` for what is none.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.trim().split_once("://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let is_host = |character: char| {
        character.is_alphanumeric() || matches!(character, '.' | '-' | '_' | ':' | '[' | ']')
    };
    let plain = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (plain && !host.is_empty() && host.chars().all(is_host)).then(|| format!("{scheme}://{host}"))
}

/// The address as it is shown.
pub(super) fn shown(raw: &RawValue) -> Option<Box<RawValue>> {
    let origin = origin(&read::text(raw)?)?;
    let text = serde_json::to_string(&origin).ok()?;
    RawValue::from_string(text).ok()
}

/// A stored tool, as far as it matters here.
#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow, default)]
    server_url: Option<&'a RawValue>,
}

/// Stored settings, as far as they matter here.
#[derive(Deserialize)]
struct Settings<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
}

/// Stored settings as they are shown: earlier versions kept whole addresses.
pub(crate) fn without_paths(settings: &str) -> Cow<'_, str> {
    const NAME: &str = "\"server_url\":";
    let mut shown_settings = Cow::Borrowed(settings);
    if !settings.contains(NAME) {
        return shown_settings;
    }
    let stored: Option<Settings<'_>> = serde_json::from_str(settings).ok();
    for tool in stored.map(|stored| stored.tools).unwrap_or_default() {
        let tool: Option<Tool<'_>> = serde_json::from_str(tool.get()).ok();
        let Some(url) = tool.and_then(|tool| tool.server_url) else {
            continue;
        };
        let kept = shown(url);
        let kept = kept.as_ref().map_or("null", |kept| kept.get());
        if kept != url.get() {
            let (whole, kept) = ([NAME, url.get()].concat(), [NAME, kept].concat());
            shown_settings = Cow::Owned(shown_settings.replace(&whole, &kept));
        }
    }
    shown_settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_scheme_and_host_are_shown() {
        for (url, expected) in [
            (
                "https://mcp.example.com/KEY/mcp?key=KEY#KEY",
                Some("https://mcp.example.com"),
            ),
            (
                "https://KEY:KEY@mcp.example.com:8443\\KEY",
                Some("https://mcp.example.com:8443"),
            ),
            ("http://[::1]:80", Some("http://[::1]:80")),
            ("mcp.example.com/KEY", None),
            ("https://", None),
            ("https://a%2fKEY", None),
        ] {
            assert_eq!(origin(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn paths_that_earlier_versions_stored_are_not_shown() {
        let old = r#"{"tools":[{"type":"mcp","server_label":"a","server_url":"https://e/KEY"},{"type":"function","name":"f"}],"user":null}"#;
        let new = r#"{"tools":[{"type":"mcp","server_label":"a","server_url":"https://e"},{"type":"function","name":"f"}],"user":null}"#;
        assert_eq!(without_paths(old), new);
        assert!(matches!(without_paths(new), Cow::Borrowed(_)));
    }
}
