//! `mcp.json`: the operator's servers, read with the place of every problem.
//!
//! `${VAR}` and `${VAR:-default}` in any text are filled in from the environment. Members that other
//! programs keep in such files are tolerated and reported as notices.

mod extras;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::json::{Fields, Kind, Place, Problems, elements, kind, read, scan};
use crate::secret::Secret;
pub use extras::Limits;

/// Longest label: it is part of the names that the model sees.
const MAX_LABEL: usize = 64;
/// Deepest nesting that makes any sense.
const MAX_DEPTH: usize = 16;

/// All servers of a file, by label.
#[derive(Clone, Debug, Default)]
pub struct McpFile {
    /// The servers.
    pub servers: BTreeMap<Box<str>, ServerEntry>,
    /// What was not understood and does no harm.
    pub notices: Vec<String>,
}

/// One server.
#[derive(Clone, Debug)]
pub struct ServerEntry {
    /// How it is reached.
    pub transport: Transport,
    /// Whether the gateway may not start without it.
    pub required: bool,
    /// Whether calls wait for the client's approval when the request does not say.
    pub approval: DefaultApproval,
    /// Its own time limits.
    pub limits: Limits,
    /// What was filled into its texts.
    pub filled: Vec<Filled>,
}

/// What `${NAME}` stood for in a text of a server: perhaps a secret, wherever that text goes.
#[derive(Clone, Debug)]
pub struct Filled {
    /// The name of the variable.
    pub name: Box<str>,
    /// Its value, or the default.
    pub value: Secret,
}

/// Approval of calls when a request is silent about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultApproval {
    /// Calls run at once.
    Never,
    /// Every call waits.
    Always,
}

impl DefaultApproval {
    /// Reads `never` or `always`.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "never" => Some(Self::Never),
            "always" => Some(Self::Always),
            _ => None,
        }
    }
}

/// How a server is reached.
#[derive(Clone, Debug)]
pub enum Transport {
    /// A process of ours.
    Stdio(StdioServer),
    /// Over HTTP.
    Http(HttpServer),
}

/// A process of ours.
#[derive(Clone, Debug)]
pub struct StdioServer {
    /// Program.
    pub command: Box<str>,
    /// Its arguments.
    pub args: Vec<Box<str>>,
    /// Its environment, beside PATH, HOME, LANG and TMPDIR.
    pub env: Vec<(Box<str>, Secret)>,
    /// Its working directory.
    pub cwd: Option<Box<str>>,
}

/// A server over HTTP.
#[derive(Clone, Debug)]
pub struct HttpServer {
    /// `http` or `https`. May carry a key in its query.
    pub url: Secret,
    /// Headers of every request.
    pub headers: Vec<(Box<str>, Secret)>,
    /// Bearer token.
    pub auth: Option<Secret>,
    /// Which of the two HTTP transports.
    pub kind: HttpKind,
}

/// The two HTTP transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpKind {
    /// By the URL: `/sse` in its path means the old one.
    Auto,
    /// Streamable HTTP.
    Streamable,
    /// HTTP with SSE, of 2024-11-05.
    Sse,
}

impl Transport {
    /// The word for it in the list of servers.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stdio(_) => "stdio",
            Self::Http(server) => match server.kind {
                HttpKind::Auto => "auto",
                HttpKind::Streamable => "streamable-http",
                HttpKind::Sse => "sse",
            },
        }
    }
}

/// What the file is read against.
#[derive(Clone, Copy)]
#[expect(
    missing_debug_implementations,
    reason = "two functions have nothing to show"
)]
pub struct Surroundings<'a> {
    /// A variable of the environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether a text is an `http` or `https` URL that can be dialled.
    pub is_url: &'a dyn Fn(&str) -> bool,
}

