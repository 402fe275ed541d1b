//! Why a set-up failed. Every message names the cause and what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::super::bundle::BundleError;

/// Why the interpreter could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No Deno is known for this kind of machine.
    #[error(
        "there is no pinned Deno for {platform}; install Deno {version} yourself and give it with \
         `--deno PATH`"
    )]
    NoDeno {
        /// System and processor.
        platform: String,
        /// The version that is wanted.
        version: String,
    },
    /// The given Deno cannot be used.
    #[error("`--deno`: {path} cannot be used ({reason}); give a Deno executable of this machine")]
    BadDeno {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// A download failed.
    #[error(
        "cannot download {what} from {url} ({reason}); check the network, name a mirror with \
         `{mirror}`, or run `vllm-responses setup code-interpreter --export FILE.tar` on another \
         machine and `--from FILE.tar` here"
    )]
    Download {
        /// File name.
        what: String,
        /// Where it was looked for.
        url: String,
        /// What happened.
        reason: String,
        /// The setting that names another place.
        mirror: &'static str,
    },
    /// A file is not the one that this version was made for.
    #[error(
        "{what} has the SHA-256 {found}, not {wanted}: it is damaged or another version's, and is \
         not used; {remedy}"
    )]
    Checksum {
        /// File name.
        what: String,
        /// Of the file.
        found: String,
        /// Of the pinned one.
        wanted: String,
        /// What to do.
        remedy: &'static str,
    },
    /// `--from` lacks a file.
    #[error(
        "{place} does not hold {what}; make it with `vllm-responses setup code-interpreter \
         --packages {packages} --export FILE.tar` of this same version"
    )]
    NotInSource {
        /// What `--from` named.
        place: PathBuf,
        /// File name.
        what: String,
        /// `core` or `science`.
        packages: &'static str,
    },
    /// An archive was refused.
    #[error("{what} is not a usable archive ({reason}); get it again")]
    Archive {
        /// The archive.
        what: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// The list of packages cannot be used.
    #[error(
        "the package list of Pyodide cannot be used ({0}); this version cannot install `science`"
    )]
    PackageList(String),
    /// Deno did not finish the bundle.
    #[error(
        "Deno could not finish the interpreter ({reason}); it needs glibc 2.27 or newer and about \
         1 GiB of memory. Its last lines: {output}"
    )]
    Build {
        /// Exit code, signal or deadline.
        reason: String,
        /// End of what it wrote.
        output: String,
    },
    /// The result is no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The system refused.
    #[error(
        "cannot {doing} {path} ({error}); see that the folder can be written and has 500 MB free, or \
         name another one with `VR_PYODIDE_CACHE_DIR`"
    )]
    System {
        /// A verb.
        doing: &'static str,
        /// What was worked on.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
}

/// Says what was being done to which file.
pub(super) trait Doing<T> {
    /// Adds verb and path.
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, SetupError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, SetupError> {
        self.map_err(|error| SetupError::System {
            doing,
            path: path.to_owned(),
            error,
        })
    }
}
