//! What the model calls MCP tools. Pure.
//!
//! A name depends on label and tool alone, never on other tools or the order in which servers came
//! up, so that prompts keep their prefix cache. It is `mcp__LABEL__TOOL` where that is short, plain
//! and unambiguous; otherwise the readable part is shortened and ten hex digits of a hash of both are
//! put behind it. Readable names that look like hashed ones are hashed too, so that the two kinds
//! never meet.

use sha2::{Digest, Sha256};

/// Longest name that model servers take everywhere.
pub const MAX_NAME: usize = 64;
/// What all names begin with.
pub const PREFIX: &str = "mcp__";
const HASH: usize = 10;

/// The model's name of a tool.
pub fn model_name(label: &str, tool: &str) -> String {
    let readable = format!("{PREFIX}{}__{}", plain(label), plain(tool));
    let exact = readable.len() <= MAX_NAME
        && is_unambiguous(label)
        && is_unambiguous(tool)
        && !looks_hashed(&readable);
    if exact {
        return readable;
    }
    hashed_name(label, tool)
}

/// Label and tool of a name that nobody offers, as far as they can be read from it. Items must have a
/// label.
pub fn parts(name: &str) -> (&str, &str) {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    match rest.split_once("__") {
        Some((label, tool)) if !label.is_empty() => (label, tool),
        Some(_) | None => ("unknown", rest),
    }
}

/// The hashed form, also for a tool whose readable name is that of a client's function.
pub fn hashed_name(label: &str, tool: &str) -> String {
    let readable = format!("{PREFIX}{}__{}", plain(label), plain(tool));
    let mut hash = Sha256::new();
    hash.update(label);
    hash.update([0]);
    hash.update(tool);
    let digits = hash
        .finalize()
        .iter()
        .take(HASH / 2)
        .fold(0_u64, |digits, byte| digits << 8 | u64::from(*byte));
    let kept: String = readable.chars().take(MAX_NAME - HASH - 2).collect();
    format!("{kept}__{digits:010x}")
}

/// Only what model servers take in a name. All of it is ASCII, so bytes are characters.
fn plain(text: &str) -> String {
    let keep =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    text.chars()
        .map(|character| if keep(character) { character } else { '_' })
        .collect()
}

/// Whether the readable form says exactly this text: nothing was replaced, and nothing in it could
/// be the separator or be glued to one.
fn is_unambiguous(text: &str) -> bool {
    !text.is_empty()
        && plain(text) == text
        && !text.contains("__")
        && !text.starts_with('_')
        && !text.ends_with('_')
}

fn looks_hashed(name: &str) -> bool {
    name.rsplit_once("__").is_some_and(|(_, tail)| {
        tail.len() == HASH
            && tail
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_are_readable() {
        assert_eq!(
            model_name("github", "create-issue"),
            "mcp__github__create-issue"
        );
        assert_eq!(model_name("a", "b_c"), "mcp__a__b_c");
    }

    #[test]
    fn m5_everything_else_is_hashed() {
        for (label, tool) in [
            ("a", "x.y"),
            ("a", ""),
            ("a", "b__c"),
            ("a_", "b"),
            ("a", "_b"),
            ("a", "mcp__a__b"),
            ("a", "t\u{f6}ol"),
            ("a", &*"x".repeat(60)),
            ("a", "0123456789"),
            ("a__b", "c"),
        ] {
            let name = model_name(label, tool);
            assert!(looks_hashed(&name), "{name}");
            assert!(name.len() <= MAX_NAME && plain(&name) == name, "{name}");
        }
        let same_prefix = "x".repeat(64);
        let a = model_name("a", &format!("{same_prefix}1"));
        assert_ne!(a, model_name("a", &format!("{same_prefix}2")));
        assert_eq!(model_name("a", "b/c"), "mcp__a__b_c__bd4f6d7ab6");
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab_]{0,4}",
            "[ab_.]{1,3}",
            "[a-f0-9]{10}",
            "x{50,70}",
            "a__[a-f0-9]{10}"
        ]
    }

    proptest! {
        #[test]
        fn m5_no_two_tools_share_a_name(
            tools in prop::collection::vec((piece(), piece()), 2..60)
        ) {
            let mut seen: HashMap<String, (String, String)> = HashMap::new();
            for (label, tool) in tools {
                let name = model_name(&label, &tool);
                prop_assert!(name.len() <= MAX_NAME);
                let pair = (label, tool);
                let before = seen.insert(name, pair.clone());
                prop_assert!(before.is_none_or(|before| before == pair));
            }
        }
    }
}