/// Reads a file.
///
/// # Errors
/// Every problem, a sentence each, with its place; never a value.
pub fn decode(text: &str, around: Surroundings<'_>) -> Result<McpFile, Vec<String>> {
    scan::scan(text, MAX_DEPTH)
        .map_err(|error| vec![error.message.replace("the request body", "the file")])?;
    let mut reader = Reader {
        around,
        problems: Problems::default(),
        notices: Vec::new(),
        filled: Vec::new(),
    };
    let mut root = Fields::parse(text, &mut reader.problems).map_err(|error| {
        vec![format!(
            "the file must be one JSON object (line {}, column {})",
            error.line(),
            error.column()
        )]
    })?;
    let list = Place::Root;
    let name = extras::list_name(&root);
    let list = list.member(name);
    let mut servers = BTreeMap::new();
    if let Some(raw) = root.required(name, &mut reader.problems)
        && let Some(entries) = Fields::of(raw, list, &mut reader.problems)
    {
        for (label, raw) in entries.into_members() {
            let place = list.member(&label);
            reader.label(&label, &place);
            if let Some(entry) = reader.entry(raw, place) {
                servers.insert(label.as_ref().into(), entry);
            }
        }
    }
    if !reader.problems.is_empty() {
        return Err(reader.problems.into_sentences());
    }
    Ok(McpFile {
        servers,
        notices: reader.notices,
    })
}

struct Reader<'a> {
    around: Surroundings<'a>,
    problems: Problems,
    notices: Vec<String>,
    /// What was filled into the entry that is being read.
    filled: Vec<Filled>,
}

/// Members that make an entry a stdio server.
const STDIO: [&str; 4] = ["command", "args", "env", "cwd"];

