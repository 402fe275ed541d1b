//! The functions that the model is shown, and what a call of each means.

use serde_json::value::RawValue;

use super::code_interpreter;
use super::{Availability, Offers};
use crate::chat::request::{ChatFunction, ChatTool};
use crate::error::{ApiError, ApiErrorCode};
use crate::responses::settings::Settings;
use crate::responses::tool::{Tool, ToolChoice};
use crate::translate::ChoiceMode;

/// How a call by a name that the model used is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Returned to the client, as is a call of a name that nobody offered.
    Function,
    /// Run here.
    CodeInterpreter,
}

impl Route {
    /// Whether the gateway runs it.
    pub fn is_gateway(self) -> bool {
        match self {
            Self::Function => false,
            Self::CodeInterpreter => true,
        }
    }
}

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
}

impl Catalogue {
    /// What these settings show with these tools on offer; an error when the request names a tool
    /// that should be there and is not.
    pub fn of(settings: &Settings, offers: &Offers) -> Result<Self, ApiError> {
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
                Tool::Unserved(_) => {}
            }
        }
        if let Some(ToolChoice::Allowed { allowed, .. }) = &settings.tool_choice {
            catalogue.entries.retain(|entry| match entry.route {
                Route::Function => allowed.functions.contains(&entry.name),
                Route::CodeInterpreter => allowed.has_type(code_interpreter::TYPE),
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
                Some(Tool::CodeInterpreter(_) | Tool::Unserved(_)) | None => None,
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
    let taken = settings
        .tools
        .iter()
        .any(|tool| matches!(tool, Tool::Function(function) if &*function.name == first));
    if taken { second } else { first }
}

fn missing(index: usize, why: &str) -> ApiError {
    ApiError::new(ApiErrorCode::UnsupportedValue, why).with_param(format!("tools[{index}]"))
}
