//! Tool definitions as servers give them, cut down to what may reach the model.
//!
//! A server's words are data: names, descriptions and schemas are bounded, invisible characters are
//! taken out, and nothing a definition refers to is fetched.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::hidden::{visible, visible_json};
use crate::error::head;
use crate::json::scan;

/// Most tools of one server.
pub const MAX_TOOLS: usize = 1024;
/// Largest schema of a tool, in bytes.
pub const MAX_SCHEMA: usize = 64 * 1024;
/// Largest sum of all schemas and descriptions of a server, in bytes.
pub const MAX_TOTAL: usize = 1024 * 1024;
/// Deepest nesting of a schema.
pub const MAX_DEPTH: usize = 32;
/// Longest tool name, in bytes.
const MAX_NAME: usize = 256;
/// Longest description, in bytes.
const MAX_DESCRIPTION: usize = 16 * 1024;

/// A tool of a server.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ToolEntry {
    /// Its name, as the server knows it.
    pub name: Box<str>,
    /// What it does, visible characters only; empty when the server says nothing.
    pub description: Box<str>,
    /// JSON schema of its arguments, of type object.
    pub input_schema: Box<RawValue>,
    /// The server's own hints about it, for the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Box<RawValue>>,
    /// Whether the server says that it changes nothing. A hint.
    #[serde(default)]
    pub read_only: bool,
}

/// The tools of one server, by name.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Sorted by name, each name once.
    pub tools: Vec<Arc<ToolEntry>>,
    /// What was left out and why, for the log.
    pub notices: Vec<String>,
}

impl Catalogue {
    /// About how many bytes it has.
    pub fn size(&self) -> usize {
        let size = |tool: &Arc<ToolEntry>| {
            let hints = tool
                .annotations
                .as_ref()
                .map_or(0, |hints| hints.get().len());
            tool.name.len() + tool.description.len() + tool.input_schema.get().len() + hints + 128
        };
        self.tools.iter().map(size).sum()
    }

    /// The tool with this name.
    pub fn find(&self, name: &str) -> Option<&Arc<ToolEntry>> {
        let at = self
            .tools
            .binary_search_by(|tool| (*tool.name).cmp(name))
            .ok()?;
        self.tools.get(at)
    }
}

/// A definition as it came.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RawTool {
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// Its schema, a JSON object.
    pub input_schema: String,
    /// Its annotations, JSON.
    pub annotations: Option<String>,
    /// `readOnlyHint`.
    pub read_only: bool,
    /// Whether its schema asks for arguments in headers.
    #[serde(default)]
    pub in_headers: bool,
}

/// Keeps what is within the limits, in the order of names; says what was left out.
pub fn catalogue(server: &str, raw: Vec<RawTool>) -> Catalogue {
    let mut catalogue = Catalogue::default();
    let mut total = 0;
    for tool in raw {
        let shown = visible(head(&tool.name, 64));
        let judged = if catalogue.tools.len() == MAX_TOOLS {
            Err("the server has too many tools")
        } else {
            entry(tool)
        };
        let cost = |entry: &ToolEntry| entry.input_schema.get().len() + entry.description.len();
        match judged {
            Ok(entry) if total + cost(&entry) <= MAX_TOTAL => {
                total += cost(&entry);
                catalogue.tools.push(Arc::new(entry));
            }
            Ok(_) => catalogue.notices.push(left_out(
                server,
                &shown,
                "the server's tools are too large together",
            )),
            Err(why) => catalogue.notices.push(left_out(server, &shown, why)),
        }
        // Ten thousand bad tools are one story.
        catalogue.notices.truncate(16);
    }
    catalogue.tools.sort_by(|a, b| a.name.cmp(&b.name));
    let before = catalogue.tools.len();
    catalogue.tools.dedup_by(|a, b| a.name == b.name);
    if catalogue.tools.len() < before {
        catalogue.notices.push(format!(
            "MCP server `{server}` gives a tool name more than once; one of each is used"
        ));
    }
    catalogue
}

/// The sentence about a tool that cannot be used.
pub fn left_out(server: &str, tool: &str, why: &str) -> String {
    format!("tool `{tool}` of MCP server `{server}` is left out: {why}")
}

