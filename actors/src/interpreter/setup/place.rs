//! Where bundles lie: the cache folder, its lock, and the step from a working folder to a bundle.
//!
//! Set-ups that run at the same time wait for each other. A bundle appears whole or not at all: it is
//! made in a folder of another name, written through to the disk, and renamed.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Doing as _, SetupError};
use super::progress::Progress;

/// Prefix of folders that are being made or removed; whoever has the lock may remove them all.
const WORK: &str = ".work-";
/// How often a waiting set-up looks at the lock.
const LOOK: Duration = Duration::from_millis(200);

/// The locked cache folder. The lock ends with the process at the latest.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    _lock: File,
}

impl Place {
    /// Makes the folder, waits until no other set-up works in it, and removes what dead ones left.
    pub(super) async fn lock(
        cache: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Self, SetupError> {
        fs::create_dir_all(cache).doing("make", cache)?;
        // Deno's permissions name folders by their real path, in lists parted by commas.
        let root = cache.canonicalize().doing("find", cache)?;
        if root.as_os_str().as_bytes().contains(&b',') {
            let error = std::io::Error::other("Deno takes no path with a comma");
            return Err(error).doing("use", &root);
        }
        let path = root.join(".lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .doing("open", &path)?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if told => tokio::time::sleep(LOOK).await,
                Err(TryLockError::WouldBlock) => {
                    progress.step("waiting for another set-up to end");
                    told = true;
                }
                Err(TryLockError::Error(error)) => return Err(error).doing("lock", &path),
            }
        }
        let place = Self { root, _lock: file };
        place.sweep()?;
        Ok(place)
    }

    /// The folder, without links.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where downloads are kept until a set-up or an export succeeds.
    pub(super) fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// An empty folder that is removed unless it is published.
    pub(super) fn work(&self, purpose: &str) -> Result<Work, SetupError> {
        let path = self.root.join(format!("{WORK}{purpose}"));
        fs::create_dir(&path).doing("make", &path)?;
        Ok(Work { path })
    }

    /// Makes a working folder the bundle `name`, in place of one that may be there.
    pub(super) fn publish(&self, work: Work, name: &str) -> Result<PathBuf, SetupError> {
        let target = self.root.join(name);
        sync_tree(&work.path)?;
        let old = self.root.join(format!("{WORK}old"));
        if target.exists() {
            fs::rename(&target, &old).doing("move", &target)?;
        }
        fs::rename(&work.path, &target).doing("make", &target)?;
        sync(&self.root)?;
        drop(work);
        remove(&old)?;
        Ok(target)
    }

    /// Removes a bundle: it has another name first, so that a half of one is never found.
    pub(super) fn discard(&self, bundle: &Path) -> Result<(), SetupError> {
        let old = self.root.join(format!("{WORK}old"));
        remove(&old)?;
        fs::rename(bundle, &old).doing("move", bundle)?;
        remove(&old)
    }

    fn sweep(&self) -> Result<(), SetupError> {
        for entry in fs::read_dir(&self.root).doing("read", &self.root)? {
            let entry = entry.doing("read", &self.root)?;
            if is_work(&entry.file_name()) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn is_work(name: &OsStr) -> bool {
    name.as_bytes().starts_with(WORK.as_bytes())
}

/// A folder in the making; dropping it removes it.
#[derive(Debug)]
pub(super) struct Work {
    path: PathBuf,
}

impl Work {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next set-up.
        fs::remove_dir_all(&self.path).unwrap_or_default();
    }
}

/// Removes a folder with all that is in it; none is fine.
pub(super) fn remove(path: &Path) -> Result<(), SetupError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing("remove", path)
        }
        _ => Ok(()),
    }
}

/// Writes everything below a folder through to the disk.
fn sync_tree(folder: &Path) -> Result<(), SetupError> {
    for entry in fs::read_dir(folder).doing("read", folder)? {
        let entry = entry.doing("read", folder)?;
        let path = entry.path();
        if entry.file_type().doing("read", &path)?.is_dir() {
            sync_tree(&path)?;
        } else {
            sync(&path)?;
        }
    }
    sync(folder)
}

pub(super) fn sync(path: &Path) -> Result<(), SetupError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .doing("write", path)
}
