//! The tools of MCP servers among the functions that the model is shown.

use super::super::mcp::{self, McpFunction};
use super::parts::has_named;
use super::{Catalogue, Entry, Lists, McpNames, Route, Shown};
use crate::error::{ApiError, ApiErrorCode};
use crate::mcp::catalogue::ToolEntry;
use crate::mcp::names::{self, PREFIX};
use crate::responses::settings::Settings;
use crate::responses::tool::{Allowed, McpTool};

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
                strict: None,
            };
            self.add_own(&model_name, Route::Mcp(self.mcp.len()), shown);
            self.mcp.push(function);
        }
        Ok(())
    }

    /// The conversation has something of MCP, perhaps of servers that this request does not name.
    pub(crate) fn note_mcp(&mut self) {
        self.mcp_names = McpNames::Remembered;
    }

    /// Whether a name that nobody offers is one of an MCP tool: the model remembers a tool that is gone
    /// or not allowed, or makes one up. Clients have tools with such names too: theirs stay theirs.
    pub(super) fn is_mcp_name(&self, name: &str) -> bool {
        let is_own = |entry: &Entry| !entry.route.is_gateway() && entry.name.starts_with(PREFIX);
        self.mcp_names == McpNames::Remembered
            && name.starts_with(PREFIX)
            && !self.entries.iter().any(is_own)
    }

    /// Every tool of an MCP server that the choice names must be there, where the server has answered.
    pub(super) fn check_allowed(&self, allowed: &Allowed) -> Result<(), ApiError> {
        for wanted in &allowed.mcp {
            if self.lacks(&wanted.label, wanted.name.as_deref()) {
                let index = wanted.index;
                return Err(no_such_tool(&format!("tool_choice.tools[{index}].name")));
            }
        }
        Ok(())
    }

    /// Applies the choice of a server, or of one of its tools.
    pub(super) fn choose_mcp(&mut self, label: &str, name: Option<&str>) -> Result<(), ApiError> {
        if self.lacks(label, name) {
            return Err(no_such_tool("tool_choice.name"));
        }
        if name.is_none() && self.mcp_name(label, None).is_some() {
            self.first = Some(label.into());
        }
        Ok(())
    }

    /// Whether the server has answered and has no such tool that is allowed.
    fn lacks(&self, label: &str, name: Option<&str>) -> bool {
        let answered = self.mcp_name(label, None).is_some();
        answered && name.is_some_and(|name| self.mcp_tool(label, name).is_none())
    }

    /// Whether it stands for a tool of this server.
    pub(super) fn is_of(&self, entry: &Entry, label: &str) -> bool {
        let Route::Mcp(at) = entry.route else {
            return false;
        };
        let function = self.mcp.get(at);
        function.is_some_and(|function| *function.server.label == *label)
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

    /// What is known of a server's tools.
    pub(crate) fn mcp_entries(&self, label: &str) -> Vec<&ToolEntry> {
        let tools = self.mcp.iter();
        let tools = tools.filter(|function| *function.server.label == *label);
        tools.map(|function| &*function.tool).collect()
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

/// Whether the choice allows a tool.
pub(super) fn is_allowed(function: &McpFunction, allowed: &Allowed) -> bool {
    allowed.mcp.iter().any(|wanted| {
        *wanted.label == *function.server.label
            && wanted
                .name
                .as_deref()
                .is_none_or(|name| *name == *function.tool.name)
    })
}

fn no_such_tool(place: &str) -> ApiError {
    let message = format!("`{place}` must be the name of a tool of the MCP server that is allowed");
    ApiError::new(ApiErrorCode::InvalidValue, message).with_param(place)
}
