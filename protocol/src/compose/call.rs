//! A call while its arguments grow.
//!
//! A call is announced when its arguments begin, since its id and name may not change after that
//! and a server may send the name in pieces. The name decides what the client sees grow: a function
//! call, the input of a custom tool, or an item of a gateway tool; or that it sees the item when it
//! is whole.

use serde::de::IgnoredAny;

use super::client::{CustomView, InputSource, Late};
use super::gateway::{CodeView, PendingCall};
use super::mcp::McpView;
use super::{Ending, Out};
use crate::ids::{self, Prefix};
use crate::normalize::CallPiece;
use crate::responses::event::{ArgumentsDelta, ArgumentsDone, Event, ItemEvent};
use crate::responses::item::{FunctionCall, Item, ItemStatus};
use crate::responses::said::Said;
use crate::tools::Route;
use crate::tools::mcp::NO_SUCH_TOOL;

/// A call whose end is not known yet.
#[derive(Debug)]
pub(super) struct CallDraft {
    upstream_index: u32,
    call_id: Box<str>,
    name: String,
    arguments: String,
    shown: Shown,
    /// Where the input is, if it is a call of a custom tool.
    source: InputSource,
}

/// Whether the client has been told of the call.
#[derive(Debug)]
enum Shown {
    /// Its name is not known yet.
    NotYet,
    /// It is fixed: `output_item.added` was sent.
    At { index: usize, view: View },
    /// When it is whole.
    Later(Route),
    /// Never.
    Never,
}

/// What the client sees of the call.
#[derive(Debug)]
enum View {
    /// A function call with this item id.
    Function(Box<str>),
    /// Input for a custom tool.
    Custom(CustomView),
    /// Code for the interpreter.
    Code(CodeView),
    /// A tool of an MCP server.
    Mcp(McpView),
}

/// What a call has become.
pub(super) enum Closed {
    /// An item that is done, and its place.
    Item(usize, Item),
    /// A call whose item is to be shown now.
    Late(Late),
    /// A call that the gateway has to run before its item is done.
    Pending(PendingCall),
}

impl CallDraft {
    /// A call of which nothing but its upstream index is known.
    pub(super) fn new(upstream_index: u32) -> Self {
        Self {
            upstream_index,
            call_id: Box::default(),
            name: String::new(),
            arguments: String::new(),
            shown: Shown::NotYet,
            source: InputSource::Arguments,
        }
    }

