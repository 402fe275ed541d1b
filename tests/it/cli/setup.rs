//! `setup code-interpreter` with the real parts, and what `serve` does about a missing interpreter.
//!
//! The parts come from the npm registry once, into the user's cache folder. Mutations tried: `find`
//! that returns nothing, `Existing::Keep` ignored, an explicit `spawn` treated as
//! the default, the checksum of `--from` not compared. Each failed a test here or in `bad`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vllm_responses_actors::interpreter::bundle::Bundle;
use vllm_responses_actors::interpreter::setup::pins::Release;

use super::{Place, text};

const UNREACHABLE: (&str, &str) = ("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9");

fn variable(name: &str) -> Option<String> {
    std::env::vars()
        .find(|(have, _)| have == name)
        .map(|found| found.1)
}

/// An archive of the real parts, exported once. `None`, with a message, on a machine without a registry
/// whose suite was not promised an interpreter.
fn parts() -> Option<PathBuf> {
    let cache = variable("XDG_CACHE_HOME")
        .or_else(|| Some(variable("HOME")? + "/.cache"))
        .unwrap();
    let folder = Path::new(&cache).join("vllm-responses/tests");
    let release = Release::pinned();
    let deno = release.deno.unwrap();
    let name = format!(
        "{}-pyodide-{}.tar",
        deno.file_name(),
        release.pyodide.version
    );
    let archive = folder.join(name);
    if archive.is_file() {
        return Some(archive);
    }
    fs::create_dir_all(&folder).unwrap();
    // In the suite's own environment: this is the one call that may need its mirror or certificates.
    let output = Command::new(env!("CARGO_BIN_EXE_vllm-responses"))
        .args(["setup", "code-interpreter", "--export"])
        .arg(&archive)
        .env("VR_PYODIDE_CACHE_DIR", folder.join("export"))
        .output()
        .unwrap();
    let promised = variable("TEST_INTERPRETER_BUNDLE").is_some() || variable("CI").is_some();
    if !output.status.success() && !promised {
        println!("skipped: {}", text(&output.stderr));
        return None;
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
    Some(archive)
}

fn set_up(place: &Place, args: &[&str]) -> Output {
    let args: Vec<_> = ["setup", "code-interpreter"]
        .iter()
        .chain(args)
        .copied()
        .collect();
    place.run(&args, &[("VR_PYODIDE_CACHE_DIR", "cache"), UNREACHABLE])
}

#[test]
fn the_real_parts_install_offline_once_and_damaged_ones_never() {
    let Some(archive) = parts() else { return };
    let archive = archive.to_str().unwrap();
    let place = Place::new();
    let output = set_up(&place, &["--from", archive]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let root = Path::new(stdout.trim_end());
    let bundle = Bundle::open(root).unwrap();
    assert_eq!(
        bundle.manifest().deno,
        Release::pinned().deno.unwrap().version
    );
    let library = fs::read(root.join("pyodide/python_stdlib.zip")).unwrap();
    let compiled = library.windows(4).filter(|part| part == b".pyc").count();
    assert!(compiled > 300, "{compiled} compiled modules");
    assert!(fs::metadata(bundle.snapshot()).unwrap().len() > 10_000_000);
    // One line a step: stderr is no terminal here.
    let steps = text(&output.stderr);
    assert!(
        steps.contains("building the interpreter") && !steps.contains('\r'),
        "{steps}"
    );

    let again = set_up(&place, &[]);
    assert_eq!(again.status.code(), Some(0));
    assert_eq!(again.stdout, output.stdout);
    assert!(text(&again.stderr).contains("already installed"));

    // What was asked for is found.
    let args = [
        "check-config",
        "--upstream",
        "http://h",
        "--code-interpreter",
        "spawn",
    ];
    let found = place.run(&args, &[("VR_PYODIDE_CACHE_DIR", "cache")]);
    assert_eq!(found.status.code(), Some(0), "{}", text(&found.stderr));

    let mut damaged = fs::read(archive).unwrap();
    damaged[20_000_000] ^= 1;
    fs::write(place.0.path().join("damaged.tar"), damaged).unwrap();
    let refused = set_up(&place, &["--from", "damaged.tar", "--force"]);
    assert_eq!(refused.status.code(), Some(1));
    let error = text(&refused.stderr);
    assert!(
        error.contains("deno-linux") && error.contains("SHA-256"),
        "{error}"
    );
    assert_eq!(Bundle::open(root).unwrap(), bundle);
}

#[test]
fn without_a_place_or_with_a_bad_address_the_usage_is_wrong() {
    let output = Place::new().run(&["setup", "code-interpreter"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("`VR_PYODIDE_CACHE_DIR`"));
    for args in [
        &["--registry", "ftp://CANARY"][..],
        &["--pyodide-url", "CANARY"],
        &["--packages", "all"],
        &["--deno", "x", "--export", "y"],
    ] {
        let output = set_up(&Place::new(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!text(&output.stderr).contains("CANARY"), "{args:?}");
    }
}

#[test]
fn a_registry_that_does_not_answer_is_named_with_every_way_around() {
    let output = set_up(&Place::new(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    for part in [
        "http://127.0.0.1:9/",
        "`NPM_CONFIG_REGISTRY`",
        "--export",
        "--from",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

/// Starts `serve` before an upstream that is not there, so that it ends by itself.
fn serve(args: &[&str], env: &[(&str, &str)]) -> String {
    let common = [
        "serve",
        "--upstream",
        "http://127.0.0.1:9",
        "--upstream-ready-timeout",
        "1s",
        "--gateway-host",
        "127.0.0.1",
        "--gateway-port",
        "0",
    ];
    let args: Vec<_> = common.iter().chain(args).copied().collect();
    let output = Place::new().run(&args, env);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn serve_does_without_an_interpreter_that_nobody_asked_for() {
    let log = serve(&[], &[UNREACHABLE]);
    assert!(log.contains("no code interpreter"), "{log}");
    assert!(
        log.contains("`vllm-responses setup code-interpreter`"),
        "{log}"
    );
    assert!(!log.contains("being installed"), "{log}");
    let log = serve(&["--code-interpreter", "disabled"], &[UNREACHABLE]);
    assert!(!log.contains("code interpreter"), "{log}");
}

#[test]
fn serve_installs_with_yes_and_goes_on_when_it_cannot() {
    let log = serve(
        &["--yes"],
        &[UNREACHABLE, ("VR_PYODIDE_CACHE_DIR", "cache")],
    );
    for part in [
        "being installed",
        "could not be installed",
        "no code interpreter",
    ] {
        assert!(log.contains(part), "{log}");
    }
}

/// On a terminal, which `script` plays: what it writes there, and how it ends.
fn at_terminal(place: &Place, args: &str, answer: &str) -> (Option<i32>, String) {
    let line = format!(
        "{} setup code-interpreter {args}",
        env!("CARGO_BIN_EXE_vllm-responses")
    );
    let mut command = Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .current_dir(place.0.path())
        .env("VR_PYODIDE_CACHE_DIR", "cache")
        .env(UNREACHABLE.0, UNREACHABLE.1)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The other end stays open: a terminal has no end.
    let mut keys = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut keys, answer.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(keys);
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// The fault: executables of fifty megabytes were fetched because a terminal was there.
#[test]
fn at_a_terminal_it_asks_before_it_downloads() {
    let place = Place::new();
    let bytes = {
        let release = Release::pinned();
        release.deno.unwrap().bytes + release.pyodide.bytes
    };
    let question = format!("Download {} MB from 127.0.0.1", bytes / 1_000_000);
    let (code, said) = at_terminal(&place, "", "n\n");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&question) && said.contains("cache"), "{said}");
    assert!(
        said.contains("nothing was downloaded or installed"),
        "{said}"
    );
    assert!(!place.0.path().join("cache").exists());
    for (args, answer, asked) in [("", "\n", true), ("", "yes\n", true), ("--yes", "", false)] {
        let (code, said) = at_terminal(&place, args, answer);
        assert_eq!(said.contains(&question), asked, "{said}");
        // The registry is not there.
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("downloading"), "{said}");
    }
}
