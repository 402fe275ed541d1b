//! Lines of child processes on their way to stderr, in the shape of the log. Pure.
//!
//! They come as `NAME| LINE`. As text they stay so, without control characters that could move a
//! terminal's cursor (colours pass). In a log of JSON each becomes an object that says whose it is, so
//! that a child cannot write a line in the gateway's name.

use std::fmt::Write as _;

use serde::Serialize;
use serde::de::IgnoredAny;
use vllm_responses_actors::process::deceives;

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
        if name == OWN && is_object(&text) {
            out.extend_from_slice(b"{\"component\":\"mcp-runtime\",");
            out.extend_from_slice(text.as_bytes().get(1..).unwrap_or_default());
        } else {
            let object = Object {
                time: &time,
                level: "INFO",
                target: "child",
                component: &name,
                message: &plain(&text, Colours::Go),
            };
            out.extend_from_slice(&serde_json::to_vec(&object).unwrap_or_default());
        }
        out.push(b'\n');
    }
    out
}

/// The lines as text.
pub(super) fn text(lines: &[u8]) -> Vec<u8> {
    let suspicious = |byte: &u8| (*byte < b' ' && !matches!(byte, b'\n' | b'\t')) || *byte >= 0x7f;
    if !lines.iter().any(suspicious) {
        return lines.to_vec();
    }
    let mut out = String::with_capacity(lines.len());
    for (name, text) in split(lines) {
        // Writing to a string does not fail.
        writeln!(out, "{name}| {}", plain(&text, Colours::Stay)).unwrap_or_default();
    }
    out.into_bytes()
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

fn is_object(text: &str) -> bool {
    text.starts_with("{\"time\":") && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// What becomes of `ESC [ ... m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colours {
    Stay,
    Go,
}

/// Without control characters.
fn plain(text: &str, colours: Colours) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if letter == '\u{1b}'
            && let Some(length) = colour(rest)
        {
            let (sequence, behind) = rest.split_at(length);
            if colours == Colours::Stay {
                out.push_str(sequence);
            }
            rest = behind;
            continue;
        }
        if letter != '\t' && deceives(letter) {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
        rest = rest.get(letter.len_utf8()..).unwrap_or_default();
    }
    out
}

/// Length of the colour sequence at the front.
fn colour(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\u{1b}[")?;
    let digits = body
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':'))
        .count();
    (body.as_bytes().get(digits) == Some(&b'm')).then_some(digits + 3)
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
        let lines =
            format!("vllm| a \u{1b}[32mgreen\u{1b}[0m\n{forged}\n{own}\nmcp-runtime| panicked\n");
        let message = r#"{"time":"t","level":"ERROR","message":"forged"}"#;
        let expected = [
            ("vllm", "a green"),
            ("vllm", message),
            ("mcp-runtime", "own"),
            ("mcp-runtime", "panicked"),
        ];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(objects(lines.as_bytes()), expected);
        assert_eq!(
            objects(b"x| \xff\n"),
            [("x".to_owned(), "\u{fffd}".to_owned())]
        );
    }

    #[test]
    fn text_keeps_colours_and_moves_no_cursor() {
        let plain = b"vllm| one\nvllm| two\tthree\n";
        assert_eq!(text(plain), plain);
        let lines = "v| \u{1b}[31;1mred\u{1b}[0m \u{1b}[2J\u{1b}]0;title\u{7} \u{202e}x\n";
        let expected = "v| \u{1b}[31;1mred\u{1b}[0m \\u{1b}[2J\\u{1b}]0;title\\u{7} \\u{202e}x\n";
        assert_eq!(String::from_utf8(text(lines.as_bytes())).unwrap(), expected);
    }
}
