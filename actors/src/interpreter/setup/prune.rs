//! Removes bundles of other versions that nobody runs.
//!
//! Whoever runs workers from a bundle holds a shared lock on it (`Bundle::hold`); the kernel ends
//! that lock with the process, however it ends.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::super::bundle::{MANIFEST, Packages};
use super::error::{Doing as _, SetupError};
use super::place::Place;
use super::progress::Progress;
use super::{bundle_name, word};

/// What became of the bundles of other versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// They are gone.
    pub removed: Vec<PathBuf>,
    /// A running gateway or service uses them.
    pub in_use: Vec<PathBuf>,
}

/// Removes the bundles of other versions from a cache folder, but for those that are in use. Waits for
/// set-ups that run there, and leaves what is no bundle's folder alone.
///
/// # Errors
/// [`SetupError`].
pub async fn prune(cache: &Path, progress: &mut dyn Progress) -> Result<Pruned, SetupError> {
    let mut pruned = Pruned::default();
    if !cache.is_dir() {
        return Ok(pruned);
    }
    let place = Place::lock(cache, progress).await?;
    for entry in fs::read_dir(place.root()).doing("read", place.root())? {
        let entry = entry.doing("read", place.root())?;
        if !is_of_another_version(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        // Held until the folder has another name: nobody finds it any more.
        match lock(&path) {
            Ok(_held) => place.discard(&path)?,
            Err(TryLockError::WouldBlock) => {
                pruned.in_use.push(path);
                continue;
            }
            Err(TryLockError::Error(error)) => return Err(error).doing("lock", &path),
        }
        pruned.removed.push(path);
    }
    Ok(pruned)
}

/// The exclusive lock on a bundle; none where there is nothing that anybody could run.
fn lock(bundle: &Path) -> Result<Option<File>, TryLockError> {
    let file = match File::open(bundle.join(MANIFEST)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TryLockError::Error(error)),
    };
    file.try_lock()?;
    Ok(Some(file))
}

/// Whether this is the name of a bundle, and none of this version's.
fn is_of_another_version(name: &OsStr) -> bool {
    let both = [Packages::Science, Packages::Core];
    let Some(name) = name.to_str() else {
        return false;
    };
    let is_bundle = both.iter().any(|&packages| {
        let hash = name.strip_prefix(word(packages));
        hash.and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    is_bundle && both.iter().all(|&packages| bundle_name(packages) != name)
}

#[cfg(test)]
mod tests {
    use super::super::progress::Silent;
    use super::*;

    #[test]
    fn other_versions_go_unless_they_are_used() {
        let cache = tempfile::tempdir().unwrap();
        let root = cache.path().canonicalize().unwrap();
        let make = |name: &str| {
            let folder = root.join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(MANIFEST), "{}").unwrap();
            folder
        };
        let current = make(&bundle_name(Packages::Core));
        let used = make("core-0123456789abcdef");
        let unused = make("science-0123456789abcdef");
        let other = make("core-of-mine");
        let broken = root.join("core-00000000000000ff");
        fs::create_dir(&broken).unwrap();
        let held = File::open(used.join(MANIFEST)).unwrap();
        held.try_lock_shared().unwrap();
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let mut pruned = runtime.block_on(prune(&root, &mut Silent)).unwrap();
            pruned.removed.sort();
            pruned
        };
        let mut gone = vec![unused, broken];
        gone.sort();
        let expected = Pruned {
            removed: gone.clone(),
            in_use: vec![used.clone()],
        };
        assert_eq!(run(), expected);
        assert!(gone.iter().all(|folder| !folder.exists()));
        assert!(current.is_dir() && used.is_dir() && other.is_dir());
        drop(held);
        assert_eq!(run().removed, [used]);
        assert_eq!(run(), Pruned::default());
    }
}
