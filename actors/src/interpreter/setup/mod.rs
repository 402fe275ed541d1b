//! Installs the code interpreter: Deno and Pyodide, checked, laid out and built into a bundle.
//!
//! For the command line only: these functions read, hash and write big files on the thread that calls
//! them, which must be one that serves nobody.

mod build;
mod error;
mod export;
mod fetch;
mod hash;
mod packages;
pub mod pins;
mod place;
pub mod progress;
mod prune;
mod source;
#[cfg(test)]
mod tests;
mod unpack;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

pub use error::SetupError;
pub use prune::{Pruned, prune};

use super::bundle::{self, Bundle, Manifest, Packages};
use error::Doing as _;
use export::Export;
use pins::Release;
use place::Place;
use progress::Progress;
use source::Source;

/// Folder of the wheels that the build turns into an image.
const WHEELS: &str = "wheels";
/// What the packages of `science` weigh, about: which they are stands in Pyodide's own list.
const SCIENCE_BYTES: u64 = 60_000_000;
/// Name of Pyodide's list of packages.
const LIST: &str = "pyodide-lock.json";

/// What is to be installed, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Folder of all bundles.
    pub cache: PathBuf,
    /// How much Python.
    pub packages: Packages,
    /// Where the parts come from.
    pub origin: Origin,
    /// A Deno of the user's instead of the pinned one.
    pub deno: Option<PathBuf>,
    /// What to do about a bundle that is there.
    pub existing: Existing,
    /// Versions and checksums.
    pub release: Release,
}

/// Where the parts come from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The network.
    Network(Mirrors),
    /// A folder of the parts, or an archive of [`export`](fn@export).
    Local(PathBuf),
}

/// Addresses of the network's sources.
#[derive(Clone, Debug)]
pub struct Mirrors {
    /// Base URL of an npm registry.
    pub registry: String,
    /// Base URL of Pyodide's distribution.
    pub packages: String,
    /// The npm program, for what the registry does not give without it; `None` leaves it out.
    pub npm: Option<PathBuf>,
}

/// What to do about a bundle that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Keep a whole one.
    Keep,
    /// Make it anew.
    Replace,
}

/// What a set-up came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bundle is new.
    Installed(PathBuf),
    /// It was there.
    AlreadyThere(PathBuf),
}

/// Makes the bundle, unless it is there. Set-ups of one cache folder wait for each other; one that is
/// interrupted, however hard, leaves no half bundle, and its downloads are used by the next.
///
/// # Errors
/// [`SetupError`].
pub async fn install(
    request: &Request,
    progress: &mut dyn Progress,
) -> Result<Outcome, SetupError> {
    let place = Place::lock(&request.cache, progress).await?;
    let name = bundle_name(request.packages);
    let target = place.root().join(&name);
    if request.existing == Existing::Keep && Bundle::open(&target).is_ok() {
        return Ok(Outcome::AlreadyThere(target));
    }
    let scratch = place.work("source")?;
    let source = Source::open(
        &request.origin,
        request.packages,
        &place,
        &scratch.path().join("parts"),
    )?;
    let work = place.work("bundle")?;
    let deno = assemble(request, &source, work.path(), progress).await?;
    progress.step("building the interpreter (10 to 60 s)");
    build::finish(work.path(), progress).await?;
    place::remove(&work.path().join(bundle::SITE).join(WHEELS))?;
    describe(request, &deno, work.path())?;
    Bundle::open(work.path())?;
    let target = place.publish(work, &name)?;
    place::remove(&place.downloads())?;
    Ok(Outcome::Installed(target))
}

/// Writes an archive from which [`install`] works without a network, on a machine of the same kind
/// and with the same version of this program.
///
/// # Errors
/// [`SetupError`].
pub async fn export(
    request: &Request,
    target: &Path,
    progress: &mut dyn Progress,
) -> Result<(), SetupError> {
    let place = Place::lock(&request.cache, progress).await?;
    let scratch = place.work("source")?;
    let parts = scratch.path().join("parts");
    let source = Source::open(&request.origin, request.packages, &place, &parts)?;
    let mut archive = Export::begin(target)?;
    let deno = request.release.deno()?;
    archive.add(&deno.file_name(), &source.package(deno, progress).await?)?;
    let pyodide = &request.release.pyodide;
    let tarball = source.package(pyodide, progress).await?;
    archive.add(&pyodide.file_name(), &tarball)?;
    if request.packages == Packages::Science {
        let list = scratch.path().join("list");
        unpack::tarball(&pyodide.file_name(), &tarball, &list, Some(LIST))?;
        let list = list.join(LIST);
        let list = fs::read(&list).doing("read", &list)?;
        for wheel in packages::wheels(&list, &request.release.science)? {
            let bytes = source.wheel(&wheel, progress).await?;
            archive.add(&wheel.file_name, &bytes)?;
        }
    }
    archive.finish()?;
    place::remove(&place.downloads())
}

