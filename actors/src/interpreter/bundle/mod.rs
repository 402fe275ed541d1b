//! The bundle: the folder with everything an interpreter process runs, and nothing else.
//!
//! ```text
//! BUNDLE/deno                executable
//! BUNDLE/harness.mjs         our host program, [`HARNESS`] byte for byte
//! BUNDLE/pyodide/            the files of the npm package, the standard library with compiled modules
//! BUNDLE/snapshot.bin        memory of a loaded interpreter
//! BUNDLE/site/image.bin,     further packages, unpacked and compiled (packages `science` only)
//! BUNDLE/site/image.json     what lies where in that image
//! BUNDLE/manifest.json       [`Manifest`], written last: a folder without it is no bundle
//! ```
//!
//! `vllm-responses setup code-interpreter` makes it: it puts Deno, Pyodide, the harness and, for
//! `science`, `site/wheels/*` (wheels, and zips of shared libraries) in place, runs [`build_command`], and writes the manifest. Workers
//! only read it.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plain_file;

/// How often a lock is asked for that somebody else holds, and the pause between: two seconds in all.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The host program that every worker runs.
pub const HARNESS: &str = include_str!("../harness/harness.mjs");

/// Layout and meaning of a bundle. A bundle of another format is refused.
pub const FORMAT: u32 = 1;

/// What a bundle is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`] when it was made.
    pub format: u32,
    /// Version of Deno. The snapshot is only good for this one.
    pub deno: String,
    /// Version of Pyodide.
    pub pyodide: String,
    /// Which packages it has.
    pub packages: Packages,
    /// Modules worth importing before a call asks for them; empty for `core`.
    #[serde(default)]
    pub imports: Vec<String>,
    /// SHA-256 of each downloaded or built file, lower-case hexadecimal, by path below the bundle.
    #[serde(default)]
    pub files: std::collections::BTreeMap<String, String>,
}

/// How much Python a bundle has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packages {
    /// The standard library.
    Core,
    /// numpy, pandas, matplotlib and their like too.
    Science,
}

/// A bundle that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    root: PathBuf,
    manifest: Manifest,
}

/// A bundle in use ([`Bundle::hold`]).
#[derive(Clone, Debug)]
pub struct Held(#[expect(dead_code, reason = "it is there to be dropped")] Arc<File>);

/// Why a folder cannot be used. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// No such folder, or not all of it.
    #[error(
        "no code interpreter at {path}: {missing} is not there; \
         run `vllm-responses setup code-interpreter`"
    )]
    Missing {
        /// The bundle.
        path: PathBuf,
        /// The part of it.
        missing: String,
    },
    /// It was made by another version of this program, or changed since.
    #[error(
        "the code interpreter at {path} does not fit this version ({reason}); \
         run `vllm-responses setup code-interpreter` again"
    )]
    Unfit {
        /// The bundle.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system refused.
    #[error("cannot read the code interpreter at {path} ({error})")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
}

