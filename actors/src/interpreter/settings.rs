//! What the code interpreter needs to know; read and judged by `src/config`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::bundle::{Bundle, BundleError};
use super::setup;
use crate::secret::Secret;

/// Settings of the interpreter.
#[derive(Clone, Debug)]
pub struct InterpreterSettings {
    /// Who runs Python.
    pub mode: Mode,
    /// Loopback port of the service that `vllm-responses code-interpreter` offers to other gateways.
    pub port: u16,
    /// How long start-up may take, the first worker's included.
    pub startup_timeout: Duration,
    /// How many processes there are, and for how long.
    pub pool: PoolSettings,
    /// What one call and one process may use.
    pub limits: Limits,
    /// What a kernel without Landlock or seccomp means.
    pub os_sandbox: OsSandbox,
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
pub struct PoolSettings {
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
