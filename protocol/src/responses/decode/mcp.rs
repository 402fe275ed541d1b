//! Items of MCP, as this gateway or another wrote them.

use serde_json::value::RawValue;

use super::Reader;
use super::hosted::tool_status;
use crate::ids::Prefix;
use crate::json::{Fields, Kind, Place, kind, read};
use crate::mcp::outcome::CallError;
use crate::responses::item::Item;
use crate::responses::mcp::{
    ListedTool, McpApprovalRequest, McpApprovalResponse, McpCall, McpImage, McpListTools,
};

/// Reads a list of tools. Its error may be text or an object: the SDK's type has changed.
pub(super) fn read_list(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::McpListTools);
    let label = fields.required_string("server_label", reader.problems);
    let error = fields.take("error").map(text_or_raw);
    let place = fields.place();
    let list = place.member("tools");
    let tools = fields.array("tools", reader.problems).unwrap_or_default();
    let tools = tools.into_iter().enumerate();
    let tools = tools.filter_map(|(index, raw)| read_tool(raw, list.element(index), reader));
    let tools = tools.collect();
    Some(Item::McpListTools(McpListTools {
        id,
        server_label: label?.into(),
        tools,
        error,
    }))
}

fn read_tool(raw: &RawValue, place: Place<'_>, reader: &mut Reader<'_>) -> Option<ListedTool> {
    let mut fields = Fields::of(raw, place, reader.problems)?;
    let name = fields.required_string("name", reader.problems);
    let description = fields.string("description", reader.problems);
    let schema = fields.required("input_schema", reader.problems);
    let annotations = fields.take("annotations").map(ToOwned::to_owned);
    Some(ListedTool {
        name: name?.into(),
        description: description.map(Into::into),
        input_schema: schema?.to_owned(),
        annotations,
    })
}

/// Reads a call.
pub(super) fn read_call(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::McpCall);
    let status = tool_status(fields, reader);
    let label = fields.required_string("server_label", reader.problems);
    let name = fields.required_string("name", reader.problems);
    let arguments = fields.required_string("arguments", reader.problems);
    let output = fields.string("output", reader.problems).map(Into::into);
    let images = fields.take("images").map(read_images).unwrap_or_default();
    let error = fields.take("error").map(read_error);
    let approval = fields.string("approval_request_id", reader.problems);
    Some(Item::McpCall(McpCall {
        id,
        status,
        server_label: label?.into(),
        name: name?.into(),
        arguments: arguments?.into(),
        output,
        images,
        error,
        approval_request_id: approval.map(Into::into),
        said: None,
    }))
}

/// Pictures as this gateway gave them out; nothing that would have to be fetched.
fn read_images(raw: &RawValue) -> Vec<McpImage> {
    #[derive(serde::Deserialize)]
    struct Written {
        url: Box<str>,
    }
    let images: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
    let urls = images.into_iter().filter_map(|raw| {
        let image: Written = serde_json::from_str(raw.get()).ok()?;
        let is_own = image.url.starts_with("data:image/");
        is_own.then_some(McpImage { url: image.url })
    });
    urls.collect()
}

fn read_error(raw: &RawValue) -> CallError {
    serde_json::from_str(raw.get()).unwrap_or_else(|_other| CallError::tool(text_or_raw(raw)))
}

fn text_or_raw(raw: &RawValue) -> Box<str> {
    match kind(raw) {
        Kind::String => read::text(raw).unwrap_or_default().into(),
        Kind::Null | Kind::Bool | Kind::Number | Kind::Array | Kind::Object => raw.get().into(),
    }
}

/// Reads a call that waits for approval.
pub(super) fn read_request(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = fields.required_word("id", reader.problems);
    let label = fields.required_string("server_label", reader.problems);
    let name = fields.required_string("name", reader.problems);
    let arguments = fields.required_string("arguments", reader.problems);
    Some(Item::McpApprovalRequest(McpApprovalRequest {
        id: id?.into(),
        server_label: label?.into(),
        name: name?.into(),
        arguments: arguments?.into(),
        said: None,
    }))
}

/// Reads the client's word about one.
pub(super) fn read_response(fields: &mut Fields<'_, '_>, reader: &mut Reader<'_>) -> Option<Item> {
    let id = reader.id(fields, Prefix::McpApprovalResponse);
    let request = fields.required_word("approval_request_id", reader.problems);
    let place = fields.place();
    if !fields.given("approve") {
        reader.problems.missing(&place.member("approve"));
    }
    let approve = fields.boolean("approve", reader.problems);
    let reason = fields.string("reason", reader.problems).map(Into::into);
    Some(Item::McpApprovalResponse(McpApprovalResponse {
        id,
        approval_request_id: request?.into(),
        approve: approve?,
        reason,
    }))
}
