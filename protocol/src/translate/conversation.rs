//! Items in the order of a chat: what the assistant did in one go is one run, and each output
//! stands with the call that it answers, wherever the client put it.

use std::collections::{HashMap, VecDeque};

use super::pairing::{Made, answer_at, is_whole, output_at};
use crate::error::{ApiError, ApiErrorCode};
use crate::responses::alike::{same_call, same_output};
use crate::responses::item::{Item, Message, Reasoning, Role, ToolStatus};
use crate::responses::kept::KeptRole;
use crate::responses::mcp::McpApprovalResponse;

/// One step of a conversation.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    /// Words of somebody else than the assistant.
    Said(&'a Message),
    /// What the assistant did until somebody else spoke or an output came.
    Run(Run<'a>),
}

/// An assistant message in the making.
#[derive(Debug, Default)]
pub(super) struct Run<'a> {
    /// Its thinking.
    pub(super) reasoning: Vec<&'a Reasoning>,
    /// Its words.
    pub(super) messages: Vec<&'a Message>,
    /// Its calls with their outputs; every call has one when [`arrange`] is done.
    pub(super) calls: Vec<Call<'a>>,
    /// Whether an output has come: what follows is another run.
    pub(super) answered: bool,
}

/// A call and what it returned.
#[derive(Debug)]
pub(super) enum Call<'a> {
    /// The client ran it.
    Client {
        made: &'a Item,
        output: Option<&'a Item>,
        place: Place,
    },
    /// A server ran it: the item holds its own result.
    Hosted(&'a Item),
    /// The client did not approve this request for approval.
    Declined(&'a Item, &'a McpApprovalResponse),
}