impl Bundle {
    /// Checks that `root` is a whole bundle for this version. Contents are not hashed: that is done
    /// when it is made.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn open(root: &Path) -> Result<Self, BundleError> {
        let unreadable = |error| BundleError::Unreadable {
            path: root.to_owned(),
            error,
        };
        let missing = |missing: &str| BundleError::Missing {
            path: root.to_owned(),
            missing: missing.to_owned(),
        };
        let unfit = |reason: String| BundleError::Unfit {
            path: root.to_owned(),
            reason,
        };
        let text = match plain_file::read(&root.join(MANIFEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(MANIFEST)),
            Err(error) => return Err(unreadable(error)),
        };
        // The wall names the folder by its path, so links are followed now and not later.
        let root = root.canonicalize().map_err(unreadable)?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| unfit(format!("{MANIFEST}: {error}")))?;
        if manifest.format != FORMAT {
            return Err(unfit(format!(
                "format {}, wanted {FORMAT}",
                manifest.format
            )));
        }
        let bundle = Self { root, manifest };
        let mut parts = vec![bundle.deno(), bundle.lock_file(), bundle.snapshot()];
        if bundle.manifest.packages == Packages::Science {
            parts.extend([bundle.site().join(IMAGE), bundle.site().join(IMAGE_INDEX)]);
        }
        if let Some(part) = parts.iter().find(|part| !part.is_file()) {
            let part = part.strip_prefix(&bundle.root).unwrap_or(part);
            return Err(missing(&part.display().to_string()));
        }
        match plain_file::read(&bundle.harness()) {
            Ok(text) if text == HARNESS.as_bytes() => Ok(bundle),
            Ok(_) => Err(unfit(format!("{HARNESS_FILE} is another version's"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(HARNESS_FILE)),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Why what is run of it may be of other users, whose programs it would be; `None` where only this user
    /// and root write it.
    pub fn of_others(&self) -> Option<String> {
        let parts = [self.root.clone(), self.deno(), self.harness()];
        let mut about = parts.iter().filter_map(|part| part.metadata().ok());
        about.find_map(|about| plain_file::of_others(&about))
    }

    /// Keeps the bundle from being pruned for as long as the result lives.
    ///
    /// # Errors
    /// When it is just being removed, or cannot be locked.
    pub fn hold(&self) -> Result<Held, BundleError> {
        let path = self.root.join(MANIFEST);
        let unreadable = |error| BundleError::Unreadable {
            path: path.clone(),
            error,
        };
        let file = File::open(&path).map_err(unreadable)?;
        lock_shared(&file, &path).map_err(unreadable)?;
        // It may have been moved away before it was locked.
        Self::open(&self.root)?;
        Ok(Held(Arc::new(file)))
    }

    /// The folder, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it is made of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The JavaScript host.
    pub fn deno(&self) -> PathBuf {
        self.root.join(DENO)
    }

    /// The host program.
    pub fn harness(&self) -> PathBuf {
        self.root.join(HARNESS_FILE)
    }

    /// The interpreter.
    pub fn pyodide(&self) -> PathBuf {
        self.root.join(PYODIDE)
    }

    /// Further packages; need not exist.
    pub fn site(&self) -> PathBuf {
        self.root.join(SITE)
    }

    /// Memory of a loaded interpreter.
    pub fn snapshot(&self) -> PathBuf {
        self.root.join(SNAPSHOT)
    }

    fn lock_file(&self) -> PathBuf {
        self.pyodide().join("pyodide-lock.json")
    }
}

/// Name of the executable in a bundle.
pub const DENO: &str = "deno";
/// Name of the host program in a bundle.
pub const HARNESS_FILE: &str = "harness.mjs";
/// Name of the interpreter's folder in a bundle.
pub const PYODIDE: &str = "pyodide";
/// Name of the folder for further packages in a bundle.
pub const SITE: &str = "site";
/// Name of the memory image in a bundle.
pub const SNAPSHOT: &str = "snapshot.bin";
/// Name of the description in a bundle.
pub const MANIFEST: &str = "manifest.json";
/// Name of the packages' contents in [`SITE`].
pub const IMAGE: &str = "image.bin";
/// Name of the packages' list in [`SITE`].
pub const IMAGE_INDEX: &str = "image.json";

/// The program and arguments that finish a bundle, once Deno, Pyodide and the harness are in place.
///
/// The standard library is compiled in place, `site/wheels/*` become the image (and may be removed
/// after), the snapshot is taken. That takes 10 to 60 s of one core and writes only below `root`, which
/// must hold no symbolic links; progress is lines on standard error; running it again is safe.
///
/// It needs no environment but `DENO_DIR`, a folder that may be thrown away, or `/proc/none`, which not
/// even root can make. Exit code 0 is success.
pub fn build_command(root: &Path) -> (PathBuf, Vec<OsString>) {
    let allowed = |what: &str| {
        let mut flag = OsString::from(format!("--allow-{what}="));
        flag.push(root);
        flag
    };
    let mut args: Vec<OsString> = HOST_FLAGS.iter().map(OsString::from).collect();
    args.extend([allowed("read"), allowed("write")]);
    args.extend([
        root.join(HARNESS_FILE).into(),
        "--build".into(),
        root.into(),
    ]);
    (root.join(DENO), args)
}

/// Flags of Deno that hold for building and running: no configuration, no network, no question.
pub(crate) const HOST_FLAGS: &[&str] = &[
    "run",
    "--no-prompt",
    "--quiet",
    "--no-config",
    "--no-lock",
    "--no-remote",
    "--no-npm",
    "--cached-only",
    "--node-modules-dir=none",
    "--deny-net",
    "--deny-env",
    "--deny-sys",
    "--deny-run",
    "--deny-ffi",
    "--deny-import",
];

/// Waits a moment for whoever removes the bundle. Who may read a file may lock it: a stranger's lock keeps
/// nobody from starting.
fn lock_shared(file: &File, path: &Path) -> io::Result<()> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    log::warn!(
        "another process holds a lock on {}: the code interpreter starts without one, and `setup` of \
         another version may remove it",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn whole(packages: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join(PYODIDE)).unwrap();
        for (name, text) in [
            (DENO, ""),
            (HARNESS_FILE, HARNESS),
            ("pyodide/pyodide-lock.json", "{}"),
            (SNAPSHOT, ""),
        ] {
            fs::write(root.join(name), text).unwrap();
        }
        let manifest =
            format!(r#"{{"format":1,"deno":"2.0.0","pyodide":"314.0.7","packages":"{packages}"}}"#);
        fs::write(root.join(MANIFEST), manifest).unwrap();
        folder
    }

    fn error(root: &Path) -> String {
        Bundle::open(root).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_bundle_opens() {
        let folder = whole("core");
        let bundle = Bundle::open(folder.path()).unwrap();
        assert_eq!(bundle.manifest().packages, Packages::Core);
        assert!(bundle.deno().is_absolute());
    }

    #[test]
    fn what_is_missing_is_named_with_the_remedy() {
        for part in [DENO, HARNESS_FILE, SNAPSHOT, MANIFEST] {
            let folder = whole("core");
            fs::remove_file(folder.path().join(part)).unwrap();
            let message = error(folder.path());
            assert!(message.contains(part), "{message}");
            assert!(message.contains("`vllm-responses setup code-interpreter`"));
        }
        let message = error(Path::new("/nonexistent/bundle"));
        assert!(message.contains(MANIFEST), "{message}");
        let message = error(whole("science").path());
        assert!(message.contains("site/image.bin"), "{message}");
    }

    #[test]
    fn another_versions_bundle_is_refused() {
        let folder = whole("core");
        fs::write(folder.path().join(HARNESS_FILE), "other").unwrap();
        assert!(error(folder.path()).contains("another version"));
        let folder = whole("core");
        let manifest = r#"{"format":2,"deno":"2","pyodide":"3","packages":"core"}"#;
        fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        assert!(error(folder.path()).contains("format 2, wanted 1"));
        let folder = whole("everything");
        assert!(error(folder.path()).contains("manifest.json"));
    }
}
