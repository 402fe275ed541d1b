//! Items that are kept as they came.

use serde_json::value::RawValue;

use super::Reader;
use crate::json::{Fields, elements};
use crate::responses::item::Item;
use crate::responses::kept::{KeptItem, KeptKind};

macro_rules! readers {
    ($($name:ident = $kind:ident,)+) => {
        $(
            pub(super) fn $name(
                fields: &mut Fields<'_, '_>,
                reader: &mut Reader<'_>,
            ) -> Option<Item> {
                read(fields, KeptKind::$kind, reader)
            }
        )+
    };
}

readers! {
    read_local_shell_output = LocalShellOutput,
    read_shell_output = ShellOutput,
    read_patch_output = ApplyPatchOutput,
    read_computer = ComputerCall,
    read_computer_output = ComputerOutput,
    read_web_search = WebSearchCall,
    read_file_search = FileSearchCall,
    read_image = ImageGenerationCall,
}

fn read(fields: &mut Fields<'_, '_>, kind: KeptKind, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, kind.prefix());
    let members = fields
        .clone()
        .into_members()
        .filter(|(name, _)| name != "id");
    let members = members.map(|(name, raw)| (name.into(), raw.to_owned()));
    let mut members: Vec<(Box<str>, Box<RawValue>)> = members.collect();
    if !fields.has("status") {
        // Clients may leave it out; lists of items must have it.
        let whole = RawValue::from_string("\"completed\"".to_owned());
        members.extend(whole.ok().map(|whole| ("status".into(), whole)));
    }
    fields.string("status", reader.problems);
    let call_id = match kind {
        // Its id is that of the call; clients send the call id under its own name too.
        KeptKind::LocalShellOutput => fields
            .string("call_id", reader.problems)
            .map_or_else(|| id.clone(), Into::into),
        KeptKind::WebSearchCall | KeptKind::FileSearchCall | KeptKind::ImageGenerationCall => {
            Box::default()
        }
        KeptKind::ShellOutput
        | KeptKind::ApplyPatchOutput
        | KeptKind::ComputerCall
        | KeptKind::ComputerOutput => fields.required_word("call_id", reader.problems)?.into(),
    };
    match kind {
        KeptKind::LocalShellOutput => {
            fields.required_string("output", reader.problems)?;
        }
        KeptKind::ShellOutput => {
            let raw = fields.required("output", reader.problems)?;
            let place = fields.place();
            elements(raw, &place.member("output"), reader.problems)?;
        }
        KeptKind::ComputerOutput => {
            fields.required("output", reader.problems)?;
        }
        KeptKind::ApplyPatchOutput => {
            fields.string("output", reader.problems);
        }
        KeptKind::ComputerCall
        | KeptKind::WebSearchCall
        | KeptKind::FileSearchCall
        | KeptKind::ImageGenerationCall => {}
    }
    Some(Item::Kept(KeptItem {
        kind,
        id,
        call_id,
        members,
    }))
}
