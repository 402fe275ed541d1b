//! The command line of a spawned vLLM: what stands behind `serve --`. Pure.
//!
//! The arguments go to `vllm serve` as they are. The gateway reads from them what it must know to
//! call the server, adds the address if none is given, and refuses what would hide the server from it.

use std::fmt;
use std::net::IpAddr;

use crate::secret::Secret;

/// Address that is added when the arguments name none.
const DEFAULT_HOST: &str = "127.0.0.1";
/// Port that is added when the arguments name none.
const DEFAULT_PORT: u16 = 8457;

/// A command line that can be run, and what the gateway read in it.
#[derive(Clone, PartialEq, Eq)]
pub struct VllmCommand {
    /// All arguments for the executable, `serve` first. They may hold an API key.
    pub args: Vec<String>,
    /// The model, as given.
    pub model: String,
    /// The names under which it is served (`--served-model-name`), else the model itself.
    pub served_names: Vec<String>,
    /// Host to call: a wildcard bind is called as loopback.
    pub host: String,
    /// Port to call.
    pub port: u16,
    /// First key of `--api-key`, which the gateway sends as bearer token.
    pub api_key: Option<Secret>,
}

/// Without the arguments, which may hold a key.
impl fmt::Debug for VllmCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VllmCommand")
            .field("model", &self.model)
            .field("served_names", &self.served_names)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("api_key", &self.api_key)
            .finish_non_exhaustive()
    }
}

impl VllmCommand {
    /// Base URL of the server, ending in `/v1`.
    pub fn base_url(&self) -> String {
        let host = &self.host;
        let is_v6 = matches!(host.parse(), Ok(IpAddr::V6(_)));
        if is_v6 {
            format!("http://[{host}]:{}/v1", self.port)
        } else {
            format!("http://{host}:{}/v1", self.port)
        }
    }
}

/// What is wrong with the arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nothing stands behind `--`.
    #[error("nothing follows `--`; give the model, as in `serve -- MODEL`")]
    Empty,
    /// The first argument is a flag.
    #[error("the first argument after `--` must be the model; put it before the flags")]
    ModelNotFirst,
    /// vLLM's own command stands behind `--`.
    #[error(
        "leave out `vllm` and `serve` after `--`: the model comes first, as in `serve -- MODEL`"
    )]
    OwnCommand,
    /// A flag that the gateway must read has no value.
    #[error("`{0}` after `--` needs a value")]
    NoValue(&'static str),
    /// The port is no port.
    #[error("`--port` after `--` must be a number from 1 to 65535")]
    BadPort,
    /// No HTTP server would be started.
    #[error("`--headless` after `--` starts no HTTP server; remove it, or run that node by itself")]
    Headless,
    /// The server would not listen on TCP.
    #[error("`--uds` after `--` is not supported; use `--host` and `--port`")]
    UnixSocket,
    /// The server would speak TLS.
    #[error(
        "`--ssl-*` after `--` is not supported: the gateway calls vLLM on this machine; end TLS before the gateway"
    )]
    Tls,
}

/// Reads the arguments behind `--`. Every problem is reported, not only the first.
pub fn read(args: &[String]) -> Result<VllmCommand, Vec<CommandError>> {
    let Some((model, flags)) = args.split_first() else {
        return Err(vec![CommandError::Empty]);
    };
    let mut errors = Vec::new();
    if matches!(model.as_str(), "vllm" | "serve") && !flags.is_empty() {
        errors.push(CommandError::OwnCommand);
    }
    if model.starts_with('-') {
        errors.push(CommandError::ModelNotFirst);
    }
    // A model that is missing may be why the first word is a flag: it is read like the others.
    let flags = if model.starts_with('-') { args } else { flags };
    let read = Flags::read(flags, &mut errors);
    let port = match read.port.as_deref().map(str::parse) {
        None => DEFAULT_PORT,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => {
            errors.push(CommandError::BadPort);
            DEFAULT_PORT
        }
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut line = vec!["serve".to_owned()];
    line.extend_from_slice(args);
    if read.host.is_none() {
        line.extend(["--host".to_owned(), DEFAULT_HOST.to_owned()]);
    }
    if read.port.is_none() {
        line.extend(["--port".to_owned(), port.to_string()]);
    }
    let served_names = if read.served_names.is_empty() {
        vec![model.clone()]
    } else {
        read.served_names
    };
    Ok(VllmCommand {
        args: line,
        model: model.clone(),
        served_names,
        host: callable(read.host.as_deref().unwrap_or(DEFAULT_HOST)),
        port,
        api_key: read.api_key,
    })
}

/// The address to call for an address to bind.
fn callable(host: &str) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_wildcard = bare
        .parse()
        .is_ok_and(|address: IpAddr| address.is_unspecified());
    if is_wildcard {
        DEFAULT_HOST.to_owned()
    } else {
        bare.to_owned()
    }
}

