//! The functions that the model is shown, and what a call of each means.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::code_interpreter;
use super::mcp::{self, ListError, Listed, McpFunction};
use super::{Availability, Offers};
use crate::chat::request::{ChatFunction, ChatTool};
use crate::error::{ApiError, ApiErrorCode};
use crate::mcp::names;
use crate::responses::settings::Settings;
use crate::responses::tool::{McpTool, Tool, ToolChoice};
use crate::translate::ChoiceMode;

/// How a call by a name that the model used is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Returned to the client, as is a call of a name that nobody offered.
    Function,
    /// Run here.
    CodeInterpreter,
    /// The MCP tool with this index, run here or shown to the client for approval.
    Mcp(usize),
}

impl Route {
    /// Whether the gateway runs it.
    pub fn is_gateway(self) -> bool {
        match self {
            Self::Function => false,
            Self::CodeInterpreter | Self::Mcp(_) => true,
        }
    }
}

/// What MCP servers answered, by the index of their tool in the request.
pub type Lists = BTreeMap<usize, Result<Listed, ListError>>;

/// One function that the model is shown.
#[derive(Debug)]
struct Entry {
    name: Box<str>,
    route: Route,
    shown: Shown,
}

/// Where the model's view of a function comes from.
#[derive(Debug)]
enum Shown {
    /// The tool of the request with this index, as the client wrote it.
    Client(usize),
    /// Written here.
    Gateway {
        description: Box<str>,
        parameters: Box<RawValue>,
    },
}

/// The functions of one response, in the order of its tools.
#[derive(Debug, Default)]
pub struct Catalogue {
    entries: Vec<Entry>,
    mcp: Vec<McpFunction>,
}

impl Catalogue {
    /// What these settings show with these tools on offer; an error when the request names a tool
    /// that should be there and is not.
    pub fn of(settings: &Settings, offers: &Offers, lists: &Lists) -> Result<Self, ApiError> {
        let mut catalogue = Self::default();
        for (index, tool) in settings.tools.iter().enumerate() {
            match tool {
                Tool::Function(function) => catalogue.entries.push(Entry {
                    name: function.name.clone(),
                    route: Route::Function,
                    shown: Shown::Client(index),
                }),
                Tool::CodeInterpreter(_) => match &offers.code_interpreter {
                    Availability::Offered => catalogue.add_code_interpreter(settings),
                    Availability::Off => {}
                    Availability::Missing(why) => return Err(missing(index, why)),
                },
                Tool::Mcp(tool) => catalogue.add_mcp(settings, tool, index, lists)?,
                Tool::Unserved(_) => {}
            }
        }
        if let Some(ToolChoice::Allowed { allowed, .. }) = &settings.tool_choice {
            catalogue.entries.retain(|entry| match entry.route {
                Route::Function => allowed.functions.contains(&entry.name),
                Route::CodeInterpreter => allowed.has_type(code_interpreter::TYPE),
                Route::Mcp(_) => allowed.has_type(mcp::TYPE),
            });
        }
        Ok(catalogue)
    }

    fn add_code_interpreter(&mut self, settings: &Settings) {
        if self.has(Route::CodeInterpreter) {
            return;
        }
        let (description, parameters) = code_interpreter::shown();
        let Some(parameters) = parameters else { return };
        self.entries.push(Entry {
            name: free_name(settings, code_interpreter::NAMES).into(),
            route: Route::CodeInterpreter,
            shown: Shown::Gateway {
                description,
                parameters,
            },
        });
    }

    /// The tools of a server that answered. Names depend on label and tool alone, except that a
    /// function of the client with the same name comes first.
    fn add_mcp(
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
            if has_function(settings, &model_name) {
                model_name = names::hashed_name(label, name);
            }
            self.entries.push(Entry {
                name: model_name.into(),
                route: Route::Mcp(self.mcp.len()),
                shown: Shown::Gateway {
                    description: mcp::description(&function),
                    parameters: function.tool.input_schema.clone(),
                },
            });
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

    fn has(&self, route: Route) -> bool {
        self.entries.iter().any(|entry| entry.route == route)
    }

    /// What a call by this name means.
    pub fn route(&self, name: &str) -> Route {
        let entry = self.entries.iter().find(|entry| &*entry.name == name);
        entry.map_or(Route::Function, |entry| entry.route)
    }

    /// The name under which the model is shown what goes this way; of functions the first.
    pub fn name_of(&self, route: Route) -> Option<&str> {
        let entry = self.entries.iter().find(|entry| entry.route == route);
        entry.map(|entry| &*entry.name)
    }

    /// Whether the gateway may have to run something.
    pub fn has_gateway_tools(&self) -> bool {
        self.entries.iter().any(|entry| entry.route.is_gateway())
    }

    /// The functions as chat completions take them; without the gateway's own in a last round.
    pub(crate) fn chat_tools<'a>(
        &'a self,
        settings: &'a Settings,
        choice: ChoiceMode,
    ) -> Vec<ChatTool<'a>> {
        let with_gateway = choice != ChoiceMode::WithoutGatewayTools;
        let shown = self.entries.iter();
        let shown = shown.filter(|entry| with_gateway || !entry.route.is_gateway());
        shown
            .filter_map(|entry| entry.chat_function(settings))
            .map(|function| ChatTool {
                r#type: "function",
                function,
            })
            .collect()
    }
}

impl Entry {
    fn chat_function<'a>(&'a self, settings: &'a Settings) -> Option<ChatFunction<'a>> {
        match &self.shown {
            Shown::Client(index) => match settings.tools.get(*index) {
                Some(Tool::Function(function)) => Some(ChatFunction {
                    name: &function.name,
                    description: function.description.as_deref(),
                    parameters: function.parameters.as_deref(),
                    strict: function.strict,
                }),
                Some(Tool::CodeInterpreter(_) | Tool::Mcp(_) | Tool::Unserved(_)) | None => None,
            },
            Shown::Gateway {
                description,
                parameters,
            } => Some(ChatFunction {
                name: &self.name,
                description: Some(description),
                parameters: Some(parameters),
                strict: None,
            }),
        }
    }
}

/// The first of these names that no function of the client has; the last if all are taken.
fn free_name(settings: &Settings, names: [&'static str; 2]) -> &'static str {
    let [first, second] = names;
    if has_function(settings, first) {
        second
    } else {
        first
    }
}

fn has_function(settings: &Settings, name: &str) -> bool {
    let mut tools = settings.tools.iter();
    tools.any(|tool| matches!(tool, Tool::Function(function) if &*function.name == name))
}

fn missing(index: usize, why: &str) -> ApiError {
    ApiError::new(ApiErrorCode::UnsupportedValue, why).with_param(format!("tools[{index}]"))
}
