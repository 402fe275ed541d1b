//! Pure: the keys of the code interpreter, judged.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use vllm_responses_actors::interpreter::settings::{
    Chosen, CodeInterpreterSettings, Limits, Mode, OsSandbox, Service, Spawn, Workers,
};
use vllm_responses_actors::secret::Secret;

use super::Logging;
use super::mcp::is_loopback;
use super::raw::{Raw, RawValue};
use super::validate::Reader;

const SIZE: &str = "must be a size in `KiB`, `MiB` or `GiB`; write for example `768MiB`";
/// WebAssembly with 32-bit addresses ends here.
const MOST_PYTHON: usize = 4 << 30;
/// A Python that has loaded nothing takes a third of this.
const LEAST_PYTHON: usize = 64 << 20;
/// What the process needs beside Python's memory: measured 200 MB.
const BESIDE_PYTHON: usize = 256 << 20;

/// What the `code-interpreter` command needs.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Where to listen.
    pub address: SocketAddr,
    /// What callers must show; without one, everybody on this machine may call.
    pub token: Option<Secret>,
    /// The interpreters.
    pub interpreter: CodeInterpreterSettings,
    /// Which of them.
    pub spawn: Spawn,
    /// How long calls may go on at a stop.
    pub shutdown_grace: Duration,
    /// The log.
    pub logging: Logging,
}

/// Judges what the `code-interpreter` command needs, and nothing else: who runs Python is settled.
///
/// # Errors
/// All problems.
pub(crate) fn service(raw: &Raw) -> Result<ServiceConfig, Vec<String>> {
    let mut reader = Reader {
        raw,
        problems: raw.problems.clone(),
    };
    let config = reader.interpreter_service();
    match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => Err(reader.problems),
    }
}