/// What an item is in a conversation.
enum Part<'a> {
    /// Words of somebody else than the assistant.
    Said(&'a Message),
    /// Words of the assistant.
    Spoken(&'a Message),
    /// Thinking.
    Thought(&'a Reasoning),
    /// A call that the client runs, with its call id.
    Call(&'a str),
    /// What a call gave, with its call id.
    Output(&'a str),
    /// A search for tools that another server ran.
    Searched,
    /// What the oldest such search found.
    Found,
    /// A call with its own result.
    Hosted,
    /// A call that waits for approval; one that is approved becomes a call of its own.
    Asked,
    /// The client's word about one.
    Decided(&'a McpApprovalResponse),
    /// What the assistant did before, summed up.
    SummedUp(&'a Message),
    /// Nothing that the model is told.
    Nothing,
}

fn part(item: &Item) -> Part<'_> {
    match item {
        Item::Message(message) if message.role == Role::Assistant => Part::Spoken(message),
        Item::Message(message) => Part::Said(message),
        Item::Reasoning(reasoning) => Part::Thought(reasoning),
        Item::FunctionCall(call) => Part::Call(&call.call_id),
        Item::CustomToolCall(call) => Part::Call(&call.call_id),
        Item::EmulatedCall(call) => Part::Call(&call.call_id),
        Item::ToolSearchCall(call) => match &call.call_id {
            Some(call_id) => Part::Call(call_id),
            None => Part::Searched,
        },
        Item::FunctionCallOutput(output) | Item::CustomToolCallOutput(output) => {
            Part::Output(&output.call_id)
        }
        Item::ToolSearchOutput(output) => match &output.call_id {
            Some(call_id) => Part::Output(call_id),
            None => Part::Found,
        },
        // Code that was cut was never run: it is left out.
        Item::CodeInterpreterCall(call)
            if call.status == ToolStatus::Incomplete && call.outputs.is_none() =>
        {
            Part::Nothing
        }
        Item::McpCall(call) if call.status == ToolStatus::Incomplete => Part::Nothing,
        Item::CodeInterpreterCall(_) | Item::McpCall(_) => Part::Hosted,
        Item::McpApprovalRequest(_) => Part::Asked,
        Item::McpApprovalResponse(response) => Part::Decided(response),
        Item::Compaction(item) => item.opened.as_deref().map_or(Part::Nothing, Part::SummedUp),
        Item::Kept(item) => match item.kind.role() {
            KeptRole::Call => Part::Call(&item.call_id),
            KeptRole::Output => Part::Output(&item.call_id),
            KeptRole::Whole => Part::Hosted,
        },
        // Of lists the model is shown the tools themselves.
        Item::McpListTools(_)
        | Item::AdditionalTools(_)
        | Item::ConfigurationUpdate(_)
        | Item::ItemReference(_)
        | Item::CompactionTrigger(_) => Part::Nothing,
    }
}

/// Where an item came from, for messages about it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Earlier,
    Input(usize),
    Produced,
}

impl Entry<'_> {
    /// Whether it is words of the system or the application.
    fn is_instruction(&self) -> bool {
        matches!(self, Entry::Said(message) if message.role != Role::User)
    }
}

/// Where the turns begin: each with somebody's words after what the assistant did. Instructions at
/// the beginning belong to none.
fn beginnings(entries: &[Entry<'_>]) -> Vec<usize> {
    let leading = entries.iter().take_while(|entry| entry.is_instruction());
    let first = leading.count();
    let later = entries
        .windows(2)
        .zip(1..)
        .filter_map(|(pair, at)| matches!(pair, [Entry::Run(_), Entry::Said(_)]).then_some(at));
    let later = later.filter(|at| *at > first);
    std::iter::once(first).chain(later).collect()
}

/// How many turns there are.
pub(super) fn turns(entries: &[Entry<'_>]) -> usize {
    beginnings(entries).len()
}

/// Takes the thinking out of all turns but the last.
pub(super) fn forget_thinking(entries: &mut Vec<Entry<'_>>) {
    let last = beginnings(entries).last().copied();
    for entry in entries.iter_mut().take(last.unwrap_or(0)) {
        if let Entry::Run(run) = entry {
            run.reasoning.clear();
        }
    }
    drop_empty(entries);
}

/// Leaves the oldest turns out, each whole: a call goes with its output. The last one stays.
pub(super) fn leave_out(entries: &mut Vec<Entry<'_>>, count: usize) {
    let beginnings = beginnings(entries);
    let last = beginnings.len().saturating_sub(1);
    let first = beginnings.first().copied();
    let kept = beginnings.get(count.min(last)).copied();
    if let (Some(first), Some(kept)) = (first, kept) {
        entries.drain(first..kept);
    }
}

/// Arranges the items of earlier turns, of the input and of the response so far.
pub(super) fn arrange<'a>(
    history: &'a [Item],
    input: &'a [Item],
    produced: &'a [Item],
) -> Result<Vec<Entry<'a>>, ApiError> {
    let count = history.len() + input.len() + produced.len();
    let mut arranger = Arranger {
        entries: Vec::with_capacity(count),
        made: HashMap::new(),
        searches: VecDeque::new(),
        early: Vec::new(),
        asked: HashMap::new(),
    };
    let earlier = history.iter().map(|item| (item, Place::Earlier));
    let own = input.iter().enumerate();
    let own = own.map(|(index, item)| (item, Place::Input(index)));
    let fresh = produced.iter().map(|item| (item, Place::Produced));
    for (item, place) in earlier.chain(own).chain(fresh) {
        arranger.take(item, place);
    }
    arranger.finish()
}

struct Arranger<'a> {
    entries: Vec<Entry<'a>>,
    /// The client's calls, by call id.
    made: HashMap<&'a str, Made<'a>>,
    /// Searches of other servers without what they found: they have no call id.
    searches: VecDeque<(usize, usize)>,
    /// Outputs whose call has not been seen yet.
    early: Vec<(&'a Item, &'a str, Place)>,
    /// Calls that wait for approval, by id.
    asked: HashMap<&'a str, &'a Item>,
}

impl<'a> Arranger<'a> {
    fn take(&mut self, item: &'a Item, place: Place) {
        match part(item) {
            Part::Said(message) => self.entries.push(Entry::Said(message)),
            Part::Spoken(message) => {
                let mut run = self.take_run();
                run.messages.push(message);
                self.entries.push(Entry::Run(run));
            }
            Part::Thought(reasoning) => {
                let mut run = self.take_run();
                run.reasoning.push(reasoning);
                self.entries.push(Entry::Run(run));
            }
            Part::Call(call_id) => {
                self.called(item, call_id, place);
            }
            Part::Searched => {
                let at = self.made(item, place);
                self.searches.push_back(at);
            }
            Part::Found => {
                if let Some(at) = self.searches.pop_front() {
                    answer_at(&mut self.entries, item, at);
                }
            }
            Part::Output(call_id) => {
                if !self.answer(item, call_id, place) {
                    self.early.push((item, call_id, place));
                }
            }
            Part::SummedUp(message) => {
                self.entries.retain(|entry| matches!(entry, Entry::Said(_)));
                self.made.clear();
                self.searches.clear();
                self.early.clear();
                self.asked.clear();
                self.entries.push(Entry::Said(message));
            }
            Part::Hosted => self.own(Call::Hosted(item)),
            Part::Asked => {
                self.asked.insert(item.id(), item);
            }
            Part::Decided(response) => {
                let asked = self.asked.remove(&*response.approval_request_id);
                if let Some(request) = asked.filter(|_| !response.approve) {
                    self.own(Call::Declined(request, response));
                }
            }
            Part::Nothing => {}
        }
    }

    /// Puts a call of the client's into the run; gives its place.
    fn made(&mut self, item: &'a Item, place: Place) -> (usize, usize) {
        let mut run = self.take_run();
        let at = (self.entries.len(), run.calls.len());
        run.calls.push(Call::Client {
            made: item,
            output: None,
            place,
        });
        self.entries.push(Entry::Run(run));
        at
    }

    /// A call and its result. Whatever follows was said in knowledge of it, also where the model
    /// called twice at once: so a later round repeats the words of an earlier one exactly, and the
    /// model server's prefix cache holds.
    fn own(&mut self, call: Call<'a>) {
        let mut run = self.take_run();
        run.calls.push(call);
        run.answered = true;
        self.entries.push(Entry::Run(run));
    }

    /// Takes the run that the assistant goes on with off the end: a new one after other people's
    /// words, and after outputs, since what follows those was said in knowledge of them.
    fn take_run(&mut self) -> Run<'a> {
        match self.entries.pop() {
            Some(Entry::Run(run)) if !run.answered => run,
            Some(other) => {
                self.entries.push(other);
                Run::default()
            }
            None => Run::default(),
        }
    }

    /// A call that the client runs. One that waits for its output, and is sent again, is taken once.
    fn called(&mut self, call: &'a Item, call_id: &'a str, place: Place) {
        let waiting = self.made.entry(call_id).or_default().queue(call).back();
        // One that an output has been put to, by another of its ids, waits no more.
        let waiting = waiting.copied();
        let waiting = waiting.filter(|(_, at)| {
            let output = output_at(&mut self.entries, *at);
            output.is_some_and(|(output, _)| output.is_none())
        });
        if waiting.is_some_and(|(waiting, _)| same_call(waiting, call)) {
            return;
        }
        let at = self.made(call, place);
        // Outputs of local shells are told apart by the id of the call's item.
        let item_id = if let Item::EmulatedCall(emulated) = call {
            Some(&*emulated.id).filter(|id| *id != call_id)
        } else {
            None
        };
        for id in [Some(call_id), item_id].into_iter().flatten() {
            let made = self.made.entry(id).or_default();
            made.queue(call).push_back((call, at));
        }
    }

    /// Puts an output to the oldest call of its id that has none; false when there is no such call at
    /// all. What comes once more is taken once; another output is told as that of the call made again.
    fn answer(&mut self, output: &'a Item, call_id: &'a str, place: Place) -> bool {
        let Some(made) = self.made.get_mut(call_id) else {
            return false;
        };
        let answered = made.answered;
        while let Some((call, at)) = made.open.pop_front().or_else(|| made.cut.pop_front()) {
            if answer_at(&mut self.entries, output, at) {
                made.answered = Some((call, output));
                return true;
            }
        }
        let Some((call, earlier)) = answered else {
            return false;
        };
        if !same_output(earlier, output) {
            made.answered = Some((call, output));
            let at = self.made(call, place);
            answer_at(&mut self.entries, output, at);
        }
        true
    }

    fn finish(mut self) -> Result<Vec<Entry<'a>>, ApiError> {
        for (output, call_id, place) in std::mem::take(&mut self.early) {
            // What was stored was answered before: an output whose call is gone costs itself.
            if !self.answer(output, call_id, place) && !matches!(place, Place::Earlier) {
                return Err(no_call(place));
            }
        }
        for entry in &mut self.entries {
            if let Entry::Run(run) = entry {
                run.close()?;
            }
        }
        drop_empty(&mut self.entries);
        Ok(self.entries)
    }
}