fn entry(tool: RawTool) -> Result<ToolEntry, &'static str> {
    if tool.name.is_empty() || tool.name.len() > MAX_NAME {
        return Err("its name is empty or too long");
    }
    if visible(&tool.name) != tool.name {
        return Err("its name has invisible characters");
    }
    if tool.input_schema.len() > MAX_SCHEMA {
        return Err("its schema is too large");
    }
    scan::scan(&tool.input_schema, MAX_DEPTH)
        .map_err(|_deep| "its schema is nested too deep or has text that no schema has")?;
    let schema = RawValue::from_string(strip_schema(&tool.input_schema)?)
        .map_err(|_malformed| "its schema is not JSON")?;
    let annotations = tool
        .annotations
        .filter(|text| text.len() <= 4096)
        .and_then(|text| RawValue::from_string(visible_json(&text)).ok());
    let description = visible(tool.description.as_deref().unwrap_or_default().trim());
    Ok(ToolEntry {
        name: tool.name.into(),
        description: head(&description, MAX_DESCRIPTION).into(),
        input_schema: schema,
        annotations,
        read_only: tool.read_only,
    })
}

/// A root's `type` defaults to object and must be that. Strings in the schema lose what is invisible.
fn strip_schema(text: &str) -> Result<String, &'static str> {
    #[derive(Deserialize)]
    struct Root<'a> {
        #[serde(borrow, default)]
        r#type: Option<&'a RawValue>,
    }
    let root: Root<'_> = serde_json::from_str(text).map_err(|_bad| "its schema is no object")?;
    match root.r#type.map(RawValue::get) {
        Some(r#""object""#) => Ok(visible_json(text)),
        Some(_) => Err("its schema is not one of an object"),
        None => {
            let rest = text.trim_start().strip_prefix('{').unwrap_or_default();
            let comma = if rest.trim_start().starts_with('}') {
                ""
            } else {
                ","
            };
            Ok(visible_json(&format!(r#"{{"type":"object"{comma}{rest}"#)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, schema: &str) -> RawTool {
        RawTool {
            name: name.to_owned(),
            description: None,
            input_schema: schema.to_owned(),
            annotations: None,
            read_only: false,
            in_headers: false,
        }
    }

    #[test]
    fn m4_bombs_are_left_out_and_the_rest_stays() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(1000), "1") + &"}".repeat(1000);
        let wide = format!(r#"{{"description":"{}"}}"#, "x".repeat(MAX_SCHEMA));
        let kept = catalogue(
            "s",
            vec![
                tool("z", r#"{"type":"object"}"#),
                tool("deep", &deep),
                tool("wide", &wide),
                tool("array", r#"{"type":"array"}"#),
                tool("none", "5"),
                tool("", "{}"),
                tool("hid\u{200b}den", "{}"),
                tool(
                    "a",
                    r#" { "properties": {"$ref": {"$ref": "https://evil.example/x"}} }"#,
                ),
                tool("b", "{}"),
                tool("a", "{}"),
            ],
        );
        let names: Vec<_> = kept.tools.iter().map(|tool| &*tool.name).collect();
        assert_eq!(names, ["a", "b", "z"]);
        assert_eq!(kept.notices.len(), 7, "{:?}", kept.notices);
        assert_eq!(
            kept.find("b").unwrap().input_schema.get(),
            r#"{"type":"object"}"#
        );
        let many = (0..10_000)
            .map(|at| tool(&format!("t{at}"), "{}"))
            .collect();
        assert_eq!(catalogue("s", many).tools.len(), MAX_TOOLS);
        let fat = format!(r#"{{"description":"{}"}}"#, "x".repeat(MAX_SCHEMA - 100));
        let many = (0..100).map(|at| tool(&format!("t{at}"), &fat)).collect();
        assert!(catalogue("s", many).tools.len() <= MAX_TOTAL / (MAX_SCHEMA - 100));
    }

    #[test]
    fn m6_invisible_instructions_are_taken_out() {
        let escaped = r#"{"title":"a\u200db\u001b\udb40\udc41\"\\u200b","\u2063k":1}"#;
        let kept = catalogue("s", vec![tool("add", escaped)]);
        assert_eq!(
            kept.tools[0].input_schema.get(),
            r#"{"type":"object","title":"ab\"\\u200b","k":1}"#
        );
        let hidden = "add\u{200b} two\u{202e} numbers\u{e0049}\u{e0067}\u{fe0f}.\n\u{1b}[8m";
        let mut raw = tool("add", "{\"title\":\"a\u{200d}b\"}");
        raw.description = Some(hidden.to_owned());
        let kept = catalogue("s", vec![raw]);
        assert_eq!(&*kept.tools[0].description, "add two numbers.\n[8m");
        assert_eq!(
            kept.tools[0].input_schema.get(),
            r#"{"type":"object","title":"ab"}"#
        );
    }
}
