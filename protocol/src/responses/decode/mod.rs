//! Reading items: from a request, and from what this crate stored.
//!
//! Clients send back what they were sent, in full or stripped of ids, statuses and nulls; all of
//! it becomes the one normalised shape of [`super::item`], in which every item has an id.

mod calls;
mod compaction;
mod emulated;
mod hosted;
mod kept;
mod loaded;
mod mcp;
mod message;
mod part;
mod reasoning;

use serde_json::value::RawValue;

use super::content::Part;
use super::item::{Item, ItemStatus, Message, Role};
use crate::ids::{self, IdSource, Prefix};
use crate::json::{Fields, Kind, Place, Problems, elements, kind, read};

/// Most items of one request: at fifty tokens an item more than any model reads, and little enough
/// that what is made of them stays in proportion to their bytes.
pub(crate) const MAX_ITEMS: usize = 20_000;

/// What the readers of items share.
pub(crate) struct Reader<'a> {
    /// Ids for items that came without.
    pub(crate) ids: &'a mut dyn IdSource,
    /// What is wrong with the request.
    pub(crate) problems: &'a mut Problems,
}

type ReadItem = fn(&mut Fields<'_, '_>, &mut Reader<'_>) -> Option<Item>;

/// Item types that can be read: the one place to extend.
const TYPES: &[(&str, ReadItem)] = &[
    ("message", message::read),
    ("reasoning", reasoning::read),
    ("function_call", calls::read_call),
    ("function_call_output", calls::read_output),
    ("code_interpreter_call", hosted::read_code),
    ("mcp_list_tools", mcp::read_list),
    ("mcp_call", mcp::read_call),
    ("mcp_approval_request", mcp::read_request),
    ("mcp_approval_response", mcp::read_response),
    ("custom_tool_call", calls::read_custom),
    ("custom_tool_call_output", calls::read_custom_output),
    ("tool_search_call", loaded::read_search),
    ("tool_search_output", loaded::read_found),
    ("additional_tools", loaded::read_additional),
    ("configuration_update", loaded::read_configuration),
    ("item_reference", loaded::read_reference),
    ("compaction", compaction::read),
    ("compaction_trigger", compaction::read_trigger),
    ("local_shell_call", emulated::read_local_shell),
    ("local_shell_call_output", kept::read_local_shell_output),
    ("shell_call", emulated::read_shell),
    ("shell_call_output", kept::read_shell_output),
    ("apply_patch_call", emulated::read_patch),
    ("apply_patch_call_output", kept::read_patch_output),
    ("computer_call", kept::read_computer),
    ("computer_call_output", kept::read_computer_output),
    ("web_search_call", kept::read_web_search),
    ("file_search_call", kept::read_file_search),
    ("image_generation_call", kept::read_image),
];

impl Reader<'_> {
    /// Reads `input`: a string is one user message.
    pub(crate) fn input(&mut self, raw: &RawValue, place: &Place<'_>) -> Vec<Item> {
        match kind(raw) {
            Kind::String => {
                let text = read::text(raw).unwrap_or_default();
                vec![self.user_text(&text)]
            }
            Kind::Array => self.items(raw, place),
            Kind::Null | Kind::Bool | Kind::Number | Kind::Object => {
                self.problems
                    .wrong_type(place, "a string or an array of items");
                Vec::new()
            }
        }
    }

    /// Reads an array of items.
    pub(crate) fn items(&mut self, raw: &RawValue, place: &Place<'_>) -> Vec<Item> {
        let raws = elements(raw, place, self.problems).unwrap_or_default();
        if raws.len() > MAX_ITEMS {
            let wanted = format_args!("an array of at most {MAX_ITEMS} items");
            self.problems.invalid(place, wanted);
            return Vec::new();
        }
        self.each(raws, place)
    }

    /// Reads an array that this crate wrote: however many items a row has, it is read.
    pub(crate) fn stored_items(&mut self, raw: &RawValue) -> Vec<Item> {
        let raws = elements(raw, &Place::Root, self.problems).unwrap_or_default();
        self.each(raws, &Place::Root)
    }

    fn each(&mut self, raws: Vec<&RawValue>, place: &Place<'_>) -> Vec<Item> {
        let mut items = Vec::with_capacity(raws.len());
        for (index, raw) in raws.into_iter().enumerate() {
            items.extend(self.item(raw, place.element(index)));
        }
        items
    }

    fn item(&mut self, raw: &RawValue, place: Place<'_>) -> Option<Item> {
        let mut fields = Fields::of(raw, place, self.problems)?;
        let read = if fields.take_if_null("type") && fields.has("role") {
            message::read
        } else if fields.is_only("id") {
            // OpenAI leaves the type of a reference out.
            loaded::read_reference
        } else {
            let word = fields.required_word("type", self.problems)?;
            let known = TYPES.iter().find(|(name, _)| *name == word);
            let Some((_, read)) = known else {
                let words: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
                self.problems.wrong_word(&place.member("type"), &words);
                return None;
            };
            *read
        };
        read(&mut fields, self)
    }

    fn user_text(&mut self, text: &str) -> Item {
        Item::Message(Message {
            id: ids::fresh(Prefix::Message, self.ids),
            status: ItemStatus::Completed,
            role: Role::User,
            content: vec![Part::InputText { text: text.into() }],
            phase: None,
        })
    }

    /// The item's own id, or a fresh one.
    fn id(&mut self, fields: &mut Fields<'_, '_>, prefix: Prefix) -> Box<str> {
        // Of any length: other servers write a whole state into theirs.
        match fields.string("id", self.problems) {
            Some(id) if !id.is_empty() => id.into(),
            _ => ids::fresh(prefix, self.ids),
        }
    }

    /// The item's status; one that came without is taken for whole.
    fn status(&mut self, fields: &mut Fields<'_, '_>) -> ItemStatus {
        const WORDS: &[&str] = &["in_progress", "completed", "incomplete"];
        let parse = |word: &str| match word {
            "in_progress" => Some(ItemStatus::InProgress),
            // Other gateways have more words, and some write none.
            "completed" | "" => Some(ItemStatus::Completed),
            "incomplete" | "failed" | "cancelled" | "queued" => Some(ItemStatus::Incomplete),
            _ => None,
        };
        fields
            .word("status", WORDS, parse, self.problems)
            .unwrap_or(ItemStatus::Completed)
    }
}
