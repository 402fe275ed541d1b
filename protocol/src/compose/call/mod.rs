//! A call while its arguments grow.
//!
//! A call is announced when its arguments begin, since its id and name may not change after that
//! and a server may send the name in pieces. The name decides what the client sees grow: a function
//! call, the input of a custom tool, or an item of a gateway tool; or that it sees the item when it
//! is whole.

mod end;

use std::collections::HashSet;

use serde::de::IgnoredAny;

use super::Out;
use super::calls::WholeCall;
use super::client::{CustomView, InputSource, Late};
use super::gateway::{CodeView, PendingCall};
use super::mcp::McpView;
use super::object::ObjectEnd;
use crate::ids::{self, Prefix};
use crate::normalize::CallPiece;
use crate::responses::alike::Mark;
use crate::responses::event::{ArgumentsDelta, Event, ItemEvent};
use crate::responses::item::{FunctionCall, Item, ItemStatus};
use crate::responses::said::Said;
use crate::tools::{Catalogue, Route};

/// A call whose end is not known yet.
#[derive(Debug)]
pub(super) struct CallDraft {
    upstream_index: u32,
    /// The model server's id, by which pieces are told apart.
    upstream_id: Box<str>,
    /// The id that the client sees.
    call_id: Box<str>,
    name: String,
    arguments: String,
    /// What the model server wants back with the call.
    extra: Box<str>,
    object: ObjectEnd,
    form: Form,
    /// Of an object that is whole: what tells it from another.
    mark: Option<Mark>,
    shown: Shown,
    /// Where the input is, if it is a call of a custom tool.
    source: InputSource,
}

