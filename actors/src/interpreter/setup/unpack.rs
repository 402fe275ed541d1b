//! Reads tar archives that others made: regular files only, inside the folder, bounded.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use tar::{Archive, Entry, EntryType};

use super::error::{Doing as _, SetupError};

/// Most entries of an archive; the largest of ours has 30.
const MOST_ENTRIES: usize = 1_000;
/// Most bytes an archive may unpack to, headers included; Deno has 96 MB, all wheels 80 MB.
const MOST_BYTES: u64 = 512 << 20;

/// How an archive is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// npm's: everything in one folder, which is left out.
    Npm,
    /// Ours: files side by side.
    Flat,
}

/// Unpacks a tarball in memory. With `only`, that one file of it.
pub(super) fn tarball(
    what: &str,
    bytes: &[u8],
    into: &Path,
    only: Option<&str>,
) -> Result<(), SetupError> {
    unpack(what, GzDecoder::new(bytes), into, (Layout::Npm, only))
}

/// Unpacks an archive of ours, plain or gzipped.
pub(super) fn archive(path: &Path, into: &Path) -> Result<(), SetupError> {
    let what = path.display().to_string();
    let mut file = io::BufReader::new(fs::File::open(path).doing("read", path)?);
    let zipped = io::BufRead::fill_buf(&mut file)
        .doing("read", path)?
        .starts_with(&[0x1f, 0x8b]);
    if zipped {
        unpack(&what, GzDecoder::new(file), into, (Layout::Flat, None))
    } else {
        unpack(&what, file, into, (Layout::Flat, None))
    }
}

fn unpack(
    what: &str,
    reader: impl Read,
    into: &Path,
    (layout, only): (Layout, Option<&str>),
) -> Result<(), SetupError> {
    let refused = |reason: String| SetupError::Archive {
        what: what.to_owned(),
        reason,
    };
    let damaged = |error: io::Error| refused(format!("damaged: {error}"));
    // One byte more than allowed is given, so that the end of the reader means too much.
    let mut archive = Archive::new(reader.take(MOST_BYTES + 1));
    let (mut count, mut written, mut total) = (0, 0, 0u64);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        count += 1;
        total = total.saturating_add(entry.size());
        if count > MOST_ENTRIES || total > MOST_BYTES {
            return Err(refused(format!(
                "more than {MOST_ENTRIES} entries or {MOST_BYTES} bytes"
            )));
        }
        let kind = entry.header().entry_type();
        // The second is the header of a whole archive, not an entry.
        if matches!(kind, EntryType::Directory | EntryType::XGlobalHeader) {
            continue;
        }
        if kind != EntryType::Regular {
            return Err(refused("it has links or devices".to_owned()));
        }
        let path = entry.path().map_err(damaged)?.into_owned();
        let place =
            inside(&path, layout).ok_or_else(|| refused("a path leads out of it".to_owned()))?;
        if only.is_some_and(|only| place != Path::new(only)) {
            continue;
        }
        write(&mut entry, &into.join(&place), what)?;
        written += 1;
    }
    if written == 0 {
        return Err(refused("what is wanted is not in it".to_owned()));
    }
    Ok(())
}

/// Where an entry goes, below the folder; `None` when that is nowhere or outside.
fn inside(path: &Path, layout: Layout) -> Option<PathBuf> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    let kept = match layout {
        Layout::Npm => parts.get(1..)?,
        Layout::Flat if parts.len() == 1 => &parts[..],
        Layout::Flat => return None,
    };
    (!kept.is_empty()).then(|| kept.iter().collect())
}

