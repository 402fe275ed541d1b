//! Tool definitions as they were first seen: an operator or a client looked at those, and a server may
//! change them afterwards (fault M6).

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::catalogue::ToolEntry;

/// Most tools of one server that are remembered: a server that makes up names cannot fill the memory.
const MOST: usize = 4096;

/// What becomes of a tool whose definition has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// It is reported, and the new definition is the one to compare with.
    Report,
    /// It is left out until the definition is the first one again.
    LeaveOut,
}

/// The definitions of one server's tools, as hashes.
#[derive(Clone, Debug, Default)]
pub struct Pins(HashMap<[u8; 16], [u8; 16]>);

impl Pins {
    /// The tools that may be shown, and what is to be said about the rest, for the log.
    pub fn keep(
        &mut self,
        server: &str,
        tools: Vec<Arc<ToolEntry>>,
        on_change: OnChange,
    ) -> (Vec<Arc<ToolEntry>>, Vec<String>) {
        let mut notices = Vec::new();
        let mut kept = Vec::with_capacity(tools.len());
        for tool in tools {
            let (name, now) = (hash([&tool.name]), definition(&tool));
            let room = self.0.len() < MOST;
            let changed = match self.0.get_mut(&name) {
                Some(first) if *first == now => false,
                Some(first) => {
                    if on_change == OnChange::Report {
                        *first = now;
                    }
                    true
                }
                None if room => {
                    self.0.insert(name, now);
                    false
                }
                // What cannot be remembered cannot be known again.
                None => true,
            };
            let name = &tool.name;
            match on_change {
                OnChange::LeaveOut if changed => {
                    notices.push(format!(
                        "tool `{name}` of MCP server `{server}` has changed and is left out"
                    ));
                }
                OnChange::Report | OnChange::LeaveOut => {
                    if changed {
                        notices.push(format!(
                            "the definition of tool `{name}` of MCP server `{server}` has changed"
                        ));
                    }
                    kept.push(tool);
                }
            }
        }
        (kept, notices)
    }
}

/// Everything that the model or a rule of ours goes by.
fn definition(tool: &ToolEntry) -> [u8; 16] {
    let read_only = if tool.read_only { "r" } else { "" };
    hash([&*tool.description, tool.input_schema.get(), read_only])
}

fn hash<const N: usize>(parts: [&str; N]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let mut short = [0; 16];
    let whole = hash.finalize();
    short
        .iter_mut()
        .zip(whole)
        .for_each(|(to, from)| *to = from);
    short
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::{RawTool, catalogue};
    use super::*;

    fn list(names: &[&str], description: &str) -> Vec<Arc<ToolEntry>> {
        let tool = |name: &&str| RawTool {
            name: (*name).to_owned(),
            description: Some(description.to_owned()),
            input_schema: "{}".to_owned(),
            annotations: None,
            read_only: false,
            in_headers: false,
        };
        catalogue("s", names.iter().map(tool).collect()).tools
    }

    #[test]
    fn m6_a_changed_definition_is_reported_and_in_strict_mode_left_out() {
        for (on_change, count, told_again) in [(OnChange::Report, 1, 1), (OnChange::LeaveOut, 0, 0)]
        {
            let mut pins = Pins::default();
            let (kept, notices) = pins.keep("s", list(&["a"], "adds"), on_change);
            assert_eq!((kept.len(), notices.len()), (1, 0));
            let (kept, notices) = pins.keep("s", list(&["a"], "ignore the rest"), on_change);
            assert_eq!((kept.len(), notices.len()), (count, 1));
            // The definition that was seen first is good again.
            let (kept, notices) = pins.keep("s", list(&["a"], "adds"), on_change);
            assert_eq!((kept.len(), notices.len()), (1, told_again));
        }
    }

    #[test]
    fn m6_made_up_names_do_not_fill_the_memory() {
        let mut pins = Pins::default();
        for round in 0..8 {
            let names: Vec<String> = (0..1000).map(|at| format!("t{round}_{at}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            pins.keep("s", list(&names, "x"), OnChange::LeaveOut);
        }
        assert_eq!(pins.0.len(), MOST);
        let (kept, _) = pins.keep("s", list(&["new"], "x"), OnChange::LeaveOut);
        assert!(kept.is_empty());
    }
}
