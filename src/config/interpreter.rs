//! Pure: the keys of the code interpreter, judged.

use std::path::PathBuf;

use url::Url;
use vllm_responses_actors::interpreter::settings::{
    Chosen, CodeInterpreterSettings, Limits, Mode, OsSandbox, Service, Spawn, Workers,
};
use vllm_responses_actors::secret::Secret;

use super::raw::Raw;
use super::validate::Reader;

const SIZE: &str = "must be a size; write for example `768MiB`";
/// WebAssembly with 32-bit addresses ends here.
const MOST_PYTHON: usize = 4 << 30;
/// A Python that has loaded nothing takes a third of this.
const LEAST_PYTHON: usize = 64 << 20;
/// What the process needs beside Python's memory: measured 200 MB.
const BESIDE_PYTHON: usize = 256 << 20;

impl Reader<'_> {
    pub(super) fn interpreter(&mut self) -> Option<CodeInterpreterSettings> {
        let mode = self.interpreter_mode();
        let port = self.port("code_interpreter.port", 1);
        let startup_timeout = self.positive("code_interpreter.startup_timeout");
        let workers = self.interpreter_workers();
        let limits = self.interpreter_limits();
        let required = self.switch("code_interpreter.require_os_sandbox");
        Some(CodeInterpreterSettings {
            mode: mode?,
            port: port?,
            startup_timeout: startup_timeout?,
            workers: workers?,
            limits: limits?,
            os_sandbox: OsSandbox::from(required?),
        })
    }

    fn interpreter_mode(&mut self) -> Option<Mode> {
        let token = self.optional("code_interpreter.token").map(Secret::new);
        if token.as_ref().is_some_and(|token| {
            token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic())
        }) {
            let rule = "must be printable ASCII without spaces; copy the token again";
            self.problem("code_interpreter.token", rule);
        }
        let url = match self.optional("code_interpreter.url") {
            Some(_) => {
                let rule = "must be a URL like `http://127.0.0.1:5970`, without user or query; put \
                            a token into `VR_CODE_INTERPRETER_TOKEN`";
                Some(self.read("code_interpreter.url", rule, service)?)
            }
            None => None,
        };
        let rule = "must be `spawn`, `external` or `disabled`";
        let asked = self.optional("code_interpreter.mode");
        if asked.is_some_and(|word| !["spawn", "external", "disabled"].contains(&word)) {
            self.problem("code_interpreter.mode", rule);
            return None;
        }
        match (asked.unwrap_or("spawn"), url) {
            ("external", Some(url)) => Some(Mode::External(Service { url, token })),
            ("external", None) => {
                let rule = "`external` needs the service's URL; give it with \
                            `--code-interpreter-url` or `VR_CODE_INTERPRETER_URL`";
                self.problem("code_interpreter.mode", rule);
                None
            }
            (_, Some(_)) => {
                let rule =
                    "is used with `--code-interpreter external` only; add that, or remove this";
                self.problem("code_interpreter.url", rule);
                None
            }
            ("disabled", None) => Some(Mode::Disabled),
            (_, None) => Some(Mode::Spawn(self.interpreter_spawn())),
        }
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

fn service(text: &str) -> Option<Url> {
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
    use std::time::Duration;

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
