//! Items that the request sends and the history has already: they are not said twice.
//!
//! Clients continue a response and send its call once more beside the output, or the whole
//! conversation. An item of ours is known by its id, and any item by being the same. Calls and
//! outputs go in pairs, by their call id: a pair that the history has goes, and of a call that waits
//! for its output only the output stays. A client that numbers its calls anew in each turn has pairs
//! that differ: these stay.

use std::collections::{HashMap, HashSet};

use crate::blob::Marks;
use crate::ids::response_of;
use crate::json_text::compact;
use crate::responses::item::{Item, Output};
use crate::responses::kept::{KeptItem, KeptRole};

/// Takes the items out of the input that the history has.
pub(super) fn forget_known(history: &[Item], input: &mut Vec<Item>, marks: Marks) {
    if history.is_empty() || input.is_empty() {
        return;
    }
    let mut known: HashSet<usize> = known_pairs(history, input, marks);
    let ids: HashMap<&str, &Item> = history.iter().map(|item| (item.id(), item)).collect();
    for (index, item) in input.iter().enumerate() {
        let Some(earlier) = ids.get(item.id()).filter(|_| joint(item).is_none()) else {
            continue;
        };
        // Some clients number their messages anew too, and people say the same thing twice.
        let is_message = matches!(item, Item::Message(_));
        if response_of(item.id()).is_some() || (!is_message && same(earlier, item, marks)) {
            known.insert(index);
        }
    }
    let mut index = 0;
    input.retain(|_| {
        index += 1;
        !known.contains(&(index - 1))
    });
}

/// What joins a call with its output.
#[derive(Clone, Copy)]
enum Joint<'a> {
    Call(&'a str),
    Output(&'a str),
}

fn joint(item: &Item) -> Option<Joint<'_>> {
    Some(match item {
        Item::FunctionCall(call) => Joint::Call(&call.call_id),
        Item::CustomToolCall(call) => Joint::Call(&call.call_id),
        Item::EmulatedCall(call) => Joint::Call(&call.call_id),
        Item::ToolSearchCall(call) => Joint::Call(call.call_id.as_deref()?),
        Item::FunctionCallOutput(output) | Item::CustomToolCallOutput(output) => {
            Joint::Output(&output.call_id)
        }
        Item::ToolSearchOutput(output) => Joint::Output(output.call_id.as_deref()?),
        Item::Kept(item) => match item.kind.role() {
            KeptRole::Call => Joint::Call(&item.call_id),
            KeptRole::Output => Joint::Output(&item.call_id),
            KeptRole::Whole => return None,
        },
        Item::Message(_)
        | Item::Reasoning(_)
        | Item::CodeInterpreterCall(_)
        | Item::McpListTools(_)
        | Item::McpCall(_)
        | Item::McpApprovalRequest(_)
        | Item::McpApprovalResponse(_)
        | Item::AdditionalTools(_)
        | Item::ConfigurationUpdate(_)
        | Item::ItemReference(_)
        | Item::Compaction(_)
        | Item::CompactionTrigger(_) => return None,
    })
}

/// A call and its output, each with its place; either may be missing.
#[derive(Clone, Copy, Default)]
struct Pair<'a> {
    call: Option<(usize, &'a Item)>,
    output: Option<(usize, &'a Item)>,
}

/// The pairs of each call id, in order.
fn pairs(items: &[Item]) -> HashMap<&str, Vec<Pair<'_>>> {
    let mut pairs: HashMap<&str, Vec<Pair<'_>>> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        match joint(item) {
            None => {}
            Some(Joint::Call(id)) => pairs.entry(id).or_default().push(Pair {
                call: Some((index, item)),
                output: None,
            }),
            Some(Joint::Output(id)) => {
                let of_id = pairs.entry(id).or_default();
                match of_id.last_mut().filter(|pair| pair.output.is_none()) {
                    Some(pair) => pair.output = Some((index, item)),
                    None => of_id.push(Pair {
                        call: None,
                        output: Some((index, item)),
                    }),
                }
            }
        }
    }
    pairs
}

