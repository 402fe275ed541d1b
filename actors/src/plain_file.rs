//! Reading small files that are named by people, or lie where others can put something.
//!
//! A path may lead to a pipe, a device or a file without end: reading those would wait for ever, on a
//! thread that must hear signals, or take all memory.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Uid;

/// More than any of these files has.
pub const MOST: u64 = 16 << 20;
/// Bits of a mode: written by the group or by everybody.
const WRITABLE: u32 = 0o022;
/// How often a pipe is looked at that nobody writes to yet.
const LOOK: Duration = Duration::from_millis(50);

/// The whole file, at most [`MOST`] bytes.
///
/// # Errors
/// The system's; or, with the kind `InvalidInput`, that it is no regular file or is too large.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_with(path).map(|(bytes, _)| bytes)
}

/// As [`read`], of a file that only this user, or root, can have written: what is in it is relied on.
///
/// # Errors
/// As [`read`]; or that it belongs to, or can be written by, somebody else.
pub fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let (bytes, about) = read_with(path)?;
    match of_others(&about) {
        Some(why) => Err(refused(&why)),
        None => Ok(bytes),
    }
}

/// As [`read`], of text.
///
/// # Errors
/// As [`read`]; or, with the kind `InvalidData`, that it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let text = String::from_utf8(read(path)?);
    text.map_err(|_no_text| io::ErrorKind::InvalidData.into())
}

/// The text that is written into a pipe until its writers close it; `None` where the path leads to something
/// else.
///
/// At most [`MOST`] bytes, within this time. This blocks: it is for what a person names on a command line,
/// such as `<(envsubst < c.toml)`, before anything else runs.
///
/// # Errors
/// As [`read_text`]; or, with the kind `InvalidInput`, that it was not written in time.
pub fn read_pipe(path: &Path, limit: Duration) -> Option<io::Result<String>> {
    let is_pipe = |about: &Metadata| about.file_type().is_fifo();
    // Opening a device may do something.
    std::fs::metadata(path).ok().filter(is_pipe)?;
    let file = match open(path) {
        Ok(file) => file,
        Err(error) => return Some(Err(error)),
    };
    let opened = file.metadata().is_ok_and(|about| is_pipe(&about));
    opened.then(|| {
        let bytes = drain(file, limit)?;
        String::from_utf8(bytes).map_err(|_no_text| io::ErrorKind::InvalidData.into())
    })
}

fn drain(mut pipe: File, limit: Duration) -> io::Result<Vec<u8>> {
    let until = Instant::now() + limit;
    let mut bytes = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        match pipe.read(&mut part) {
            // Before its first writer a pipe looks as it does behind its last.
            Ok(0) if !bytes.is_empty() || has_ended(&pipe) => return Ok(bytes),
            Ok(0) => std::thread::sleep(LOOK),
            Ok(read) => bytes.extend_from_slice(part.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(&pipe, LOOK);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MOST {
            return Err(too_large());
        }
        if Instant::now() >= until {
            let seconds = limit.as_secs();
            return Err(refused(&format!(
                "it is a pipe that nobody has written to its end within {seconds} s"
            )));
        }
    }
}

/// Whether there were writers and are none any more.
fn has_ended(pipe: &File) -> bool {
    wait(pipe, Duration::ZERO).contains(PollFlags::POLLHUP)
}

fn wait(pipe: &File, limit: Duration) -> PollFlags {
    let mut looked = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
    match poll(&mut looked, limit) {
        Ok(_) => looked
            .first()
            .and_then(PollFd::revents)
            .unwrap_or(PollFlags::empty()),
        Err(_interrupted) => PollFlags::empty(),
    }
}

/// Why what is in a file may be of others; `None` where only this user and root write it.
pub fn of_others(about: &Metadata) -> Option<String> {
    let owner = about.uid();
    if owner != 0 && owner != Uid::effective().as_raw() {
        return Some(format!("it belongs to the user with the number {owner}"));
    }
    let mode = about.mode() & 0o777;
    (mode & WRITABLE != 0).then(|| format!("other users can change it (mode {mode:04o})"))
}

/// A new file beside this one, readable by its owner alone, for what is to take its place: its name and
/// the file.
///
/// The name is one that nobody can have foreseen, so what others put into the folder is neither
/// followed nor written to, and what a killed predecessor left is in nobody's way.
///
/// # Errors
/// The system's.
pub fn draft(beside: &Path) -> io::Result<(PathBuf, File)> {
    let mut name = beside.as_os_str().to_owned();
    let random = getrandom::u64().map_err(io::Error::other)?;
    name.push(format!(".{random:016x}.new"));
    let path = PathBuf::from(name);
    let mut options = File::options();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    Ok((path, file))
}

fn read_with(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let file = open(path)?;
    let about = file.metadata()?;
    let kind = about.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        let name = if kind.is_fifo() { "a pipe" } else { "a device" };
        return Err(refused(&format!("it is no regular file but {name}")));
    }
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MOST {
        return Err(too_large());
    }
    Ok((bytes, about))
}

