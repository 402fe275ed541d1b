//! Where the parts come from: a registry and Pyodide's distribution, or files that lie here.
//!
//! Either way a part is taken only with its checksum, so both are worth the same.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::super::bundle::Packages;
use super::error::{Doing as _, SetupError};
use super::fetch::{Downloads, LARGEST, Wanted};
use super::hash;
use super::packages::Wheel;
use super::pins::Package;
use super::place::Place;
use super::progress::Progress;
use super::{Mirrors, Origin, unpack};

/// What to do about a local file with another checksum.
const EXPORT_AGAIN: &str = "export it again with this same version";

/// A way to get parts.
pub(super) enum Source {
    /// Downloads.
    Network {
        downloads: Downloads,
        mirrors: Mirrors,
    },
    /// Files of this machine.
    Local(Folder),
}

/// Files side by side.
pub(super) struct Folder {
    /// What the user named: this folder, or the archive that was unpacked into it.
    named: PathBuf,
    /// Where the files lie.
    files: PathBuf,
    /// For the message about a missing one.
    packages: Packages,
}

impl Source {
    /// Opens what was asked for. An archive is unpacked into `scratch`.
    pub(super) fn open(
        origin: &Origin,
        packages: Packages,
        place: &Place,
        scratch: &Path,
    ) -> Result<Self, SetupError> {
        match origin {
            Origin::Network(mirrors) => Ok(Self::Network {
                downloads: Downloads::new(place.downloads(), mirrors.npm.clone())?,
                mirrors: mirrors.clone(),
            }),
            Origin::Local(named) => {
                let found = fs::metadata(named).doing("read", named)?;
                let files = if found.is_dir() {
                    named.clone()
                } else {
                    fs::create_dir(scratch).doing("make", scratch)?;
                    unpack::archive(named, scratch)?;
                    scratch.to_owned()
                };
                Ok(Self::Local(Folder {
                    named: named.clone(),
                    files,
                    packages,
                }))
            }
        }
    }

    /// An npm package's tarball.
    pub(super) async fn package(
        &self,
        package: &Package,
        progress: &mut dyn Progress,
    ) -> Result<Vec<u8>, SetupError> {
        let name = package.file_name();
        match self {
            Self::Network { downloads, mirrors } => {
                let wanted = Wanted {
                    name,
                    url: package.address(&mirrors.registry),
                    sha256: package.sha256.clone(),
                    most: package.bytes,
                    npm: Some(format!("{}@{}", package.name, package.version)),
                    mirror: "--registry URL` or `NPM_CONFIG_REGISTRY",
                };
                downloads.get(&wanted, progress).await
            }
            Self::Local(folder) => folder.get(&name, &package.sha256),
        }
    }

    /// A wheel of Pyodide's distribution.
    pub(super) async fn wheel(
        &self,
        wheel: &Wheel,
        progress: &mut dyn Progress,
    ) -> Result<Vec<u8>, SetupError> {
        match self {
            Self::Network { downloads, mirrors } => {
                let base = mirrors.packages.trim_end_matches('/');
                let wanted = Wanted {
                    name: wheel.file_name.clone(),
                    url: format!("{base}/{}", wheel.file_name),
                    sha256: wheel.sha256.clone(),
                    most: LARGEST,
                    npm: None,
                    mirror: "--pyodide-url URL",
                };
                downloads.get(&wanted, progress).await
            }
            Self::Local(folder) => folder.get(&wheel.file_name, &wheel.sha256),
        }
    }
}

impl Folder {
    fn get(&self, name: &str, sha256: &str) -> Result<Vec<u8>, SetupError> {
        let path = self.files.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SetupError::NotInSource {
                    place: self.named.clone(),
                    what: name.to_owned(),
                    packages: super::word(self.packages),
                });
            }
            Err(error) => return Err(error).doing("read", &path),
        };
        let mut bytes = Vec::new();
        file.take(LARGEST)
            .read_to_end(&mut bytes)
            .doing("read", &path)?;
        hash::check(name, &bytes, sha256, EXPORT_AGAIN)?;
        Ok(bytes)
    }
}
