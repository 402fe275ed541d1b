//! The functions that the model is shown, and what a call of each means.

mod parts;
mod rendered;
mod servers;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::value::RawValue;

use super::mcp::{ListError, Listed, McpFunction};
use super::{Availability, Offers, PythonPackages, code_interpreter, shown};
use crate::error::ApiError;
use crate::responses::emulated::Emulated;
use crate::responses::settings::Settings;
use crate::responses::tool::{
    Allowed, CustomFormat, CustomTool, FunctionTool, Grammar, NamespaceTool, Tool, ToolChoice,
};
use parts::{free_name, is_deferred, missing, no_such_tool, search_shown, too_many, written};

/// How a call by a name that the model used is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Returned to the client, as is a call of a name that nobody offered.
    Function,
    /// Returned to the client with its one text unwrapped.
    Custom,
    /// Returned to the client as a search for tools.
    ToolSearch,
    /// Returned to the client as an item of a type of its own.
    Emulated(Emulated),
    /// Dropped: `allowed_tools` does not have it.
    Refused,
    /// Run here.
    CodeInterpreter,
    /// The MCP tool with this index, run here or shown to the client for approval.
    Mcp(usize),
    /// Told to the model as an error: a name of an MCP tool that is not there.
    NoSuchMcp,
}

impl Route {
    /// Whether the gateway runs it.
    pub fn is_gateway(self) -> bool {
        match self {
            Self::Function
            | Self::Custom
            | Self::ToolSearch
            | Self::Emulated(_)
            | Self::Refused => false,
            Self::CodeInterpreter | Self::Mcp(_) | Self::NoSuchMcp => true,
        }
    }
}

/// What MCP servers answered, by the index of their tool in the request.
pub type Lists = BTreeMap<usize, Result<Listed, ListError>>;

/// Most functions that a model is shown.
const MAX_FUNCTIONS: usize = 1024;

/// One function that the model is shown.
#[derive(Debug)]
struct Entry {
    /// For the model.
    name: Box<str>,
    /// For the client.
    own: OwnName,
    route: Route,
    shown: Shown,
    /// Of a custom tool that has one.
    grammar: Option<Arc<CustomTool>>,
    /// What its namespace is for.
    space: Option<Arc<str>>,
}

/// The name of a tool as its client knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OwnName {
    name: Box<str>,
    namespace: Option<Box<str>>,
}

/// The model's view of a function.
#[derive(Debug)]
enum Shown {
    /// A function, as the client wrote it.
    Function(Arc<FunctionTool>),
    /// Described here.
    Gateway {
        description: Box<str>,
        parameters: Box<RawValue>,
        /// Whether arguments must follow the schema. True where the schema is one of ours and says
        /// all: without it, vLLM lets a forced call be anything.
        strict: Option<bool>,
    },
}

/// Whose names that nobody offers are, when they look like those of MCP tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum McpNames {
    /// The client's, as all others are.
    #[default]
    Client,
    /// Of tools that the model remembers or makes up: the conversation has something of MCP.
    Remembered,
}

/// The functions of one response, in the order of its tools.
#[derive(Debug, Default)]
pub struct Catalogue {
    entries: Vec<Entry>,
    /// Places of what the client runs, by its own name for it.
    by_own: HashMap<OwnName, usize>,
    /// The names that the model is shown.
    names: HashSet<Box<str>>,
    mcp: Vec<McpFunction>,
    /// Whose names that nobody offers are, when they look like those of MCP tools.
    mcp_names: McpNames,
    /// The MCP server whose tools alone are shown in the first round, since one must be called.
    first: Option<Box<str>>,
    /// Whether names that are not among the entries are refused.
    closed: bool,
    /// While the tools of the request are read and the client can search: what is deferred waits.
    hides_deferred: bool,
    /// The entry of the custom tool that the model must call, where the model server can hold it to
    /// a grammar: the model then writes the input itself as its answer.
    forced: Option<usize>,
}

