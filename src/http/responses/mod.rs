//! `/v1/responses`.

pub(super) mod create;
pub(super) mod delete;
pub(super) mod get;
pub(super) mod input_items;
pub(super) mod reading;

use std::time::Duration;

use vllm_responses_protocol::responses::item::CodeOutputs;
use vllm_responses_protocol::responses::request::Include;

/// The store answers within 5 s or says that it cannot; this is for one that died.
const STORE_LIMIT: Duration = Duration::from_secs(8);

/// Whether a query asks for the outputs of the code interpreter: `include=...`, or `include[]=...`
/// as the official SDKs write it. Other words of `include` name data that is always there.
fn code_outputs(query: &str) -> CodeOutputs {
    let wanted = Include::CodeInterpreterOutputs.as_str();
    let asked = url::form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| matches!(&*name, "include" | "include[]") && value == wanted);
    if asked {
        CodeOutputs::Shown
    } else {
        CodeOutputs::Hidden
    }
}
