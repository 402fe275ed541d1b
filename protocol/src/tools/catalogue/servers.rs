//! The tools of MCP servers among the functions that the model is shown.

use super::super::mcp::{self, McpFunction};
use super::{Catalogue, Lists, Route, Shown, has_named};
use crate::error::{ApiError, ApiErrorCode};
use crate::mcp::names;
use crate::responses::settings::Settings;
use crate::responses::tool::McpTool;

impl Catalogue {
    /// The tools of a server that answered. Names depend on label and tool alone, except that a
    /// function of the client with the same name comes first.
    pub(super) fn add_mcp(
        &mut self,
        settings: &Settings,
        tool: &McpTool,
        index: usize,
        lists: &Lists,
    ) -> Result<(), ApiError> {
        let Some(Ok(listed)) = lists.get(&index) else {
            return Ok(());
        };
        let functions = mcp::functions(tool, listed);
        let refuse = |member: &str, message: &str| {
            let error = ApiError::new(ApiErrorCode::InvalidValue, message);
            Err(error.with_param(format!("tools[{index}].{member}")))
        };
        if functions.is_empty() && tool.allowed.is_some() {
            return refuse(
                "allowed_tools",
                "none of the allowed tools is one of the MCP server's",
            );
        }
        if self.mcp.len() + functions.len() > mcp::MAX_TOOLS {
            return refuse(
                "allowed_tools",
                "the MCP servers of a request may have 128 tools together: name those that are needed",
            );
        }
        for function in functions {
            let (label, name) = (&function.server.label, &function.tool.name);
            let mut model_name = names::model_name(label, name);
            if has_named(settings, &model_name) || self.is_taken(&model_name) {
                model_name = names::hashed_name(label, name);
            }
            let shown = Shown::Gateway {
                description: mcp::description(&function),
                parameters: function.tool.input_schema.clone(),
            };
            self.add_own(&model_name, Route::Mcp(self.mcp.len()), shown);
            self.mcp.push(function);
        }
        Ok(())
    }

    /// The MCP tool of a route.
    pub(crate) fn mcp(&self, index: usize) -> Option<&McpFunction> {
        self.mcp.get(index)
    }

    /// The MCP tool that a server calls so.
    pub(crate) fn mcp_tool(&self, label: &str, name: &str) -> Option<&McpFunction> {
        let mut tools = self.mcp.iter();
        tools.find(|function| *function.server.label == *label && *function.tool.name == *name)
    }

    /// All MCP tools of a server.
    pub(crate) fn mcp_tools(&self, label: &str) -> Vec<McpFunction> {
        let tools = self.mcp.iter();
        let tools = tools.filter(|function| *function.server.label == *label);
        tools.cloned().collect()
    }

    /// The model's name of the first MCP tool of a server, or of the tool that the server calls so.
    pub(crate) fn mcp_name(&self, label: &str, name: Option<&str>) -> Option<&str> {
        let entry = self.entries.iter().find(|entry| {
            let Route::Mcp(at) = entry.route else {
                return false;
            };
            self.mcp.get(at).is_some_and(|function| {
                *function.server.label == *label
                    && name.is_none_or(|name| *function.tool.name == *name)
            })
        });
        entry.map(|entry| &*entry.name)
    }
}
