//! What a call becomes when it is closed.

use super::{CallDraft, Closed, NOTHING, Shown, View, is_json};
use crate::compose::client::Late;
use crate::compose::gateway::PendingCall;
use crate::compose::mcp::McpView;
use crate::compose::{Ending, Out};
use crate::responses::event::{ArgumentsDone, Event};
use crate::responses::item::{FunctionCall, Item, ItemStatus};
use crate::responses::said::Said;
use crate::tools::mcp::NO_SUCH_TOOL;

impl CallDraft {
    /// What the call has become; `None` when nothing was ever known of it.
    ///
    /// A call without arguments is given an empty object when the model ended it itself: that is
    /// how a call of a function without parameters is written.
    pub(in crate::compose) fn close(mut self, ending: Ending, out: &mut Out<'_>) -> Option<Closed> {
        if self.arguments.is_empty() && (ending == Ending::Whole || self.is_object()) {
            NOTHING.clone_into(&mut self.arguments);
            self.tell(NOTHING, out);
        }
        let (index, view) = match std::mem::replace(&mut self.shown, Shown::Never) {
            Shown::At { index, view } => (index, view),
            Shown::Later(route) => {
                return Some(Closed::Late(Late {
                    route,
                    said: Said::of(&self.upstream_id, &self.extra),
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
                let said_of = self.said_of();
                let mut item = view.close(index, &self.arguments, ending, out);
                if let Some(said) = item.said_mut() {
                    *said = said_of;
                }
                Closed::Item(index, item)
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
        }
    }

    /// What the model server is to find again: its id, where the client has another.
    fn said_of(&self) -> Option<Box<Said>> {
        let id = if self.call_id == self.upstream_id {
            ""
        } else {
            &self.upstream_id
        };
        Said::of(id, &self.extra)
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
        let said = self.said_of();
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
            said,
        })
    }
}
