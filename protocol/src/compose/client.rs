//! Calls of client tools that are no plain functions: the input of a custom tool as it grows, and
//! typed items, which are shown once they are whole.

use serde_json::value::RawValue;

use super::gateway::PendingCall;
use super::mcp::McpView;
use super::{Ending, Out};
use crate::ids::{self, Prefix};
use crate::json::member::MemberText;
use crate::json_text;
use crate::responses::emulated::{Action, EmulatedCall};
use crate::responses::event::{ArgumentsDelta, ArgumentsDone, Event, InputDone, ItemEvent};
use crate::responses::item::{CustomToolCall, FunctionCall, Item, ItemStatus, ToolSearchCall};
use crate::responses::said::Said;
use crate::responses::tool::Execution;
use crate::tools::mcp::{self, McpFunction};
use crate::tools::{Route, shown};

/// Where the input of a custom tool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputSource {
    /// In the arguments of the function that stands for the tool.
    Arguments,
    /// It is the model's answer.
    Answer,
}

/// The input of a custom tool while the model writes it.
#[derive(Debug)]
pub(super) struct CustomView {
    item: CustomToolCall,
    /// Picks the input out of arguments; `None` where the model writes the input itself.
    member: Option<MemberText>,
    input: String,
}

impl CustomView {
    /// Announces an item without input.
    pub(super) fn announce(
        index: usize,
        call_id: &str,
        name: &str,
        source: InputSource,
        out: &mut Out<'_>,
    ) -> Self {
        let (own, namespace) = out.catalogue.own_name(name);
        let item = CustomToolCall {
            id: ids::fresh(Prefix::CustomToolCall, out.ids),
            status: ItemStatus::InProgress,
            call_id: call_id.into(),
            name: own.into(),
            namespace: namespace.map(Into::into),
            input: Box::default(),
            said: None,
        };
        let announced = Item::CustomToolCall(item.clone());
        out.emit(&Event::ItemAdded(ItemEvent {
            output_index: index,
            item: &announced,
        }));
        Self {
            item,
            member: match source {
                InputSource::Arguments => Some(MemberText::new(shown::INPUT)),
                InputSource::Answer => None,
            },
            input: String::new(),
        }
    }

    /// More arguments; the input among them is shown.
    pub(super) fn arguments(&mut self, index: usize, delta: &str, out: &mut Out<'_>) {
        let before = self.input.len();
        match &mut self.member {
            Some(member) => member.push(delta, &mut self.input),
            None => self.input.push_str(delta),
        }
        self.tell(index, before, out);
    }

    /// Shows the input from `before` on.
    fn tell(&self, index: usize, before: usize, out: &mut Out<'_>) {
        let fresh = self.input.get(before..).unwrap_or_default();
        if !fresh.is_empty() {
            out.emit(&Event::InputDelta(ArgumentsDelta {
                item_id: &self.item.id,
                output_index: index,
                delta: fresh,
            }));
        }
    }

    /// The finished item. Where the arguments are not what the function takes, the item is
    /// `incomplete`, and of arguments without any input the text is kept as it is.
    pub(super) fn close(
        mut self,
        index: usize,
        arguments: &str,
        ending: Ending,
        out: &mut Out<'_>,
    ) -> Item {
        let whole = if self.member.is_some() {
            let input = shown::input(arguments);
            if self.input.is_empty() {
                self.input.push_str(input.as_deref().unwrap_or(arguments));
                self.tell(index, 0, out);
            }
            input.is_some()
        } else {
            ending == Ending::Whole
        };
        out.emit(&Event::InputDone(InputDone {
            item_id: &self.item.id,
            output_index: index,
            input: &self.input,
        }));
        self.item.input = self.input.into();
        self.item.status = if whole {
            ItemStatus::Completed
        } else {
            ItemStatus::Incomplete
        };
        Item::CustomToolCall(self.item)
    }
}

/// What became of a call that was shown late.
#[derive(Debug)]
pub(super) enum Told {
    /// An item that is done.
    Item(Item),
    /// A call of the gateway's that waits.
    Pending(PendingCall),
}

/// A whole call whose item shows nothing before it is whole.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) route: Route,
    /// The model server's id of it.
    pub(super) said: Option<Box<Said>>,
    pub(super) call_id: Box<str>,
    pub(super) name: Box<str>,
    pub(super) arguments: Box<str>,
}

