//! `keys new`: makes a key, and puts its line into the keys file where that is asked for.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use vllm_responses_actors::plain_file;

use super::{USAGE, answer, complain};
use crate::config::files;
use crate::keys;

/// How often a lock is asked for that somebody else holds, and the pause between: five seconds in all.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Does it.
pub(super) fn new(name: &str, file: Option<&String>) -> ExitCode {
    if !keys::valid_name(name) {
        complain(&["error: the name must be 1 to 64 letters, digits, `.`, `_` or `-`".to_owned()]);
        return ExitCode::from(USAGE);
    }
    let mut bytes = [0u8; 32];
    if getrandom::fill(&mut bytes).is_err() {
        complain(&["error: the system gives no random bytes; try again".to_owned()]);
        return ExitCode::FAILURE;
    }
    let key = format!("vr-{}", keys::hex(&bytes));
    let line = keys::line_for(name, &key);
    if let Some(file) = file {
        return append(file, &line, name, &key);
    }
    answer(&format!(
        "Key, shown this once; give it to the client:\n{key}\n\nLine for the file of VR_API_KEYS_FILE:\n{line}\n"
    ))
}

/// The key is printed between the writing of the new file and its taking the old one's place: a key that
/// nobody has seen opens nothing, and where one is printed that opens nothing, an error says so.
fn append(file: &str, line: &str, name: &str, key: &str) -> ExitCode {
    let addition = match Addition::prepare(Path::new(file), line, name) {
        Ok(addition) => addition,
        Err(problem) => {
            complain(&[format!("error: {problem}; no key was added")]);
            return ExitCode::FAILURE;
        }
    };
    if answer(&format!("{key}\n")) != ExitCode::SUCCESS {
        complain(&["error: the key could not be shown, and was not added".to_owned()]);
        return ExitCode::FAILURE;
    }
    match addition.commit() {
        Ok(()) => {
            complain(&[format!(
                "{name} is in {file}; a running gateway reads it at SIGHUP. The key is shown this once"
            )]);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            complain(&[format!(
                "error: {problem}; the key above was not added and opens nothing"
            )]);
            ExitCode::FAILURE
        }
    }
}

/// A keys file with one line more, on the disk beside the old one until it takes its place: whatever
/// happens, the file is whole and is the old one or the new one. It is removed when it is dropped.
struct Addition {
    target: PathBuf,
    fresh: PathBuf,
    /// Locked while the file is changed, so that of two changes none is lost.
    folder: File,
    is_done: bool,
}

impl Addition {
    /// # Errors
    /// Why nothing can be added.
    fn prepare(file: &Path, line: &str, name: &str) -> Result<Self, String> {
        // A link stays one: what it leads to is replaced.
        let target = match fs::canonicalize(file) {
            Ok(target) => target,
            Err(error) if error.kind() == ErrorKind::NotFound => file.to_owned(),
            Err(error) => return Err(unreadable(&files::words(&error))),
        };
        let place = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            Some(_) | None => Path::new("."),
        };
        let folder = File::open(place).map_err(|error| unwritable(&error))?;
        lock(&folder).map_err(|error| unwritable(&error))?;
        // Only now: another addition may just have made it.
        let old = fs::metadata(&target).ok();
        let text = match &old {
            Some(_) => files::read(&target).map_err(|why| unreadable(&why))?,
            None => String::new(),
        };
        let mut lines = text.lines();
        if lines.any(|line| line.split_whitespace().next() == Some(name)) {
            return Err("a key of this name is there already: take its line out first".to_owned());
        }
        let (fresh, out) = plain_file::draft(&target).map_err(|error| unwritable(&error))?;
        let addition = Self {
            fresh,
            target,
            folder,
            is_done: false,
        };
        let gap = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let written = write(out, &format!("{text}{gap}{line}\n"), old.as_ref());
        written.map_err(|error| unwritable(&error))?;
        Ok(addition)
    }

    /// # Errors
    /// Why the file stays as it was.
    fn commit(mut self) -> Result<(), String> {
        fs::rename(&self.fresh, &self.target).map_err(|error| unwritable(&error))?;
        self.is_done = true;
        // The file is in place; some file systems cannot be asked for more.
        self.folder.sync_all().ok();
        Ok(())
    }
}

impl Drop for Addition {
    fn drop(&mut self) {
        if !self.is_done {
            fs::remove_file(&self.fresh).ok();
        }
    }
}

/// Fills the new file, on the disk, with the old one's owner and mode.
fn write(mut fresh: File, text: &str, old: Option<&Metadata>) -> io::Result<()> {
    if let Some(old) = old {
        let new = fresh.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            fchown(&fresh, Some(old.uid()), Some(old.gid()))?;
        }
        let mode = old.permissions().mode() & 0o777;
        fresh.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    fresh.write_all(text.as_bytes())?;
    fresh.sync_all()
}

fn unreadable(why: &str) -> String {
    format!("the keys file cannot be read ({why})")
}

/// Waits for another addition. Who may read a folder may lock it, so not for ever.
fn lock(folder: &File) -> io::Result<()> {
    for _ in 0..LOCK_TRIES {
        match folder.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    let held = "another process holds a lock on its folder; `fuser` tells which";
    Err(io::Error::new(ErrorKind::WouldBlock, held))
}

fn unwritable(error: &io::Error) -> String {
    format!("the keys file cannot be written ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn an_addition_that_is_not_committed_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        fs::write(&file, "ann 1").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        drop(Addition::prepare(&file, "bob 2", "bob").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "ann 1");
        assert_eq!(names(folder.path()), ["keys"]);
        let addition = Addition::prepare(&file, "bob 2", "bob").unwrap();
        addition.commit().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "ann 1\nbob 2\n");
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o640);
        assert_eq!(names(folder.path()), ["keys"]);
    }

    #[test]
    fn a_link_to_a_keys_file_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let addition = Addition::prepare(&link, "bob 2", "bob").unwrap();
        addition.commit().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "bob 2\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
