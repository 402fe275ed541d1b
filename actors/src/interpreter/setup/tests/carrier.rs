//! The science packages for real, over HTTP from this machine: `scripts/science-bundle` collects the
//! parts of an older Pyodide, which a package index happens to carry, and this installs them the way
//! the pinned ones are installed. Its result is the bundle of the science suites.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use super::server::Server;
use super::*;
use crate::interpreter::setup::progress::Silent;

/// Their parts are checked by `scripts/science-bundle`, which pins this one.
const PYODIDE: &str = "0.27.7";

fn folder(name: &str) -> PathBuf {
    let value = std::env::vars_os().find(|(have, _)| have == OsStr::new(name));
    value
        .unwrap_or_else(|| panic!("{name} is not set"))
        .1
        .into()
}

#[actix::test]
#[ignore = "run by scripts/science-bundle, which brings the parts"]
async fn science_from_the_carrier() {
    crate::tls::install();
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder("SCIENCE_PARTS")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        files.insert(name, fs::read(entry.path()).unwrap());
    }
    let tarball = &files[&format!("pyodide-{PYODIDE}.tgz")];
    let pinned = Release::pinned();
    let release = Release {
        deno: pinned.deno,
        pyodide: Package {
            version: PYODIDE.to_owned(),
            ..package("pyodide", tarball)
        },
        science: [
            "numpy",
            "pandas",
            "matplotlib",
            "scipy",
            "scikit-learn",
            "pillow",
        ]
        .map(str::to_owned)
        .to_vec(),
        imports: pinned.imports,
    };
    let server = Server::start(files);
    let target = folder("SCIENCE_BUNDLE");
    let cache = target.parent().unwrap().join("science-work");
    let request = Request {
        cache: cache.clone(),
        packages: Packages::Science,
        origin: Origin::Network(Mirrors {
            registry: server.url.clone(),
            packages: format!("{}/full/", server.url),
            npm: None,
        }),
        // The core bundle's, checked when that was set up.
        deno: Some(folder("SCIENCE_DENO")),
        existing: Existing::Replace,
        release,
    };
    let root = path(install(&request, &mut Silent).await);
    assert!(
        server
            .requests()
            .iter()
            .any(|asked| asked.starts_with("pandas-"))
    );
    place::remove(&target).unwrap();
    fs::rename(root, &target).unwrap();
    place::remove(&cache).unwrap();
    let bundle = Bundle::open(&target).unwrap();
    assert_eq!(bundle.manifest().packages, Packages::Science);
}