impl Late {
    /// Announces the item; gives it as it is done. Arguments that the tool does not take are kept in
    /// an `incomplete` function call: a typed action cannot hold them.
    pub(super) fn show(self, output_index: usize, out: &mut Out<'_>) -> Told {
        if let Route::Mcp(at) = self.route
            && let Some(function) = out.catalogue.mcp(at)
        {
            return self.ask(output_index, function, out);
        }
        let Some(item) = self.typed(out) else {
            return Told::Item(self.malformed(output_index, out));
        };
        out.emit(&Event::ItemAdded(ItemEvent {
            output_index,
            item: &item,
        }));
        Told::Item(whole(item))
    }

    /// Asks the client for its approval. A call that could not be run would spend the approval for
    /// nothing: the model is told of it instead.
    fn ask(self, index: usize, function: &McpFunction, out: &mut Out<'_>) -> Told {
        if mcp::check(&self.arguments).is_ok() {
            return Told::Item(super::mcp::ask(
                index,
                function,
                self.arguments,
                self.said,
                out,
            ));
        }
        let view = McpView::announce(index, function, self.said, out);
        view.arguments(index, &self.arguments, out);
        let (McpView::Call(item) | McpView::Unknown(item)) = view;
        Told::Pending(PendingCall::mcp(
            index,
            self.name,
            self.arguments,
            item,
            out,
        ))
    }

    /// What the model server wants back, with its id where the client has another.
    fn extra(&self) -> Option<Box<Said>> {
        let said = self.said.as_ref()?;
        let id = said.id.as_deref().filter(|id| **id != *self.call_id);
        Said::of(
            id.unwrap_or_default(),
            said.extra.as_deref().unwrap_or_default(),
        )
    }

    /// The item in progress.
    fn typed(&self, out: &mut Out<'_>) -> Option<Item> {
        let status = ItemStatus::InProgress;
        let call_id = self.call_id.clone();
        match self.route {
            Route::Emulated(kind) => {
                let action = Action::parse(kind, &self.arguments)?;
                Some(Item::EmulatedCall(EmulatedCall {
                    id: ids::fresh(kind.prefix(), out.ids),
                    status,
                    call_id,
                    action,
                    said: self.extra(),
                }))
            }
            Route::ToolSearch => {
                let text = json_text::readable(self.arguments.trim())?;
                if !text.starts_with('{') {
                    return None;
                }
                Some(Item::ToolSearchCall(ToolSearchCall {
                    id: ids::fresh(Prefix::ToolSearchCall, out.ids),
                    status,
                    call_id: Some(call_id),
                    execution: Execution::Client,
                    arguments: RawValue::from_string(text).ok()?,
                    said: self.extra(),
                }))
            }
            Route::Function
            | Route::Custom
            | Route::Refused
            | Route::CodeInterpreter
            | Route::Mcp(_)
            | Route::NoSuchMcp => None,
        }
    }

    fn malformed(self, output_index: usize, out: &mut Out<'_>) -> Item {
        let mut item = FunctionCall {
            id: ids::fresh(Prefix::FunctionCall, out.ids),
            status: ItemStatus::InProgress,
            call_id: self.call_id,
            name: self.name,
            namespace: None,
            arguments: Box::default(),
            said: None,
        };
        let announced = Item::FunctionCall(item.clone());
        out.emit(&Event::ItemAdded(ItemEvent {
            output_index,
            item: &announced,
        }));
        if !self.arguments.is_empty() {
            out.emit(&Event::ArgumentsDelta(ArgumentsDelta {
                item_id: &item.id,
                output_index,
                delta: &self.arguments,
            }));
        }
        out.emit(&Event::ArgumentsDone(ArgumentsDone {
            item_id: &item.id,
            output_index,
            name: &item.name,
            arguments: &self.arguments,
        }));
        item.status = ItemStatus::Incomplete;
        item.arguments = self.arguments;
        Item::FunctionCall(item)
    }
}

fn whole(mut item: Item) -> Item {
    match &mut item {
        Item::EmulatedCall(call) => call.status = ItemStatus::Completed,
        Item::ToolSearchCall(call) => call.status = ItemStatus::Completed,
        Item::Message(_)
        | Item::Reasoning(_)
        | Item::FunctionCall(_)
        | Item::FunctionCallOutput(_)
        | Item::CodeInterpreterCall(_)
        | Item::McpListTools(_)
        | Item::McpCall(_)
        | Item::McpApprovalRequest(_)
        | Item::McpApprovalResponse(_)
        | Item::CustomToolCall(_)
        | Item::CustomToolCallOutput(_)
        | Item::ToolSearchOutput(_)
        | Item::AdditionalTools(_)
        | Item::ConfigurationUpdate(_)
        | Item::ItemReference(_)
        | Item::Compaction(_)
        | Item::CompactionTrigger(_)
        | Item::Kept(_) => {}
    }
    item
}
