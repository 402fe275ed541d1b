//! Calls of MCP tools, requests for approval, and lists of tools.

use super::Out;
use crate::ids::{self, Prefix};
use crate::mcp::names;
use crate::mcp::outcome::Outcome;
use crate::responses::event::{ArgumentsDelta, Event, ItemEvent, ItemPlace, McpArgumentsDone};
use crate::responses::item::{Item, ToolStatus};
use crate::responses::mcp::{McpApprovalRequest, McpCall, McpListTools};
use crate::responses::said::Said;
use crate::tools::mcp::{self, McpFunction};

/// A call while its arguments grow.
#[derive(Debug)]
pub(super) enum McpView {
    /// It will be made.
    Call(McpCall),
    /// It is of no tool that is there: it will be told to the model as an error.
    Unknown(McpCall),
}

impl McpView {
    /// Announces an item without arguments.
    pub(super) fn announce(
        index: usize,
        function: &McpFunction,
        said: Option<Box<Said>>,
        out: &mut Out<'_>,
    ) -> Self {
        let (label, name) = (&function.server.label, &function.tool.name);
        Self::Call(announce_call(index, (label, name), said, out))
    }

    /// Announces an item of a tool that is not there.
    pub(super) fn announce_unknown(
        index: usize,
        name: &str,
        said: Option<Box<Said>>,
        out: &mut Out<'_>,
    ) -> Self {
        Self::Unknown(announce_call(index, names::parts(name), said, out))
    }

    /// More arguments.
    pub(super) fn arguments(&self, index: usize, delta: &str, out: &mut Out<'_>) {
        let (Self::Call(item) | Self::Unknown(item)) = self;
        out.emit(&Event::McpArgumentsDelta(ArgumentsDelta {
            item_id: &item.id,
            output_index: index,
            delta,
        }));
    }
}

/// Announces a call that waits for the client; gives its item as it is done.
pub(super) fn ask(
    index: usize,
    function: &McpFunction,
    arguments: Box<str>,
    said: Option<Box<Said>>,
    out: &mut Out<'_>,
) -> Item {
    let mut item = McpApprovalRequest {
        id: ids::fresh(Prefix::McpApprovalRequest, out.ids),
        server_label: function.server.label.clone(),
        name: function.tool.name.clone(),
        arguments: Box::default(),
        said,
    };
    out.emit(&Event::ItemAdded(ItemEvent {
        output_index: index,
        item: &Item::McpApprovalRequest(item.clone()),
    }));
    item.arguments = arguments;
    Item::McpApprovalRequest(item)
}

fn announce_call(
    index: usize,
    (label, name): (&str, &str),
    said: Option<Box<Said>>,
    out: &mut Out<'_>,
) -> McpCall {
    let item = McpCall {
        id: ids::fresh(Prefix::McpCall, out.ids),
        status: ToolStatus::InProgress,
        server_label: label.into(),
        name: name.into(),
        arguments: Box::default(),
        output: None,
        images: Vec::new(),
        error: None,
        approval_request_id: None,
        said,
    };
    begin(index, &item, out);
    item
}

/// Says that a call is there.
pub(super) fn begin(index: usize, item: &McpCall, out: &mut Out<'_>) {
    out.emit(&Event::ItemAdded(ItemEvent {
        output_index: index,
        item: &Item::McpCall(item.clone()),
    }));
    out.emit(&Event::McpInProgress(place(index, &item.id)));
}

/// The arguments are whole.
pub(super) fn end_arguments(index: usize, item: &mut McpCall, arguments: &str, out: &mut Out<'_>) {
    item.arguments = arguments.into();
    out.emit(&Event::McpArgumentsDone(McpArgumentsDone {
        item_id: &item.id,
        output_index: index,
        arguments: &item.arguments,
    }));
}

/// The item with its result.
pub(super) fn settle(index: usize, mut item: McpCall, outcome: Outcome, out: &mut Out<'_>) -> Item {
    mcp::settle(&mut item, outcome);
    let at = place(index, &item.id);
    if item.status == ToolStatus::Completed {
        out.emit(&Event::McpCompleted(at));
    } else {
        out.emit(&Event::McpFailed(at));
    }
    Item::McpCall(item)
}

/// Tells of a list; its item is done at once.
pub(super) fn tell_list(index: usize, item: &McpListTools, out: &mut Out<'_>) {
    let empty = Item::McpListTools(McpListTools {
        tools: Vec::new(),
        error: None,
        ..item.clone()
    });
    out.emit(&Event::ItemAdded(ItemEvent {
        output_index: index,
        item: &empty,
    }));
    let at = place(index, &item.id);
    out.emit(&Event::McpListing(at));
    out.emit(&match item.error {
        None => Event::McpListed(at),
        Some(_) => Event::McpListFailed(at),
    });
}

fn place(output_index: usize, item_id: &str) -> ItemPlace<'_> {
    ItemPlace {
        item_id,
        output_index,
    }
}