/// How far the arguments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// They go on, or never were an object.
    Open,
    /// An empty object, which is not kept: with some servers it is what stands before the arguments.
    Empty,
    /// A whole object.
    Whole,
    /// A whole object, and a mark of a template behind it: nothing that follows counts.
    Over,
    /// Two objects: nobody knows which one is meant.
    Torn,
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
            upstream_id: Box::default(),
            call_id: Box::default(),
            name: String::new(),
            arguments: String::new(),
            extra: Box::default(),
            object: ObjectEnd::default(),
            form: Form::Open,
            mark: None,
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

    /// Whether it is the call at this index.
    pub(super) fn is_at(&self, index: u32) -> bool {
        self.upstream_index == index && !self.is_raw()
    }

    /// Its index; `None` where the model writes it as its answer.
    pub(super) fn index(&self) -> Option<u32> {
        (!self.is_raw()).then_some(self.upstream_index)
    }

    /// The call, where it is whole and has an id.
    pub(super) fn whole(&self) -> Option<WholeCall> {
        let has_id = !self.upstream_id.is_empty();
        let mark = self.mark.filter(|_| has_id && self.is_object())?;
        Some(WholeCall {
            id: self.upstream_id.clone(),
            name: self.name.as_str().into(),
            arguments: mark,
        })
    }

    /// The mark of its arguments, where it is whole and the call that the piece names.
    pub(super) fn mark_if(&self, piece: CallPiece<'_>) -> Option<Mark> {
        let same = *self.upstream_id == *piece.id && self.name == piece.name;
        self.mark.filter(|_| same && self.is_object())
    }

    /// Whether a piece for this call's index begins another call. Some servers give every call index
    /// 0, some leave ids out, some give every piece an id of its own: only a piece with a name can
    /// begin a call, and it does when this call cannot go on with it.
    pub(super) fn is_followed_by(&self, piece: CallPiece<'_>, catalogue: &Catalogue) -> bool {
        if piece.name.is_empty() || self.name.is_empty() {
            return false;
        }
        let has_ids = !piece.id.is_empty() && !self.upstream_id.is_empty();
        let same_id = piece.id == &*self.upstream_id;
        let renamed = piece.name != self.name;
        if has_ids && !same_id {
            return true;
        }
        if self.is_settled() {
            // A whole object cannot go on; but one server repeats id and name behind it.
            return !has_ids || renamed || !is_blank(piece.arguments);
        }
        if self.form == Form::Empty {
            return !has_ids || renamed;
        }
        if !self.arguments.is_empty() {
            return renamed;
        }
        // Else it may be the rest of the name.
        renamed && catalogue.has_name(&self.name) && catalogue.has_name(piece.name)
    }

    /// Takes id and name of a piece; after the announcement they are fixed.
    pub(super) fn name(&mut self, piece: CallPiece<'_>) {
        if self.extra.is_empty() {
            self.extra = piece.extra.into();
        }
        if self.is_announced() {
            return;
        }
        if self.upstream_id.is_empty() {
            self.upstream_id = piece.id.into();
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

    /// Whether arguments have begun.
    pub(super) fn has_arguments(&self) -> bool {
        !self.arguments.is_empty()
    }

    /// Whether nothing has come that could be run.
    pub(super) fn says_nothing(&self) -> bool {
        self.arguments.is_empty() && self.form == Form::Open
    }

    /// Whether it is shown only when it is closed.
    pub(super) fn is_late(&self) -> bool {
        matches!(self.shown, Shown::Later(_))
    }

    /// Whether it becomes an item.
    pub(super) fn is_kept(&self) -> bool {
        !matches!(self.shown, Shown::Never)
    }

    /// Whether it never got a name.
    pub(super) fn is_nameless(&self) -> bool {
        !self.is_announced() && self.name.is_empty()
    }

    /// It is one call too many.
    pub(super) fn drop(&mut self) {
        self.shown = Shown::Never;
    }

    /// Arguments that come before the call is announced.
    pub(super) fn hold(&mut self, delta: &str) {
        self.keep(delta);
    }

    /// Keeps more arguments; gives what of them counts. What stands behind a whole object is no part of
    /// it: models write marks of their templates there. That is so wherever the server cuts.
    fn keep<'d>(&mut self, delta: &'d str) -> &'d str {
        let delta = match self.form {
            Form::Over => return "",
            Form::Empty | Form::Whole => match self.behind(delta) {
                "" => return "",
                more => more,
            },
            Form::Open | Form::Torn => delta,
        };
        if self.is_raw() || self.object.is_over() {
            self.arguments.push_str(delta);
            return delta;
        }
        let (within, behind) = delta.split_at(self.object.push(delta));
        // What was told cannot be taken back.
        let alone = self.arguments.is_empty() || !self.is_announced();
        self.arguments.push_str(within);
        if !self.object.is_over() {
            return delta;
        }
        if !is_json(&self.arguments) {
            self.arguments.push_str(behind);
            return delta;
        }
        self.form = Form::Whole;
        self.mark = Some(Mark::of_json(&self.arguments));
        if alone && is_empty_object(&self.arguments) {
            self.form = Form::Empty;
            self.arguments.clear();
            self.object = ObjectEnd::default();
            return self.keep(behind);
        }
        if self.behind(behind).is_empty() {
            return within;
        }
        self.arguments.push_str(behind);
        delta
    }

    /// What of a text behind an object counts, since it is another object.
    fn behind<'d>(&mut self, text: &'d str) -> &'d str {
        let more = text.trim_start();
        let is_known = |text: &str| Some(Mark::of_json(text)) == self.mark;
        if more.is_empty() || (self.form == Form::Whole && is_json(more) && is_known(more)) {
            return "";
        }
        self.form = match (more.starts_with('{'), self.form) {
            (false, _) => Form::Over,
            (true, Form::Empty) => Form::Open,
            (true, _) => Form::Torn,
        };
        if self.form == Form::Over { "" } else { more }
    }

    /// Fixes id, name and how the call is shown; `new_slot` gives it a place in the output, and
    /// `used` has the ids of the response's other calls: a server may give one id twice.
    pub(super) fn announce(
        &mut self,
        used: &mut HashSet<Box<str>>,
        new_slot: impl FnOnce() -> usize,
        out: &mut Out<'_>,
    ) {
        self.call_id = self.upstream_id.clone();
        if self.call_id.is_empty() || !used.insert(self.call_id.clone()) {
            self.call_id = ids::fresh(Prefix::Call, out.ids);
        }
        // Clients never see the id of a call that is run here; the model is told it again.
        let said = Said::of(&self.upstream_id, &self.extra);
        self.choose_view(said, new_slot, out);
        // What came before is told now.
        let held = std::mem::take(&mut self.arguments);
        if !held.is_empty() {
            self.tell(&held, out);
            self.arguments = held;
        }
    }

    fn choose_view(
        &mut self,
        said: Option<Box<Said>>,
        new_slot: impl FnOnce() -> usize,
        out: &mut Out<'_>,
    ) {
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
            // What is approved is the whole: nothing is shown before.
            Route::Mcp(at) if out.catalogue.mcp(at).is_some_and(|f| f.needs_approval) => {
                Shown::Later(route)
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
        let kept = self.keep(delta);
        if !kept.is_empty() {
            self.tell(kept, out);
        }
    }

    fn tell(&mut self, delta: &str, out: &mut Out<'_>) {
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
    }

    /// Whether the arguments are a whole JSON object, so that nothing but white space can follow.
    pub(super) fn is_settled(&self) -> bool {
        !self.is_raw() && matches!(self.form, Form::Whole | Form::Over)
    }

    /// As [`Self::is_settled`], or an empty object, which arguments may follow.
    pub(super) fn is_object(&self) -> bool {
        self.is_settled() || self.form == Form::Empty
    }
}

/// The arguments of a call that has none.
const NOTHING: &str = "{}";

fn is_empty_object(object: &str) -> bool {
    object
        .trim_matches(['{', '}', ' ', '\n', '\r', '\t'])
        .is_empty()
}

/// Whether a text is nothing but white space.
pub(super) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// Whether a text is one JSON value; nesting costs no stack.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}
