//! Before the model is called: the tools of MCP servers, and calls that the client has approved.
//!
//! ```text
//! Fresh ──History──▶ Listing ──last list──▶ Calling
//!                       │  └──approved calls──▶ Running ──▶ Calling
//!                       └──the request cannot be served──▶ Over
//! ```
//!
//! 1. A list is told to the client once per label and chain, unless the tools have changed.
//! 2. A server of the client's that cannot be used refuses the request, before the first byte; one of
//!    the operator's becomes a failed item, and the response goes on (decision 26).
//! 3. An approval runs the call exactly as it was asked for, once per chain: the request for it and
//!    the chain it stands in belong to one owner.

use std::sync::Arc;

use super::effect::{Action, Effects, Refusal};
use super::{Phase, Purpose, Turn};
use crate::error::{ApiError, ApiErrorCode};
use crate::ids::{self, Prefix};
use crate::responses::item::Item;
use crate::responses::mcp::{McpApprovalRequest, McpApprovalResponse, McpListTools};
use crate::responses::tool::{McpServer, Tool};
use crate::tools::Catalogue;
use crate::tools::catalogue::Lists;
use crate::tools::mcp::{self, ListError, Listed};

/// What is known of MCP in one response.
#[derive(Debug, Default)]
pub(super) struct Mcp {
    /// What the servers answered.
    pub(super) lists: Lists,
    /// Lists that the client is told of as soon as it has been answered.
    tell: Vec<McpListTools>,
    /// Calls that the client has approved.
    approved: Vec<McpApprovalRequest>,
}

impl Turn {
    /// Asks the MCP servers of the request for their tools; without any, the model is called.
    pub(super) fn list_tools(&mut self, history: Vec<Item>, effects: &mut Effects) {
        let servers: Vec<(usize, Arc<McpServer>)> = mcp_servers(&self.request.settings.tools);
        self.history = history;
        // A summary is made without tools.
        if servers.is_empty() || self.compacts() {
            return self.after_lists(effects);
        }
        self.phase = Phase::Listing {
            waiting: servers.len(),
        };
        for (tool_index, server) in servers {
            effects
                .actions
                .push(Action::ListTools { tool_index, server });
        }
    }

    /// A server has answered.
    pub(super) fn listed(
        &mut self,
        tool_index: usize,
        answer: Result<Listed, ListError>,
        effects: &mut Effects,
    ) {
        self.mcp.lists.insert(tool_index, answer);
        let Phase::Listing { waiting } = &mut self.phase else {
            return;
        };
        *waiting = waiting.saturating_sub(1);
        if *waiting == 0 {
            self.after_lists(effects);
        }
    }

    fn after_lists(&mut self, effects: &mut Effects) {
        let prepared = self.prepare();
        if let Err(error) = prepared {
            let refusal = Refusal {
                error,
                retry_after: None,
            };
            return self.refuse(refusal, effects);
        }
        if self.mcp.approved.is_empty() || self.purpose == Purpose::Count {
            self.call_model(effects);
        } else {
            self.run_approved(effects);
        }
    }

    fn prepare(&mut self) -> Result<(), ApiError> {
        for (tool_index, answer) in &self.mcp.lists {
            if let Err(error) = answer
                && let Some(refusal) = error.refusal(*tool_index)
            {
                return Err(refusal);
            }
        }
        let items = self.history.iter().chain(&self.request.input);
        let loaded = items.flat_map(Item::loaded_tools);
        let (settings, lists) = (&self.request.settings, &self.mcp.lists);
        self.catalogue = Catalogue::of(settings, &self.offers, lists, loaded)?;
        self.choose_container();
        if !self.compacts() {
            self.mcp.tell = self.lists_to_tell();
            self.mcp.approved = self.approved()?;
        }
        Ok(())
    }

    fn lists_to_tell(&mut self) -> Vec<McpListTools> {
        let mut tell = Vec::new();
        for (tool_index, server) in mcp_servers(&self.request.settings.tools) {
            let error = match self.mcp.lists.get(&tool_index) {
                Some(Err(ListError::Unavailable(why))) => Some(why.clone()),
                Some(Ok(_) | Err(_)) | None => None,
            };
            let functions = self.catalogue.mcp_tools(&server.label);
            let id = ids::fresh(Prefix::McpListTools, &mut *self.ids);
            let list = mcp::list_item(id, &server.label, &functions, error);
            let known = self.history.iter().chain(&self.request.input).rev();
            let told = known
                .filter_map(as_list)
                .find(|item| item.server_label == server.label);
            if !told.is_some_and(|item| mcp::same_list(item, &list)) {
                tell.push(list);
            }
        }
        tell
    }

