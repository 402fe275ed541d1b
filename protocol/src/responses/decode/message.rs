//! Messages: the easy forms and the full one.

use super::Reader;
use super::part;
use crate::ids::Prefix;
use crate::json::{Fields, Kind, kind, read};
use crate::responses::content::{OutputText, Part};
use crate::responses::item::{Item, Message, Phase, Role};

const ROLES: &[&str] = &["user", "assistant", "system", "developer"];

fn parse_role(word: &str) -> Option<Role> {
    match word {
        "user" => Some(Role::User),
        "assistant" => Some(Role::Assistant),
        "system" => Some(Role::System),
        "developer" => Some(Role::Developer),
        _ => None,
    }
}

/// A word that is not known says nothing that is needed.
fn parse_phase(word: &str) -> Option<Phase> {
    match word {
        "commentary" => Some(Phase::Commentary),
        "final_answer" => Some(Phase::FinalAnswer),
        _ => None,
    }
}

/// Reads a message.
pub(super) fn read(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::Message);
    let status = reader.status(fields);
    let phase = fields.string("phase", reader.problems);
    let phase = phase.and_then(|phase| parse_phase(&phase));
    let place = fields.place();
    if !fields.has("role") {
        reader.problems.missing(&place.member("role"));
    }
    let role = fields.word("role", ROLES, parse_role, reader.problems);
    let content = fields.required("content", reader.problems);
    let (role, content) = (role?, content?);
    let at = place.member("content");
    let content = match kind(content) {
        Kind::String => {
            let text = read::text(content).unwrap_or_default();
            vec![text_part(role, &text)]
        }
        Kind::Array => part::read_all(content, &at, role, reader.problems),
        Kind::Null | Kind::Bool | Kind::Number | Kind::Object => {
            reader
                .problems
                .wrong_type(&at, "a string or an array of content parts");
            return None;
        }
    };
    Some(Item::Message(Message {
        id,
        status,
        role,
        content,
        phase,
    }))
}

/// Text as the role says it: clients may write either part type in a history.
pub(super) fn text_part(role: Role, text: &str) -> Part {
    match role {
        Role::Assistant => Part::OutputText(OutputText {
            text: text.into(),
            ..OutputText::default()
        }),
        Role::User | Role::System | Role::Developer => Part::InputText { text: text.into() },
    }
}
