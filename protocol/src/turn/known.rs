//! Items that the request sends and the history, or the request itself, has already: they are not
//! said twice.
//!
//! Clients continue a response and send its call once more beside the output, or the whole
//! conversation. An item of ours is known by its id, and any item by being the same. Calls and
//! outputs go in pairs, by their call id: a pair that the history has goes, and of a call that waits
//! for its output only the output stays. A client that numbers its calls anew in each turn has pairs
//! that differ: these stay.

use std::collections::{HashMap, HashSet};

use crate::blob::Marks;
use crate::ids::response_of;
use crate::responses::alike::Mark;
use crate::responses::item::Item;
use crate::responses::kept::KeptRole;

/// How far apart a pair and the same pair in the history may be among those of one call id.
const MAX_APART: usize = 1024;

/// Takes the items out of the input that are in it before, the same under the same id. Others that
/// share an id stay: each is what it is.
pub(super) fn forget_repeated(input: &mut Vec<Item>) {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for item in &*input {
        *uses.entry(item.id()).or_default() += 1;
    }
    let mut answers = HashSet::new();
    let mut seen = HashSet::new();
    let mut stays = Vec::with_capacity(input.len());
    for item in &*input {
        if let Item::McpApprovalResponse(response) = item {
            stays.push(answers.insert((&*response.approval_request_id, response.approve)));
            continue;
        }
        let is_said_again = matches!(item, Item::Message(_)) && response_of(item.id()).is_none();
        let may_go = !is_said_again && uses.get(item.id()).is_some_and(|uses| *uses > 1);
        stays.push(!may_go || seen.insert((item.id(), Mark::of(item, None))));
    }
    keep(input, &stays);
}

fn keep(items: &mut Vec<Item>, stays: &[bool]) {
    let mut stays = stays.iter();
    items.retain(|_| stays.next().is_none_or(|stays| *stays));
}

/// Takes the items out of the input that the history has.
pub(super) fn forget_known(history: &[Item], input: &mut Vec<Item>, marks: Marks) {
    if history.is_empty() || input.is_empty() {
        return;
    }
    let mut known: HashSet<usize> = known_pairs(history, input, marks);
    // Who says nothing but what was said before says it again: it is the model that has not heard it.
    let mut with_conversation = known.clone();
    with_conversation.extend(0..conversation_in(history, input, marks));
    if with_conversation.len() < input.len() {
        known = with_conversation;
    }
    let ids: HashMap<&str, &Item> = history.iter().map(|item| (item.id(), item)).collect();
    for (index, item) in input.iter().enumerate() {
        let Some(earlier) = ids.get(item.id()).filter(|_| joint(item).is_none()) else {
            continue;
        };
        // Some clients number their messages anew too, and people say the same thing twice.
        let is_message = matches!(item, Item::Message(_));
        if response_of(item.id()).is_some()
            || (!is_message && Mark::of(*earlier, Some(marks)) == Mark::of(item, Some(marks)))
        {
            known.insert(index);
        }
    }
    let stays: Vec<bool> = (0..input.len()).map(|at| !known.contains(&at)).collect();
    keep(input, &stays);
}

/// How many items at the beginning of the input are the conversation so far: all of it or nothing.
/// Clients that keep their own history send it beside `previous_response_id` too, with ids or without.
fn conversation_in(history: &[Item], input: &[Item], marks: Marks) -> usize {
    let (mut earlier, mut sent) = (
        history.iter().peekable(),
        input.iter().enumerate().peekable(),
    );
    let mut any = false;
    loop {
        let item = sent.peek().map(|(_, item)| *item);
        while earlier
            .next_if(|earlier| {
                !is_said(earlier) && item.is_none_or(|item| item.id() != earlier.id())
            })
            .is_some()
        {}
        let (Some(next), Some(item)) = (earlier.peek(), item) else {
            break;
        };
        if says_the_same(next, item, marks) {
            any |= is_said(next);
            earlier.next();
        } else if is_said(item) {
            return 0;
        }
        sent.next();
    }
    if earlier.peek().is_some() || !any {
        return 0;
    }
    sent.peek().map_or(input.len(), |(index, _)| *index)
}

/// Whether a client that keeps its own history keeps this too.
fn is_said(item: &Item) -> bool {
    matches!(item, Item::Message(_)) || joint(item).is_some()
}

