//! Lines of child processes on their way to stderr, in the shape of the log. Pure.
//!
//! They come as `NAME| LINE`, already without control sequences and letters that deceive: whoever reads
//! them from the child takes those out. As text they stay as they are. In a log of JSON each becomes an
//! object that says whose it is, so that a child cannot write a line in the gateway's name.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::line;

/// The child that is this program itself: its lines are lines of a log already.
const OWN: &str = "mcp-runtime";

#[derive(Serialize)]
struct Object<'a> {
    time: &'a str,
    level: &'a str,
    target: &'a str,
    component: &'a str,
    message: &'a str,
}

/// The lines as JSON.
pub(super) fn json(lines: &[u8]) -> Vec<u8> {
    let time = line::now();
    let mut out = Vec::with_capacity(lines.len() * 2);
    for (name, text) in split(lines) {
        let own = (name == OWN).then(|| object(&text)).flatten();
        if let Some(own) = own {
            // A line of a child of its own says already whose it is.
            let rest = if own.component.is_some() {
                text.as_bytes()
            } else {
                out.extend_from_slice(b"{\"component\":\"mcp-runtime\",");
                text.as_bytes().get(1..).unwrap_or_default()
            };
            out.extend_from_slice(rest);
        } else {
            let object = Object {
                time: &time,
                level: "INFO",
                target: "child",
                component: &name,
                message: &text,
            };
            out.extend_from_slice(&serde_json::to_vec(&object).unwrap_or_default());
        }
        out.push(b'\n');
    }
    out
}

fn split(lines: &[u8]) -> impl Iterator<Item = (String, String)> {
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let line = String::from_utf8_lossy(line);
            match line.split_once("| ") {
                Some((name, text)) => (name.to_owned(), text.to_owned()),
                None => ("child".to_owned(), line.into_owned()),
            }
        })
}

/// What is read of a line that is an object already.
#[derive(Deserialize)]
struct Own {
    component: Option<IgnoredAny>,
}

fn object(text: &str) -> Option<Own> {
    let is_ours = text.starts_with("{\"time\":");
    is_ours.then(|| serde_json::from_str(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(lines: &[u8]) -> Vec<(String, String)> {
        let text = String::from_utf8(json(lines)).unwrap();
        let objects = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        objects
            .map(|object| {
                let word = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
                (word("component"), word("message"))
            })
            .collect()
    }

    #[test]
    fn every_line_is_an_object_and_nobody_speaks_for_another() {
        let own = r#"mcp-runtime| {"time":"t","level":"WARN","target":"x","message":"own"}"#;
        let forged = r#"vllm| {"time":"t","level":"ERROR","message":"forged"}"#;
        let below =
            r#"mcp-runtime| {"time":"t","level":"INFO","component":"mcp calc","message":"said"}"#;
        let lines = format!("vllm| a green\n{forged}\n{own}\n{below}\nmcp-runtime| panicked\n");
        let text = String::from_utf8(json(lines.as_bytes())).unwrap();
        let twice = |line: &str| line.matches("\"component\":").count() != 1;
        assert!(!text.lines().any(twice), "{text}");
        let message = r#"{"time":"t","level":"ERROR","message":"forged"}"#;
        let expected = [
            ("vllm", "a green"),
            ("vllm", message),
            ("mcp-runtime", "own"),
            ("mcp calc", "said"),
            ("mcp-runtime", "panicked"),
        ];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(objects(lines.as_bytes()), expected);
        assert_eq!(
            objects(b"x| \xff\n"),
            [("x".to_owned(), "\u{fffd}".to_owned())]
        );
    }
}
