//! Calls of functions and custom tools, and their outputs.

use super::{Reader, part};
use crate::ids::Prefix;
use crate::json::{Fields, Kind, kind, read};
use crate::responses::item::{
    CustomToolCall, FunctionCall, FunctionCallOutput, Item, Output, Role,
};

/// Reads a call. Its arguments are any text: a model may have written no JSON, and no name either.
pub(super) fn read_call(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::FunctionCall);
    let status = reader.status(fields);
    let call_id = fields.required_word("call_id", reader.problems);
    let name = fields.required_string("name", reader.problems);
    let namespace = fields.string("namespace", reader.problems);
    let arguments = fields.required_string("arguments", reader.problems);
    Some(Item::FunctionCall(FunctionCall {
        id,
        status,
        call_id: call_id?.into(),
        name: name?.into(),
        namespace: namespace.map(Into::into),
        arguments: arguments?.into(),
        said: None,
    }))
}

/// Reads a call of a custom tool.
pub(super) fn read_custom(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::CustomToolCall);
    let status = reader.status(fields);
    let call_id = fields.required_word("call_id", reader.problems);
    let name = fields.required_string("name", reader.problems);
    let namespace = fields.string("namespace", reader.problems);
    let input = fields.required_string("input", reader.problems);
    Some(Item::CustomToolCall(CustomToolCall {
        id,
        status,
        call_id: call_id?.into(),
        name: name?.into(),
        namespace: namespace.map(Into::into),
        input: input?.into(),
        said: None,
    }))
}

/// Reads what a client's function returned.
pub(super) fn read_output(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    returned(fields, Prefix::FunctionCallOutput, reader).map(Item::FunctionCallOutput)
}

/// Reads what a client's custom tool returned.
pub(super) fn read_custom_output(
    fields: &mut Fields<'_, '_>,
    reader: &mut Reader<'_>,
) -> Option<Item> {
    returned(fields, Prefix::CustomToolCallOutput, reader).map(Item::CustomToolCallOutput)
}

fn returned(
    fields: &mut Fields<'_, '_>,
    prefix: Prefix,
    reader: &mut Reader<'_>,
) -> Option<FunctionCallOutput> {
    let id = reader.id(fields, prefix);
    let status = reader.status(fields);
    let call_id = fields.required_word("call_id", reader.problems);
    let raw = fields.required("output", reader.problems)?;
    let place = fields.place();
    let at = place.member("output");
    let output = match kind(raw) {
        Kind::String => Output::Text(read::text(raw).unwrap_or_default().into()),
        Kind::Array => Output::Parts(part::read_all(raw, &at, Role::User, reader.problems)),
        Kind::Null | Kind::Bool | Kind::Number | Kind::Object => {
            reader
                .problems
                .wrong_type(&at, "a string or an array of content parts");
            return None;
        }
    };
    Some(FunctionCallOutput {
        id,
        status,
        call_id: call_id?.into(),
        output,
    })
}
