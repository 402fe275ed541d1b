//! Calls that the gateway runs: from the first piece of their arguments to the item with the result.

use std::sync::Arc;

use super::{Out, mcp};
use crate::ids::{self, Prefix};
use crate::json::member::MemberText;
use crate::responses::event::{ArgumentsDelta, CodeDone, Event, ItemEvent, ItemPlace};
use crate::responses::item::{CodeInterpreterCall, CodeOutputs, Item, ToolStatus};
use crate::responses::mcp::McpCall;
use crate::responses::said::Said;
use crate::tools::code_interpreter::{self, CodeCall, CodeOutcome, Container};
use crate::tools::mcp::McpToolCall;
use crate::tools::{self, GatewayCall, ToolCall, ToolOutcome};

/// Code for the interpreter while the model writes it.
#[derive(Debug)]
pub(super) struct CodeView {
    item: CodeInterpreterCall,
    text: MemberText,
    code: String,
}

impl CodeView {
    /// Announces an item without code.
    pub(super) fn announce(index: usize, said: Option<Box<Said>>, out: &mut Out<'_>) -> Self {
        let item = CodeInterpreterCall {
            id: ids::fresh(Prefix::CodeInterpreterCall, out.ids),
            status: ToolStatus::InProgress,
            code: Box::default(),
            container_id: out.container.into(),
            outputs: None,
            said,
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
        self.tell(index, fresh, out);
    }

    fn tell(&self, index: usize, fresh: &str, out: &mut Out<'_>) {
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
        mut self,
        output_index: usize,
        name: Box<str>,
        arguments: Box<str>,
        out: &mut Out<'_>,
    ) -> PendingCall {
        // The name of a member may be written with escapes, which are not looked for while it grows.
        let read = code_interpreter::check(&arguments);
        if let Ok(code) = &read
            && let Some(rest) = code.strip_prefix(&*self.code)
        {
            self.tell(output_index, rest, out);
            self.code.push_str(rest);
        }
        let mut item = self.item;
        item.code = self.code.into();
        out.emit(&Event::CodeDone(CodeDone {
            item_id: &item.id,
            output_index,
            code: &item.code,
        }));
        PendingCall {
            output_index,
            problem: read.err(),
            name,
            arguments,
            item: PendingItem::Code(item),
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
    item: PendingItem,
}

/// Its item so far.
#[derive(Debug)]
enum PendingItem {
    Code(CodeInterpreterCall),
    Mcp(McpCall),
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

    /// A call of an MCP tool whose arguments have ended.
    pub(super) fn mcp(
        output_index: usize,
        name: Box<str>,
        arguments: Box<str>,
        mut item: McpCall,
        out: &mut Out<'_>,
    ) -> Self {
        mcp::end_arguments(output_index, &mut item, &arguments, out);
        Self {
            output_index,
            problem: tools::mcp::check(&arguments).err(),
            name,
            arguments,
            item: PendingItem::Mcp(item),
        }
    }

    /// The same call with something wrong about it.
    pub(super) fn refused(mut self, problem: &'static str) -> Self {
        self.problem = Some(problem);
        self
    }

    /// Says that it runs; gives what is to be run. `None` when it cannot be.
    pub(crate) fn start(
        &mut self,
        container: Option<&Container>,
        out: &mut Out<'_>,
    ) -> Option<ToolCall> {
        let output_index = self.output_index;
        let call = match &mut self.item {
            PendingItem::Code(item) => {
                item.status = ToolStatus::Interpreting;
                out.emit(&Event::CodeInterpreting(ItemPlace {
                    item_id: &item.id,
                    output_index,
                }));
                GatewayCall::CodeInterpreter(CodeCall {
                    container: container?.clone(),
                    code: item.code.clone(),
                })
            }
            PendingItem::Mcp(item) => {
                item.status = ToolStatus::Calling;
                let function = out.catalogue.mcp_tool(&item.server_label, &item.name)?;
                GatewayCall::Mcp(McpToolCall {
                    server: Arc::clone(&function.server),
                    tool: item.name.clone(),
                    arguments: item.arguments.clone(),
                })
            }
        };
        Some(ToolCall { output_index, call })
    }

    /// The item with its result.
    pub(super) fn settle(
        self,
        outcome: ToolOutcome,
        shown: CodeOutputs,
        out: &mut Out<'_>,
    ) -> (usize, Item) {
        let output_index = self.output_index;
        let item = match (self.item, outcome) {
            (PendingItem::Code(mut item), ToolOutcome::CodeInterpreter(outcome)) => {
                code_interpreter::settle(&mut item, outcome, shown);
                if item.status == ToolStatus::Completed {
                    out.emit(&Event::CodeCompleted(ItemPlace {
                        item_id: &item.id,
                        output_index,
                    }));
                }
                Item::CodeInterpreterCall(item)
            }
            (PendingItem::Mcp(item), ToolOutcome::Mcp(outcome)) => {
                mcp::settle(output_index, item, outcome, out)
            }
            // An outcome of another kind than the call; nothing sends one.
            (item @ (PendingItem::Code(_) | PendingItem::Mcp(_)), _) => item.cut(),
        };
        (output_index, item)
    }

    /// The item of a call that is not run, with the reason for the model.
    pub(super) fn refuse(self, why: &str, out: &mut Out<'_>) -> (usize, Item) {
        let item = match self.item {
            PendingItem::Code(mut item) => {
                let outcome = CodeOutcome {
                    failure: Some(why.into()),
                    ..CodeOutcome::default()
                };
                code_interpreter::settle(&mut item, outcome, CodeOutputs::Hidden);
                Item::CodeInterpreterCall(item)
            }
            PendingItem::Mcp(item) => {
                mcp::settle(self.output_index, item, tools::mcp::refused(why), out)
            }
        };
        (self.output_index, item)
    }

    /// The item of a call that was cut.
    pub(super) fn cut(self) -> (usize, Item) {
        (self.output_index, self.item.cut())
    }
}

impl PendingItem {
    fn cut(self) -> Item {
        match self {
            Self::Code(mut item) => {
                item.status = ToolStatus::Incomplete;
                Item::CodeInterpreterCall(item)
            }
            Self::Mcp(mut item) => {
                item.status = ToolStatus::Incomplete;
                Item::McpCall(item)
            }
        }
    }
}
