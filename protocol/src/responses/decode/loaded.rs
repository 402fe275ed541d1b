//! Items about the conversation itself: tools and settings from a point on, references.

use serde_json::value::RawValue;

use super::Reader;
use crate::ids::Prefix;
use crate::json::{Fields, Kind, kind};
use crate::responses::item::{
    AdditionalTools, ConfigurationUpdate, Item, ItemReference, Role, ToolSearchCall,
    ToolSearchOutput,
};
use crate::responses::request::decode_format;
use crate::responses::settings::Effort;
use crate::responses::tool::{Execution, Tool, decode_tools};

/// Reads a search for tools.
pub(super) fn read_search(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::ToolSearchCall);
    let status = reader.status(fields);
    let call_id = fields.string("call_id", reader.problems).map(Into::into);
    let execution = execution(fields, reader);
    let arguments = fields.required("arguments", reader.problems)?;
    Some(Item::ToolSearchCall(ToolSearchCall {
        id,
        status,
        call_id,
        execution,
        arguments: arguments.to_owned(),
        said: None,
    }))
}

/// Reads what a search for tools found.
pub(super) fn read_found(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::ToolSearchOutput);
    let status = reader.status(fields);
    let call_id = fields.string("call_id", reader.problems).map(Into::into);
    let execution = execution(fields, reader);
    let tools = tools(fields, reader)?;
    Some(Item::ToolSearchOutput(ToolSearchOutput {
        id,
        status,
        call_id,
        execution,
        tools,
    }))
}

/// Reads further tools of the application.
pub(super) fn read_additional(
    fields: &mut Fields<'_, '_>,
    reader: &mut Reader<'_>,
) -> Option<Item> {
    let id = reader.id(fields, Prefix::AdditionalTools);
    let parse = |word: &str| (word == "developer").then_some(Role::Developer);
    let role = fields.word("role", &["developer"], parse, reader.problems);
    let tools = tools(fields, reader)?;
    Some(Item::AdditionalTools(AdditionalTools {
        id,
        role: role.unwrap_or(Role::Developer),
        tools,
    }))
}

/// Reads other settings from here on.
pub(super) fn read_configuration(
    fields: &mut Fields<'_, '_>,
    reader: &mut Reader<'_>,
) -> Option<Item> {
    let id = reader.id(fields, Prefix::ConfigurationUpdate);
    let members = fields
        .clone()
        .into_members()
        .filter(|(name, _)| name != "id");
    let members = members.map(|(name, raw)| (name.into(), raw.to_owned()));
    let members = members.collect();
    let place = fields.place();
    let at = place.member("reasoning");
    let mut effort = None;
    if let Some(raw) = fields.take("reasoning") {
        let mut reasoning = Fields::of(raw, at, reader.problems)?;
        effort = reasoning.word("effort", Effort::WORDS, Effort::parse, reader.problems);
    }
    let at = place.member("text");
    let mut format = None;
    if let Some(raw) = fields.take("text") {
        let mut text = Fields::of(raw, at, reader.problems)?;
        let at = at.member("format");
        if let Some(raw) = text.take("format") {
            let fields = Fields::of(raw, at, reader.problems)?;
            format = decode_format(fields, reader.problems);
        }
    }
    Some(Item::ConfigurationUpdate(ConfigurationUpdate {
        id,
        effort,
        format,
        members,
    }))
}

/// Reads a reference to a stored item.
pub(super) fn read_reference(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = fields.required_word("id", reader.problems)?;
    Some(Item::ItemReference(ItemReference { id: id.into() }))
}

fn execution(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Execution {
    let word = fields.word(
        "execution",
        Execution::WORDS,
        Execution::parse,
        reader.problems,
    );
    word.unwrap_or(Execution::Client)
}

fn tools(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Vec<Tool>> {
    let raw: &RawValue = fields.required("tools", reader.problems)?;
    let place = fields.place();
    let list = place.member("tools");
    if kind(raw) != Kind::Array {
        reader.problems.wrong_type(&list, "an array");
        return None;
    }
    let raws: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
    Some(decode_tools(&raws, &list, reader.problems))
}
