//! Writes the parts of a bundle into one archive, for machines without a network.
//!
//! It has what was downloaded, not what was built: `--from` checks each part against the checksums in
//! the program and builds anew, so that an archive needs no trust.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tar::{Builder, Header};

use super::error::{Doing as _, SetupError};

/// An archive in the making.
pub(super) struct Export {
    builder: Builder<File>,
    part: PathBuf,
    target: PathBuf,
}

impl Export {
    /// Begins the archive beside its final place.
    pub(super) fn begin(target: &Path) -> Result<Self, SetupError> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = target.with_file_name(name);
        let file = File::create(&part).doing("write", &part)?;
        Ok(Self {
            builder: Builder::new(file),
            part,
            target: target.to_owned(),
        })
    }

    /// Adds a file.
    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), SetupError> {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.builder
            .append_data(&mut header, name, bytes)
            .doing("write", &self.part)
    }

    /// Puts the archive in its place.
    pub(super) fn finish(self) -> Result<(), SetupError> {
        let mut file = self.builder.into_inner().doing("write", &self.part)?;
        file.flush()
            .and_then(|()| file.sync_all())
            .doing("write", &self.part)?;
        fs::rename(&self.part, &self.target).doing("make", &self.target)
    }
}