/// The flags that the gateway reads; as in vLLM, the last of several counts.
#[derive(Debug, Default)]
struct Flags {
    host: Option<String>,
    port: Option<String>,
    api_key: Option<Secret>,
    served_names: Vec<String>,
}

impl Flags {
    fn read(args: &[String], errors: &mut Vec<CommandError>) -> Self {
        let mut flags = Self::default();
        let mut rest = args;
        while let Some((word, after)) = rest.split_first() {
            rest = after;
            let Some(flag) = word.strip_prefix("--") else {
                continue;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            // vLLM takes underscores for hyphens in names.
            let name = name.replace('_', "-");
            let values = values_of(inline, after);
            flags.note(&name, &values, errors);
        }
        flags
    }

    fn note(&mut self, name: &str, values: &[&str], errors: &mut Vec<CommandError>) {
        let first = values.first().map(|value| (*value).to_owned());
        let mut needed = |flag| {
            if first.is_none() {
                errors.push(CommandError::NoValue(flag));
            }
            first.clone()
        };
        match name {
            "host" => self.host = needed("--host").or(self.host.take()),
            "port" => self.port = needed("--port").or(self.port.take()),
            "api-key" => self.api_key = needed("--api-key").map(|key| Secret::new(&key)),
            "served-model-name" if needed("--served-model-name").is_some() => {
                self.served_names = values.iter().map(|value| (*value).to_owned()).collect();
            }
            "headless" => errors.push(CommandError::Headless),
            "uds" => errors.push(CommandError::UnixSocket),
            _ if name.starts_with("ssl-") && !errors.contains(&CommandError::Tls) => {
                errors.push(CommandError::Tls);
            }
            _ => {}
        }
    }
}

/// The values of a flag: the one behind `=`, or the words up to the next flag.
fn values_of<'a>(inline: Option<&'a str>, after: &'a [String]) -> Vec<&'a str> {
    match inline {
        Some("") => Vec::new(),
        Some(value) => vec![value],
        None => after
            .iter()
            .map(String::as_str)
            .take_while(|word| !word.starts_with('-'))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_ascii_whitespace().map(str::to_owned).collect()
    }

    fn ok(line: &str) -> VllmCommand {
        read(&words(line)).unwrap()
    }

    fn errors(line: &str) -> Vec<CommandError> {
        read(&words(line)).unwrap_err()
    }

    #[test]
    fn defaults_are_appended_and_the_rest_is_unchanged() {
        let command = ok("org/model --max-model-len 4096 -O3");
        let expected = "serve org/model --max-model-len 4096 -O3 --host 127.0.0.1 --port 8457";
        assert_eq!(command.args, words(expected));
        assert_eq!(command.base_url(), "http://127.0.0.1:8457/v1");
        assert_eq!(
            (command.model.as_str(), command.api_key),
            ("org/model", None)
        );
        assert_eq!(command.served_names, ["org/model"]);
    }

    #[test]
    fn address_is_read_in_both_forms_and_the_last_counts() {
        for line in [
            "m --host ::1 --port 9",
            "m --host=::1 --port=9",
            "m --port 8 --port=9 --host=[::1]",
        ] {
            let command = ok(line);
            assert_eq!(command.base_url(), "http://[::1]:9/v1", "{line}");
            assert_eq!(
                command.args.len(),
                words(line).len() + 1,
                "{line}: nothing appended"
            );
        }
        assert_eq!(ok("m --host box --port 9").base_url(), "http://box:9/v1");
    }

    #[test]
    fn a_wildcard_bind_is_called_as_loopback() {
        for host in ["0.0.0.0", "::", "[::]"] {
            assert_eq!(ok(&format!("m --host {host}")).host, "127.0.0.1", "{host}");
        }
    }

    #[test]
    fn key_and_names_are_honoured() {
        let command = ok("m --api-key one two --served_model_name a b --seed 1");
        assert_eq!(command.api_key, Some(Secret::new("one")));
        assert_eq!(command.served_names, ["a", "b"]);
        assert!(!format!("{command:?}").contains("one"));
        assert_eq!(ok("m --served-model-name=x").served_names, ["x"]);
    }

    #[test]
    fn what_hides_the_server_is_refused_all_at_once() {
        let found = errors("m --headless --uds /tmp/s --ssl-keyfile=k --ssl-certfile c --port 0");
        let expected = vec![
            CommandError::Headless,
            CommandError::UnixSocket,
            CommandError::Tls,
            CommandError::BadPort,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_model_comes_first() {
        assert_eq!(errors(""), [CommandError::Empty]);
        assert_eq!(errors("--port 9 m"), [CommandError::ModelNotFirst]);
        for line in ["vllm serve m", "serve m", "serve --port 9 m"] {
            assert_eq!(errors(line), [CommandError::OwnCommand], "{line}");
        }
        assert_eq!(errors("m --port"), [CommandError::NoValue("--port")]);
        assert_eq!(
            errors("m --host= --port=x"),
            [CommandError::NoValue("--host"), CommandError::BadPort]
        );
    }
}
