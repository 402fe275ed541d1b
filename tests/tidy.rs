//! The repository checks itself: the rules of `ARCHITECTURE.md` that a program can check.

#![expect(
    clippy::unwrap_used,
    reason = "a file that cannot be read fails the test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 500;

/// Crates that each of ours may name, beside the standard library (invariant 1).
const ALLOWED: &[(&str, &[&str])] = &[(
    "protocol/Cargo.toml",
    &[
        "base64",
        "bytes",
        "memchr",
        "ring",
        "serde",
        "serde_json",
        "sha2",
        "thiserror",
    ],
)];

/// Licences that a dependency may come under; where it offers several, one of them.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "MIT",
    "ISC",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "Zlib",
    "BSL-1.0",
    "Unicode-3.0",
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Folders below `src` are at most this deep.
const MAX_MODULE_DEPTH: usize = 3;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(below: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|have| have == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    ["protocol", "actors", "src", "tests", "bench", "fuzz"]
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .collect()
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut problems = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            problems.push(format!(
                "{}: {lines} lines, at most {MAX_FILE_LINES}",
                name(&path)
            ));
        }
        if !text.starts_with("//!") {
            problems.push(format!("{}: does not open with `//!`", name(&path)));
        }
    }
    none(&problems);
}

#[test]
fn folders_are_shallow() {
    let mut problems = Vec::new();
    for path in sources() {
        let name = name(&path);
        let Some((_, inside)) = name.split_once("src/") else {
            continue;
        };
        let depth = inside.matches('/').count();
        if depth > MAX_MODULE_DEPTH {
            problems.push(format!(
                "{name}: {depth} folders deep, at most {MAX_MODULE_DEPTH}"
            ));
        }
    }
    none(&problems);
}

#[test]
fn text_is_clean() {
    let mut problems = Vec::new();
    let texts = ["docs", "migrations", "config", "scripts"];
    let others = texts.iter().flat_map(|folder| {
        ["md", "sql", "toml"]
            .iter()
            .flat_map(|extension| files(folder, extension))
    });
    for path in sources().into_iter().chain(others) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                problems.push(format!(
                    "{}:{}: trailing white space",
                    name(&path),
                    number + 1
                ));
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            problems.push(format!("{}: no newline at the end", name(&path)));
        }
    }
    none(&problems);
}

#[test]
fn crates_name_only_what_they_may() {
    let mut problems = Vec::new();
    for (manifest, allowed) in ALLOWED {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        let parsed: toml::Table = text.parse().unwrap();
        let named = parsed["dependencies"].as_table().unwrap().keys();
        for extra in named.filter(|dependency| !allowed.contains(&dependency.as_str())) {
            problems.push(format!("{manifest}: may not depend on `{extra}`"));
        }
    }
    none(&problems);
}

/// `protocol` is pure, `http` knows messages only, rows stay in the store (invariants 1 to 4).
#[test]
fn arrows_point_one_way() {
    const FORBIDDEN: &[(&str, &[&str])] = &[
        (
            "protocol/src",
            &[
                "Instant",
                "SystemTime",
                "std::net",
                "std::fs",
                "std::env",
                "log::",
                "tokio",
            ],
        ),
        ("actors/src", &["actix_web", "clap::", "std::env::var("]),
        ("src/http", &["diesel", "crate::cli", "crate::config"]),
        ("actors/src/turn", &["diesel", "redis"]),
    ];
    let mut problems = Vec::new();
    for (folder, words) in FORBIDDEN {
        for path in files(folder, "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let code: String = code.collect::<Vec<_>>().join("\n");
            // A test may measure how long a pure step takes.
            let is_test = path.components().any(|part| part.as_os_str() == "tests");
            let is_named =
                |word: &&&str| code.contains(**word) && !(is_test && **word == "Instant");
            for word in words.iter().filter(is_named) {
                problems.push(format!("{}: names `{word}`", name(&path)));
            }
        }
    }
    none(&problems);
}

/// JSON is typed: no `serde_json::Value` in the product.
#[test]
fn json_has_types() {
    let mut problems = Vec::new();
    for folder in ["protocol/src", "actors/src", "src"] {
        for path in files(folder, "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            let is_test = path.file_name().is_some_and(|file| file == "tests.rs")
                || path
                    .parent()
                    .is_some_and(|folder| folder.ends_with("tests"));
            let names = product.contains("serde_json::Value") || product.contains("json!(");
            if names && !is_test {
                problems.push(format!("{}: untyped JSON", name(&path)));
            }
        }
    }
    none(&problems);
}

