//! What the catalogue is made of: the model's view of tools that are no functions, names, refusals.

use super::super::shown;
use super::{MAX_FUNCTIONS, Shown};
use crate::error::{ApiError, ApiErrorCode};
use crate::responses::settings::Settings;
use crate::responses::tool::{Tool, ToolSearchTool};

pub(super) fn is_deferred(tool: &Tool) -> bool {
    match tool {
        Tool::Function(tool) => tool.defer_loading == Some(true),
        Tool::Custom(tool) => tool.defer_loading,
        Tool::Namespace(_)
        | Tool::ToolSearch(_)
        | Tool::Emulated(_)
        | Tool::CodeInterpreter(_)
        | Tool::Mcp(_)
        | Tool::Unserved(_) => false,
    }
}

pub(super) fn written(
    (description, parameters): shown::Written,
    strict: Option<bool>,
) -> Option<Shown> {
    let parameters = shown::schema(parameters)?;
    Some(Shown::Gateway {
        description,
        parameters,
        strict,
    })
}

pub(super) fn search_shown(tool: &ToolSearchTool) -> Option<Shown> {
    let (description, parameters) = shown::search();
    let own = tool.parameters.clone();
    Some(Shown::Gateway {
        description: tool.description.clone().unwrap_or(description),
        strict: own.is_none().then_some(true),
        parameters: own.or_else(|| shown::schema(parameters))?,
    })
}

/// The first of these names that no function of the client has; the last if all are taken.
pub(super) fn free_name(settings: &Settings, names: [&'static str; 2]) -> &'static str {
    let [first, second] = names;
    if has_named(settings, first) {
        second
    } else {
        first
    }
}

/// Whether a function or custom tool of the client has this name.
pub(super) fn has_named(settings: &Settings, wanted: &str) -> bool {
    settings.tools.iter().any(|tool| match tool {
        Tool::Function(tool) => *tool.name == *wanted,
        Tool::Custom(tool) => *tool.name == *wanted,
        Tool::Namespace(_)
        | Tool::ToolSearch(_)
        | Tool::Emulated(_)
        | Tool::CodeInterpreter(_)
        | Tool::Mcp(_)
        | Tool::Unserved(_) => false,
    })
}

pub(super) fn too_many() -> ApiError {
    let message = format!(
        "at most {MAX_FUNCTIONS} tools can be shown to the model, those that items of the \
         conversation have loaded included: load fewer, or begin a new conversation"
    );
    ApiError::new(ApiErrorCode::InvalidValue, message).with_param("tools")
}

pub(super) fn missing(index: usize, why: &str) -> ApiError {
    ApiError::new(ApiErrorCode::UnsupportedValue, why).with_param(format!("tools[{index}]"))
}

pub(super) fn no_such_tool() -> ApiError {
    let message = "`tool_choice` must name a tool that the model is shown";
    ApiError::new(ApiErrorCode::InvalidRequest, message).with_param("tool_choice")
}
