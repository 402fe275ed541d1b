//! Items in the order of a chat: what the assistant did in one go is one run, and each output
//! stands with the call that it answers, wherever the client put it.

use std::collections::HashMap;

use crate::error::{ApiError, ApiErrorCode};
use crate::responses::item::{
    CodeInterpreterCall, FunctionCall, FunctionCallOutput, Item, ItemStatus, Message, Reasoning,
    Role, ToolStatus,
};
use crate::responses::mcp::{McpApprovalRequest, McpApprovalResponse, McpCall};

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
    answered: bool,
}

/// A call and what it returned.
#[derive(Debug)]
pub(super) enum Call<'a> {
    /// The client ran it.
    Client {
        made: &'a FunctionCall,
        output: Option<&'a FunctionCallOutput>,
        place: Place,
    },
    /// The gateway ran it: the item holds its own result.
    Code(&'a CodeInterpreterCall),
    /// The gateway had an MCP server run it: the same.
    Mcp(&'a McpCall),
    /// The client did not approve it.
    Declined(&'a McpApprovalRequest, &'a McpApprovalResponse),
}

/// Where an item came from, for messages about it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Earlier,
    Input(usize),
    Produced,
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
        open: HashMap::new(),
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
    /// Calls without output: index of the run and of the call in it, by call id.
    open: HashMap<&'a str, (usize, usize)>,
    /// Outputs whose call has not been seen yet.
    early: Vec<(&'a FunctionCallOutput, Place)>,
    /// Calls that wait for approval, by id.
    asked: HashMap<&'a str, &'a McpApprovalRequest>,
}

impl<'a> Arranger<'a> {
    fn take(&mut self, item: &'a Item, place: Place) {
        match item {
            Item::Message(message) if message.role == Role::Assistant => {
                let mut run = self.take_run();
                run.messages.push(message);
                self.entries.push(Entry::Run(run));
            }
            Item::Message(message) => self.entries.push(Entry::Said(message)),
            Item::Reasoning(reasoning) => {
                let mut run = self.take_run();
                run.reasoning.push(reasoning);
                self.entries.push(Entry::Run(run));
            }
            Item::FunctionCall(call) => {
                let mut run = self.take_run();
                let at = (self.entries.len(), run.calls.len());
                self.open.insert(&call.call_id, at);
                run.calls.push(Call::Client {
                    made: call,
                    output: None,
                    place,
                });
                self.entries.push(Entry::Run(run));
            }
            Item::FunctionCallOutput(output) => {
                if !self.answer(output) {
                    self.early.push((output, place));
                }
            }
            Item::CodeInterpreterCall(call) => {
                // Code that was cut was never run: it is left out.
                if call.status != ToolStatus::Incomplete || call.outputs.is_some() {
                    self.own(Call::Code(call));
                }
            }
            Item::McpCall(call) => {
                if call.status != ToolStatus::Incomplete {
                    self.own(Call::Mcp(call));
                }
            }
            // One that is approved becomes a call of its own.
            Item::McpApprovalRequest(request) => {
                self.asked.insert(&request.id, request);
            }
            Item::McpApprovalResponse(response) => {
                let asked = self.asked.remove(&*response.approval_request_id);
                if let Some(request) = asked.filter(|_| !response.approve) {
                    self.own(Call::Declined(request, response));
                }
            }
            // The model is shown the tools themselves.
            Item::McpListTools(_) => {}
        }
    }

    /// A call of the gateway's and its result. Whatever follows was said in knowledge of it, also
    /// where the model called twice at once: so a later round repeats the words of an earlier one
    /// exactly, and the model server's prefix cache holds.
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

    /// Puts an output to its call; false when there is none.
    fn answer(&mut self, output: &'a FunctionCallOutput) -> bool {
        let Some((entry, index)) = self.open.remove(&*output.call_id) else {
            return false;
        };
        let Some(Entry::Run(run)) = self.entries.get_mut(entry) else {
            return false;
        };
        let Some(Call::Client { output: place, .. }) = run.calls.get_mut(index) else {
            return false;
        };
        *place = Some(output);
        run.answered = true;
        true
    }

    fn finish(mut self) -> Result<Vec<Entry<'a>>, ApiError> {
        for (output, place) in std::mem::take(&mut self.early) {
            if !self.answer(output) {
                return Err(no_call(place));
            }
        }
        for entry in &mut self.entries {
            if let Entry::Run(run) = entry {
                run.close()?;
            }
        }
        self.entries.retain(|entry| match entry {
            Entry::Said(_) => true,
            Entry::Run(run) => !run.is_empty(),
        });
        Ok(self.entries)
    }
}

impl Run<'_> {
    /// Checks that every call has its output. One that was cut while it was written was never
    /// run by anybody: without output it is left out.
    fn close(&mut self) -> Result<(), ApiError> {
        self.calls.retain(|call| match call {
            Call::Client { made, output, .. } => {
                output.is_some() || made.status == ItemStatus::Completed
            }
            Call::Code(_) | Call::Mcp(_) | Call::Declined(..) => true,
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