/// Writes one new file; one that is there already is not replaced: no archive of ours has it twice.
fn write(entry: &mut Entry<'_, impl Read>, path: &Path, what: &str) -> Result<(), SetupError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).doing("make", folder)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .doing("write", path)?;
    let size = entry.size();
    let copied = io::copy(entry, &mut file).doing("write", path)?;
    if copied != size {
        return Err(SetupError::Archive {
            what: what.to_owned(),
            reason: "damaged: it ends early".to_owned(),
        });
    }
    let runs = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
    let mode = if runs { 0o755 } else { 0o644 };
    file.set_permissions(Permissions::from_mode(mode))
        .doing("write", path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use tar::{Builder, Header};

    use super::*;

    /// A tarball with one entry whose raw name is not checked by the builder.
    fn tarball_with(name: &str, kind: EntryType, body: &[u8]) -> Vec<u8> {
        let mut header = Header::new_gnu();
        let raw = header.as_old_mut();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        if kind != EntryType::Regular {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_mode(0o4777);
        header.set_size(u64::try_from(body.len()).unwrap());
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, body).unwrap();
        zipped(&builder.into_inner().unwrap())
    }

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(bytes).unwrap();
        zip.finish().unwrap()
    }

    fn refusal(name: &str, kind: EntryType) -> String {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let bytes = tarball_with(name, kind, b"x");
        let error = tarball("t.tgz", &bytes, &inner, None).unwrap_err();
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0, "{name}");
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1, "{name}");
        error.to_string()
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for name in [
            "../evil",
            "package/../../evil",
            "/etc/evil",
            "package/a/../../../evil",
            "package",
        ] {
            let message = refusal(name, EntryType::Regular);
            assert!(message.contains("a path leads out"), "{name}: {message}");
        }
    }

    #[test]
    fn links_and_devices_are_refused() {
        for kind in [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Char,
            EntryType::Block,
            EntryType::Fifo,
        ] {
            let message = refusal("package/a", kind);
            assert!(message.contains("links or devices"), "{kind:?}: {message}");
        }
    }

    #[test]
    fn a_file_keeps_its_run_bit_and_nothing_else_of_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = tarball_with("package/bin/a", EntryType::Regular, b"x");
        tarball("t.tgz", &bytes, folder.path(), None).unwrap();
        let found = fs::metadata(folder.path().join("bin/a")).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o755);
        // A second time it is in the way, and stays what it is.
        let error = tarball("t.tgz", &bytes, folder.path(), None).unwrap_err();
        assert!(error.to_string().contains("File exists"), "{error}");
    }

    #[test]
    fn only_the_wanted_file_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = tarball_with("package/README.md", EntryType::Regular, b"x");
        let error = tarball("t.tgz", &bytes, folder.path(), Some("deno")).unwrap_err();
        assert!(error.to_string().contains("is not in it"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_written() {
        let mut header = Header::new_gnu();
        header.set_path("package/a").unwrap();
        header.set_size(MOST_BYTES + 1);
        header.set_cksum();
        let folder = tempfile::tempdir().unwrap();
        let bytes = zipped(header.as_bytes());
        let error = tarball("t.tgz", &bytes, folder.path(), None).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_archive_that_ends_early_is_refused() {
        let whole = tarball_with("package/a", EntryType::Regular, &[7; 5_000]);
        let folder = tempfile::tempdir().unwrap();
        for cut in [0, 10, whole.len() / 2, whole.len() - 30] {
            let error = tarball("t.tgz", &whole[..cut], folder.path(), None);
            assert!(error.is_err(), "cut at {cut}");
            fs::remove_file(folder.path().join("a")).unwrap_or_default();
        }
    }

    #[test]
    fn archives_of_ours_are_flat() {
        assert_eq!(inside(Path::new("./a"), Layout::Flat), Some("a".into()));
        assert_eq!(inside(Path::new("a/b"), Layout::Flat), None);
        assert_eq!(inside(Path::new("."), Layout::Flat), None);
    }

    proptest! {
        #[test]
        fn no_path_ever_leads_out(path in "[./a-c]{0,12}") {
            for layout in [Layout::Npm, Layout::Flat] {
                if let Some(place) = inside(Path::new(&path), layout) {
                    prop_assert!(place.components().all(|part| matches!(part, Component::Normal(_))));
                    prop_assert!(place.components().count() > 0);
                }
            }
        }
    }
}
