//! Files of the configuration: read as UTF-8 text, and who else may read them.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use vllm_responses_actors::plain_file;

/// What editors of Windows put before UTF-8.
const MARK: char = '\u{feff}';
/// Who writes a configuration into a pipe asks another program for its secrets at most.
const PIPE_LIMIT: Duration = Duration::from_secs(30);
/// Read by everybody.
const READABLE: u32 = 0o004;

/// Who must not be able to do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guarded {
    /// Others must not read it: there are secrets in it.
    Secret,
    /// Others must not write it: what is in it counts.
    Rules,
}

/// The whole text, without a byte order mark.
///
/// # Errors
/// Why not, in words that stand in brackets.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    match plain_file::read_text(path) {
        Ok(text) => Ok(without_mark(text)),
        Err(error) => Err(words(&error)),
    }
}

/// As [`read`], of a pipe; `None` where the path leads to something else.
pub(crate) fn read_pipe(path: &Path) -> Option<Result<String, String>> {
    let text = plain_file::read_pipe(path, PIPE_LIMIT)?;
    Some(match text {
        Ok(text) => Ok(without_mark(text)),
        Err(error) => Err(words(&error)),
    })
}

fn without_mark(text: String) -> String {
    match text.strip_prefix(MARK) {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

/// Why a file cannot be read.
pub(crate) fn words(error: &std::io::Error) -> String {
    let known = [
        (ErrorKind::NotFound, "there is no such file"),
        (ErrorKind::PermissionDenied, "this user may not read it"),
        (
            ErrorKind::InvalidData,
            "it is not UTF-8 text; save it as UTF-8",
        ),
        (ErrorKind::IsADirectory, "it is a folder"),
    ];
    let kind = error.kind();
    // Words of our own.
    if kind == ErrorKind::InvalidInput {
        return error.to_string();
    }
    let known = known.iter().find(|(known, _)| *known == kind);
    known.map_or_else(|| kind.to_string(), |(_, words)| (*words).to_owned())
}

/// What is wrong with a file's mode, as a notice; nothing where the file is not there.
pub(crate) fn notice_mode(name: &str, path: &Path, guarded: Guarded) -> Option<String> {
    let about = std::fs::metadata(path).ok()?;
    let mode = about.permissions().mode() & 0o777;
    let others = if let Some(why) = plain_file::of_others(&about) {
        return Some(format!(
            "{name} is not this user's alone: {why}; `chown` and `chmod 600` close it"
        ));
    } else if guarded == Guarded::Secret && mode & READABLE != 0 {
        "every user of this machine can read the secrets in it"
    } else {
        return None;
    };
    Some(format!(
        "{name} has mode {mode:04o}: {others}; `chmod 600` closes it"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn modes_that_let_others_in_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "\u{feff}text").unwrap();
        assert_eq!(read(&path).as_deref(), Ok("text"));
        for (mode, secret, rules) in [
            (0o600, false, false),
            (0o640, false, false),
            (0o644, true, false),
            (0o660, true, true),
            (0o666, true, true),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let noticed = |guarded| notice_mode("`f`", &path, guarded).is_some();
            assert_eq!(noticed(Guarded::Secret), secret, "{mode:o}");
            assert_eq!(noticed(Guarded::Rules), rules, "{mode:o}");
        }
        assert!(
            read(&folder.path().join("none"))
                .unwrap_err()
                .contains("no such file")
        );
        assert_eq!(read(folder.path()).unwrap_err(), "it is a folder");
        assert_eq!(
            read(Path::new("/dev/zero")).unwrap_err(),
            "it is no regular file but a device"
        );
        fs::write(&path, b"\xff\xfea\0").unwrap();
        assert!(read(&path).unwrap_err().contains("UTF-8"));
    }
}