    /// The calls that this request approves, each exactly as it was asked for.
    fn approved(&self) -> Result<Vec<McpApprovalRequest>, ApiError> {
        let mut approved = Vec::new();
        for (index, item) in self.request.input.iter().enumerate() {
            let Item::McpApprovalResponse(response) = item else {
                continue;
            };
            let refuse = |message: &str| {
                let error = ApiError::new(ApiErrorCode::InvalidValue, message);
                error.with_param(format!("input[{index}].approval_request_id"))
            };
            let asked = &*response.approval_request_id;
            let request = self.approval_request(asked);
            let request = request.ok_or_else(|| {
                refuse("no approval request with this id is in the conversation: continue the response that made it, or send the request with it")
            })?;
            // A conversation that is sent whole has the answers of earlier turns in it too.
            let ran = self.request.input.iter().any(|item| has_run(item, asked));
            if ran {
                continue;
            }
            let before = self.request.input.iter().take(index);
            let mut answered = self.history.iter().chain(before);
            if answered.any(|item| answers(item, asked)) {
                return Err(refuse("this approval request has been answered before"));
            }
            if !response.approve {
                continue;
            }
            let tool = self
                .catalogue
                .mcp_tool(&request.server_label, &request.name);
            if tool.is_none() {
                return Err(refuse(
                    "the approved call's MCP server is not in `tools`, or has no such tool that is allowed",
                ));
            }
            approved.push(request.clone());
        }
        Ok(approved)
    }

    fn approval_request(&self, id: &str) -> Option<&McpApprovalRequest> {
        let mut items = self.history.iter().chain(&self.request.input);
        items.find_map(|item| {
            let Item::McpApprovalRequest(request) = item else {
                return None;
            };
            (*request.id == *id).then_some(request)
        })
    }

    /// Tells the client of lists, once it has been answered.
    pub(super) fn tell_lists(&mut self, effects: &mut Effects) {
        for list in std::mem::take(&mut self.mcp.tell) {
            let (composer, mut out) = self.composing(effects);
            composer.tell_list(list, &mut out);
        }
    }

    /// Runs what the client has approved, before the model has the word.
    fn run_approved(&mut self, effects: &mut Effects) {
        self.begin(effects);
        self.tell_lists(effects);
        let mut waiting = 0;
        for request in std::mem::take(&mut self.mcp.approved) {
            let id = ids::fresh(Prefix::McpCall, &mut *self.ids);
            let (composer, mut out) = self.composing(effects);
            let output_index = composer.open_approved(&request, id, &mut out);
            waiting += usize::from(self.start_call(output_index, effects));
        }
        self.phase = Phase::Running { waiting };
        if waiting == 0 {
            self.call_model(effects);
        }
    }
}

fn mcp_servers(tools: &[Tool]) -> Vec<(usize, Arc<McpServer>)> {
    let tools = tools.iter().enumerate();
    let servers = tools.filter_map(|(index, tool)| match tool {
        Tool::Mcp(tool) => Some((index, Arc::clone(&tool.server))),
        Tool::Function(_)
        | Tool::Custom(_)
        | Tool::Namespace(_)
        | Tool::ToolSearch(_)
        | Tool::Emulated(_)
        | Tool::CodeInterpreter(_)
        | Tool::Unserved(_) => None,
    });
    servers.collect()
}

fn as_list(item: &Item) -> Option<&McpListTools> {
    if let Item::McpListTools(list) = item {
        Some(list)
    } else {
        None
    }
}

/// Whether the approved call has been made.
fn has_run(item: &Item, asked: &str) -> bool {
    matches!(item, Item::McpCall(call) if call.approval_request_id.as_deref() == Some(asked))
}

/// Whether this is a word about the request, or what came of it.
fn answers(item: &Item, asked: &str) -> bool {
    let said = |response: &McpApprovalResponse| *response.approval_request_id == *asked;
    has_run(item, asked) || matches!(item, Item::McpApprovalResponse(response) if said(response))
}