/// Bytes that [`install`] would fetch from the network, about; `None` where it would fetch nothing.
pub fn download_bytes(request: &Request) -> Option<u64> {
    let target = request.cache.join(bundle_name(request.packages));
    let is_there = request.existing == Existing::Keep && Bundle::open(&target).is_ok();
    if is_there || matches!(request.origin, Origin::Local(_)) {
        return None;
    }
    let release = &request.release;
    let deno = release.deno.as_ref().filter(|_| request.deno.is_none());
    let science = match request.packages {
        Packages::Core => 0,
        Packages::Science => SCIENCE_BYTES,
    };
    Some(deno.map_or(0, |deno| deno.bytes) + release.pyodide.bytes + science)
}

/// The best bundle of this version in a cache folder: `science` before `core`.
pub fn find(cache: &Path) -> Option<Bundle> {
    [Packages::Science, Packages::Core]
        .into_iter()
        .find_map(|packages| Bundle::open(&cache.join(bundle_name(packages))).ok())
}

/// Spelling of the packages on the command line.
pub fn word(packages: Packages) -> &'static str {
    match packages {
        Packages::Core => "core",
        Packages::Science => "science",
    }
}

/// A folder name for all that a bundle depends on: what a new version of the program brings does not
/// disturb a gateway of an old one.
fn bundle_name(packages: Packages) -> String {
    let release = Release::pinned();
    let deno = release.deno.map_or_else(String::new, |deno| deno.sha256);
    let parts = [
        bundle::FORMAT.to_string(),
        std::env::consts::ARCH.to_owned(),
        deno,
        release.pyodide.sha256,
        word(packages).to_owned(),
        bundle::HARNESS.to_owned(),
    ];
    let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
    let hash = hash::sha256_of_parts(&parts);
    let short = hash.get(..16).unwrap_or(&hash);
    format!("{}-{short}", word(packages))
}

/// Puts the parts in place. The version of the Deno among them.
async fn assemble(
    request: &Request,
    source: &Source,
    root: &Path,
    progress: &mut dyn Progress,
) -> Result<String, SetupError> {
    let deno = deno(request, source, root, progress).await?;
    let pyodide = &request.release.pyodide;
    let tarball = source.package(pyodide, progress).await?;
    let folder = root.join(bundle::PYODIDE);
    unpack::tarball(&pyodide.file_name(), &tarball, &folder, None)?;
    let harness = root.join(bundle::HARNESS_FILE);
    fs::write(&harness, bundle::HARNESS).doing("write", &harness)?;
    if request.packages == Packages::Science {
        let list = folder.join(LIST);
        let list = fs::read(&list).doing("read", &list)?;
        let wheels = root.join(bundle::SITE).join(WHEELS);
        fs::create_dir_all(&wheels).doing("make", &wheels)?;
        for wheel in packages::wheels(&list, &request.release.science)? {
            let bytes = source.wheel(&wheel, progress).await?;
            let path = wheels.join(&wheel.file_name);
            fs::write(&path, bytes).doing("write", &path)?;
        }
    }
    Ok(deno)
}

/// Puts Deno in place: the pinned one, or a copy of the user's.
async fn deno(
    request: &Request,
    source: &Source,
    root: &Path,
    progress: &mut dyn Progress,
) -> Result<String, SetupError> {
    let target = root.join(bundle::DENO);
    if let Some(own) = &request.deno {
        let version = build::deno_version(own).await?;
        progress.step(&format!("copying Deno {version} from {}", own.display()));
        fs::copy(own, &target).doing("copy", own)?;
        fs::set_permissions(&target, Permissions::from_mode(0o755)).doing("write", &target)?;
        return Ok(version);
    }
    let package = request.release.deno()?;
    let tarball = source.package(package, progress).await?;
    unpack::tarball(&package.file_name(), &tarball, root, Some(bundle::DENO))?;
    Ok(package.version.clone())
}

/// Writes the manifest, the last file.
fn describe(request: &Request, deno: &str, root: &Path) -> Result<(), SetupError> {
    let mut files = BTreeMap::new();
    list_files(root, Path::new(""), &mut files)?;
    let imports = match request.packages {
        Packages::Core => Vec::new(),
        Packages::Science => request.release.imports.clone(),
    };
    let manifest = Manifest {
        format: bundle::FORMAT,
        deno: deno.to_owned(),
        pyodide: request.release.pyodide.version.clone(),
        packages: request.packages,
        imports,
        files,
    };
    let path = root.join(bundle::MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(std::io::Error::from)
        .doing("write", &path)?;
    fs::write(&path, text).doing("write", &path)
}

fn list_files(
    root: &Path,
    below: &Path,
    files: &mut BTreeMap<String, String>,
) -> Result<(), SetupError> {
    let folder = root.join(below);
    for entry in fs::read_dir(&folder).doing("read", &folder)? {
        let entry = entry.doing("read", &folder)?;
        let name = below.join(entry.file_name());
        let path = entry.path();
        if entry.file_type().doing("read", &path)?.is_dir() {
            list_files(root, &name, files)?;
        } else {
            let bytes = fs::read(&path).doing("read", &path)?;
            files.insert(name.to_string_lossy().into_owned(), hash::sha256(&bytes));
        }
    }
    Ok(())
}
