//! What the model is shown of the client's tools that are no functions, and under which names.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::responses::emulated::Emulated;
use crate::responses::tool::{CustomFormat, CustomTool};

/// The member of the arguments that holds the text for a custom tool.
pub(crate) const INPUT: &str = "input";

/// Longest name of a function, in characters; the limit of chat completions.
pub(crate) const MAX_NAME: usize = 64;

const INPUT_PARAMETERS: &str = r#"{"type":"object","properties":{"input":{"type":"string","description":"The whole input of the tool, as plain text."}},"required":["input"],"additionalProperties":false}"#;

const SEARCH_DESCRIPTION: &str = "Finds further tools by what they do. The tools that are found can \
    be called afterwards.";

const SEARCH_PARAMETERS: &str = r#"{"type":"object","properties":{"query":{"type":"string","description":"What the tool should do."}},"required":["query"],"additionalProperties":false}"#;

/// A description and the schema of the arguments.
pub(crate) type Written = (Box<str>, &'static str);

/// What stands for a custom tool: a function with one text. The grammar is told to the model, since
/// the model server holds it to the grammar only where the call is forced.
pub(crate) fn custom(tool: &CustomTool) -> Written {
    let mut description = String::from(tool.description.as_deref().unwrap_or_default());
    if let CustomFormat::Grammar { syntax, definition } = &tool.format {
        let kind = syntax.as_str();
        if !description.is_empty() {
            description.push_str("\n\n");
        }
        description.push_str("The input must match this ");
        description.push_str(kind);
        description.push_str(" grammar:\n");
        description.push_str(definition);
    }
    (description.into(), INPUT_PARAMETERS)
}

/// What stands for the client's search for tools, where the client does not say it itself.
pub(crate) fn search() -> Written {
    (SEARCH_DESCRIPTION.into(), SEARCH_PARAMETERS)
}

/// What stands for a shell or patch tool.
pub(crate) fn emulated(kind: Emulated) -> Written {
    let (description, parameters) = match kind {
        Emulated::LocalShell => (
            "Runs one command on the user's machine and returns its output.",
            r#"{"type":"object","properties":{"command":{"type":"array","items":{"type":"string"},"description":"The program and its arguments."},"working_directory":{"type":"string","description":"Where it runs."},"timeout_ms":{"type":"integer","description":"Most milliseconds that it may take."},"env":{"type":"object","additionalProperties":{"type":"string"},"description":"Environment variables to set."}},"required":["command"],"additionalProperties":false}"#,
        ),
        Emulated::Shell => (
            "Runs command lines in a shell on the user's machine, all at the same time, and returns \
             what each printed and how it ended.",
            r#"{"type":"object","properties":{"commands":{"type":"array","items":{"type":"string"},"description":"The command lines."},"timeout_ms":{"type":"integer","description":"Most milliseconds that they may take."},"max_output_length":{"type":"integer","description":"Most characters of output to return."}},"required":["commands"],"additionalProperties":false}"#,
        ),
        Emulated::ApplyPatch => (
            "Creates, changes or deletes one file. For create_file, `diff` is the new file with a `+` \
             before each line. For update_file, `diff` is a list of hunks: a line that starts with \
             `@@`, optionally followed by a line of the file that stands before the place, then the \
             lines of the place, each after a space if it stays, a `-` if it goes, or a `+` if it is \
             new. delete_file takes no `diff`.",
            r#"{"type":"object","properties":{"type":{"type":"string","enum":["create_file","update_file","delete_file"]},"path":{"type":"string","description":"The file, relative to the root of the workspace."},"diff":{"type":"string"}},"required":["type","path"],"additionalProperties":false}"#,
        ),
    };
    (description.into(), parameters)
}

/// A schema that is written here.
pub(crate) fn schema(text: &'static str) -> Option<Box<RawValue>> {
    // Constants that are JSON: see the test.
    RawValue::from_string(text.to_owned()).ok()
}

/// The arguments of the function that stands for a custom tool.
#[derive(Deserialize, Serialize)]
struct Input<T> {
    input: T,
}

/// The text for a custom tool; `None` when the arguments are not what the function takes.
pub(crate) fn input(arguments: &str) -> Option<String> {
    // A derived struct would also be read from an array.
    if !arguments.trim_ascii_start().starts_with('{') {
        return None;
    }
    let input: Input<String> = serde_json::from_str(arguments).ok()?;
    Some(input.input)
}

/// The arguments of the function that stands for a custom tool, as they are replayed to the model.
pub(crate) fn input_arguments(input: &str) -> String {
    // One string: nothing here can fail to be written.
    serde_json::to_string(&Input { input }).unwrap_or_default()
}

/// The name under which the model is shown a function of the client's: its own, where chat
/// completions take it. One without a name, which a model made up, has to have some.
pub(crate) fn plain(name: &str) -> Cow<'_, str> {
    if name.is_empty() {
        return Cow::Borrowed("unnamed");
    }
    let fits = name.len() <= MAX_NAME
        && name
            .chars()
            .all(|character| plain_character(character) == character);
    if fits {
        return Cow::Borrowed(name);
    }
    let plain: String = name.chars().map(plain_character).collect();
    if plain.len() <= MAX_NAME {
        return Cow::Owned(plain);
    }
    Cow::Owned(marked(&plain, "", name))
}