#[test]
fn imports_stand_in_three_groups() {
    const STD: &[&str] = &["std", "core", "alloc"];
    const OURS: &[&str] = &["crate", "super", "self", "vllm_responses"];
    let mut problems = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let mut last = 0;
        for line in text.lines() {
            let Some(import) = line.strip_prefix("use ") else {
                continue;
            };
            let first = import.split([':', ';', ' ']).next().unwrap_or_default();
            let group = match first {
                first if STD.contains(&first) => 1,
                first if OURS.contains(&first) => 3,
                _ => 2,
            };
            // Modules of the file itself may be named without `self`; they come last.
            if group < last && last != 3 {
                problems.push(format!("{}: `use {first}` comes too late", name(&path)));
            }
            last = group;
        }
    }
    none(&problems);
}

#[test]
fn migrations_have_both_halves() {
    let halves = |file: &str| -> BTreeSet<PathBuf> {
        files("migrations", "sql")
            .into_iter()
            .filter(|path| path.ends_with(file))
            .filter_map(|path| path.parent().map(Path::to_owned))
            .collect()
    };
    let ups = halves("up.sql");
    assert!(!ups.is_empty());
    assert_eq!(ups, halves("down.sql"));
}

/// The README's table of endpoints and the routes are the same.
#[test]
fn readme_lists_every_route() {
    let routes = fs::read_to_string(root().join("src/http/mod.rs")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut problems = Vec::new();
    let mut seen = 0;
    for (prefix, marker) in [("/v1", "web::resource(\""), ("", ".route(\"")] {
        for piece in routes.split(marker).skip(1) {
            let path = piece.split('"').next().unwrap().replace("{id:.+}", "{id}");
            let prefix = if path.starts_with("/health") {
                ""
            } else {
                prefix
            };
            seen += 1;
            if !readme.contains(&format!("{prefix}{path}")) {
                problems.push(format!("README.md: does not name `{prefix}{path}`"));
            }
        }
    }
    assert!(seen >= 8, "the routes were not found");
    none(&problems);
}

/// The faults of the list, by letter; `docs/testing.md` says where each is tried.
const FAULTS: &[(char, usize)] = &[
    ('L', 8),
    ('B', 5),
    ('U', 16),
    ('C', 9),
    ('D', 16),
    ('P', 12),
    ('M', 13),
    ('T', 10),
    ('F', 10),
    ('G', 5),
    ('K', 3),
];

/// Every fault has one row, and the tests that a row names are there.
#[test]
fn every_fault_is_tried_or_explained() {
    let page = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let (_, table) = page.split_once("## Where each fault is tried").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let mut words = BTreeSet::new();
    let python = files("tests", "py");
    for path in sources().into_iter().chain(python) {
        let text = fs::read_to_string(&path).unwrap();
        let parts = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        words.extend(parts.map(str::to_owned));
    }
    let mut problems = Vec::new();
    for (letter, count) in FAULTS {
        for number in 1..=*count {
            let id = format!("{letter}{number}");
            let found = rows.iter().filter(|row| row[1] == id).count();
            if found != 1 {
                problems.push(format!("docs/testing.md: {found} rows for {id}"));
            }
        }
    }
    for row in &rows {
        if row[3].is_empty() {
            problems.push(format!("docs/testing.md: nothing is said of {}", row[1]));
        }
        let named = row[3].split('`').skip(1).step_by(2);
        for name in named.filter(|name| name.contains('_') && !words.contains(*name)) {
            problems.push(format!(
                "docs/testing.md: {}: no test is called `{name}`",
                row[1]
            ));
        }
    }
    none(&problems);
}

/// What `cargo metadata` tells of a package.
#[derive(serde::Deserialize)]
struct Package {
    name: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(serde::Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// Whether every part of an SPDX expression offers a licence of the list.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    expression.split(" AND ").all(|part| {
        let part = part.trim_matches(['(', ')', ' ']);
        part.split(" OR ").any(|one| LICENCES.contains(&one.trim()))
    })
}

#[test]
fn dependencies_come_from_the_registry_under_known_licences() {
    assert!(is_allowed("(GPL-3.0 OR MIT) AND ISC") && !is_allowed("MIT AND GPL-3.0"));
    let cargo = env!("CARGO");
    let told = std::process::Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        told.status.success(),
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
    let metadata: Metadata = serde_json::from_slice(&told.stdout).unwrap();
    let mut problems = Vec::new();
    for package in metadata.packages {
        let Package {
            name,
            license,
            source,
        } = package;
        if source.is_some_and(|source| source != REGISTRY) {
            problems.push(format!("{name}: not from crates.io"));
        }
        if !license.as_deref().is_some_and(is_allowed) {
            problems.push(format!("{name}: its licence is {license:?}"));
        }
    }
    none(&problems);
}