/// Waits for nobody.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    options.read(true).custom_flags(flags.bits()).open(path)
}

fn too_large() -> io::Error {
    refused(&format!("it is larger than {} MiB", MOST >> 20))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        symlink("/dev/zero", at("endless")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        File::create(at("large"))
            .unwrap()
            .set_len(MOST + 1)
            .unwrap();
        fs::write(at("good"), "text").unwrap();
        let why = |name: &str| read(&at(name)).unwrap_err().to_string();
        assert_eq!(why("pipe"), "it is no regular file but a pipe");
        assert_eq!(why("endless"), "it is no regular file but a device");
        assert_eq!(why("large"), "it is larger than 16 MiB");
        let kind = |name: &str| read(&at(name)).unwrap_err().kind();
        assert_eq!(kind("folder"), io::ErrorKind::IsADirectory);
        assert_eq!(kind("none"), io::ErrorKind::NotFound);
        assert_eq!(read(&at("good")).unwrap(), b"text");
    }

    /// The fault: `--config <(envsubst ...)` was refused, and reading it as a file would have had no end.
    #[test]
    fn a_pipe_is_read_to_its_end_and_no_longer_than_it_may_take() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let read = |limit| read_pipe(&path, Duration::from_millis(limit)).unwrap();
        let why = "it is a pipe that nobody has written to its end within 0 s";
        assert_eq!(read(200).unwrap_err().to_string(), why);
        let writing = |parts: &'static [&'static [u8]]| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut pipe = File::options().write(true).open(path).unwrap();
                for part in parts {
                    std::thread::sleep(Duration::from_millis(100));
                    // A reader that gave up is no fault here.
                    pipe.write_all(part).ok();
                }
            })
        };
        let cases: [(&[&[u8]], &str); 2] = [(&[b"a = ", b"1\n"], "a = 1\n"), (&[b""], "")];
        for (parts, expected) in cases {
            let writer = writing(parts);
            assert_eq!(read(60_000).unwrap(), expected);
            writer.join().unwrap();
        }
        let writer = writing(&[b"\xff"]);
        let kind = read(60_000).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::InvalidData);
        writer.join().unwrap();
        assert!(read_pipe(folder.path(), LOOK).is_none());
        assert!(read_pipe(Path::new("/dev/zero"), LOOK).is_none());
        assert!(read_pipe(&folder.path().join("none"), LOOK).is_none());
    }

    #[test]
    fn drafts_are_new_private_and_never_alike() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let (first, _) = draft(&file).unwrap();
        let (second, _) = draft(&file).unwrap();
        assert_ne!(first, second);
        assert_eq!(first.parent(), Some(folder.path()));
        let mode = fs::metadata(&first).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_can_write_is_not_relied_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "text").unwrap();
        for (mode, is_own) in [(0o600, true), (0o644, true), (0o620, false), (0o606, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_own(&file).is_ok(), is_own, "{mode:o}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        if Uid::effective().is_root() {
            std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
            let why = read_own(&file).unwrap_err().to_string();
            assert_eq!(why, "it belongs to the user with the number 65534");
        }
    }
}
