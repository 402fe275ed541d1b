//! What the code interpreter needs to know; read and judged by `src/config`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::actor::InterpreterSettings;
use super::bundle::{Bundle, BundleError, Manifest};
use super::limits::{self, CallLimits};
use super::pool::PoolSettings;
use super::sessions::SessionSettings;
use super::setup;
use crate::secret::Secret;

/// Settings of the interpreter.
#[derive(Clone, Debug)]
pub struct CodeInterpreterSettings {
    /// Who runs Python.
    pub mode: Mode,
    /// How long the first interpreter may take: beyond it an explicit one ends the start, and the
    /// default one is warned about.
    pub startup_timeout: Duration,
    /// How many processes there are, and for how long.
    pub workers: Workers,
    /// What one call and one process may use.
    pub limits: Limits,
    /// What a kernel without Landlock or seccomp means.
    pub os_sandbox: OsSandbox,
}

/// Beyond this, more interpreters only mean more memory at stake.
const MOST_WORKERS: usize = 64;

impl CodeInterpreterSettings {
    /// The numbers of the actor that runs this bundle. Where the number of workers is left to us, there
    /// are so many that all of them together cannot take more than half of `memory`, the bytes of this
    /// machine: any call may use all that its process is allowed, and a kept container holds it.
    pub fn actor(&self, manifest: &Manifest, memory: u64) -> InterpreterSettings {
        let each = u64::try_from(self.limits.process_memory.max(1)).unwrap_or(u64::MAX);
        let by_memory = usize::try_from(memory / 2 / each).unwrap_or(MOST_WORKERS);
        let most_live = match self.workers.most {
            0 => by_memory.min(MOST_WORKERS).max(self.workers.idle).max(1),
            most => most,
        };
        InterpreterSettings {
            pool: PoolSettings {
                idle: self.workers.idle,
                most_live,
                warms: !manifest.imports.is_empty(),
                ..PoolSettings::default()
            },
            sessions: SessionSettings {
                keep: self.workers.kept,
                idle: self.workers.kept_for,
            },
            startup_timeout: self.startup_timeout,
            ..InterpreterSettings::default()
        }
    }
}

/// Who runs Python.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Processes of ours.
    Spawn(Spawn),
    /// Another process of this program.
    External(Service),
    /// Nobody: the tool is refused.
    Disabled,
}

/// Processes of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawn {
    /// Whether their absence is an error.
    pub chosen: Chosen,
    /// The bundle's folder, when it was named.
    pub bundle: Option<PathBuf>,
    /// Where set-ups put bundles; `None` when the machine names no place for that.
    pub cache: Option<PathBuf>,
}

impl Spawn {
    /// The bundle that workers run: the named one, else the best one of this version that was set up.
    ///
    /// # Errors
    /// [`BundleError`], which says how to get one.
    pub fn bundle(&self) -> Result<Bundle, BundleError> {
        if let Some(named) = &self.bundle {
            return Bundle::open(named);
        }
        let cache = self.cache.as_deref();
        let found = cache.and_then(setup::find);
        found.ok_or_else(|| BundleError::Missing {
            path: cache.unwrap_or(Path::new("~/.cache")).to_owned(),
            missing: "a bundle of this version".to_owned(),
        })
    }
}

/// Whether the user asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// It is the default: without a bundle the gateway starts without the tool.
    ByDefault,
    /// It was asked for: without a bundle the gateway does not start.
    ByUser,
}

/// Another process of this program.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its base URL.
    pub url: Url,
    /// What it asks for.
    pub token: Option<Secret>,
}

/// How many processes there are, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// Processes that wait for a call.
    pub idle: usize,
    /// Most processes, kept sessions included; 0 computes it from the machine's memory.
    pub most: usize,
    /// Sessions kept after their response, the least recently used one ended first; 0 keeps none.
    pub kept: usize,
    /// How long one is kept without a call.
    pub kept_for: Duration,
}

/// What one call and one process may use (decision 29).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest call; then the process is killed.
    pub wall: Duration,
    /// Bytes of Python's memory: more is a `MemoryError`.
    pub python_memory: usize,
    /// Bytes of the whole process: the kernel's hard limit.
    pub process_memory: usize,
    /// Bytes of JavaScript's heap.
    pub v8_heap: usize,
    /// Bytes of text that a call may write; the rest is dropped and counted.
    pub output: usize,
    /// Images of a call.
    pub images: usize,
    /// Bytes of an image.
    pub image: usize,
}

impl Default for Limits {
    /// The documented ones.
    fn default() -> Self {
        let bytes = |mib: u64| usize::try_from(mib * limits::MIB).unwrap_or(usize::MAX);
        let call = CallLimits::default();
        Self {
            wall: call.wall,
            python_memory: bytes(limits::PYTHON_MEMORY_MIB),
            process_memory: bytes(limits::PROCESS_DATA_MIB),
            v8_heap: bytes(limits::V8_HEAP_MIB),
            output: call.output_bytes,
            images: call.images,
            image: call.image_bytes,
        }
    }
}

impl Limits {
    /// Those of one call.
    pub fn call(&self) -> CallLimits {
        CallLimits {
            wall: self.wall,
            output_bytes: self.output,
            images: self.images,
            image_bytes: self.image,
        }
    }
}

/// What a kernel without Landlock or seccomp means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OsSandbox {
    /// One line in the log, and shown in the status.
    Wanted,
    /// The gateway does not start.
    Required,
}

impl From<bool> for OsSandbox {
    fn from(required: bool) -> Self {
        if required {
            Self::Required
        } else {
            Self::Wanted
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::interpreter::bundle::{self, Packages};

    fn most_live(workers: Workers, memory: u64) -> usize {
        let settings = CodeInterpreterSettings {
            mode: Mode::Disabled,
            startup_timeout: Duration::from_secs(1),
            workers,
            limits: Limits::default(),
            os_sandbox: OsSandbox::Wanted,
        };
        let manifest = Manifest {
            format: bundle::FORMAT,
            deno: String::new(),
            pyodide: String::new(),
            packages: Packages::Core,
            imports: Vec::new(),
            files: BTreeMap::new(),
        };
        settings.actor(&manifest, memory).pool.most_live
    }

    #[test]
    fn memory_decides_how_many_unless_the_user_does() {
        let workers = |idle, most| Workers {
            idle,
            most,
            kept: 0,
            kept_for: Duration::from_secs(1),
        };
        assert_eq!(most_live(workers(2, 0), 16 << 30), 5, "1.5 GiB each");
        assert_eq!(most_live(workers(2, 0), 1 << 40), MOST_WORKERS);
        assert_eq!(most_live(workers(2, 0), 1 << 20), 2);
        assert_eq!(most_live(workers(0, 0), 1 << 20), 1);
        assert_eq!(most_live(workers(2, 3), 16 << 30), 3);
    }
}
