//! The keys of MCP, and the operator's `mcp.json`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use url::{Host, Url};
use vllm_responses_actors::mcp::guard::AllowedHost;
use vllm_responses_actors::mcp::hosted;
use vllm_responses_actors::mcp::settings::{
    BuiltIn, HostedSettings, McpSettings, RemoteSettings, RuntimeLink,
};
use vllm_responses_actors::secret::Secret;
use vllm_responses_protocol::mcp::file::{self, DefaultApproval, McpFile, Surroundings};

use super::Logging;
use super::raw::{DEFAULT, Inputs, Raw, RawValue};
use super::validate::Reader;
use super::{dotenv, files};

/// Largest `mcp.json`, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// What the `mcp-runtime` command needs.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// `mcp.json`.
    pub file: PathBuf,
    /// Where to listen, on 127.0.0.1.
    pub port: u16,
    /// What callers must show; without one, everybody on this machine may call.
    pub token: Option<Secret>,
    /// Deadlines and rules.
    pub hosted: HostedSettings,
    /// The log.
    pub logging: Logging,
}

/// Judges what the `mcp-runtime` command needs, and nothing else.
///
/// # Errors
/// All problems.
pub fn runtime(raw: &Raw) -> Result<RuntimeConfig, Vec<String>> {
    let mut reader = Reader {
        raw,
        problems: raw.problems.clone(),
    };
    let config = reader.runtime();
    match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => Err(reader.problems),
    }
}

/// Reads an `mcp.json`.
///
/// # Errors
/// Every problem of the file with its place; never a value.
pub fn read_file(path: &Path, env: &BTreeMap<OsString, OsString>) -> Result<McpFile, Vec<String>> {
    let unreadable = |why: &str| vec![format!("the file cannot be read ({why})")];
    let size = std::fs::metadata(path).map_err(|error| unreadable(&files::words(&error)))?;
    if size.len() > MAX_FILE {
        return Err(unreadable("it has more than 1 MiB"));
    }
    let text = files::read(path).map_err(|why| unreadable(&why))?;
    let variable = |name: &str| {
        let value = env.get(&OsString::from(name))?;
        value.to_str().map(str::to_owned)
    };
    let around = Surroundings {
        env: &variable,
        is_url: &hosted::is_operator_url,
    };
    let file = file::decode(&text, around)?;
    let bad = hosted::check(&file);
    if bad.is_empty() {
        return Ok(file);
    }
    Err(bad.iter().map(ToString::to_string).collect())
}

/// What `${NAME}` in an `mcp.json` may name: the environment, and below it `.env`.
pub fn surroundings(inputs: &Inputs) -> BTreeMap<OsString, OsString> {
    let text = files::read(&inputs.directory.join(".env")).unwrap_or_default();
    let (pairs, _) = dotenv::parse(&text);
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()));
    let mut all: BTreeMap<OsString, OsString> = pairs.collect();
    all.extend(
        inputs
            .env
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    all
}

