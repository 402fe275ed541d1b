//! What is installed: versions, checksums and addresses that belong to this version of the program.
//!
//! A checksum here is the whole of the trust: mirrors, npm and `--from` only carry bytes.

use super::error::SetupError;

/// Deno's version. A new one needs the escape suite and new checksums.
const DENO: &str = "2.9.6";
/// Pyodide's version; its number begins with that of the `CPython` in it.
const PYODIDE: &str = "314.0.7";

/// System, processor, package, SHA-256, bytes of the tarball.
const DENO_TARBALLS: &[(&str, &str, &str, &str, u64)] = &[
    (
        "linux",
        "x86_64",
        "@deno/linux-x64-glibc",
        "a6596af07f3570b4f1ffa6783bfee9942aac14a719a601baa6bf5b71bf0105e2",
        42_285_097,
    ),
    (
        "linux",
        "aarch64",
        "@deno/linux-arm64-glibc",
        "8e32a9c72c84c14f91fde26efbef0b5f347286f3c68b4b7d4b8040ae9e6f42ec",
        40_997_166,
    ),
];

/// What the packages `science` are asked for by; what these depend on comes with them.
const SCIENCE: &[&str] = &[
    "numpy",
    "pandas",
    "matplotlib",
    "scipy",
    "sympy",
    "scikit-learn",
    "pillow",
    "requests",
];

/// What an idle worker imports ahead of time, slowest first to come by.
const IMPORTS: &[&str] = &["numpy", "pandas", "matplotlib.pyplot"];

/// An npm package at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name, scope included.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Of the tarball, lower-case hexadecimal.
    pub sha256: String,
    /// Of the tarball.
    pub bytes: u64,
}

impl Package {
    /// The file's name as `npm pack` writes it.
    pub fn file_name(&self) -> String {
        let flat = self.name.trim_start_matches('@').replace('/', "-");
        format!("{flat}-{}.tgz", self.version)
    }

    /// The tarball's address in a registry.
    pub fn address(&self, registry: &str) -> String {
        let bare = self.name.rsplit('/').next().unwrap_or(&self.name);
        let registry = registry.trim_end_matches('/');
        format!("{registry}/{}/-/{bare}-{}.tgz", self.name, self.version)
    }
}

/// Everything that is installed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Deno for this machine; `None` where none is pinned.
    pub deno: Option<Package>,
    /// Pyodide.
    pub pyodide: Package,
    /// Packages to ask for, by name in Pyodide's list.
    pub science: Vec<String>,
    /// What idle workers import.
    pub imports: Vec<String>,
}

impl Release {
    /// What this version of the program was made for.
    pub fn pinned() -> Self {
        let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
        let deno = DENO_TARBALLS
            .iter()
            .find(|row| (row.0, row.1) == (system, processor))
            .map(|&(_, _, name, sha256, bytes)| Package {
                name: name.to_owned(),
                version: DENO.to_owned(),
                sha256: sha256.to_owned(),
                bytes,
            });
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            deno,
            pyodide: Package {
                name: "pyodide".to_owned(),
                version: PYODIDE.to_owned(),
                sha256: "66b7949e5a0cba2250b586d7e368bf12fb482800748d182c4618254b685ffaa0"
                    .to_owned(),
                bytes: 6_488_647,
            },
            science: owned(SCIENCE),
            imports: owned(IMPORTS),
        }
    }

    /// The pinned Deno.
    ///
    /// # Errors
    /// This machine has none.
    pub(super) fn deno(&self) -> Result<&Package, SetupError> {
        self.deno.as_ref().ok_or_else(|| SetupError::NoDeno {
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            version: DENO.to_owned(),
        })
    }
}

/// Where Pyodide's own packages are published, for the pinned version.
pub const PACKAGES_URL: &str = "https://cdn.jsdelivr.net/pyodide/v314.0.7/full/";

/// The public registry of npm.
pub const REGISTRY_URL: &str = "https://registry.npmjs.org";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pins_name_files_and_addresses_as_npm_does() {
        let release = Release::pinned();
        assert_eq!(release.pyodide.file_name(), "pyodide-314.0.7.tgz");
        let scoped = Package {
            name: "@deno/linux-x64-glibc".to_owned(),
            ..release.pyodide.clone()
        };
        assert_eq!(scoped.file_name(), "deno-linux-x64-glibc-314.0.7.tgz");
        assert_eq!(
            scoped.address("https://mirror.example/npm/"),
            "https://mirror.example/npm/@deno/linux-x64-glibc/-/linux-x64-glibc-314.0.7.tgz"
        );
        assert!(PACKAGES_URL.contains(PYODIDE));
        for (.., sha256, bytes) in DENO_TARBALLS {
            assert!(sha256.len() == 64 && *bytes > 0);
        }
    }
}
