//! A tool list, page by page.

use std::time::Duration;

use rmcp::model::ListToolsResult;
use vllm_responses_protocol::mcp::catalogue::{
    Catalogue, MAX_TOOLS, MAX_TOTAL, RawTool, catalogue, left_out,
};
use vllm_responses_protocol::mcp::inbound::{PAGE, Page};

use super::redact::Redactor;

/// Bytes of all pages that are read: what is kept is a part of it.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A list and how long the server says that it holds.
#[derive(Debug)]
pub struct FreshList {
    /// The tools, within the limits.
    pub tools: Catalogue,
    /// `None` when the server does not say.
    pub holds: Option<Duration>,
}

/// What was read of a list so far.
#[derive(Debug, Default)]
pub(super) struct Pages {
    tools: Vec<RawTool>,
    bad: Vec<(String, String)>,
    bytes: usize,
    kept: usize,
    ttl_ms: Option<u64>,
}

impl Pages {
    /// Takes a page; whether there is room for another. `None` when it is no page of ours.
    pub(super) fn take(&mut self, result: ListToolsResult) -> Option<bool> {
        let mut entries = result.tools.into_iter();
        let first = entries.next()?;
        let page = first.input_schema.get(PAGE)?.as_str()?;
        let page: Page = serde_json::from_str(page).ok()?;
        // The SDK has taken out those whose headers are not as the protocol wants them.
        let usable: Vec<_> = entries.map(|tool| tool.name).collect();
        for tool in page.tools {
            if tool.in_headers && !usable.iter().any(|name| *name == tool.name) {
                let why = "its arguments in headers are not as the protocol wants them";
                self.bad.push((tool.name, why.to_owned()));
                continue;
            }
            self.kept += tool.input_schema.len() + tool.description.as_ref().map_or(0, String::len);
            self.tools.push(tool);
        }
        self.bad.extend(page.bad);
        self.bytes += page.bytes;
        self.ttl_ms = match (self.ttl_ms, result.ttl_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (known, None) | (None, known) => known,
        };
        Some(self.bytes < MAX_BYTES && self.kept <= MAX_TOTAL && self.tools.len() <= MAX_TOOLS)
    }

    /// The list, without what the server repeats of its secrets.
    pub(super) fn finish(self, label: &str, redactor: &Redactor) -> FreshList {
        let tools = self.tools.into_iter().map(|tool| redactor.tool(tool));
        let mut tools = catalogue(label, tools.collect());
        for (name, why) in self.bad.into_iter().take(16) {
            let notice = left_out(label, &redactor.word(name), &redactor.word(why));
            tools.notices.push(notice);
        }
        FreshList {
            tools,
            holds: self.ttl_ms.map(Duration::from_millis),
        }
    }
}