impl Reader<'_> {
    pub(super) fn interpreter(&mut self) -> Option<CodeInterpreterSettings> {
        let mode = self.interpreter_mode();
        self.interpreter_settings(mode)
    }

    fn interpreter_settings(&mut self, mode: Option<Mode>) -> Option<CodeInterpreterSettings> {
        let startup_timeout = self.positive("code_interpreter.startup_timeout");
        let workers = self.interpreter_workers();
        let limits = self.interpreter_limits();
        let required = self.switch("code_interpreter.require_os_sandbox");
        Some(CodeInterpreterSettings {
            mode: mode?,
            startup_timeout: startup_timeout?,
            workers: workers?,
            limits: limits?,
            os_sandbox: OsSandbox::from(required?),
        })
    }

    fn interpreter_service(&mut self) -> Option<ServiceConfig> {
        let token = self.interpreter_token();
        let (host, port) = self.interpreter_address();
        if host.is_some_and(|host| !host.is_loopback()) && token.is_none() {
            let rule = "whoever reaches this address could run code here; give both sides a token \
                        in `VR_CODE_INTERPRETER_TOKEN`, or listen on 127.0.0.1";
            self.problem("code_interpreter.host", rule);
        }
        let spawn = Spawn {
            chosen: Chosen::ByUser,
            ..self.interpreter_spawn()
        };
        if let Err(missing) = spawn.bundle() {
            self.problems.push(missing.to_string());
        }
        let interpreter = self.interpreter_settings(Some(Mode::Spawn(spawn.clone())));
        let shutdown_grace = self.duration("lifecycle.shutdown_grace");
        let logging = self.logging();
        Some(ServiceConfig {
            address: SocketAddr::new(host?, port?),
            token,
            interpreter: interpreter?,
            spawn,
            shutdown_grace: shutdown_grace?,
            logging: logging?,
        })
    }

    fn interpreter_address(&mut self) -> (Option<IpAddr>, Option<u16>) {
        let rule = "must be an IP address, like `127.0.0.1`";
        let host = self.read("code_interpreter.host", rule, |text| text.parse().ok());
        (host, self.port("code_interpreter.port", 1))
    }

    fn interpreter_token(&mut self) -> Option<Secret> {
        let token = self.optional("code_interpreter.token").map(Secret::new)?;
        let text = token.expose();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let rule = "must be printable ASCII without spaces; copy the token again";
            self.problem("code_interpreter.token", rule);
        }
        Some(token)
    }

    fn interpreter_mode(&mut self) -> Option<Mode> {
        let rule = "must be `spawn`, `external` or `disabled`";
        let asked = self.optional("code_interpreter.mode");
        if asked.is_some_and(|word| !["spawn", "external", "disabled"].contains(&word)) {
            self.problem("code_interpreter.mode", rule);
            return None;
        }
        let (_, port) = self.interpreter_address();
        let has_url = self.optional("code_interpreter.url").is_some();
        let flagged = |value: &RawValue| value.place == "`--code-interpreter-port`";
        let has_port = self.value("code_interpreter.port").is_some_and(flagged);
        if has_port && (has_url || asked != Some("external")) {
            let rule = "is where `vllm-responses code-interpreter` listens; here it is of use with \
                        `--code-interpreter external` and without a URL only";
            self.problem("code_interpreter.port", rule);
        }
        if asked == Some("external") {
            return self.interpreter_external(port?).map(Mode::External);
        }
        for key in ["code_interpreter.url", "code_interpreter.token"] {
            if self.optional(key).is_some() {
                let rule =
                    "is used with `--code-interpreter external` only; add that, or remove this";
                self.problem(key, rule);
            }
        }
        match asked {
            Some("disabled") => Some(Mode::Disabled),
            _ => Some(Mode::Spawn(self.interpreter_spawn())),
        }
    }

    /// The service: at the URL, else on this machine.
    fn interpreter_external(&mut self, port: u16) -> Option<Service> {
        let token = self.interpreter_token();
        if self.optional("code_interpreter.url").is_none() {
            let url = Url::parse(&format!("http://127.0.0.1:{port}")).ok()?;
            return Some(Service { url, token });
        }
        let rule = "must be a URL like `http://127.0.0.1:5970`, without user or query; put a token \
                    into `VR_CODE_INTERPRETER_TOKEN`";
        let url = self.read("code_interpreter.url", rule, service_url)?;
        if !is_loopback(&url) && (url.scheme() != "https" || token.is_none()) {
            let rule = "must be on this machine (127.0.0.1, ::1 or localhost), or `https` with \
                        `VR_CODE_INTERPRETER_TOKEN`";
            self.problem("code_interpreter.url", rule);
        }
        Some(Service { url, token })
    }

    fn interpreter_spawn(&self) -> Spawn {
        let bundle = self.optional("code_interpreter.bundle").map(PathBuf::from);
        let asked = bundle.is_some() || self.optional("code_interpreter.mode").is_some();
        Spawn {
            chosen: if asked {
                Chosen::ByUser
            } else {
                Chosen::ByDefault
            },
            bundle,
            cache: cache_folder(self.raw),
        }
    }

    fn interpreter_workers(&mut self) -> Option<Workers> {
        let idle = self.number("code_interpreter.workers", 0..=64);
        let most = self.number("code_interpreter.max_workers", 0..=1024);
        let kept = self.number("code_interpreter.kept_sessions", 0..=1024);
        let kept_for = self.positive("code_interpreter.session_idle");
        if let (Some(idle), Some(most)) = (idle, most)
            && most > 0
            && most < idle
        {
            let rule = "must be at least `code_interpreter.workers`, or 0";
            self.problem("code_interpreter.max_workers", rule);
        }
        Some(Workers {
            idle: idle?,
            most: most?,
            kept: kept?,
            kept_for: kept_for?,
        })
    }

    fn interpreter_limits(&mut self) -> Option<Limits> {
        let wall = self.positive("code_interpreter.call_timeout");
        let python = self.size("code_interpreter.python_memory", SIZE, LEAST_PYTHON);
        let process = self.size("code_interpreter.process_memory", SIZE, 1);
        let v8_heap = self.size("code_interpreter.v8_heap", SIZE, 64 << 20);
        let output = self.size("code_interpreter.output", SIZE, 1);
        let images = self.number("code_interpreter.images", 0..=100);
        let image = self.size("code_interpreter.image", SIZE, 1);
        if python.is_some_and(|python| python > MOST_PYTHON) {
            let rule = "must be at most `4GiB`: Python runs with 32-bit addresses";
            self.problem("code_interpreter.python_memory", rule);
        }
        if let (Some(python), Some(process)) = (python, process)
            && process < python.saturating_add(BESIDE_PYTHON)
        {
            let rule = "must be at least `code_interpreter.python_memory` and 256MiB more";
            self.problem("code_interpreter.process_memory", rule);
        }
        Some(Limits {
            wall: wall?,
            python_memory: python?,
            process_memory: process?,
            v8_heap: v8_heap?,
            output: output?,
            images: images?,
            image: image?,
        })
    }
}

