//! Before the model is called: the tools of MCP servers, and calls that the client has approved.
//!
//! ```text
//! Fresh ──History──▶ Listing ──last list──▶ Calling
//!                       │  └──approved calls──▶ Claiming ──they are ours──▶ Running ──▶ Calling
//!                       └──the request cannot be served──▶ Over
//! ```
//!
//! 1. A list is told to the client once per label and chain, unless the tools have changed.
//! 2. A server of the client's that cannot be used refuses the request, before the first byte; one of
//!    the operator's becomes a failed item, and the response goes on (decision 26).
//! 3. An approval runs the call exactly as it was asked for. The request for it and the conversation it
//!    stands in belong to one owner.
//! 4. A call is made once, in however many continuations and on however many gateways it is approved:
//!    the store gives each approval request to one response, before its call is made. A response that
//!    dies between the two has spent it. Declining claims nothing, since nothing runs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::effect::{Action, Claimed, Effects, Refusal};
use super::{Phase, Purpose, Turn};
use crate::error::{ApiError, ApiErrorCode};
use crate::ids::{self, Prefix};
use crate::mcp::mentions::{self, Mention};
use crate::responses::item::Item;
use crate::responses::mcp::{McpApprovalRequest, McpListTools};
use crate::responses::tool::{McpServer, Tool};
use crate::tools::Catalogue;
use crate::tools::catalogue::Lists;
use crate::tools::mcp::{self, ListError, Listed};

/// Said to the second answer.
const ANSWERED: &str = "this approval request has been answered before: its call is made once, \
     whatever became of it; ask the model again instead";

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
        let mentions = self.suspects();
        if !mentions.is_empty() {
            effects.actions.push(Action::Suspect(mentions));
        }
        if self.mcp.approved.is_empty() || self.purpose == Purpose::Count {
            self.call_model(effects);
        } else {
            let requests = self.mcp.approved.iter().map(|request| request.id.clone());
            effects
                .actions
                .push(Action::ClaimApprovals(requests.collect()));
            self.phase = Phase::Claiming;
        }
    }

    /// It is known whether the approved calls are this response's to make.
    pub(super) fn claimed(&mut self, claimed: Claimed, effects: &mut Effects) {
        let error = match claimed {
            Claimed::Yes => return self.run_approved(effects),
            Claimed::No => ApiError::new(ApiErrorCode::InvalidValue, ANSWERED),
            Claimed::Unknown => ApiError::new(
                ApiErrorCode::ServerIsOverloaded,
                "the response store is unavailable, so the approved call is not made; try again",
            ),
        };
        let refusal = Refusal {
            error: error.with_param("input"),
            retry_after: None,
        };
        self.refuse(refusal, effects);
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
        let mut items = self.history.iter().chain(&self.request.input);
        if items.any(is_of_mcp) {
            self.catalogue.note_mcp();
        }
        self.choose_container();
        if !self.compacts() {
            self.mcp.tell = self.lists_to_tell();
            self.mcp.approved = self.approved()?;
        }
        Ok(())
    }

    /// Tools that speak of other servers' tools, looked for when a list is new to the conversation. Those
    /// of the operator's servers among themselves are known where they are kept.
    fn suspects(&self) -> Vec<Mention> {
        let servers = mcp_servers(&self.request.settings.tools);
        if self.mcp.tell.is_empty() || servers.len() < 2 {
            return Vec::new();
        }
        let is_callers = |label: &str| {
            let mut servers = servers.iter();
            servers.any(|(_, server)| *server.label == *label && server.access.is_some())
        };
        let tools = servers.iter();
        let tools: Vec<_> = tools
            .map(|(_, server)| (&*server.label, self.catalogue.mcp_entries(&server.label)))
            .collect();
        let mut found = mentions::among(&tools);
        found.retain(|mention| is_callers(&mention.server) || is_callers(&mention.other));
        found
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
        let items = self.history.iter().chain(&self.request.input);
        // Earlier ones are looked at first, so the first of an id stands.
        let mut requests: HashMap<&str, &McpApprovalRequest> = HashMap::new();
        for item in items {
            if let Item::McpApprovalRequest(request) = item {
                requests.entry(&request.id).or_insert(request);
            }
        }
        // A conversation that is sent whole has the answers of earlier turns in it too.
        let ran: HashSet<&str> = self.request.input.iter().filter_map(ran_for).collect();
        let mut answered: HashSet<&str> = self.history.iter().filter_map(answers).collect();
        for (index, item) in self.request.input.iter().enumerate() {
            let Item::McpApprovalResponse(response) = item else {
                continue;
            };
            let refuse = |message: &str| {
                let error = ApiError::new(ApiErrorCode::InvalidValue, message);
                error.with_param(format!("input[{index}].approval_request_id"))
            };
            let asked = &*response.approval_request_id;
            let request = requests.get(asked).copied();
            let request = request.ok_or_else(|| {
                refuse("no approval request with this id is in the conversation: continue the response that made it, or send the request with it")
            })?;
            let is_first = answered.insert(asked);
            if ran.contains(asked) {
                continue;
            }
            if !is_first {
                return Err(refuse(ANSWERED));
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

/// Whether the model knows of MCP by it.
fn is_of_mcp(item: &Item) -> bool {
    matches!(item, Item::McpCall(_) | Item::McpListTools(_))
}

/// The request for approval whose call this is.
fn ran_for(item: &Item) -> Option<&str> {
    let Item::McpCall(call) = item else {
        return None;
    };
    call.approval_request_id.as_deref()
}

/// The request for approval that this is a word about, or came of.
fn answers(item: &Item) -> Option<&str> {
    if let Item::McpApprovalResponse(response) = item {
        return Some(&response.approval_request_id);
    }
    ran_for(item)
}