impl Catalogue {
    /// What these settings, and the tools that items have loaded, show with these tools on offer; an
    /// error when the request names a tool that should be there and is not.
    pub fn of<'a>(
        settings: &Settings,
        offers: &Offers,
        lists: &Lists,
        loaded: impl Iterator<Item = &'a Tool>,
    ) -> Result<Self, ApiError> {
        let mut catalogue = Self::default();
        // Without a search of the client's, nothing would ever load what is deferred.
        let mut tools = settings.tools.iter();
        catalogue.hides_deferred = tools.any(|tool| matches!(tool, Tool::ToolSearch(_)));
        for (index, tool) in settings.tools.iter().enumerate() {
            match tool {
                Tool::CodeInterpreter(_) => match &offers.code_interpreter {
                    Availability::Offered => {
                        catalogue.add_code_interpreter(settings, offers.python_packages);
                    }
                    Availability::Off => {}
                    Availability::Missing(why) => return Err(missing(index, why)),
                },
                Tool::Mcp(tool) => {
                    catalogue.note_mcp();
                    catalogue.add_mcp(settings, tool, index, lists)?;
                }
                Tool::Function(_)
                | Tool::Custom(_)
                | Tool::Namespace(_)
                | Tool::ToolSearch(_)
                | Tool::Emulated(_)
                | Tool::Unserved(_) => catalogue.add_client(tool, None),
            }
        }
        catalogue.hides_deferred = false;
        for tool in loaded {
            catalogue.add_client(tool, None);
            if catalogue.entries.len() > MAX_FUNCTIONS {
                break;
            }
        }
        if catalogue.entries.len() > MAX_FUNCTIONS {
            return Err(too_many());
        }
        catalogue.choose(settings.tool_choice.as_ref())?;
        catalogue.note_places();
        Ok(catalogue)
    }

    /// Adds what the client runs.
    fn add_client(&mut self, tool: &Tool, namespace: Option<&NamespaceTool>) {
        if self.hides_deferred && is_deferred(tool) {
            return;
        }
        match tool {
            Tool::Function(tool) => {
                let shown = Shown::Function(Arc::clone(tool));
                self.add(&tool.name, namespace, Route::Function, Some(shown));
            }
            Tool::Custom(tool) => {
                let shown = written(shown::custom(tool), Some(true));
                let entry = self.add(&tool.name, namespace, Route::Custom, shown);
                if let Some(entry) = entry
                    && tool.format != CustomFormat::Text
                {
                    entry.grammar = Some(Arc::clone(tool));
                }
            }
            Tool::Namespace(space) => {
                for tool in &space.tools {
                    self.add_client(tool, Some(space));
                }
            }
            Tool::ToolSearch(tool) => {
                let route = Route::ToolSearch;
                self.add("tool_search", None, route, search_shown(tool));
            }
            Tool::Emulated(tool) => {
                let shown = written(shown::emulated(tool.kind), None);
                self.add(tool.kind.as_str(), None, Route::Emulated(tool.kind), shown);
            }
            Tool::CodeInterpreter(_) | Tool::Mcp(_) | Tool::Unserved(_) => {}
        }
    }

    /// Adds one function; a later one takes the place of an earlier one with the client's same name.
    fn add(
        &mut self,
        name: &str,
        space: Option<&NamespaceTool>,
        route: Route,
        shown: Option<Shown>,
    ) -> Option<&mut Entry> {
        let shown = shown?;
        let namespace = space.map(|space| &*space.name);
        let space = space.map(|space| Arc::clone(&space.description));
        let own = OwnName {
            name: name.into(),
            namespace: namespace.map(Into::into),
        };
        if let Some(at) = self.by_own.get(&own) {
            let entry = self.entries.get_mut(*at)?;
            entry.route = route;
            entry.shown = shown;
            entry.grammar = None;
            entry.space = space;
            return Some(entry);
        }
        let mut flat = match namespace {
            None => shown::plain(name),
            Some(namespace) => Cow::Owned(shown::flat(namespace, name)),
        };
        let mut times = 0_usize;
        while self.is_taken(&flat) {
            let again = [name, &"\0".repeat(times)].concat();
            flat = Cow::Owned(shown::marked(&flat, namespace.unwrap_or_default(), &again));
            times += 1;
        }
        let name: Box<str> = flat.into();
        self.names.insert(name.clone());
        self.by_own.insert(own.clone(), self.entries.len());
        self.entries.push(Entry {
            name,
            own,
            route,
            shown,
            grammar: None,
            space,
        });
        self.entries.last_mut()
    }

    fn add_code_interpreter(&mut self, settings: &Settings, packages: PythonPackages) {
        if self.has(Route::CodeInterpreter) {
            return;
        }
        let (description, parameters) = code_interpreter::shown(packages);
        let Some(parameters) = parameters else { return };
        let shown = Shown::Gateway {
            description,
            parameters,
            strict: Some(true),
        };
        let name = free_name(settings, code_interpreter::NAMES);
        self.add_own(name, Route::CodeInterpreter, shown);
    }

    /// Adds a function that the gateway runs: the client has no name of its own for it.
    fn add_own(&mut self, name: &str, route: Route, shown: Shown) {
        self.names.insert(name.into());
        self.entries.push(Entry {
            name: name.into(),
            own: OwnName {
                name: name.into(),
                namespace: None,
            },
            route,
            shown,
            grammar: None,
            space: None,
        });
    }

    fn is_taken(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Notes where everything is, once nothing moves any more.
    fn note_places(&mut self) {
        let entries = self.entries.iter().enumerate();
        let clients = entries.filter(|(_, entry)| !entry.route.is_gateway());
        self.by_own = clients.map(|(at, entry)| (entry.own.clone(), at)).collect();
    }

    /// Applies what the choice limits or forces.
    fn choose(&mut self, choice: Option<&ToolChoice>) -> Result<(), ApiError> {
        match choice {
            Some(ToolChoice::Allowed { allowed, .. }) => {
                self.check_allowed(allowed)?;
                let mcp = &self.mcp;
                self.entries.retain(|entry| entry.is_allowed(allowed, mcp));
                self.closed = true;
            }
            Some(ToolChoice::Function { name }) if self.named(name, Route::Function).is_none() => {
                return Err(no_such_tool());
            }
            Some(ToolChoice::Custom { name }) => {
                let place = self.place(name, Route::Custom).ok_or_else(no_such_tool)?;
                let entry = self.entries.get(place);
                self.forced = entry
                    .and_then(|entry| entry.grammar.as_ref())
                    .map(|_| place);
            }
            Some(ToolChoice::Mcp { label, name, .. }) => {
                self.choose_mcp(label, name.as_deref())?;
            }
            Some(
                ToolChoice::None
                | ToolChoice::Auto
                | ToolChoice::Required
                | ToolChoice::Function { .. }
                | ToolChoice::OfType { .. },
            )
            | None => {}
        }
        Ok(())
    }

    fn has(&self, route: Route) -> bool {
        self.entries.iter().any(|entry| entry.route == route)
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        let exact = self.entries.iter().find(|entry| &*entry.name == name);
        // Some models leave the namespace out.
        let mut bare = self.entries.iter().filter(|entry| &*entry.own.name == name);
        exact.or_else(|| bare.next().filter(|_| bare.next().is_none()))
    }

    /// Whether the model was shown a function with exactly this name.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| &*entry.name == name)
    }

    /// What a call by this name means.
    pub fn route(&self, name: &str) -> Route {
        match self.entry(name) {
            Some(entry) => entry.route,
            None if self.is_mcp_name(name) => Route::NoSuchMcp,
            None if self.closed => Route::Refused,
            None => Route::Function,
        }
    }

    /// The client's own name for what the model calls so, and the namespace that it is in.
    pub fn own_name<'a>(&'a self, name: &'a str) -> (&'a str, Option<&'a str>) {
        match self.entry(name) {
            Some(entry) => (&entry.own.name, entry.own.namespace.as_deref()),
            None => (name, None),
        }
    }

    /// The name by which the model knows what the client calls so.
    pub fn shown_name<'a>(&'a self, name: &'a str, namespace: Option<&str>) -> Cow<'a, str> {
        let own = OwnName {
            name: name.into(),
            namespace: namespace.map(Into::into),
        };
        let found = self.by_own.get(&own).and_then(|at| self.entries.get(*at));
        match (found, namespace) {
            (Some(entry), _) => Cow::Borrowed(&entry.name),
            (None, None) => shown::plain(name),
            (None, Some(namespace)) => Cow::Owned(shown::flat(namespace, name)),
        }
    }

    /// The name under which the model is shown what goes this way; of functions the first.
    pub fn name_of(&self, route: Route) -> Option<&str> {
        let entry = self.entries.iter().find(|entry| entry.route == route);
        entry.map(|entry| &*entry.name)
    }

    fn place(&self, own: &str, route: Route) -> Option<usize> {
        let mut entries = self.entries.iter();
        entries.position(|entry| entry.route == route && &*entry.own.name == own)
    }

    /// The name under which the model is shown the client's tool of this name.
    pub(crate) fn named(&self, own: &str, route: Route) -> Option<&str> {
        let entry = self.entries.get(self.place(own, route)?)?;
        Some(&entry.name)
    }

    /// The custom tool whose input the model writes as its answer, by the name that it is shown, and
    /// its grammar.
    pub(crate) fn forced(&self) -> Option<(&str, Grammar, &str)> {
        let entry = self.entries.get(self.forced?)?;
        match &entry.grammar.as_ref()?.format {
            CustomFormat::Grammar { syntax, definition } => {
                Some((&entry.name, *syntax, definition))
            }
            CustomFormat::Text => None,
        }
    }

    /// Whether the gateway may have to run something.
    pub fn has_gateway_tools(&self) -> bool {
        self.mcp_names == McpNames::Remembered
            || self.entries.iter().any(|entry| entry.route.is_gateway())
    }
}

impl Entry {
    fn is_allowed(&self, allowed: &Allowed, mcp: &[McpFunction]) -> bool {
        let named = |names: &[Box<str>]| names.contains(&self.own.name);
        let in_space = self.own.namespace.as_deref();
        match self.route {
            _ if in_space.is_some_and(|space| allowed.namespaces.iter().any(|n| **n == *space)) => {
                true
            }
            Route::Function => named(&allowed.functions),
            Route::Custom => named(&allowed.customs),
            Route::ToolSearch => allowed.has_type("tool_search"),
            Route::Emulated(kind) => allowed.has_type(kind.as_str()),
            Route::CodeInterpreter => allowed.has_type(code_interpreter::TYPE),
            Route::Mcp(at) => mcp
                .get(at)
                .is_some_and(|tool| servers::is_allowed(tool, allowed)),
            Route::NoSuchMcp | Route::Refused => false,
        }
    }
}