    /// A call of the custom tool `name`, whose input the model writes as its answer.
    pub(super) fn raw(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            source: InputSource::Answer,
            ..Self::new(u32::MAX)
        }
    }

    /// Whether the model writes its input as its answer.
    pub(super) fn is_raw(&self) -> bool {
        self.source == InputSource::Answer
    }

    /// Whether the piece belongs to this call. Some servers give every call index 0 and tell them
    /// apart by id alone.
    pub(super) fn is(&self, piece: CallPiece<'_>) -> bool {
        let other_id =
            !piece.id.is_empty() && !self.call_id.is_empty() && piece.id != &*self.call_id;
        self.upstream_index == piece.index && !other_id
    }

    /// Takes id and name of a piece; after the announcement they are fixed.
    pub(super) fn name(&mut self, piece: CallPiece<'_>) {
        if self.is_announced() {
            return;
        }
        if self.call_id.is_empty() {
            self.call_id = piece.id.into();
        }
        // Some servers repeat the whole name with every piece.
        if piece.name != self.name {
            self.name.push_str(piece.name);
        }
    }

    /// Whether it is fixed how the call is shown.
    pub(super) fn is_announced(&self) -> bool {
        !matches!(self.shown, Shown::NotYet)
    }

    /// Whether there is anything to announce.
    pub(super) fn has_name(&self) -> bool {
        !self.name.is_empty()
    }

    /// Fixes id, name and how the call is shown; `new_slot` gives it a place in the output.
    pub(super) fn announce(&mut self, new_slot: impl FnOnce() -> usize, out: &mut Out<'_>) {
        // Clients never see the id of a call that is run here; the model is told it again.
        let said = Said::of_id(&self.call_id);
        if self.call_id.is_empty() {
            self.call_id = ids::fresh(Prefix::Call, out.ids);
        }
        let route = out.catalogue.route(&self.name);
        self.shown = match route {
            Route::Refused => Shown::Never,
            Route::ToolSearch | Route::Emulated(_) => Shown::Later(route),
            Route::Function => {
                let index = new_slot();
                let view = View::Function(self.announce_function(index, out));
                Shown::At { index, view }
            }
            Route::Custom => {
                let index = new_slot();
                let view = CustomView::announce(index, &self.call_id, &self.name, self.source, out);
                Shown::At {
                    index,
                    view: View::Custom(view),
                }
            }
            Route::CodeInterpreter => {
                let index = new_slot();
                let view = View::Code(CodeView::announce(index, said, out));
                Shown::At { index, view }
            }
            Route::NoSuchMcp => {
                let index = new_slot();
                let view = View::Mcp(McpView::announce_unknown(index, &self.name, said, out));
                Shown::At { index, view }
            }
            Route::Mcp(at) => {
                let index = new_slot();
                let view = match out.catalogue.mcp(at) {
                    Some(function) => View::Mcp(McpView::announce(index, function, said, out)),
                    None => View::Function(self.announce_function(index, out)),
                };
                Shown::At { index, view }
            }
        };
    }

    fn announce_function(&mut self, index: usize, out: &mut Out<'_>) -> Box<str> {
        let id = ids::fresh(Prefix::FunctionCall, out.ids);
        let (name, namespace) = out.catalogue.own_name(&self.name);
        let item = Item::FunctionCall(FunctionCall {
            id: id.clone(),
            status: ItemStatus::InProgress,
            call_id: self.call_id.clone(),
            name: name.into(),
            namespace: namespace.map(Into::into),
            arguments: Box::default(),
            said: None,
        });
        out.emit(&Event::ItemAdded(ItemEvent {
            output_index: index,
            item: &item,
        }));
        id
    }

    /// More arguments; the call is announced.
    pub(super) fn arguments(&mut self, delta: &str, out: &mut Out<'_>) {
        match &mut self.shown {
            Shown::At {
                index,
                view: View::Function(id),
            } => out.emit(&Event::ArgumentsDelta(ArgumentsDelta {
                item_id: id,
                output_index: *index,
                delta,
            })),
            Shown::At {
                index,
                view: View::Custom(view),
            } => view.arguments(*index, delta, out),
            Shown::At {
                index,
                view: View::Code(view),
            } => view.arguments(*index, delta, out),
            Shown::At {
                index,
                view: View::Mcp(view),
            } => view.arguments(*index, delta, out),
            Shown::NotYet | Shown::Later(_) | Shown::Never => {}
        }
        self.arguments.push_str(delta);
    }

    /// Whether the arguments are a whole JSON object, so that nothing but white space can follow.
    pub(super) fn is_settled(&self) -> bool {
        !self.is_raw() && self.arguments.trim_end().ends_with('}') && is_json(&self.arguments)
    }

    /// What the call has become; `None` when nothing was ever known of it.
    ///
    /// A call without arguments is given an empty object when the model ended it itself: that is
    /// how a call of a function without parameters is written.
    pub(super) fn close(mut self, ending: Ending, out: &mut Out<'_>) -> Option<Closed> {
        if self.arguments.is_empty() && ending == Ending::Whole {
            self.arguments("{}", out);
        }
        let (index, view) = match std::mem::replace(&mut self.shown, Shown::Never) {
            Shown::At { index, view } => (index, view),
            Shown::Later(route) => {
                return Some(Closed::Late(Late {
                    route,
                    call_id: self.call_id,
                    name: self.name.into(),
                    arguments: self.arguments.into(),
                }));
            }
            Shown::NotYet | Shown::Never => return None,
        };
        Some(match view {
            View::Function(id) => Closed::Item(index, self.close_function(index, id, out)),
            View::Custom(view) => {
                Closed::Item(index, view.close(index, &self.arguments, ending, out))
            }
            View::Code(view) => {
                let (name, arguments) = (self.name.into(), self.arguments.into());
                Closed::Pending(view.close(index, name, arguments, out))
            }
            View::Mcp(view) => self.close_mcp(index, view, out),
        })
    }

    fn close_mcp(self, index: usize, view: McpView, out: &mut Out<'_>) -> Closed {
        match view {
            McpView::Call(item) => {
                let (name, arguments) = (self.name.into(), self.arguments.into());
                Closed::Pending(PendingCall::mcp(index, name, arguments, item, out))
            }
            McpView::Unknown(item) => {
                let (name, arguments) = (self.name.into(), self.arguments.into());
                let call = PendingCall::mcp(index, name, arguments, item, out);
                Closed::Pending(call.refused(NO_SUCH_TOOL))
            }
            McpView::Approval(mut item) => {
                item.arguments = self.arguments.into();
                Closed::Item(index, Item::McpApprovalRequest(item))
            }
        }
    }

    /// Arguments that are no JSON make the item `incomplete`, whatever ended it.
    fn close_function(self, index: usize, id: Box<str>, out: &mut Out<'_>) -> Item {
        let (name, namespace) = out.catalogue.own_name(&self.name);
        let (name, namespace): (Box<str>, _) = (name.into(), namespace.map(Into::into));
        out.emit(&Event::ArgumentsDone(ArgumentsDone {
            item_id: &id,
            output_index: index,
            name: &name,
            arguments: &self.arguments,
        }));
        let whole = is_json(&self.arguments);
        Item::FunctionCall(FunctionCall {
            id,
            status: if whole {
                ItemStatus::Completed
            } else {
                ItemStatus::Incomplete
            },
            call_id: self.call_id,
            name,
            namespace,
            arguments: self.arguments.into(),
            said: None,
        })
    }
}

/// Whether a text is one JSON value; nesting costs no stack.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}
