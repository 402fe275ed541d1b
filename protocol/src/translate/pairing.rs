//! Which output belongs to which call, where several calls may have one id.

use std::collections::VecDeque;

use super::conversation::{Call, Entry};
use crate::responses::item::{Item, ItemStatus};
use crate::responses::kept::KeptItem;

/// The calls of one call id. There may be several: clients number their calls anew, and send items
/// twice.
#[derive(Default)]
pub(super) struct Made<'a> {
    /// Without output, in order: item, index of the run and of the call in it. Calls that were cut
    /// come last, since hardly anybody ran them.
    pub(super) open: VecDeque<(&'a Item, (usize, usize))>,
    pub(super) cut: VecDeque<(&'a Item, (usize, usize))>,
    /// The last that was answered, and its output.
    pub(super) answered: Option<(&'a Item, &'a Item)>,
}

impl<'a> Made<'a> {
    /// Where such a call waits.
    pub(super) fn queue(&mut self, call: &Item) -> &mut VecDeque<(&'a Item, (usize, usize))> {
        if is_whole(call) {
            &mut self.open
        } else {
            &mut self.cut
        }
    }
}

/// Whether somebody may have run the call: the model ended it itself, and it has a name.
pub(super) fn is_whole(call: &Item) -> bool {
    match call {
        Item::FunctionCall(call) => call.status == ItemStatus::Completed && !call.name.is_empty(),
        Item::CustomToolCall(call) => call.status == ItemStatus::Completed && !call.name.is_empty(),
        Item::EmulatedCall(call) => call.status == ItemStatus::Completed,
        Item::ToolSearchCall(call) => {
            call.status == ItemStatus::Completed && call.call_id.is_some()
        }
        Item::Kept(call) => is_completed(call),
        Item::Message(_)
        | Item::Reasoning(_)
        | Item::FunctionCallOutput(_)
        | Item::CodeInterpreterCall(_)
        | Item::McpListTools(_)
        | Item::McpCall(_)
        | Item::McpApprovalRequest(_)
        | Item::McpApprovalResponse(_)
        | Item::CustomToolCallOutput(_)
        | Item::ToolSearchOutput(_)
        | Item::AdditionalTools(_)
        | Item::ConfigurationUpdate(_)
        | Item::ItemReference(_)
        | Item::Compaction(_)
        | Item::CompactionTrigger(_) => true,
    }
}

fn is_completed(call: &KeptItem) -> bool {
    let status = call.member("status");
    status.is_none_or(|raw| raw.get() == "\"completed\"")
}

/// The output of the call at this place.
pub(super) fn output_at<'e, 'a>(
    entries: &'e mut [Entry<'a>],
    (entry, index): (usize, usize),
) -> Option<(&'e mut Option<&'a Item>, &'e mut bool)> {
    let Entry::Run(run) = entries.get_mut(entry)? else {
        return None;
    };
    let Call::Client { output, .. } = run.calls.get_mut(index)? else {
        return None;
    };
    Some((output, &mut run.answered))
}

/// Gives a call its output; false when it has one.
pub(super) fn answer_at<'a>(
    entries: &mut [Entry<'a>],
    output: &'a Item,
    at: (usize, usize),
) -> bool {
    let Some((place, answered)) = output_at(entries, at) else {
        return false;
    };
    if place.is_some() {
        return false;
    }
    *place = Some(output);
    *answered = true;
    true
}