/// Places of the input's calls and outputs that the history has.
fn known_pairs(history: &[Item], input: &[Item], marks: Marks) -> HashSet<usize> {
    let earlier = pairs(history);
    let mut known = HashSet::new();
    for (id, sent) in pairs(input) {
        let mut earlier = earlier.get(id).map_or(&[][..], Vec::as_slice);
        for pair in sent {
            let Some(at) = earlier
                .iter()
                .position(|earlier| is_again(earlier, &pair, marks))
            else {
                continue;
            };
            let waits = earlier
                .get(at)
                .is_some_and(|earlier| earlier.output.is_none());
            known.extend(pair.call.map(|(index, _)| index));
            known.extend(pair.output.filter(|_| !waits).map(|(index, _)| index));
            earlier = earlier.get(at + 1..).unwrap_or_default();
        }
    }
    known
}

/// Whether a pair of the input is one of the history: the same, or that of a call that waits for its
/// output, where nothing but the id has to be right.
fn is_again(earlier: &Pair<'_>, sent: &Pair<'_>, marks: Marks) -> bool {
    match (earlier.output, sent.output) {
        (None, _) => true,
        (Some((_, earlier)), Some((_, output))) if !same_output(earlier, output, marks) => false,
        (Some(_), _) => match (earlier.call, sent.call) {
            (Some((_, earlier)), Some((_, call))) => same_call(earlier, call, marks),
            (_, None) => true,
            (None, Some(_)) => false,
        },
    }
}

fn same_call(a: &Item, b: &Item, marks: Marks) -> bool {
    match (a, b) {
        _ if a.id() == b.id() => true,
        (Item::FunctionCall(a), Item::FunctionCall(b)) => {
            a.name == b.name
                && a.namespace == b.namespace
                && compact(&a.arguments) == compact(&b.arguments)
        }
        (Item::CustomToolCall(a), Item::CustomToolCall(b)) => {
            a.name == b.name && a.namespace == b.namespace && same(&a.input, &b.input, marks)
        }
        (Item::EmulatedCall(a), Item::EmulatedCall(b)) => a.action == b.action,
        (Item::ToolSearchCall(a), Item::ToolSearchCall(b)) => {
            marks.same(&compact(a.arguments.get()), &compact(b.arguments.get()))
        }
        _ => false,
    }
}

fn same_output(a: &Item, b: &Item, marks: Marks) -> bool {
    match (a, b) {
        (Item::FunctionCallOutput(a), Item::FunctionCallOutput(b))
        | (Item::CustomToolCallOutput(a), Item::CustomToolCallOutput(b)) => {
            match (&a.output, &b.output) {
                (Output::Text(a), Output::Text(b)) if a == b => true,
                (a, b) => same(a, b, marks),
            }
        }
        (Item::ToolSearchOutput(a), Item::ToolSearchOutput(b)) => same(&a.tools, &b.tools, marks),
        (Item::Kept(a), Item::Kept(b)) => {
            let told = |item: &KeptItem| item.member("output").map(|raw| compact(raw.get()));
            let same_told = match (told(a), told(b)) {
                (Some(a), Some(b)) => marks.same(&a, &b),
                (a, b) => a.is_none() && b.is_none(),
            };
            a.kind == b.kind && same_told
        }
        _ => false,
    }
}

/// Whether two items, or parts of them, say the same, whatever is different about how they were sent.
fn same(a: &impl serde::Serialize, b: &impl serde::Serialize, marks: Marks) -> bool {
    marks.same(&written(a), &written(b))
}

fn written(value: &impl serde::Serialize) -> String {
    // Strings, words and raw values: nothing here can fail to be written.
    serde_json::to_string(value).unwrap_or_default()
}