/// The variables that a file names, with their values: the runtime has neither `.env` nor those that
/// begin with `VR_`.
pub fn named(path: &Path, env: &BTreeMap<OsString, OsString>) -> Vec<(OsString, Secret)> {
    let text = files::read(path).unwrap_or_default();
    let names = text.split("${").skip(1);
    let names = names.filter_map(|rest| rest.split(['}', ':']).next());
    let mut found: Vec<(OsString, Secret)> = names
        .filter_map(|name| {
            let value = env.get(&OsString::from(name))?.to_str()?;
            Some((name.into(), Secret::new(value)))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.dedup_by(|a, b| a.0 == b.0);
    found
}

impl Reader<'_> {
    pub(super) fn mcp(&mut self) -> Option<McpSettings> {
        let hosted = self.hosted();
        let remote = self.remote();
        let built_in = self.built_in();
        Some(McpSettings {
            built_in: built_in?,
            hosted: hosted?,
            remote: remote?,
        })
    }

    fn runtime(&mut self) -> Option<RuntimeConfig> {
        let file = self.optional("mcp.file").map(PathBuf::from);
        if file.is_none() {
            self.problems.push(
                "no MCP servers are configured; give their file with `--mcp-config FILE` or \
                 `VR_MCP_CONFIG_PATH`"
                    .to_owned(),
            );
        }
        let port = self.runtime_port();
        let hosted = self.hosted();
        let logging = self.logging();
        Some(RuntimeConfig {
            file: file?,
            port: port?,
            token: self.optional("mcp.runtime_token").map(Secret::new),
            hosted: hosted?,
            logging: logging?,
        })
    }

    fn hosted(&mut self) -> Option<HostedSettings> {
        let startup = self.positive("mcp.startup_timeout");
        let is_set = |key| self.value(key).is_some_and(|value| value.place != DEFAULT);
        // One setting for all servers, as it was before programs had their own, holds for them too.
        let is_shared = is_set("mcp.startup_timeout") && !is_set("mcp.program_startup_timeout");
        let program_startup = if is_shared {
            startup
        } else {
            self.positive("mcp.program_startup_timeout")
        };
        let call = self.positive("mcp.tool_timeout");
        let strict = self.switch("mcp.strict_definitions");
        Some(HostedSettings {
            startup: startup?,
            program_startup: program_startup?,
            call: call?,
            strict_definitions: strict?,
        })
    }

    fn remote(&mut self) -> Option<RemoteSettings> {
        let enabled = self.switch("mcp.remote_enabled");
        let url_checks = self.switch("mcp.remote_url_checks");
        let rule =
            "must be `HOST` or `HOST:PORT`, several with commas between; there are no wildcards";
        let allowed_hosts = self.read("mcp.remote_allowed_hosts", rule, |text| {
            text.split(',')
                .map(str::trim)
                .filter(|entry| !entry.is_empty())
                // It would be taken for a name, and never match.
                .map(|entry| AllowedHost::parse(entry).filter(|_| !entry.contains('*')))
                .collect()
        });
        let rule = "must be `always` or `never`";
        let approval = self.read("mcp.remote_default_approval", rule, DefaultApproval::parse);
        let own = ["gateway.port", "mcp.port"];
        let own_ports = own
            .iter()
            .filter_map(|key| self.value(key)?.text.parse().ok());
        Some(RemoteSettings {
            own_ports: own_ports.collect(),
            enabled: enabled?,
            url_checks: url_checks?,
            allowed_hosts: allowed_hosts?,
            default_approval: approval?,
        })
    }

    fn built_in(&mut self) -> Option<BuiltIn> {
        let port = self.runtime_port();
        if let Some(file) = self.optional("mcp.file") {
            let file = PathBuf::from(file);
            // Of no use to a runtime of the gateway's own, which listens on no port; but a mistake in it
            // is one.
            return port.map(|_unused| BuiltIn::Spawned {
                file,
                named: Vec::new(),
            });
        }
        let flagged = |value: &RawValue| value.place == "`--mcp-port`";
        let flagged = self.value("mcp.port").is_some_and(flagged);
        if flagged {
            self.problem(
                "mcp.port",
                "is of use with an `mcp.json` only; give it with `--mcp-config FILE`",
            );
        }
        let Some(text) = self.optional("mcp.runtime_url") else {
            return Some(BuiltIn::Off);
        };
        let token = self.optional("mcp.runtime_token").map(Secret::new);
        let Some(url) = runtime_url(text) else {
            self.problem(
                "mcp.runtime_url",
                "must be an `http` or `https` URL of a host and a port, without path, query or user name",
            );
            return None;
        };
        if !is_loopback(&url) && (url.scheme() != "https" || token.is_none()) {
            self.problem(
                "mcp.runtime_url",
                "must be on this machine (127.0.0.1, ::1 or localhost), or `https` with \
                 `VR_MCP_RUNTIME_TOKEN`",
            );
        }
        Some(BuiltIn::Attached(RuntimeLink { url, token }))
    }

    /// The port of a runtime that is started by itself: that of the URL when one is given.
    fn runtime_port(&mut self) -> Option<u16> {
        let port = self.port("mcp.port", 1);
        let given = self
            .optional("mcp.file")
            .and(self.optional("mcp.runtime_url"));
        let Some(text) = given else {
            return port;
        };
        let url = runtime_url(text).filter(is_loopback);
        let port = url.and_then(|url| url.port_or_known_default());
        if port.is_none() {
            self.problem(
                "mcp.runtime_url",
                "must be an `http` URL on 127.0.0.1, since the runtime is started on this machine",
            );
        }
        port
    }
}

fn runtime_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    (matches!(url.scheme(), "http" | "https") && bare && url.host().is_some()).then_some(url)
}

/// Whether a URL is on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
