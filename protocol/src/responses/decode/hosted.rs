//! Items of tools that the gateway runs.

use serde_json::value::RawValue;

use super::Reader;
use crate::ids::Prefix;
use crate::json::{Fields, Place};
use crate::responses::item::{CodeInterpreterCall, CodeOutput, Item, ToolStatus};

/// Reads code that was run, as this gateway or another wrote it.
pub(super) fn read_code(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::CodeInterpreterCall);
    let status = tool_status(fields, reader);
    let code = fields.string("code", reader.problems).unwrap_or_default();
    let container_id = fields.required_string("container_id", reader.problems);
    let place = fields.place();
    let list = place.member("outputs");
    let outputs = fields.array("outputs", reader.problems).map(|raws| {
        let raws = raws.into_iter().enumerate();
        raws.filter_map(|(index, raw)| read_output(raw, list.element(index), reader))
            .collect()
    });
    Some(Item::CodeInterpreterCall(CodeInterpreterCall {
        id,
        status,
        code: code.into(),
        container_id: container_id?.into(),
        outputs,
        said: None,
    }))
}

fn read_output(raw: &RawValue, place: Place<'_>, reader: &mut Reader<'_>) -> Option<CodeOutput> {
    const TYPES: &[&str] = &["logs", "image"];
    let mut fields = Fields::of(raw, place, reader.problems)?;
    let kind = fields.required_word("type", reader.problems)?;
    match &*kind {
        "logs" => Some(CodeOutput::Logs {
            logs: fields.required_string("logs", reader.problems)?.into(),
        }),
        "image" => Some(CodeOutput::Image {
            url: fields.required_string("url", reader.problems)?.into(),
        }),
        _ => {
            reader.problems.wrong_word(&place.member("type"), TYPES);
            None
        }
    }
}

/// The status of an item that the gateway runs; one that came without is taken for whole.
pub(super) fn tool_status(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> ToolStatus {
    const WORDS: &[&str] = &[
        "in_progress",
        "interpreting",
        "calling",
        "completed",
        "incomplete",
        "failed",
    ];
    let parse = |word: &str| {
        Some(match word {
            // With the words of searches, and of gateways that write none.
            "in_progress" | "searching" | "generating" => ToolStatus::InProgress,
            "interpreting" => ToolStatus::Interpreting,
            "calling" => ToolStatus::Calling,
            "completed" | "" => ToolStatus::Completed,
            "incomplete" => ToolStatus::Incomplete,
            "failed" | "cancelled" => ToolStatus::Failed,
            _ => return None,
        })
    };
    fields
        .word("status", WORDS, parse, reader.problems)
        .unwrap_or(ToolStatus::Completed)
}
