//! Whole set-ups against a registry of this machine, with small stand-ins for what is downloaded. The
//! stand-in for Deno is a shell script, so that the folder, the lock, the checks and the build step
//! run as they are; the real parts are installed in `tests/it`.
//!
//! Mutations tried: `hash::check` that accepts everything, `Place::lock` without `try_lock`, `publish`
//! before the build, a partial file that is not removed after a wrong checksum, `sweep` left out. Each
//! failed a test here.

mod carrier;
mod server;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use tar::{Builder, Header};
use tempfile::TempDir;

use super::pins::Package;
use super::*;
use server::{Fault, Server};

/// Plays Deno: a version, and a build that makes what the real one does.
const DENO: &str = r#"#!/bin/sh
[ "$1" = --version ] && { echo "deno 9.9.9 (test)"; exit; }
for root; do :; done
echo "building in $root" >&2
[ -z "${VR_CANARY}${HOME#/proc/none}" ] || exit 3
ls "$root"/site/wheels/*.whl >/dev/null 2>&1 && echo image >"$root/site/image.bin" && echo '{}' >"$root/site/image.json"
[ -f "$root/pyodide/fail" ] && { echo "out of luck" >&2; exit 7; }
[ -f "$root/pyodide/slow" ] && sleep 0.5
echo memory >"$root/snapshot.bin"
"#;

struct Stage {
    folder: TempDir,
    server: Server,
    release: Release,
    files: BTreeMap<String, Vec<u8>>,
}

fn zipped_tar(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes, mode) in files {
        let mut header = Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(u64::try_from(bytes.len()).unwrap());
        builder
            .append_data(&mut header, format!("package/{name}"), *bytes)
            .unwrap();
    }
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    zip.write_all(&builder.into_inner().unwrap()).unwrap();
    zip.finish().unwrap()
}

fn package(name: &str, tarball: &[u8]) -> Package {
    Package {
        name: name.to_owned(),
        version: "1.2.3".to_owned(),
        sha256: hash::sha256(tarball),
        bytes: u64::try_from(tarball.len()).unwrap(),
    }
}

impl Stage {
    /// `extra` is one more file in Pyodide's package, by which the stand-in is told what to do.
    fn new(extra: &str) -> Self {
        crate::tls::install();
        let wheels = [("numpy-1.whl", &b"numbers"[..]), ("six-1.whl", b"six")];
        let list = format!(
            r#"{{"packages":{{"numpy":{{"file_name":"numpy-1.whl","sha256":"{}","depends":["six"]}},
                "six":{{"file_name":"six-1.whl","sha256":"{}","depends":[]}}}}}}"#,
            hash::sha256(wheels[0].1),
            hash::sha256(wheels[1].1)
        );
        let deno = zipped_tar(&[("deno", DENO.as_bytes(), 0o755), ("README.md", b"", 0o644)]);
        let pyodide = zipped_tar(&[
            ("pyodide.mjs", &[b'/'; 10_000], 0o644),
            (LIST, list.as_bytes(), 0o644),
            (extra, b"", 0o644),
        ]);
        let release = Release {
            deno: Some(package("@test/deno", &deno)),
            pyodide: package("pyodide", &pyodide),
            science: vec!["numpy".to_owned()],
            imports: vec!["numpy".to_owned()],
        };
        let mut files = BTreeMap::from([
            ("deno-1.2.3.tgz".to_owned(), deno),
            ("pyodide-1.2.3.tgz".to_owned(), pyodide),
        ]);
        for (name, bytes) in wheels {
            files.insert(name.to_owned(), bytes.to_vec());
        }
        Self {
            folder: tempfile::tempdir().unwrap(),
            server: Server::start(files.clone()),
            release,
            files,
        }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn request(&self, packages: Packages) -> Request {
        Request {
            cache: self.cache(),
            packages,
            origin: Origin::Network(Mirrors {
                registry: self.server.url.clone(),
                packages: format!("{}/full/", self.server.url),
                npm: None,
            }),
            deno: None,
            existing: Existing::Keep,
            release: self.release.clone(),
        }
    }

    async fn install(&self, packages: Packages) -> Result<Outcome, SetupError> {
        install(&self.request(packages), &mut progress::Silent).await
    }

    /// What lies in the cache folder, the lock and downloads left out.
    fn bundles(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.cache())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != ".lock" && name != "downloads")
            .collect();
        names.sort();
        names
    }
}

fn path(outcome: Result<Outcome, SetupError>) -> PathBuf {
    match outcome.unwrap() {
        Outcome::Installed(path) => path,
        Outcome::AlreadyThere(path) => panic!("{} was there", path.display()),
    }
}

#[actix::test]
async fn core_is_installed_once_and_found() {
    let stage = Stage::new("x");
    let root = path(stage.install(Packages::Core).await);
    assert_eq!(
        stage.server.requests(),
        ["deno-1.2.3.tgz", "pyodide-1.2.3.tgz"]
    );
    let bundle = Bundle::open(&root).unwrap();
    assert_eq!(bundle.manifest().deno, "1.2.3");
    assert_eq!(bundle.manifest().imports, [""; 0]);
    let files = &bundle.manifest().files;
    assert_eq!(files["deno"], hash::sha256(DENO.as_bytes()));
    assert!(files.contains_key("pyodide/pyodide.mjs") && files.contains_key("snapshot.bin"));
    assert!(!root.join("README.md").exists());
    assert_eq!(stage.bundles(), [bundle_name(Packages::Core)]);
    assert!(!stage.cache().join("downloads").exists());
    assert_eq!(find(&stage.cache()), Some(bundle));

    let again = stage.install(Packages::Core).await.unwrap();
    assert_eq!(again, Outcome::AlreadyThere(root));
    assert!(stage.server.requests().is_empty());
}

#[actix::test]
async fn science_comes_with_its_wheels_and_is_preferred() {
    let stage = Stage::new("x");
    let core = path(stage.install(Packages::Core).await);
    let root = path(stage.install(Packages::Science).await);
    assert_ne!(core, root);
    let found = find(&stage.cache()).unwrap();
    assert_eq!(found.root(), root);
    assert_eq!(found.manifest().imports, ["numpy"]);
    assert!(root.join("site/image.bin").exists() && !root.join("site/wheels").exists());
    let asked = stage.server.requests();
    assert!(asked.contains(&"numpy-1.whl".to_owned()) && asked.contains(&"six-1.whl".to_owned()));
}

#[actix::test]
async fn a_wrong_byte_anywhere_is_never_built() {
    for (plans, what) in [
        (1, "deno-1.2.3.tgz"),
        (2, "pyodide-1.2.3.tgz"),
        (3, "numpy-1.whl"),
    ] {
        let mut stage = Stage::new("x");
        // What is not garbled has to be right for the later ones to be reached.
        let mut files = stage.files.clone();
        files.get_mut(what).unwrap()[0] ^= 1;
        stage.server = Server::start(files);
        let error = stage.install(Packages::Science).await.unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(what) && message.contains("SHA-256"),
            "{message}"
        );
        assert_eq!(stage.server.requests().len(), plans);
        assert_eq!(stage.bundles(), [""; 0]);
        assert!(
            !stage
                .cache()
                .join("downloads")
                .join(format!("{what}.part"))
                .exists()
        );
    }
}

#[actix::test]
async fn an_interrupted_download_goes_on_where_it_ended() {
    let stage = Stage::new("x");
    stage.server.plan(Fault::Cut(100));
    stage.server.plan(Fault::Status(503));
    path(stage.install(Packages::Core).await);
    assert_eq!(
        stage.server.requests(),
        [
            "deno-1.2.3.tgz",
            "deno-1.2.3.tgz from 100",
            "deno-1.2.3.tgz from 100",
            "pyodide-1.2.3.tgz"
        ]
    );
}

#[actix::test]
async fn what_an_earlier_set_up_left_is_used_or_replaced() {
    let stage = Stage::new("x");
    let downloads = stage.cache().join("downloads");
    fs::create_dir_all(&downloads).unwrap();
    let whole = &stage.files["deno-1.2.3.tgz"];
    fs::write(downloads.join("test-deno-1.2.3.tgz"), whole).unwrap();
    // The beginning of something else: the sum of both is wrong, so it starts again.
    fs::write(downloads.join("pyodide-1.2.3.tgz.part"), b"another").unwrap();
    fs::create_dir(stage.cache().join(".work-dead")).unwrap();
    path(stage.install(Packages::Core).await);
    assert_eq!(
        stage.server.requests(),
        ["pyodide-1.2.3.tgz from 7", "pyodide-1.2.3.tgz"]
    );
    assert_eq!(stage.bundles(), [bundle_name(Packages::Core)]);
}

#[actix::test]
async fn a_server_without_ranges_starts_from_nothing() {
    let stage = Stage::new("x");
    stage.server.plan(Fault::Cut(100));
    stage.server.plan(Fault::NoRanges);
    path(stage.install(Packages::Core).await);
}

#[actix::test]
async fn a_missing_file_is_named_with_its_place_and_every_remedy() {
    let stage = Stage::new("x");
    for status in [404, 403] {
        stage.server.plan(Fault::Status(status));
        let error = stage.install(Packages::Core).await.unwrap_err().to_string();
        for part in [
            &format!("{}/@test/deno/-/deno-1.2.3.tgz", stage.server.url),
            &format!("status {status}"),
            "`NPM_CONFIG_REGISTRY`",
            "--from",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(stage.server.requests().len(), 1);
    }
}

#[actix::test]
async fn a_mirrors_password_is_not_told() {
    let stage = Stage::new("x");
    let mut request = stage.request(Packages::Core);
    request.origin = Origin::Network(Mirrors {
        registry: stage.server.url.replace("http://", "http://me:CANARY@"),
        packages: String::new(),
        npm: None,
    });
    stage.server.plan(Fault::Status(401));
    let error = install(&request, &mut progress::Silent).await.unwrap_err();
    assert!(!error.to_string().contains("CANARY"), "{error}");
    assert!(error.to_string().contains("status 401"), "{error}");
}

#[actix::test]
async fn npm_is_asked_when_the_registry_does_not_answer() {
    let stage = Stage::new("x");
    let parts = stage.folder.path().join("parts");
    fs::create_dir(&parts).unwrap();
    for (name, packed) in [
        ("deno-1.2.3.tgz", "test-deno-1.2.3.tgz"),
        ("pyodide-1.2.3.tgz", "pyodide-1.2.3.tgz"),
    ] {
        fs::write(parts.join(packed), &stage.files[name]).unwrap();
    }
    let npm = stage.folder.path().join("npm");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = pack ] && cp {}/*.tgz \"$6\"\n",
        parts.display()
    );
    fs::write(&npm, script).unwrap();
    fs::set_permissions(&npm, Permissions::from_mode(0o755)).unwrap();
    let mut request = stage.request(Packages::Core);
    request.origin = Origin::Network(Mirrors {
        registry: "http://127.0.0.1:9".to_owned(),
        packages: String::new(),
        npm: Some(npm),
    });
    path(install(&request, &mut progress::Silent).await);
}

#[actix::test]
async fn a_build_that_fails_leaves_nothing_and_shows_its_last_lines() {
    let stage = Stage::new("fail");
    let error = stage.install(Packages::Core).await.unwrap_err().to_string();
    assert!(
        error.contains("out of luck") && error.contains("exit status: 7"),
        "{error}"
    );
    assert_eq!(stage.bundles(), [""; 0]);
    // What was downloaded is there for the next try.
    assert!(stage.cache().join("downloads/test-deno-1.2.3.tgz").exists());
}

#[actix::test]
async fn set_ups_at_the_same_time_make_one_bundle() {
    let stage = Stage::new("slow");
    let others = (0..4).map(|_| stage.install(Packages::Core));
    let outcomes = futures_util::future::join_all(others).await;
    let installed = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Outcome::Installed(_))));
    assert_eq!(installed.count(), 1);
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(stage.server.requests().len(), 2);
    assert_eq!(stage.bundles().len(), 1);
}

#[actix::test]
async fn replacing_makes_it_anew() {
    let stage = Stage::new("x");
    let root = path(stage.install(Packages::Core).await);
    fs::write(root.join("stray"), b"").unwrap();
    let mut request = stage.request(Packages::Core);
    request.existing = Existing::Replace;
    assert_eq!(path(install(&request, &mut progress::Silent).await), root);
    assert!(!root.join("stray").exists());
    assert_eq!(stage.bundles().len(), 1);
}

#[actix::test]
async fn a_damaged_bundle_is_made_anew() {
    let stage = Stage::new("x");
    let root = path(stage.install(Packages::Core).await);
    fs::remove_file(root.join(bundle::SNAPSHOT)).unwrap();
    assert_eq!(find(&stage.cache()), None);
    assert_eq!(path(stage.install(Packages::Core).await), root);
}

#[actix::test]
async fn an_export_installs_without_a_network() {
    let stage = Stage::new("x");
    let archive = stage.folder.path().join("parts.tar");
    let request = stage.request(Packages::Science);
    export(&request, &archive, &mut progress::Silent)
        .await
        .unwrap();
    assert_eq!(stage.server.requests().len(), 4);
    let unpacked = stage.folder.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    unpack::archive(&archive, &unpacked).unwrap();
    for (packages, origin) in [
        (Packages::Science, archive),
        (Packages::Core, unpacked.clone()),
    ] {
        let mut request = stage.request(packages);
        request.origin = Origin::Local(origin);
        path(install(&request, &mut progress::Silent).await);
    }
    assert!(stage.server.requests().is_empty());

    fs::write(unpacked.join("numpy-1.whl"), b"evil").unwrap();
    let mut request = stage.request(Packages::Science);
    request.origin = Origin::Local(unpacked.clone());
    request.existing = Existing::Replace;
    let error = install(&request, &mut progress::Silent).await.unwrap_err();
    assert!(
        error.to_string().contains("numpy-1.whl has the SHA-256"),
        "{error}"
    );
    fs::remove_file(unpacked.join("numpy-1.whl")).unwrap();
    let error = install(&request, &mut progress::Silent).await.unwrap_err();
    assert!(
        error.to_string().contains("does not hold numpy-1.whl"),
        "{error}"
    );
}

#[actix::test]
async fn a_deno_of_the_users_is_copied_and_a_wrong_one_refused() {
    let stage = Stage::new("x");
    let own = stage.folder.path().join("own");
    fs::write(&own, DENO).unwrap();
    let mut request = stage.request(Packages::Core);
    request.deno = Some(own.clone());
    request.release.deno = None;
    let error = install(&request, &mut progress::Silent).await.unwrap_err();
    assert!(error.to_string().contains("`--deno`"), "{error}");
    fs::set_permissions(&own, Permissions::from_mode(0o700)).unwrap();
    let root = path(install(&request, &mut progress::Silent).await);
    assert_eq!(Bundle::open(&root).unwrap().manifest().deno, "9.9.9");
    assert_eq!(stage.server.requests(), ["pyodide-1.2.3.tgz"]);
    request.deno = Some("/bin/true".into());
    request.existing = Existing::Replace;
    let error = install(&request, &mut progress::Silent).await.unwrap_err();
    assert!(
        error.to_string().contains("does not call itself deno"),
        "{error}"
    );
}

#[actix::test]
async fn a_machine_without_a_pinned_deno_is_told_so() {
    let stage = Stage::new("x");
    let mut request = stage.request(Packages::Core);
    request.release.deno = None;
    let error = install(&request, &mut progress::Silent).await.unwrap_err();
    assert!(error.to_string().contains("`--deno PATH`"), "{error}");
}

#[actix::test]
async fn a_folder_that_deno_cannot_be_given_is_refused() {
    let stage = Stage::new("x");
    let mut request = stage.request(Packages::Core);
    request.cache = stage.folder.path().join("a,b");
    let error = install(&request, &mut progress::Silent).await.unwrap_err();
    assert!(error.to_string().contains("comma"), "{error}");
}
