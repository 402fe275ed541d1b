//! Calls that the gateway runs: from the first piece of their arguments to the item with the result.

use super::Out;
use crate::ids::{self, Prefix};
use crate::json::member::MemberText;
use crate::responses::event::{ArgumentsDelta, CodeDone, Event, ItemEvent, ItemPlace};
use crate::responses::item::{CodeInterpreterCall, CodeOutputs, Item, ToolStatus};
use crate::tools::code_interpreter::{self, CodeCall, CodeOutcome, Container};
use crate::tools::{GatewayCall, ToolCall, ToolOutcome};

/// Code for the interpreter while the model writes it.
#[derive(Debug)]
pub(super) struct CodeView {
    item: CodeInterpreterCall,
    text: MemberText,
    code: String,
}

impl CodeView {
    /// Announces an item without code.
    pub(super) fn announce(index: usize, out: &mut Out<'_>) -> Self {
        let item = CodeInterpreterCall {
            id: ids::fresh(Prefix::CodeInterpreterCall, out.ids),
            status: ToolStatus::InProgress,
            code: Box::default(),
            container_id: out.container.into(),
            outputs: None,
        };
        let place = ItemPlace {
            item_id: &item.id.clone(),
            output_index: index,
        };
        let announced = Item::CodeInterpreterCall(item.clone());
        out.emit(&Event::ItemAdded(ItemEvent {
            output_index: index,
            item: &announced,
        }));
        out.emit(&Event::CodeInProgress(place));
        Self {
            item,
            text: MemberText::new(code_interpreter::CODE),
            code: String::new(),
        }
    }

    /// More arguments; the code among them is shown.
    pub(super) fn arguments(&mut self, index: usize, delta: &str, out: &mut Out<'_>) {
        let before = self.code.len();
        self.text.push(delta, &mut self.code);
        let fresh = self.code.get(before..).unwrap_or_default();
        if !fresh.is_empty() {
            out.emit(&Event::CodeDelta(ArgumentsDelta {
                item_id: &self.item.id,
                output_index: index,
                delta: fresh,
            }));
        }
    }

    /// The arguments have ended.
    pub(super) fn close(
        self,
        output_index: usize,
        name: Box<str>,
        arguments: Box<str>,
        out: &mut Out<'_>,
    ) -> PendingCall {
        let mut item = self.item;
        item.code = self.code.into();
        out.emit(&Event::CodeDone(CodeDone {
            item_id: &item.id,
            output_index,
            code: &item.code,
        }));
        PendingCall {
            output_index,
            problem: code_interpreter::check(&arguments).err(),
            name,
            arguments,
            item,
        }
    }
}

/// A call that the model has written and that is not done.
#[derive(Debug)]
pub struct PendingCall {
    output_index: usize,
    name: Box<str>,
    arguments: Box<str>,
    /// What is wrong with its arguments.
    problem: Option<&'static str>,
    item: CodeInterpreterCall,
}

impl PendingCall {
    /// Index of its item in `output`.
    pub fn output_index(&self) -> usize {
        self.output_index
    }

    /// Name and arguments, by which the same call is known again.
    pub fn identity(&self) -> (&str, &str) {
        (&self.name, &self.arguments)
    }

    /// Why it cannot be run as it is.
    pub fn problem(&self) -> Option<&'static str> {
        self.problem
    }

    /// Says that it runs; gives what is to be run.
    pub(crate) fn start(
        &mut self,
        container: &Container,
        memory: Option<u64>,
        out: &mut Out<'_>,
    ) -> ToolCall {
        self.item.status = ToolStatus::Interpreting;
        out.emit(&Event::CodeInterpreting(self.place()));
        ToolCall {
            output_index: self.output_index,
            call: GatewayCall::CodeInterpreter(CodeCall {
                container: container.clone(),
                memory,
                code: self.item.code.clone(),
            }),
        }
    }

    /// The item with its result.
    pub(super) fn settle(
        mut self,
        outcome: ToolOutcome,
        shown: CodeOutputs,
        out: &mut Out<'_>,
    ) -> (usize, Item) {
        let ToolOutcome::CodeInterpreter(outcome) = outcome;
        code_interpreter::settle(&mut self.item, outcome, shown);
        if self.item.status == ToolStatus::Completed {
            out.emit(&Event::CodeCompleted(self.place()));
        }
        (self.output_index, Item::CodeInterpreterCall(self.item))
    }

    /// The item of a call that is not run, with the reason for the model.
    pub(super) fn refuse(mut self, why: &str) -> (usize, Item) {
        let outcome = CodeOutcome {
            failure: Some(why.into()),
            ..CodeOutcome::default()
        };
        code_interpreter::settle(&mut self.item, outcome, CodeOutputs::Hidden);
        (self.output_index, Item::CodeInterpreterCall(self.item))
    }

    /// The item of a call that was cut.
    pub(super) fn cut(mut self) -> (usize, Item) {
        self.item.status = ToolStatus::Incomplete;
        (self.output_index, Item::CodeInterpreterCall(self.item))
    }

    fn place(&self) -> ItemPlace<'_> {
        ItemPlace {
            item_id: &self.item.id,
            output_index: self.output_index,
        }
    }
}