fn says_the_same(a: &Item, b: &Item, marks: Marks) -> bool {
    let joins = |item| match joint(item) {
        Some(Joint::Call(id) | Joint::Output(id)) => Some(id),
        None => None,
    };
    // An id is sure where it is one of ours, or of an item that has nothing else to be known by.
    let by_id = response_of(a.id()).is_some() || !is_said(a);
    (by_id && a.id() == b.id())
        || (is_said(a)
            && joins(a) == joins(b)
            && says(a, marks).is_some()
            && says(a, marks) == says(b, marks))
}

/// What an item says, whatever its ids are and however much of its form was sent.
fn says(item: &Item, marks: Marks) -> Option<Mark> {
    if let Item::Message(message) = item {
        return Some(Mark::of_words(message, marks));
    }
    Mark::of_call(item, Some(marks)).or_else(|| Mark::of_output(item, Some(marks)))
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

/// What the calls and the outputs of one call id say, made once for each.
struct Marked<'a> {
    pair: Pair<'a>,
    call: Option<Mark>,
    output: Option<Mark>,
}

impl<'a> Marked<'a> {
    fn of(pair: Pair<'a>, marks: Marks) -> Self {
        Self {
            pair,
            call: pair
                .call
                .and_then(|(_, call)| Mark::of_call(call, Some(marks))),
            output: pair
                .output
                .and_then(|(_, output)| Mark::of_output(output, Some(marks))),
        }
    }

    fn waits(&self) -> bool {
        self.pair.output.is_none()
    }

    /// Whether both have the same call, or the later one, of the input, has none.
    fn has_call_of(&self, sent: &Self) -> bool {
        match (self.pair.call, sent.pair.call) {
            (Some((_, earlier)), Some((_, call))) => {
                earlier.id() == call.id() || self.call.is_some() && self.call == sent.call
            }
            (_, None) => true,
            (None, Some(_)) => false,
        }
    }

    /// Whether a pair of the input is this whole one of the history.
    fn comes_again(&self, sent: &Self) -> bool {
        let same_output = self.output.is_some() && self.output == sent.output;
        !self.waits() && (sent.waits() || same_output) && self.has_call_of(sent)
    }
}

/// Places of the input's calls and outputs that the history has.
fn known_pairs(history: &[Item], input: &[Item], marks: Marks) -> HashSet<usize> {
    let earlier = pairs(history);
    let mut known = HashSet::new();
    for (id, sent) in pairs(input) {
        let Some(earlier) = earlier.get(id) else {
            continue;
        };
        let earlier: Vec<_> = earlier
            .iter()
            .copied()
            .map(|pair| Marked::of(pair, marks))
            .collect();
        let sent: Vec<_> = sent
            .into_iter()
            .map(|pair| Marked::of(pair, marks))
            .collect();
        known_of_one_id(&earlier, &sent, &mut known);
    }
    known
}

/// From the end: a call that waits is the last one, and an output without its call is for it, whatever
/// earlier calls of this id gave.
fn known_of_one_id(earlier: &[Marked<'_>], sent: &[Marked<'_>], known: &mut HashSet<usize>) {
    let (mut earlier, mut sent) = (earlier, sent);
    if let Some((waiting, before)) = earlier.split_last().filter(|(last, _)| last.waits()) {
        // Where none has this very call, nothing but the id has to be right: clients write anew.
        let own = sent.iter().rposition(|sent| waiting.has_call_of(sent));
        if let Some(at) = own.or(sent.len().checked_sub(1)) {
            let call = sent.get(at).and_then(|sent| sent.pair.call);
            known.extend(call.map(|(index, _)| index));
            sent = sent.get(..at).unwrap_or_default();
        }
        earlier = before;
    }
    for sent in sent.iter().rev() {
        let first = earlier.len().saturating_sub(MAX_APART);
        let near = earlier.get(first..).unwrap_or_default();
        let near = near.iter().rposition(|earlier| earlier.comes_again(sent));
        let Some(at) = near.map(|at| first + at) else {
            continue;
        };
        let places = [sent.pair.call, sent.pair.output];
        known.extend(places.into_iter().flatten().map(|(index, _)| index));
        earlier = earlier.get(..at).unwrap_or_default();
    }
}