/// The character, or what stands for it in the name of a function.
fn plain_character(character: char) -> char {
    match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => character,
        _ => '_',
    }
}

/// The one name under which the model is shown a tool of a namespace. It depends on the two names
/// alone, so that a conversation's prompt stays the same whatever else is offered.
pub(crate) fn flat(namespace: &str, name: &str) -> String {
    let joined = format!("{namespace}__{name}");
    let plain: String = joined.chars().map(plain_character).collect();
    // Of all pairs that are written alike, one keeps that name: the same one in whatever order.
    let is_first = joined.rsplit_once("__") == Some((namespace, name));
    if plain.len() <= MAX_NAME && plain == joined && is_first {
        return plain;
    }
    marked(&plain, namespace, name)
}

/// The description of the first tool of a namespace: its own, and what the namespace is for.
pub(crate) fn introduced(namespace: &str, about: &str, own: Option<&str>) -> String {
    let own = own.filter(|own| !own.is_empty());
    let own = own.map_or_else(String::new, |own| format!("{own}\n\n"));
    let stem: String = format!("{namespace}__")
        .chars()
        .map(plain_character)
        .collect();
    let stem = crate::error::head(&stem, MAX_NAME - 9);
    format!("{own}About all functions whose names begin with `{stem}`: {about}")
}

/// A name that is different for every pair: the flat one's beginning and a hash of both.
pub(crate) fn marked(flat: &str, namespace: &str, name: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in namespace.bytes().chain([0]).chain(name.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let head = crate::error::head(flat, MAX_NAME - 9);
    format!("{head}_{:08x}", hash >> 32)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_schemas_are_json() {
        for text in [INPUT_PARAMETERS, SEARCH_PARAMETERS] {
            assert!(schema(text).is_some());
        }
        for kind in [Emulated::LocalShell, Emulated::Shell, Emulated::ApplyPatch] {
            assert!(schema(emulated(kind).1).is_some(), "{kind:?}");
        }
    }

    #[test]
    fn flat_names_fit_and_differ() {
        assert_eq!(flat("mcp__files", "read_one"), "mcp__files__read_one");
        // All that would be written alike: one is, whatever else there is.
        let alike = [
            ("mcp__files", "read_one"),
            ("mcp__files", "read.one"),
            ("mcp.files", "read_one"),
            ("mcp", "files__read_one"),
        ];
        let names: HashSet<String> = alike
            .iter()
            .map(|(space, name)| flat(space, name))
            .collect();
        assert_eq!(names.len(), alike.len());
        assert_ne!(flat("a", "_b"), flat("a_", "b"));
        assert!(introduced("mcp.files", "x", None).contains("`mcp_files__`"));
        let long = "n".repeat(80);
        let (one, two) = (flat(&long, "a"), flat(&long, "b"));
        assert_eq!(one.len(), MAX_NAME);
        assert_ne!(one, two);
        assert_eq!(one, flat(&long, "a"));
    }

    #[test]
    fn input_goes_both_ways() {
        let text = "a \"b\"\n\\ é";
        assert_eq!(input(&input_arguments(text)).as_deref(), Some(text));
        for bad in [
            "",
            "x",
            "{}",
            r#"["a"]"#,
            r#"{"input":1}"#,
            r#"{"input":"a"#,
        ] {
            assert_eq!(input(bad), None, "{bad}");
        }
    }
}