/// Where set-ups put bundles; `None` when nothing names a place.
pub(crate) fn cache_folder(raw: &Raw) -> Option<PathBuf> {
    let named = raw.values.get("code_interpreter.cache_dir");
    match named.filter(|value| !value.text.is_empty()) {
        Some(value) => Some(PathBuf::from(&value.text)),
        None => Some(
            raw.cache_home
                .as_ref()?
                .join("vllm-responses/code-interpreter"),
        ),
    }
}

fn service_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (plain && is_http(text)).then_some(url)
}

/// Whether it is a URL that can be fetched from.
pub(crate) fn is_http(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use vllm_responses_actors::interpreter::limits;
    use vllm_responses_actors::interpreter::setup::pins::Release;

    use super::*;
    use crate::config::raw::{self, Inputs};
    use crate::config::table::Row;
    use crate::config::validate;

    const PAGE: &str = include_str!("../../docs/code-interpreter.md");

    fn settings(flags: &[(&'static str, &str)]) -> CodeInterpreterSettings {
        let flags = flags.iter().map(|&(key, text)| (key, text.to_owned()));
        let inputs = Inputs {
            flags: flags
                .chain([("upstream.url", "http://h".to_owned())])
                .collect(),
            ..Inputs::default()
        };
        validate::validate(&raw::gather(&inputs))
            .unwrap()
            .interpreter
    }

    /// The runtime has them too, for those who run it without a configuration.
    #[test]
    fn the_defaults_are_the_documented_limits() {
        let mib = |count: u64| usize::try_from(count << 20).unwrap();
        let settings = settings(&[]);
        let limits = Limits {
            wall: limits::WALL,
            python_memory: mib(limits::PYTHON_MEMORY_MIB),
            process_memory: mib(limits::PROCESS_DATA_MIB),
            v8_heap: mib(limits::V8_HEAP_MIB),
            output: limits::OUTPUT_BYTES,
            images: limits::IMAGES,
            image: limits::IMAGE_BYTES,
        };
        assert_eq!(settings.limits, limits);
        let workers = Workers {
            idle: 2,
            most: 0,
            kept: 4,
            kept_for: Duration::from_secs(1200),
        };
        assert_eq!(settings.workers, workers);
        assert_eq!(settings.os_sandbox, OsSandbox::Wanted);
        assert!(matches!(settings.mode, Mode::Spawn(spawn) if spawn.chosen == Chosen::ByDefault));
    }

    #[test]
    fn asking_for_it_is_not_the_same_as_the_default() {
        for asked in [
            ("code_interpreter.mode", "spawn"),
            ("code_interpreter.bundle", "folder"),
        ] {
            let mode = settings(&[asked]).mode;
            assert!(matches!(mode, Mode::Spawn(spawn) if spawn.chosen == Chosen::ByUser));
        }
    }

    #[test]
    fn a_service_without_a_url_is_on_this_machine() {
        let Mode::External(service) = settings(&[
            ("code_interpreter.mode", "external"),
            ("code_interpreter.port", "6000"),
        ])
        .mode
        else {
            panic!("not external")
        };
        assert_eq!(service.url.as_str(), "http://127.0.0.1:6000/");
        assert!(service.token.is_none());
    }

    /// The page's table of limits has every limit with its default, and the pinned versions.
    #[test]
    fn the_page_says_what_the_code_does() {
        let rows: Vec<Vec<&str>> = PAGE
            .lines()
            .filter(|line| line.starts_with("| `code_interpreter."))
            .map(|line| {
                line.split('|')
                    .map(|cell| cell.trim().trim_matches('`'))
                    .collect()
            })
            .collect();
        for row in &rows {
            let known = Row::find(row[1]).unwrap_or_else(|| panic!("no key {}", row[1]));
            assert_eq!(row[2], known.default, "{}", row[1]);
        }
        for limit in [
            "call_timeout",
            "python_memory",
            "process_memory",
            "v8_heap",
            "output",
            "images",
            "image",
            "workers",
            "max_workers",
            "kept_sessions",
            "session_idle",
        ] {
            let key = format!("code_interpreter.{limit}");
            assert_eq!(rows.iter().filter(|row| row[1] == key).count(), 1, "{key}");
        }
        let release = Release::pinned();
        assert!(PAGE.contains(&format!("Pyodide {}", release.pyodide.version)));
        if let Some(deno) = release.deno {
            assert!(PAGE.contains(&format!("Deno {}", deno.version)));
        }
    }
}
