//! Tool lists: one entry that is broken costs that entry and no other.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Shape, text};
use crate::error::head;
use crate::json::{Kind, kind};
use crate::mcp::catalogue::{MAX_SCHEMA, MAX_TOOLS, MAX_TOTAL, RawTool};
use crate::mcp::hidden::visible;

/// Member of the first entry's schema that has the page, as text.
pub const PAGE: &str = "page";
/// Marks arguments that go into headers too (2026-07-28); the SDK has to know those schemas.
const HEADER: &str = "x-mcp-header";
/// Largest sum of such schemas.
const MAX_IN_HEADERS: usize = 128 * 1024;
/// Most words about entries that are left out.
const MAX_NOTICES: usize = 16;

/// One page of a list, as far as it can be used.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Page {
    /// The entries, within the limits of a server's whole list.
    pub tools: Vec<RawTool>,
    /// What is wrong with others: a name, when there is one, and why.
    pub bad: Vec<(String, String)>,
    /// Bytes that the server sent for it.
    pub bytes: usize,
}

/// The result that carries the page through the SDK: its first tool has the page in its schema, which
/// costs a text and not a tree; others are there for their schemas.
pub(super) fn told(tools: &RawValue, bytes: usize, shape: &Shape<'_>) -> String {
    let mut read = Read {
        page: Page {
            bytes,
            ..Page::default()
        },
        kept: 0,
        in_headers: Vec::new(),
        header_bytes: 0,
    };
    if kind(tools) == Kind::Array {
        let mut reader = serde_json::Deserializer::from_str(tools.get());
        drop((&mut reader).deserialize_seq(Entries(&mut read)));
    }
    let page = serde_json::to_string(&read.page).unwrap_or_default();
    let page = serde_json::to_string(&page).unwrap_or_default();
    let mut out = format!(r#"{{"tools":[{{"name":"page","inputSchema":{{"{PAGE}":{page}}}}}"#);
    for (name, schema) in &read.in_headers {
        let name = serde_json::to_string(name).unwrap_or_default();
        out.extend([r#",{"name":"#, &name, r#","inputSchema":"#, schema, "}"]);
    }
    out.push(']');
    let cursor = shape.next_cursor.0.filter(|raw| raw.get().len() <= 4096);
    if let Some(cursor) = cursor.filter(|raw| kind(raw) == Kind::String) {
        out.extend([r#","nextCursor":"#, cursor.get()]);
    }
    if let Some(ttl) = shape.ttl_ms.0.filter(|_| shape.ttl_ms.is(Kind::Number))
        && ttl.get().parse::<u64>().is_ok()
    {
        out.extend([r#","ttlMs":"#, ttl.get()]);
        let scope = shape.cache_scope.0.map(RawValue::get);
        if let Some(scope @ ("\"public\"" | "\"private\"")) = scope {
            out.extend([r#","cacheScope":"#, scope]);
        }
    }
    out.push('}');
    out
}

struct Read {
    page: Page,
    kept: usize,
    in_headers: Vec<(String, String)>,
    header_bytes: usize,
}

impl Read {
    fn entry(&mut self, raw: &RawValue) {
        let tool = match entry(raw) {
            Ok(tool) => tool,
            Err((name, why)) => return self.bad(&name, why),
        };
        let cost = tool.input_schema.len() + tool.description.as_ref().map_or(0, String::len);
        if tool.input_schema.len() > MAX_SCHEMA {
            return self.bad(&tool.name, "its schema is too large");
        }
        if self.page.tools.len() > MAX_TOOLS || self.kept + cost > MAX_TOTAL {
            return self.bad(&tool.name, "the server's tools are too large together");
        }
        self.kept += cost;
        if tool.in_headers {
            self.header_bytes += tool.input_schema.len();
            if self.header_bytes > MAX_IN_HEADERS {
                return self.bad(&tool.name, "its schema is too large");
            }
            let pair = (tool.name.clone(), tool.input_schema.clone());
            self.in_headers.push(pair);
        }
        self.page.tools.push(tool);
    }

    fn bad(&mut self, name: &str, why: &str) {
        if self.page.bad.len() < MAX_NOTICES {
            let name = visible(head(name, 64));
            self.page.bad.push((name, why.to_owned()));
        }
    }
}

/// A definition; any member may be missing or of any type.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    description: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "input_schema")]
    input_schema: Option<&'a RawValue>,
    #[serde(borrow, default)]
    annotations: Option<&'a RawValue>,
}

fn entry(raw: &RawValue) -> Result<RawTool, (String, &'static str)> {
    let nameless = |why| (String::new(), why);
    if kind(raw) != Kind::Object {
        return Err(nameless("it is no object"));
    }
    let definition: Definition<'_> = serde_json::from_str(raw.get())
        .map_err(|_doubled| nameless("its members are there twice"))?;
    let name = text::of(definition.name).ok_or(nameless("it has no name"))?;
    let name = name.into_owned();
    let schema = match definition.input_schema {
        None => r#"{"type":"object"}"#.to_owned(),
        Some(raw) if raw.get().len() > MAX_SCHEMA => {
            return Err((name, "its schema is too large"));
        }
        Some(raw) => match schema(raw) {
            Some(schema) => schema,
            None => return Err((name, "its schema is no object")),
        },
    };
    let annotations = definition
        .annotations
        .filter(|raw| kind(raw) == Kind::Object && raw.get().len() <= 4096);
    Ok(RawTool {
        name,
        description: text::of(definition.description).map(Cow::into_owned),
        in_headers: schema.contains(HEADER),
        input_schema: schema,
        read_only: annotations.is_some_and(hint),
        annotations: annotations.map(|raw| raw.get().to_owned()),
    })
}

fn hint(annotations: &RawValue) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Hints<'a> {
        #[serde(borrow, default)]
        read_only_hint: Option<&'a RawValue>,
    }
    let hints: Option<Hints<'_>> = serde_json::from_str(annotations.get()).ok();
    let hint = hints.and_then(|hints| hints.read_only_hint);
    hint.is_some_and(|raw| raw.get() == "true")
}

/// The schema without what people write who mean "nothing": null where an object or a list should be;
/// of several types of the whole, object.
fn schema(raw: &RawValue) -> Option<String> {
    match kind(raw) {
        Kind::Null => return Some(r#"{"type":"object"}"#.to_owned()),
        Kind::Bool if raw.get() == "true" => return Some(r#"{"type":"object"}"#.to_owned()),
        Kind::Object => {}
        Kind::Bool | Kind::Number | Kind::String | Kind::Array => return None,
    }
    let members = crate::json::read::members(raw)?;
    let odd = |(name, raw): &(Cow<'_, str>, &RawValue)| match (&**name, kind(raw)) {
        ("default" | "const", _) => false,
        ("type", Kind::Array) => true,
        (_, found) => found == Kind::Null,
    };
    if !members.iter().any(odd) {
        return Some(raw.get().to_owned());
    }
    let mut kept = String::from("{");
    for pair in &members {
        let (name, raw) = pair;
        let value = match (odd(pair), kind(raw)) {
            (true, Kind::Array) if raw.get().contains("\"object\"") => "\"object\"",
            (false, _) | (true, Kind::Array) => raw.get(),
            (true, _) => continue,
        };
        if kept.len() > 1 {
            kept.push(',');
        }
        kept.push_str(&serde_json::to_string(&**name).ok()?);
        kept.push(':');
        kept.push_str(value);
    }
    kept.push('}');
    Some(kept)
}

struct Entries<'a>(&'a mut Read);

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tools")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(raw) = list.next_element::<&'de RawValue>()? {
            self.0.entry(raw);
        }
        Ok(())
    }
}
