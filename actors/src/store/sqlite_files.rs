//! Whose files `SQLite` opens: the database, and those that stand beside it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::StoreStartError;
use super::sqlite::unopened;
use crate::plain_file;

/// Ends of the names of the files that `SQLite` keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Bit of a mode: written by everybody.
const BY_ALL: u32 = 0o002;

/// Makes the file readable by its owner alone (fault D16); says so when an existing one is not.
pub(super) fn create_private(path: &Path) -> Result<(), StoreStartError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(unopened(path))?;
    let about = file.metadata().map_err(unopened(path))?;
    if !about.is_file() {
        return Err(unopened(path)("it is no regular file"));
    }
    refuse_planted(path, about.uid())?;
    warn_of_folder(path);
    let place = path.display();
    if let Some(why) = plain_file::of_others(&about) {
        log::warn!(
            "the database file is not this user's alone, {why}: whoever it is can change every response; \
             `chown` and `chmod 600 {place}`, or name another"
        );
    } else if about.permissions().mode() & 0o077 != 0 {
        log::warn!(
            "the database file can be read by other users of this machine: `chmod 600 {place}`"
        );
    }
    Ok(())
}

/// `SQLite` opens the files beside a database whoever made them: it writes prompts into one that another
/// user holds open, follows links, and waits for ever at a pipe.
fn refuse_planted(database: &Path, owner: u32) -> Result<(), StoreStartError> {
    for end in BESIDE {
        let mut name = database.as_os_str().to_owned();
        name.push(end);
        let beside = PathBuf::from(name);
        let Ok(about) = fs::symlink_metadata(&beside) else {
            continue;
        };
        let trusted = [0, owner, Uid::effective().as_raw()];
        let why = if !about.is_file() {
            "it is no regular file".to_owned()
        } else if !trusted.contains(&about.uid()) {
            format!("it belongs to the user with the number {}", about.uid())
        } else if about.nlink() > 1 {
            "it is another file's name too".to_owned()
        } else {
            continue;
        };
        let refused = format!("{why}; remove it, it is not the gateway's");
        return Err(unopened(&beside)(refused));
    }
    Ok(())
}

/// Whoever writes into the folder can put files there under any name, or take the database's.
fn warn_of_folder(database: &Path) {
    let folder = database.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let mode = fs::metadata(folder).map_or(0, |about| about.mode());
    if mode & BY_ALL != 0 {
        log::warn!(
            "every user of this machine can put files beside the database: `chmod o-w {}`, or name a \
             folder of its own",
            folder.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    fn refusal(prepare: impl FnOnce(&Path)) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("v.db");
        prepare(folder.path());
        create_private(&database)
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn files_that_others_put_beside_the_database_are_refused() {
        assert_eq!(refusal(|_| {}), None);
        let own = |folder: &Path| fs::write(folder.join("v.db-wal"), "").unwrap();
        assert_eq!(refusal(own), None, "of a gateway that was killed");
        let pipe = |folder: &Path| mkfifo(&folder.join("v.db-journal"), Mode::S_IRWXU).unwrap();
        let link = |folder: &Path| symlink("/dev/zero", folder.join("v.db-shm")).unwrap();
        let two = |folder: &Path| {
            fs::write(folder.join("other"), "").unwrap();
            fs::hard_link(folder.join("other"), folder.join("v.db-wal")).unwrap();
        };
        for (said, why) in [
            (refusal(pipe), "it is no regular file"),
            (refusal(link), "it is no regular file"),
            (refusal(two), "it is another file's name too"),
        ] {
            let said = said.unwrap();
            assert!(said.contains(why) && said.contains("v.db-"), "{said}");
        }
        if Uid::effective().is_root() {
            let planted = |folder: &Path| {
                let file = folder.join("v.db-wal");
                fs::write(&file, "").unwrap();
                std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
            };
            let said = refusal(planted).unwrap();
            assert!(
                said.contains("it belongs to the user with the number 65534"),
                "{said}"
            );
        }
    }
}
