//! An MCP server over stdio with one tool that does nothing: the other end of the tool loop.

use std::io::{BufRead as _, Write as _};

use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Message<'a> {
    /// Absent in notifications, which want no answer.
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    method: String,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Initialize {
    #[serde(rename = "protocolVersion")]
    protocol_version: String,
}

/// Answers until standard input ends.
pub(crate) fn serve() -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("cannot read: {error}"))?;
        let Ok(message) = serde_json::from_str::<Message<'_>>(&line) else {
            continue;
        };
        let Some(id) = message.id else { continue };
        let answer = match result(&message) {
            Some(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
            None => format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"unknown"}}}}"#
            ),
        };
        writeln!(out, "{answer}")
            .and_then(|()| out.flush())
            .map_err(|error| format!("cannot write: {error}"))?;
    }
    Ok(())
}

fn result(message: &Message<'_>) -> Option<String> {
    match message.method.as_str() {
        "initialize" => {
            let asked: Initialize = serde_json::from_str(message.params?.get()).ok()?;
            // Versions from 2026 on begin otherwise; this one is known to every client.
            let version = asked.protocol_version.min("2025-06-18".to_owned());
            Some(format!(
                r#"{{"protocolVersion":"{version}","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"noop","version":"1"}}}}"#
            ))
        }
        "ping" => Some("{}".to_owned()),
        "tools/list" => Some(
            r#"{"tools":[{"name":"noop","description":"Does nothing.","inputSchema":{"type":"object","properties":{"round":{"type":"integer"}}}}]}"#
                .to_owned(),
        ),
        "tools/call" => Some(r#"{"content":[{"type":"text","text":"done"}]}"#.to_owned()),
        _ => None,
    }
}