fn drop_empty(entries: &mut Vec<Entry<'_>>) {
    entries.retain(|entry| match entry {
        Entry::Said(_) => true,
        Entry::Run(run) => !run.is_empty(),
    });
}

impl Run<'_> {
    /// Checks that every call has its output. One that was cut while it was written was never
    /// run by anybody: without output it is left out.
    fn close(&mut self) -> Result<(), ApiError> {
        self.calls.retain(|call| match call {
            Call::Client { made, output, .. } => output.is_some() || is_whole(made),
            Call::Hosted(_) | Call::Declined(..) => true,
        });
        for call in &self.calls {
            if let Call::Client {
                output: None,
                place,
                ..
            } = call
            {
                return Err(no_output(*place));
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.messages.is_empty() && self.calls.is_empty()
    }
}

fn no_call(place: Place) -> ApiError {
    let at = named(place);
    mismatch(format!(
        "no tool call found for function call output {at}: send the call with it, or continue \
         the response that made it"
    ))
}

fn no_output(place: Place) -> ApiError {
    let at = named(place);
    mismatch(format!(
        "no tool output found for function call {at}: send a `function_call_output` with its \
         `call_id`"
    ))
}

fn named(place: Place) -> String {
    match place {
        Place::Earlier => "of an earlier response".to_owned(),
        Place::Input(index) => format!("`input[{index}]`"),
        Place::Produced => "of this response".to_owned(),
    }
}

fn mismatch(message: String) -> ApiError {
    ApiError::new(ApiErrorCode::InvalidRequest, message).with_param("input")
}
