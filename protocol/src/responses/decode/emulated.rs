//! Calls of shell and patch tools.

use serde_json::value::RawValue;

use super::Reader;
use crate::json::Fields;
use crate::responses::emulated::{Action, Emulated, EmulatedCall};
use crate::responses::item::Item;

pub(super) fn read_local_shell(
    fields: &mut Fields<'_, '_>,
    reader: &mut Reader<'_>,
) -> Option<Item> {
    read(fields, Emulated::LocalShell, "action", reader)
}

pub(super) fn read_shell(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    read(fields, Emulated::Shell, "action", reader)
}

pub(super) fn read_patch(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    read(fields, Emulated::ApplyPatch, "operation", reader)
}

fn read(
    fields: &mut Fields<'_, '_>,
    kind: Emulated,
    member: &str,
    reader: &mut Reader<'_>,
) -> Option<Item> {
    let id = reader.id(fields, kind.prefix());
    let status = reader.status(fields);
    let call_id = fields.required_word("call_id", reader.problems);
    let raw = fields.required(member, reader.problems)?;
    let action = Action::parse(kind, RawValue::get(raw));
    if action.is_none() {
        let place = fields.place();
        let wanted = match kind {
            Emulated::LocalShell => "an object with `command`, an array of strings",
            Emulated::Shell => "an object with `commands`, an array of strings",
            Emulated::ApplyPatch => {
                "an object with `type` one of `create_file`, `update_file`, `delete_file`, with \
                 `path`, and unless deleted `diff`"
            }
        };
        reader.problems.invalid(&place.member(member), wanted);
    }
    Some(Item::EmulatedCall(EmulatedCall {
        id,
        status,
        call_id: call_id?.into(),
        action: action?,
        said: None,
    }))
}