impl Reader<'_> {
    fn label(&mut self, label: &str, place: &Place<'_>) {
        if !is_label(label) {
            let rule = format!("named with 1 to {MAX_LABEL} letters, digits, `_` or `-`");
            self.problems.invalid(place, rule);
        }
    }

    fn entry(&mut self, raw: &RawValue, place: Place<'_>) -> Option<ServerEntry> {
        let mut fields = Fields::of(raw, place, &mut self.problems)?;
        self.filled.clear();
        let named = self.transport_word(&mut fields);
        let required = fields.boolean("required", &mut self.problems);
        let approval = fields.word(
            "require_approval",
            &["never", "always"],
            DefaultApproval::parse,
            &mut self.problems,
        );
        let limits = extras::limits(&mut fields, &mut self.problems);
        let is_stdio = STDIO.iter().any(|name| fields.given(name));
        if !is_stdio && !fields.given("url") {
            let place = fields.place();
            if extras::misspelt(&fields, &place, &mut self.problems) {
                return None;
            }
        }
        let transport = if is_stdio {
            self.stdio(&mut fields, named.as_deref())
                .map(Transport::Stdio)
        } else {
            self.http(&mut fields, named.as_deref())
                .map(Transport::Http)
        };
        for name in fields.unknown() {
            let place = fields.place();
            self.notices
                .push(format!("`{}` is not used", place.member(name)));
        }
        Some(ServerEntry {
            transport: transport?,
            required: required.unwrap_or(false),
            approval: approval.unwrap_or(DefaultApproval::Never),
            limits,
            filled: std::mem::take(&mut self.filled),
        })
    }

    /// `transport`, or `type` as other programs call it.
    fn transport_word<'de>(&mut self, fields: &mut Fields<'de, '_>) -> Option<Cow<'de, str>> {
        let name = if fields.given("transport") {
            "transport"
        } else {
            "type"
        };
        let raw = fields.take(name)?;
        let word = read::text(raw);
        let place = fields.place();
        match &word {
            None => self.problems.wrong_type(
                &place.member(name),
                "a string; a stdio server has `command` and `args` beside it, not inside",
            ),
            Some(word) if word.is_empty() => {
                self.problems
                    .invalid(&place.member(name), "a non-empty string");
            }
            Some(_) => {}
        }
        word
    }

    fn stdio(
        &mut self,
        fields: &mut Fields<'_, '_>,
        transport: Option<&str>,
    ) -> Option<StdioServer> {
        let place = fields.place();
        for name in ["url", "headers", "auth"] {
            if fields.take(name).is_some() {
                self.problems.invalid(
                    &place.member(name),
                    "absent: `command`, `args`, `env` and `cwd` make this a stdio server",
                );
            }
        }
        if transport.is_some_and(|word| word != "stdio") {
            self.problems
                .invalid(&place.member("transport"), "`stdio` or absent");
        }
        let command = fields
            .required_word("command", &mut self.problems)
            .and_then(|text| self.fill(&text, &place.member("command")));
        let args = self.texts(fields, "args");
        let env = self.pairs(fields, "env");
        let cwd = fields.string("cwd", &mut self.problems);
        let cwd = match cwd {
            Some(text) => Some(self.fill(&text, &place.member("cwd"))?),
            None => None,
        };
        Some(StdioServer {
            command: command?,
            args,
            env,
            cwd,
        })
    }

    fn http(&mut self, fields: &mut Fields<'_, '_>, transport: Option<&str>) -> Option<HttpServer> {
        let place = fields.place();
        let kind = match transport {
            None | Some("auto") => HttpKind::Auto,
            Some("http" | "streamable-http" | "streamable_http" | "streamableHttp") => {
                HttpKind::Streamable
            }
            Some("sse") => HttpKind::Sse,
            Some("stdio") => {
                self.problems.missing(&place.member("command"));
                return None;
            }
            Some("") => return None,
            Some(_) => {
                self.problems.wrong_word(
                    &place.member("transport"),
                    &["auto", "streamable-http", "http", "sse", "stdio"],
                );
                return None;
            }
        };
        let text = fields.required_string("url", &mut self.problems);
        let url = text.and_then(|text| self.fill(&text, &place.member("url")));
        if let Some(url) = &url
            && !(self.around.is_url)(url)
        {
            self.problems.invalid(
                &place.member("url"),
                "an absolute `http` or `https` URL with a host and without user name",
            );
        }
        let headers = self.pairs(fields, "headers");
        if fields.take("authentication").is_some() {
            self.problems.invalid(
                &place.member("authentication"),
                "absent: give a bearer token as `auth`, or headers as `headers`",
            );
        }
        let auth = match fields.string("auth", &mut self.problems) {
            Some(text) => Some(Secret::new(&self.fill(&text, &place.member("auth"))?)),
            None => None,
        };
        Some(HttpServer {
            url: Secret::new(&url?),
            headers,
            auth,
            kind,
        })
    }

    fn texts(&mut self, fields: &mut Fields<'_, '_>, name: &str) -> Vec<Box<str>> {
        let place = fields.place();
        let place = place.member(name);
        let Some(raw) = fields.take(name) else {
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (index, raw) in elements(raw, &place, &mut self.problems)
            .unwrap_or_default()
            .into_iter()
            .enumerate()
        {
            if let Some(text) = self.text(raw, &place.element(index)) {
                texts.push(text);
            }
        }
        texts
    }

    fn pairs(&mut self, fields: &mut Fields<'_, '_>, name: &str) -> Vec<(Box<str>, Secret)> {
        let place = fields.place();
        let place = place.member(name);
        let Some(raw) = fields.take(name) else {
            return Vec::new();
        };
        let Some(members) = Fields::of(raw, place, &mut self.problems) else {
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (key, raw) in members.into_members() {
            if key.is_empty() || key.contains(['=', '\0']) {
                self.problems
                    .invalid(&place.member(&key), "a name without `=`, not empty");
            }
            if let Some(text) = self.text(raw, &place.member(&key)) {
                pairs.push((key.as_ref().into(), Secret::new(&text)));
            }
        }
        pairs
    }

    fn text(&mut self, raw: &RawValue, place: &Place<'_>) -> Option<Box<str>> {
        if kind(raw) != Kind::String {
            self.problems.wrong_type(place, "a string");
            return None;
        }
        self.fill(&read::text(raw)?, place)
    }

    /// Replaces `${VAR}` and `${VAR:-default}`.
    fn fill(&mut self, text: &str, place: &Place<'_>) -> Option<Box<str>> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        let mut whole = true;
        while let Some((before, after)) = rest.split_once("${") {
            filled.push_str(before);
            let Some((inside, behind)) = after.split_once('}') else {
                self.problems.invalid(place, "closed: a `${` needs its `}`");
                return None;
            };
            let (name, default) = match inside.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inside, None),
            };
            let value = (self.around.env)(name).filter(|value| !value.is_empty());
            if let Some(value) = value.as_deref().or(default) {
                filled.push_str(value);
                self.filled.push(Filled {
                    name: name.into(),
                    value: Secret::new(value),
                });
            } else {
                let name = crate::json::problems::shown(name);
                let rule = format!("resolvable: `{name}` is not set in the environment");
                self.problems.invalid(place, rule);
                whole = false;
            }
            rest = behind;
        }
        filled.push_str(rest);
        whole.then(|| filled.into())
    }
}

/// Whether a text can be the label of a server.
pub fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests;
